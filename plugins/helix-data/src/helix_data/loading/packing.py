"""Batches as bytes: their structure as a pickle, their tensors and arrays beside it, not copied."""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

# So that every tensor begins where any instruction set may load from.
_ALIGNMENT = 64


class Packed(NamedTuple):
    """A batch in two parts.

    Attributes:
        structure: Everything but the memory of its tensors and arrays.
        buffers: That memory, contiguous bytes each.
    """

    structure: bytes
    buffers: list[memoryview]

    @property
    def sizes(self) -> list[int]:
        """Bytes of each buffer."""
        return [buffer.nbytes for buffer in self.buffers]


def pack(batch: Any) -> Packed:
    """Take a batch apart.

    Tensors of the CPU and arrays that are contiguous are not copied. Each comes back by itself: what shared
    its memory with another no longer does.

    Args:
        batch: Anything that can be pickled.

    Raises:
        Exception: What pickling raises.
    """
    found: list[pickle.PickleBuffer] = []
    file = io.BytesIO()
    _Pickler(file, protocol=5, buffer_callback=found.append).dump(batch)
    return Packed(file.getvalue(), [buffer.raw() for buffer in found])


def unpack(structure: bytes, buffers: Sequence[Any]) -> Any:
    """Put a batch together again, on top of the buffers: it can be written to if they can."""
    return pickle.loads(structure, buffers=buffers)  # noqa: S301 - a worker of ours has packed it


def places(sizes: Sequence[int]) -> tuple[list[slice], int]:
    """Return where buffers lie one after another, each aligned, and the bytes that they take together."""
    found, end = [], 0
    for size in sizes:
        found.append(slice(end, end + size))
        end += -(-size // _ALIGNMENT) * _ALIGNMENT
    return found, end


def rebuild_tensor(memory: NDArray[np.uint8], dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the tensor whose memory these bytes are."""
    return torch.from_numpy(memory).view(dtype).reshape(shape)


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if type(value) is not torch.Tensor or not _is_plain(value):
            return NotImplemented
        plain = value.resolve_conj().resolve_neg().contiguous()
        memory = plain.reshape(-1).view(torch.uint8).numpy()
        return rebuild_tensor, (memory, value.dtype, tuple(value.shape))


def _is_plain(value: torch.Tensor) -> bool:
    is_dense = value.device.type == "cpu" and value.layout is torch.strided and not value.is_quantized
    return is_dense and not value.requires_grad
