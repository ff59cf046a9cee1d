"""Arrays of numpy, torch and any DLPack library, to numpy and back without a changed bit."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_kernel.checkpoint.dtypes import DTYPES, EXTENSIONS, zarr_name
from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Hashable

    import torch


def is_array(value: object) -> bool:
    """Whether a checkpoint stores the value as an array (numpy's scalars count as 0-d arrays)."""
    return isinstance(value, np.ndarray | np.generic) or hasattr(value, "__dlpack__")


def to_numpy(value: Any, name: str) -> np.ndarray:
    """Return the array as C-ordered little-endian numpy, in any of `DTYPES`; copies only if it must.

    Args:
        value: A numpy array or scalar, a torch tensor on any device, or an object with DLPack.
        name: Where the value stands in the state, for errors.

    Raises:
        ArgumentError: The dtype has no name in Zarr, or a tensor is sparse, quantized or meta.
    """
    if _is_tensor(value):
        array = _from_torch(value, name)
    elif isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
    else:
        array = np.from_dlpack(value)
    known = zarr_name(array.dtype)
    if known is None:
        allowed = ", ".join(DTYPES)
        raise ArgumentError(f"state {name!r} has dtype {array.dtype}, which no checkpoint holds: {allowed}")
    return np.asarray(array, dtype=DTYPES[known], order="C")


def to_torch(array: np.ndarray) -> torch.Tensor:
    """Return a CPU tensor that shares memory with the array."""
    import torch

    if array.dtype.name not in EXTENSIONS:
        return torch.from_numpy(array)
    raw = torch.from_numpy(array.view(f"u{array.dtype.itemsize}"))
    dtype: torch.dtype = getattr(torch, array.dtype.name)
    return raw.view(dtype)


def identity(value: Any) -> Hashable | None:
    """Return a key that two views of exactly the same memory share, or None where none can be told.

    It holds only while both values are alive.
    """
    if _is_tensor(value):
        if value.numel() == 0 or value.layout != _torch().strided:
            return None
        layout = (tuple(value.shape), value.stride(), str(value.dtype), value.is_conj(), value.is_neg())
        return ("torch", str(value.device), value.data_ptr(), *layout)
    if isinstance(value, np.ndarray) and value.size:
        return ("numpy", value.__array_interface__["data"][0], value.shape, value.strides, value.dtype.str)
    return None


def _torch() -> Any:
    """Return torch where the caller has imported it, which whoever holds a tensor has."""
    return sys.modules.get("torch")


def _is_tensor(value: object) -> bool:
    return (torch := _torch()) is not None and isinstance(value, torch.Tensor)


def _from_torch(tensor: torch.Tensor, name: str) -> np.ndarray:
    torch = _torch()
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise ArgumentError(
            f"state {name!r} is a {tensor.layout} tensor of {tensor.dtype} on {tensor.device}; "
            "allowed are dense tensors that hold data"
        )
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype in EXTENSIONS:  # numpy learns of these through ml_dtypes, torch's bridge does not
        bits = plain.view(torch.uint16 if plain.element_size() == 2 else torch.uint8)
        return np.asarray(bits.numpy()).view(DTYPES[dtype])
    if dtype not in DTYPES:
        raise ArgumentError(
            f"state {name!r} has dtype {tensor.dtype}, which no checkpoint holds: {', '.join(DTYPES)}"
        )
    return np.asarray(plain.numpy())
