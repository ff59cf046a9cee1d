"""Files of the safetensors format, written in order and read by memory map; the library is not needed.

Eight bytes of length, a JSON header, the tensors' bytes end to end in the header's order.

Source: https://github.com/huggingface/safetensors, README.md, "Format".
"""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

import attrs
import numpy as np

from helix_kernel.checkpoint.dtypes import DTYPES
from helix_kernel.errors import ArgumentError, CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

TYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}
"""Zarr name of a type → its name in safetensors. It has none for complex128; for scales of powers of two
(float8_e8m0fnu) PyTorch's reader has none."""

_NAMES = {short: name for name, short in TYPES.items()}
_METADATA = "__metadata__"
_MAX_HEADER = 100_000_000  # that of the library


@attrs.frozen
class Tensor:
    """A tensor to be written.

    Args:
        dtype: Zarr name of its type.
        shape: Its shape.
        content: Its bytes in C order, little-endian, in parts.
    """

    dtype: str
    shape: tuple[int, ...]
    content: Iterable[np.ndarray]


def check_types(dtypes: Mapping[str, str]) -> None:
    """Refuse what safetensors cannot say.

    Args:
        dtypes: Name of a tensor → Zarr name of its type.

    Raises:
        ArgumentError: Names the first such tensor, and what can be done.
    """
    unknown = [f"{name!r} ({dtype})" for name, dtype in dtypes.items() if dtype not in TYPES]
    if unknown:
        raise ArgumentError(
            f"safetensors has no type for {unknown[0]}, one of {len(unknown)} such arrays; allowed are "
            f"{', '.join(TYPES)}; leave them out by --only, or export to --format zarr"
        )


def write(file: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file from its beginning to its end.

    Args:
        file: Open and empty.
        tensors: Name → tensor, of types that `check_types` lets through.
        metadata: Text by name.
    """
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    # Larger elements first, as the library does: each tensor then lies at a multiple of its element.
    order = sorted(tensors, key=lambda name: -DTYPES[tensors[name].dtype].itemsize)
    end = 0
    for name in order:
        tensor, start = tensors[name], end
        end += math.prod(tensor.shape) * DTYPES[tensor.dtype].itemsize
        header[name] = {
            "dtype": TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for name in order:
        file.writelines(part.view(np.uint8).data for part in tensors[name].content)


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors of a file, mapped into memory, and its metadata.

    Raises:
        CheckpointError: It cannot be read, or is no sound file of the format: the tensors must fill it
            from its header to its end, as the library demands.
        ArgumentError: A tensor's type has no name in Zarr.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            header, start = _header(file, size)
        metadata = header.pop(_METADATA, {})
        memory = np.memmap(path, np.uint8, "r", start) if size > start else np.empty(0, np.uint8)
        _check_coverage(header, size - start)
        return {name: _tensor(name, entry, memory) for name, entry in header.items()}, dict(metadata)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise CheckpointError(f"{path} is no sound file of safetensors: {error}") from error


def _header(file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    (n,) = struct.unpack("<Q", file.read(8))
    if n > min(_MAX_HEADER, size - 8):
        raise ValueError(f"its header would have {n} bytes")
    header = json.loads(file.read(n))
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")  # noqa: TRY004 - one kind of error, caught above
    return header, 8 + n


def _check_coverage(header: Mapping[str, Any], size: int) -> None:
    end = 0
    for start, stop in sorted(tuple(entry["data_offsets"]) for entry in header.values()):
        if start != end or stop < start:
            raise ValueError(f"its tensors overlap or leave a gap at byte {end} of the data")
        end = stop
    if end != size:
        raise ValueError(f"its tensors end at byte {end} of {size}")


def _tensor(name: str, entry: Mapping[str, Any], memory: np.ndarray) -> np.ndarray:
    if entry["dtype"] not in _NAMES:
        raise ArgumentError(
            f"tensor {name!r} is of type {entry['dtype']!r}, which no checkpoint holds; allowed: "
            f"{', '.join(_NAMES)}"
        )
    dtype, shape = DTYPES[_NAMES[entry["dtype"]]], tuple(entry["shape"])
    start, stop = entry["data_offsets"]
    if any(type(n) is not int or n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != stop - start:
        raise ValueError(f"tensor {name!r} of shape {shape} has {stop - start} bytes")
    return memory[start:stop].view(dtype).reshape(shape)
