"""Keys of symbols with values, found by the longest end that they share with a query."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.memory import Retrieved
from helix_topo.host import HostModule
from helix_topo.native import function

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_COUNTS = ("entries", "serial", "next_id", "merged", "evicted")


class _View(ctypes.Structure):
    """`Ends` of ends.c."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in ("keys", "values", "order", "ids", "serials", "counts", "times", "stabilities")
        ),
        ("d_key", ctypes.c_int64),
        ("value_bytes", ctypes.c_int64),
        ("capacity", ctypes.c_int64),
        ("growth", ctypes.c_double),
    )


class Ends(HostModule):
    """Entries in the order of their keys read backwards: a look-up is a binary search, whatever the length.

    A key that is written again keeps its id and gets the new value; its stability grows where the value was
    the same, and falls to 0.4 of itself where it was not. In a full memory the entry of the lowest
    retrievability gives way.

    Args:
        d_key: Symbols of a key.
        d_value: Length of a value.
        capacity: Most entries.
        growth: w of the stability's growth.
    """

    keys: Tensor
    values: Tensor
    ids: Tensor
    order: Tensor
    counts: Tensor

    def __init__(self, *, d_key: int, d_value: int, capacity: int, growth: float) -> None:
        super().__init__()
        self.d_key, self.d_value, self.capacity, self._growth = d_key, d_value, capacity, growth
        self.register_buffer("keys", torch.zeros(capacity, d_key, dtype=torch.uint8))
        self.register_buffer("values", torch.zeros(capacity, d_value))
        for name in ("order", "ids", "serials"):
            self.register_buffer(name, torch.zeros(capacity, dtype=torch.int64))
        for name in ("times", "stabilities"):
            self.register_buffer(name, torch.zeros(capacity, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(len(_COUNTS), dtype=torch.int64))

    def check(self, keys: Tensor, values: Tensor) -> None:
        """Raise ArgumentError where keys and values are not such as can be written."""
        self._check_keys("keys", keys)
        if values.shape != (len(keys), self.d_value) or values.dtype != torch.float32:
            raise ArgumentError(
                f"values are {values.dtype} of shape {tuple(values.shape)}; allowed is torch.float32 of "
                f"shape {(len(keys), self.d_value)}"
            )

    def write(self, keys: Tensor, values: Tensor, *, time: float) -> Tensor:
        """Remember values (N, d_value) by keys (N, d_key), checked before; return the ids (N,)."""
        keys, values = keys.cpu().contiguous(), values.detach().cpu().contiguous()
        ids = torch.empty(len(keys), dtype=torch.int64)
        pointers = keys.data_ptr(), values.data_ptr(), len(keys), time, ids.data_ptr()
        _write()(ctypes.byref(self._view()), *pointers)
        return ids

    def read(self, queries: Tensor, k: int) -> Retrieved:
        """Find the k entries that share the longest ends with each query, the later first where equally long.

        What shares no symbol is not found. The score is the number of symbols that are shared.

        Raises:
            ArgumentError: The queries are no keys, or `k` is below 1.
        """
        self._check_keys("queries", queries)
        if k < 1:
            raise ArgumentError(f"k is {k}, allowed is >= 1")
        queries = queries.cpu().contiguous()
        slots = torch.full((len(queries), k), -1)
        lengths = torch.zeros(len(queries), k, dtype=torch.int64)
        pointers = queries.data_ptr(), len(queries), k, slots.data_ptr(), lengths.data_ptr()
        _read()(ctypes.byref(self._view()), *pointers)
        known, taken = slots >= 0, slots.clamp(min=0)
        return Retrieved(
            values=self.values[taken].masked_fill_(~known.unsqueeze(-1), 0),
            scores=lengths.float().masked_fill_(~known, -torch.inf),
            ids=torch.where(known, self.ids[taken], -1),
        )

    def values_of(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values (N, d_value) of entries (N,), 0 where there is none; and where there is one."""
        taken = self.order[: self.count("entries")]
        if not len(taken):
            return torch.zeros(len(ids), self.d_value), torch.zeros(len(ids), dtype=torch.bool)
        own, order = self.ids[taken].sort()
        places = torch.searchsorted(own, ids.cpu()).clamp(max=len(own) - 1)
        held = own[places] == ids.cpu()
        return self.values[taken[order[places]]] * held[:, None], held

    def count(self, name: str) -> int:
        """Return how many entries there are, were `merged`, or were `evicted`."""
        return int(self.counts[_COUNTS.index(name)])

    def _check_keys(self, name: str, keys: Tensor) -> None:
        if keys.shape[1:] != (self.d_key,) or keys.dtype != torch.uint8:
            raise ArgumentError(
                f"{name} are {keys.dtype} of shape {tuple(keys.shape)}; allowed is torch.uint8 of shape "
                f"(N, {self.d_key})"
            )

    def _view(self) -> _View:
        pointers = {name: table.data_ptr() for name, table in self.named_buffers()}
        return _View(
            **pointers,
            d_key=self.d_key,
            value_bytes=4 * self.d_value,
            capacity=self.capacity,
            growth=self._growth,
        )


def _write() -> Callable[..., Any]:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    arguments = (ctypes.POINTER(_View), pointer, pointer, number, ctypes.c_double, pointer)
    return function("ends_write", arguments=arguments)


def _read() -> Callable[..., Any]:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    return function("ends_read", arguments=(ctypes.POINTER(_View), pointer, number, number, pointer, pointer))
