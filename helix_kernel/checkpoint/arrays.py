"""Arrays of numpy, torch and any DLPack library, to bytes and back without a changed bit."""

from __future__ import annotations

import ctypes
import functools
import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_kernel.checkpoint.dtypes import DTYPES, EXTENSIONS, zarr_name
from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    import torch

PIECE_BYTES = 4 * 2**20
"""An array is taken in pieces of this size: small enough to be digested and copied while in the cache."""


def is_array(value: object) -> bool:
    """Whether a checkpoint stores the value as an array (numpy's scalars count as 0-d arrays)."""
    return isinstance(value, np.ndarray | np.generic) or hasattr(value, "__dlpack__")


def describe(value: Any, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Return an array's shape and the type, one of `DTYPES`, that it is stored in; copies nothing.

    Args:
        value: A numpy array or scalar, a torch tensor on any device, or an object with DLPack.
        name: Where the value stands in the state, for errors.

    Raises:
        ArgumentError: The dtype has no name in Zarr, or a tensor is sparse, quantized or meta.
    """
    if _is_tensor(value):
        _refuse_unusual(value, name)
        shape, dtype = tuple(value.shape), str(value.dtype)
        known = _torch_name(value.dtype)
    else:
        array = _as_numpy(value)
        shape, dtype, known = array.shape, str(array.dtype), zarr_name(array.dtype)
    if known is None:
        allowed = ", ".join(DTYPES)
        raise ArgumentError(f"state {name!r} has dtype {dtype}, which no checkpoint holds: {allowed}")
    return shape, DTYPES[known]


def byte_pieces(value: Any, dtype: np.dtype) -> Iterator[np.ndarray]:
    """Yield the bytes of an array in C order and little-endian, as arrays of at most `PIECE_BYTES` uint8.

    They are views where the array lies in memory like that, and else copies of its parts: no whole
    copy of it ever exists.

    Args:
        value: What `describe` took.
        dtype: What `describe` returned.
    """
    if not _is_tensor(value):
        value = _as_numpy(value)
    if _is_plain(value, dtype):
        content = _bytes_of(value, dtype)
        for start in range(0, len(content), PIECE_BYTES):
            yield content[start : start + PIECE_BYTES]
        return
    n_elements = math.prod(value.shape)
    if n_elements * dtype.itemsize <= PIECE_BYTES or not value.shape:
        if n_elements:
            yield _bytes_of(_plain_copy(value, dtype), dtype)
        return
    row_bytes = n_elements // value.shape[0] * dtype.itemsize
    rows = max(1, PIECE_BYTES // row_bytes)
    for low in range(0, value.shape[0], rows):
        slab = value[low : low + rows]
        yield from byte_pieces(slab[0] if row_bytes > PIECE_BYTES else slab, dtype)


def sample(value: Any, dtype: np.dtype, count: int, nbytes: int) -> Iterator[np.ndarray]:
    """Yield the bytes of parts of an array that lie evenly apart, all of them if the array is no larger.

    Args:
        value: What `describe` took.
        dtype: What `describe` returned.
        count: How many parts.
        nbytes: How many bytes a part has, a multiple of the type's size; fewer where rows are shorter.
    """
    if not _is_tensor(value):
        value = _as_numpy(value)
    total = math.prod(value.shape) * dtype.itemsize
    if total <= count * nbytes:
        yield from byte_pieces(value, dtype)
        return
    if _is_plain(value, dtype):
        content = _bytes_of(value, dtype)
        for start in _spread(total // dtype.itemsize - nbytes // dtype.itemsize, count):
            yield content[start * dtype.itemsize :][:nbytes]
        return
    n_rows = value.shape[0]
    row_bytes = total // n_rows
    if row_bytes > nbytes:
        for row in _spread(n_rows - 1, min(n_rows, count)):
            yield from sample(value[row], dtype, max(1, count // n_rows), nbytes)
        return
    rows = nbytes // row_bytes
    for low in _spread(n_rows - rows, count):
        yield _bytes_of(_plain_copy(value[low : low + rows], dtype), dtype)


def small_bytes(value: Any, dtype: np.dtype) -> bytes:
    """Return a copy of what `byte_pieces` yields, at once: for small arrays, of which there are many."""
    if not _is_tensor(value):
        return np.asarray(_as_numpy(value), dtype).tobytes()
    plain = value if _is_plain(value, dtype) else _plain_copy(value, dtype)
    return ctypes.string_at(plain.data_ptr(), plain.numel() * dtype.itemsize)


def plain_view(value: Any, dtype: np.dtype) -> np.ndarray | None:
    """Return writable memory of an array that shows as numpy what `describe` says; None if it has none."""
    if not _is_tensor(value):
        writable = isinstance(value, np.ndarray) and value.flags.writeable
        return value if writable and _is_plain(value, dtype) else None
    if not _is_plain(value, dtype):
        return None
    return _bytes_of(value, dtype).view(dtype).reshape(tuple(value.shape))


def fill(value: Any, content: np.ndarray) -> None:
    """Copy into an array of the same shape and type, wherever it lies."""
    if _is_tensor(value):
        value.detach().copy_(to_torch(content))
    else:
        value[...] = content


def on_accelerator(value: Any) -> bool:
    """Whether a value is a tensor of a device other than the CPU."""
    return _is_tensor(value) and value.device.type != "cpu"


def pinned_memory(nbytes: int) -> np.ndarray:
    """Return bytes that an accelerator can copy into by itself."""
    return np.asarray(_torch().empty(nbytes, dtype=_torch().uint8, pin_memory=True).numpy())


def start_copy(value: torch.Tensor, target: np.ndarray) -> None:
    """Begin to copy an accelerator's tensor into pinned memory; `wait_for_copies` ends it."""
    to_torch(target).copy_(value.detach(), non_blocking=True)


def wait_for_copies() -> None:
    """Return when every copy that was begun is done."""
    _torch().accelerator.synchronize()


def to_torch(array: np.ndarray) -> torch.Tensor:
    """Return a CPU tensor that shares memory with the array."""
    import torch

    if array.dtype.kind != "V" and zarr_name(array.dtype) not in EXTENSIONS:
        return torch.from_numpy(array)
    raw = torch.from_numpy(array.view(f"u{array.dtype.itemsize}"))
    dtype: torch.dtype = getattr(torch, array.dtype.name)
    return raw.view(dtype)


def identity(value: Any) -> Hashable | None:
    """Return a key that two views of exactly the same memory share, or None where none can be told.

    It holds only while both values are alive.
    """
    if _is_tensor(value):
        if value.numel() == 0 or value.layout is not _torch().strided:
            return None
        signs = (value.is_conj(), value.is_neg()) if value.is_complex() or value.is_neg() else None
        return (value.data_ptr(), value.shape, value.stride(), value.dtype, value.device, signs)
    if isinstance(value, np.ndarray) and value.size:
        return ("numpy", value.__array_interface__["data"][0], value.shape, value.strides, value.dtype.str)
    return None


def _spread(last: int, count: int) -> list[int]:
    """Return so many whole numbers from 0 to `last`, evenly apart; of one, the middle."""
    return [i * last // (count - 1) for i in range(count)] if count > 1 else [last // 2]


def _torch() -> Any:
    """Return torch where the caller has imported it, which whoever holds a tensor has."""
    return sys.modules.get("torch")


def _is_tensor(value: object) -> bool:
    return _is_tensor_type(type(value))  # type: ignore[arg-type]  # mypy asks for the hash of an instance


@functools.cache
def _is_tensor_type(kind: type) -> bool:
    """Whether a type is a tensor's; there is none before torch is imported, so the answer never changes."""
    return (torch := _torch()) is not None and issubclass(kind, torch.Tensor)


@functools.cache
def _torch_name(dtype: torch.dtype) -> str | None:
    name = str(dtype).removeprefix("torch.")
    return name if name in DTYPES else None


def _refuse_unusual(tensor: torch.Tensor, name: str) -> None:
    if tensor.layout is not _torch().strided or tensor.is_quantized or tensor.is_meta:
        raise ArgumentError(
            f"state {name!r} is a {tensor.layout} tensor of {tensor.dtype} on {tensor.device}; "
            "allowed are dense tensors that hold data"
        )


def _as_numpy(value: Any) -> np.ndarray:
    return np.asarray(value) if isinstance(value, np.ndarray | np.generic) else np.from_dlpack(value)


def _is_plain(value: Any, dtype: np.dtype) -> bool:
    """Whether the array's memory is just what is stored."""
    if _is_tensor(value):
        lazy = value.is_neg() or (value.is_complex() and value.is_conj())
        return value.is_cpu and value.is_contiguous() and not lazy
    return bool(value.flags.c_contiguous and value.dtype == dtype)


def _plain_copy(value: Any, dtype: np.dtype) -> Any:
    if _is_tensor(value):
        return value.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return np.ascontiguousarray(value, dtype)


def _bytes_of(value: Any, dtype: np.dtype) -> np.ndarray:
    """Return the memory of a plain array."""
    if _is_tensor(value):
        tensor = value.detach()
        if dtype.name in EXTENSIONS:  # numpy learns of these through ml_dtypes, torch's bridge does not
            torch = _torch()
            tensor = tensor.view(torch.uint16 if dtype.itemsize == 2 else torch.uint8)
        value = tensor.numpy()
    array: np.ndarray = value.reshape(-1).view(np.uint8)
    return array
