"""All tiers as one memory: read from the top down, and mixed into what a language model expects."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_topo.mixing import Mixing
from helix_topo.nearest_symbols import NearestSymbols

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from helix_topo.config.hierarchy import Reading
    from helix_topo.motifs.matches import Matches
    from helix_topo.prediction import Prediction


# How far tiers are trusted before anything is learned: those above see what motifs and the model do not.
_PRIORS, _PRIOR = {"motifs": 0.3}, 0.03


class Hierarchy(nn.Module):
    """Motifs, and above them cycles, stable cores and vectors, as far as they are wanted.

    As the memory of a language model (`helix_kernel.memory.LanguageMemory`) it reads each tier at every place
    and mixes what they expect into the model's probabilities, one tier after another, each as far as finds of
    its class proved right (`Mixing`). In training it then remembers the batch. A row whose passage was
    written before teaches nothing about how far to trust a memory, and is left to the model alone.

    Args:
        motifs: Builds tier M0, with `vocab_size`.
        cycles: Builds tier M1, with `below`.
        cores: Builds tier M2, with `d_key` and `d_value`.
        vectors: Builds the memory of features, with `d_key` and `d_value`.
        d_model: Width D of the model's features.
        vocab_size: Number V of its ids.
        reading: Whether, in training, all of a batch is read before any of it is remembered, which is what
            evaluation finds; or each place after those before it.
        k: Vectors that a place reads.
        sharpness: Factor of their scores in the softmax by which they are weighed.
        surprise: Bits from which on a place is remembered as a vector.
    """

    def __init__(
        self,
        *,
        motifs: Callable[..., Any],
        cycles: Callable[..., Any] | None = None,
        cores: Callable[..., Any] | None = None,
        vectors: Callable[..., Any] | None = None,
        d_model: int = 1,
        vocab_size: int = 256,
        reading: Reading = "batch",
        k: int = 16,
        sharpness: float = 20.0,
        surprise: float = 2.0,
    ) -> None:
        super().__init__()
        self.d_model, self.vocab_size, self.reading = d_model, vocab_size, reading
        self.motifs = motifs(vocab_size=vocab_size)
        self.cycles = None if cycles is None else cycles(below=None)
        self.cores = None if cores is None else cores(d_key=d_model, d_value=vocab_size)
        self.vectors = None
        if vectors is not None:
            tier = vectors(d_key=d_model, d_value=1)
            self.vectors = NearestSymbols(tier, vocab_size, k=k, sharpness=sharpness, surprise=surprise)
        tiers = {"motifs": self.motifs, "cycles": self.cycles, "cores": self.cores, "vectors": self.vectors}
        self.mixings = nn.ModuleDict(
            {
                name: Mixing(tier.n_buckets, prior=_PRIORS.get(name, _PRIOR))
                for name, tier in tiers.items()
                if tier is not None
            }
        )

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
        mixed = mixing.mixed(p, trusted)
        mixing.learn(p.detach(), trusted, followed.symbols)
        return mixed

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
