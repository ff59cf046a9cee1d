"""All tiers as one memory: read from the top down, and mixed into what a language model expects."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import InputError
from helix_topo.entries import Entries, Lent
from helix_topo.mixing import GeometricMixing, LinearMixing, Mixing
from helix_topo.motifs.tier import Motifs
from helix_topo.nearest_symbols import NearestSymbols
from helix_topo.symbol_cores import SKETCH, SymbolCores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from helix_kernel.memory import Report, Retrieved, Stats
    from helix_topo.config.hierarchy import Mixture, Reading
    from helix_topo.motifs.matches import Matches
    from helix_topo.prediction import Prediction
    from helix_topo.retrieval import Found


# How far tiers are trusted before anything is learned: a tier above is mixed into what motifs expect already.
_PRIORS, _PRIOR = {"motifs": 0.8}, 0.03
_MIXTURES: dict[Mixture, type[LinearMixing | GeometricMixing]] = {
    "linear": LinearMixing,
    "geometric": GeometricMixing,
}


class Hierarchy(nn.Module):
    """Motifs, and above them cycles, stable cores and vectors, as far as they are wanted.

    As the memory of a language model (`helix_kernel.memory.LanguageMemory`) it reads each tier at every place
    and mixes what they expect into the model's probabilities, one tier after another, each as far as finds of
    its class proved right (`Mixing`). In training it then remembers the batch. A row whose passage was
    written before teaches nothing about how far to trust a memory, and is left to the model alone.

    By the protocol of memory tiers it holds values by keys of symbols, in the motifs; what was written one
    after another is linked in the cycles, and what recurs becomes lasting in the cores, by sketches of its
    keys. A graph has room for one kind of node, and cores for one kind of key, so a hierarchy is either a
    model's memory or a tier of its own, not both.

    Args:
        motifs: Builds tier M0, with `vocab_size`.
        cycles: Builds tier M1, with `below`.
        cores: Builds tier M2, with `d_key` and `d_value`.
        vectors: Builds the memory of features, with `d_key` and `d_value`.
        d_model: Width D of the model's features; left out for a tier of its own.
        vocab_size: Number V of its ids.
        mixture: Whether probabilities are mixed, or their logarithms.
        reading: Whether, in training, all of a batch is read before any of it is remembered, which is what
            evaluation finds; or each place after those before it.
        k: Vectors that a place reads.
        sharpness: Factor of their scores in the softmax by which they are weighed.
        surprise: Bits from which on a place is remembered as a vector.
    """

    queries: Tensor

    def __init__(
        self,
        *,
        motifs: Callable[..., Any] = Motifs,
        cycles: Callable[..., Any] | None = None,
        cores: Callable[..., Any] | None = None,
        vectors: Callable[..., Any] | None = None,
        d_model: int | None = None,
        vocab_size: int = 256,
        mixture: Mixture = "geometric",
        reading: Reading = "batch",
        k: int = 16,
        sharpness: float = 20.0,
        surprise: float = 2.0,
    ) -> None:
        super().__init__()
        self.d_model, self.vocab_size, self.reading = d_model, vocab_size, reading
        self.motifs = motifs(vocab_size=vocab_size)
        self.cycles = None if cycles is None else cycles(below=Lent(self.motifs))
        self.cores = None
        if cores is not None:
            sizes = (SKETCH, self.motifs.d_value) if d_model is None else (d_model, vocab_size)
            self.cores = cores(d_key=sizes[0], d_value=sizes[1])
        self.vectors = None
        if vectors is not None:
            tier = vectors(d_key=d_model or 1, d_value=1)
            self.vectors = NearestSymbols(tier, vocab_size, k=k, sharpness=sharpness, surprise=surprise)
        self.mixings = nn.ModuleDict(
            {
                name: _MIXTURES[mixture](tier.n_buckets, prior=_PRIORS.get(name, _PRIOR))
                for name, tier in self._tiers().items()
            }
        )
        self.register_buffer("queries", torch.tensor(0))
        self.d_key, self.d_value = self.motifs.d_key, self.motifs.d_value
        self.capacity, self.key_dtype = self.motifs.capacity, self.motifs.key_dtype

    def init_state(self, batch_size: int) -> Tensor:
        """Return the state of rows of which nothing was read: (B, window) int64, their last ids; -1: none."""
        return torch.full((batch_size, self.motifs.window), -1)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # the tables belong to compiled loops that are no ops of PyTorch
    def mix(self, logits: Tensor, ids: Tensor, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Mix what the tiers expect into what the model expects; see `LanguageMemory.mix`."""
        ids, features = ids.cpu(), features.detach()
        found = self.motifs.advance(ids, state, write=self.training, order=self.reading)
        exact = torch.promote_types(logits.dtype, torch.float32)
        p = F.softmax(logits.to(exact), dim=-1).flatten(0, 1)
        followed = _Followed.of(ids, found.repeated)
        for name, prediction in self._predictions(found, features):
            p = self._mixed(name, p, prediction, followed)
        if self.training:
            self._remember(found.motif.reshape(ids.shape), features, ids, p)
        after = torch.cat([state, ids], dim=1)[:, -state.shape[1] :]
        mixed = p.clamp(min=torch.finfo(exact).tiny).log().reshape(logits.shape)
        return mixed.to(logits.dtype), after

    def write(self, keys: Tensor, values: Tensor, *, time: float) -> Tensor:
        """Remember values by keys of symbols; see `helix_kernel.memory.MemoryTier.write`."""
        return self._entries().write(keys, values, time=time)

    def find(self, queries: Tensor, k: int, *, budget: int | None = None) -> list[list[Found]]:
        """Return at most `k` finds for each key of symbols, of M2, M1 and M0 in turn, each with its reason.

        A value that M2 finds is the mean of what went into a core; a hierarchy that is a model's memory asks
        M1 and M0 only.

        Args:
            queries: (Q, d_key) uint8.
            k: Most finds for each.
            budget: Most places that all tiers together may be asked for; left out: no bound.

        Raises:
            ArgumentError: A shape does not fit, or a number is below 1.
        """
        found = self._entries().find(queries, k, budget=budget)
        self.queries += len(queries)
        return found

    def read(self, queries: Tensor, k: int) -> Retrieved:
        """Find the entries that are most like each query; see `helix_kernel.memory.MemoryTier.read`."""
        found = self._entries().read(queries, k)
        self.queries += len(queries)
        return found

    def consolidate(self) -> Report:
        """Consolidate each tier, from the bottom up; say what became of entries by keys of symbols."""
        report: Report = self.motifs.consolidate()
        for name, tier in self._tiers().items():
            if name != "motifs":
                tier.consolidate()
        return report

    def state(self) -> dict[str, Any]:
        """Return all that the tiers remember, and how far each is trusted, as copies."""
        tiers = {name: tier.state() for name, tier in self._tiers().items()}
        trust = {name: buffer.clone() for name, buffer in self.mixings.named_buffers()}
        return {"tiers": tiers, "trust": trust, "queries": int(self.queries)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become the memory that `state` was taken from, to the bit.

        Raises:
            InputError: The state is that of a memory with other tiers or options.
        """
        own, given = sorted(self._tiers()), sorted(state["tiers"])
        if own != given:
            raise InputError(f"hierarchy: the state is of a memory with {given}, this one has {own}")
        for name, tier in self._tiers().items():
            tier.load_state(state["tiers"][name])
        self.mixings.load_state_dict(state["trust"])
        self.queries.fill_(state["queries"])

    def stats(self) -> Stats:
        """Return what was written by keys of symbols; the bytes are those of all tiers."""
        stats: Stats = self.motifs.stats()
        n_bytes = sum(buffer.nbytes for buffer in self.buffers())
        return attrs.evolve(stats, queries=int(self.queries), n_bytes=n_bytes)

    def _tiers(self) -> dict[str, Any]:
        tiers = {"motifs": self.motifs, "cycles": self.cycles, "cores": self.cores, "vectors": self.vectors}
        return {name: tier for name, tier in tiers.items() if tier is not None}

    def _entries(self) -> Entries:
        if self.cores is None or self.d_model is not None:
            return Entries(self.motifs, self.cycles)
        return Entries(self.motifs, self.cycles, SymbolCores(self.cores))

    def _predictions(self, found: Matches, features: Tensor) -> Iterator[tuple[str, Prediction]]:
        """Yield what each tier expects, from the bottom up: a tier above has the last word."""
        rows = found.motif.reshape(features.shape[:2])
        yield "motifs", found.prediction
        if self.cycles is not None:
            yield "cycles", self.cycles.advance(rows, None, n_symbols=self.vocab_size, write=False)
        if self.cores is not None:
            yield "cores", self.cores.advance(features, rows, None, write=False)
        if self.vectors is not None:
            yield "vectors", self.vectors.predict(features.flatten(0, 1))

    def _mixed(self, name: str, p: Tensor, prediction: Prediction, followed: _Followed) -> Tensor:
        mixing = cast("Mixing", self.mixings[name])
        if not self.training:
            return mixing.mixed(p, prediction)
        trusted = attrs.evolve(prediction, bucket=prediction.bucket * followed.fresh)
        return mixing.mixed(p, trusted, followed.symbols)

    def _remember(self, motif: Tensor, features: Tensor, ids: Tensor, p: Tensor) -> None:
        """Remember, above the motifs, the places of rows whose next symbol is known."""
        next_ids, motif, features = ids[:, 1:], motif[:, :-1], features[:, :-1]
        if self.cycles is not None:
            self.cycles.advance(motif, next_ids, n_symbols=self.vocab_size, write=True)
        if self.cores is not None and self.cycles is not None:
            self.cores.select_from(self.cycles.graph)
            self.cores.advance(features, motif, next_ids, write=True)
        if self.vectors is not None:
            symbols = next_ids.flatten()
            p_rows = p.detach().cpu().reshape(*ids.shape, -1)[:, :-1].flatten(0, 1)
            bits = -p_rows.gather(1, symbols[:, None])[:, 0].log2()
            self.vectors.remember(features.flatten(0, 1), symbols, bits)


@attrs.frozen(eq=False)
class _Followed:
    """The symbols that came after places (N,), -1 where a row ends; and whether each is new to the memory."""

    symbols: Tensor
    fresh: Tensor

    @classmethod
    def of(cls, ids: Tensor, repeated: Tensor) -> _Followed:
        symbols = F.pad(ids[:, 1:], (0, 1), value=-1)
        return cls(symbols.flatten(), ~repeated.repeat_interleave(ids.shape[1]))
