"""Tier M0: what followed each run of symbols, in a bounded table of hashed contexts."""

from __future__ import annotations

import copy
import ctypes
from typing import TYPE_CHECKING, Any, Literal

import torch

from helix_kernel.errors import ArgumentError, InputError
from helix_kernel.memory import Report, Retrieved, Stats
from helix_topo.config.motifs import ORDERS
from helix_topo.host import HostModule
from helix_topo.motifs.ends import Ends
from helix_topo.motifs.matches import Matches
from helix_topo.motifs.tables import COUNTERS, MOST_ORDERS, MOST_RUN, Tables, View
from helix_topo.native import function
from helix_topo.prediction import Prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from helix_topo.config.motifs import Blend, Replace

Order = Literal["batch", "stream"]
_READ, _READ_THEN_WRITE, _READ_AND_WRITE = 0, 1, 2


class _Told(ctypes.Structure):
    """Where compiled code writes what it finds: `Told` of motifs.c."""

    _fields_ = tuple(
        (name, ctypes.c_void_p) for name in ("probabilities", "bits", "bucket", "motif", "length", "count")
    )


class Motifs(HostModule):
    """Contexts of several lengths with what followed them, and a blend of them as prediction.

    `advance` and `score` read and write texts. By the protocol of memory tiers the memory also holds values
    by keys of symbols, beside the contexts and within the same budget; see `Ends`.

    The tables are buffers, so that a model's checkpoint holds them; they stay in the machine's memory and in
    their own dtypes wherever the model goes.

    Args:
        vocab_size: Symbols: ids are below it.
        budget: Bytes that the memory takes at most.
        orders: Lengths of contexts, rising.
        blend: Whether all known contexts are blended, from short to long, each as far as contexts like it
            proved right; or only the longest motif counts.
        min_count: How often a context must have come to be a motif.
        replace: By what a context of a full bucket gives way: the lowest retrievability, the earliest use,
            or the lowest count.
        growth: w of the stability's growth at a correct recall.
        d_key: Symbols of a key, for what is written by keys.
        d_value: Length of its values.
        capacity: Most keys.

    Raises:
        ArgumentError: The orders do not rise, or the budget is too small for the tables.
    """

    key_dtype = torch.uint8
    counters: Tensor
    last_time: Tensor
    queries: Tensor

    def __init__(
        self,
        *,
        vocab_size: int = 256,
        budget: int = 64 << 20,
        orders: tuple[int, ...] = ORDERS,
        blend: Blend = "cascade",
        min_count: int = 2,
        replace: Replace = "fsrs",
        growth: float = 8.0,
        d_key: int = 32,
        d_value: int = 1,
        capacity: int = 4096,
    ) -> None:
        super().__init__()
        if list(orders) != sorted(set(orders)) or not 0 < len(orders) <= MOST_ORDERS or orders[0] < 1:
            raise ArgumentError(f"orders is {list(orders)}, allowed is 1 to {MOST_ORDERS} rising lengths")
        self.vocab_size, self.budget, self.orders = vocab_size, budget, tuple(orders)
        self.d_key, self.d_value, self.capacity = d_key, d_value, capacity
        self.window = orders[-1] + MOST_RUN
        self._options = {
            "vocab_size": vocab_size,
            "budget": budget,
            "orders": list(orders),
            "blend": blend,
            "min_count": min_count,
            "replace": replace,
            "growth": growth,
            "d_key": d_key,
            "d_value": d_value,
            "capacity": capacity,
        }
        self.ends = Ends(d_key=d_key, d_value=d_value, capacity=capacity, growth=growth)
        self.register_buffer("last_time", torch.tensor(-torch.inf, dtype=torch.float64))
        self.register_buffer("queries", torch.tensor(0))
        self._tables = Tables(
            vocab_size=vocab_size,
            budget=budget - self._n_bytes(),
            orders=self.orders,
            replace=replace,
            growth=growth,
            longest=blend == "longest",
            min_count=min_count,
        )
        for name, table in self._tables.empty().items():
            self.register_buffer(name, table)

    @property
    def n_buckets(self) -> int:
        """Classes of finds: each `Prediction.bucket` is below it."""
        return self._tables.n_buckets

    def advance(
        self, ids: Tensor, context: Tensor, *, write: bool, order: Order = "batch", time: float | None = None
    ) -> Matches:
        """Read what is known at each place of some rows, and remember them.

        The prediction at place t of a row is of ids[t + 1], made from the context and ids[..t].

        Args:
            ids: (B, L) int64.
            context: (B, W) int64: what came before each row, -1 for nothing. The last `window` of it matter.
            write: Whether the rows are remembered, each symbol after what came before it.
            order: ``batch`` reads all places with the memory as it was and then writes all rows; a row that
                was written before is not written again. ``stream`` reads and writes place by place.
            time: When; never less than before.

        Raises:
            ArgumentError: A shape, an id or the time does not fit.
        """
        rows, n = self._joined(ids, context), ids.numel()
        if time is not None and write:
            self._pass_to(time)
        found = {name: torch.empty(n, dtype=torch.int64) for name in ("bucket", "motif", "length", "count")}
        found["probabilities"] = torch.empty(n, self.vocab_size)
        how = _READ if not write else _READ_AND_WRITE if order == "stream" else _READ_THEN_WRITE
        repeated = self._run(rows, rows.shape[1] - ids.shape[1], how, 0, found)
        self.counters[COUNTERS.index("repeated")] += repeated.sum()
        prediction = Prediction(probabilities=found.pop("probabilities"), bucket=found.pop("bucket"))
        return Matches(prediction=prediction, repeated=repeated.bool(), **found)

    def score(self, ids: Tensor, context: Tensor | None = None, *, write: bool = True) -> Tensor:
        """Return the bits (L,) float32 of each symbol of a stream, read and then written one by one.

        Args:
            ids: (L,) int64.
            context: (W,) int64 that came before, where anything did.
            write: Whether the stream is remembered.
        """
        before = ids[:0] if context is None else context
        rows = self._joined(ids[None], before[None])
        bits = torch.empty(len(ids))
        self._run(rows, rows.shape[1] - len(ids), _READ_AND_WRITE if write else _READ, 1, {"bits": bits})
        return bits

    def write(self, keys: Tensor, values: Tensor, *, time: float) -> Tensor:
        """Remember values (N, d_value) by keys (N, d_key) of symbols; see `helix_kernel.memory.MemoryTier`.

        Raises:
            ArgumentError: A shape or dtype does not fit, or `time` runs backwards.
        """
        self.ends.check(keys, values)
        self._pass_to(time)
        return self.ends.write(keys, values, time=time)

    def read(self, queries: Tensor, k: int) -> Retrieved:
        """Find the entries that share the longest ends with each query; see `Ends.read`.

        Raises:
            ArgumentError: The queries are no keys, or `k` is below 1.
        """
        found = self.ends.read(queries, k)
        self.queries += len(queries)
        return found

    def values_of(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values (N, d_value) of entries (N,), 0 where there is none; and where there is one."""
        return self.ends.values_of(ids)

    def consolidate(self) -> Report:
        """Do nothing: what is alike is merged when it is written."""
        return Report()

    def state(self) -> dict[str, Any]:
        """Return all that the memory must remember, as copies."""
        tables = {name: table.clone() for name, table in self.named_buffers()}
        return {"options": copy.deepcopy(self._options), "tables": tables}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become the memory that `state` was taken from, to the bit.

        Raises:
            InputError: The state is that of a memory with other options.
        """
        for name, own in self._options.items():
            given = state["options"].get(name)
            if given != own:
                raise InputError(
                    f"motifs: the state is of a memory with {name}={given!r}, allowed is {own!r}: build the "
                    "memory with the options that it was saved with"
                )
        for name, table in self.named_buffers():
            table.copy_(state["tables"][name])

    def stats(self) -> Stats:
        """Return what was written by keys; the bytes are those of all tables, filled or not."""
        entries, merged, evicted = (self.ends.count(name) for name in ("entries", "merged", "evicted"))
        return Stats(
            entries=entries,
            written=entries + merged + evicted,
            queries=int(self.queries),
            merged=merged,
            evicted=evicted,
            n_bytes=self._n_bytes(),
        )

    def _n_bytes(self) -> int:
        return sum(table.nbytes for table in self.buffers())

    def _run(self, rows: Tensor, start: int, how: int, skip: int, found: dict[str, Tensor]) -> Tensor:
        repeated = torch.zeros(len(rows), dtype=torch.int64)
        told = _Told(**{name: tensor.data_ptr() for name, tensor in found.items()})
        view = self._tables.view(dict(self.named_buffers(recurse=False)))
        done = _advance()(
            ctypes.byref(view),
            rows.data_ptr(),
            rows.shape[0],
            rows.shape[1],
            start,
            how,
            skip,
            ctypes.byref(told),
            repeated.data_ptr(),
        )
        if not done:
            raise MemoryError("motifs: no memory to work in")
        return repeated

    def _pass_to(self, time: float) -> None:
        if not time >= float(self.last_time):
            raise ArgumentError(f"time is {time}, and the last writing was at {float(self.last_time)}")
        self.last_time.fill_(time)

    def _joined(self, ids: Tensor, context: Tensor) -> Tensor:
        if ids.ndim != 2 or context.ndim != 2 or len(ids) != len(context):
            raise ArgumentError(
                f"ids have shape {tuple(ids.shape)} and context {tuple(context.shape)}; allowed is "
                "(B, L) and (B, W)"
            )
        rows = torch.cat([context[:, -self.window :], ids], 1).to("cpu", torch.int64).contiguous()
        if rows.numel() and (int(rows.max()) >= self.vocab_size or (ids.numel() and int(ids.min()) < 0)):
            raise ArgumentError(
                f"ids are {int(ids.min())} to {int(rows.max())}; allowed is 0 to {self.vocab_size - 1}"
            )
        return rows


def _advance() -> Callable[..., Any]:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    arguments = (ctypes.POINTER(View), pointer, *[number] * 5, ctypes.POINTER(_Told), pointer)
    return function("motifs_advance", result=number, arguments=arguments)
