"""What followed places like this one: a memory of vectors as a language model reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_topo.prediction import Prediction

if TYPE_CHECKING:
    from collections.abc import Mapping

    from helix_kernel.memory import MemoryTier

_LIKENESS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)


class NearestSymbols(nn.Module):
    """Features of places as keys, the symbols that came next as values (Khandelwal et al. 2020, section 2).

    Args:
        tier: A memory tier of d_model-wide keys and values of length 1.
        vocab_size: Symbols V.
        k: Entries that a place reads.
        sharpness: Factor of their scores in the softmax by which they are weighed (there 1 / T).
        surprise: Bits from which on a place is remembered: what was expected need not be.
    """

    clock: Tensor
    n_buckets = 2 + len(_LIKENESS)

    def __init__(
        self, tier: MemoryTier, vocab_size: int, *, k: int, sharpness: float, surprise: float
    ) -> None:
        super().__init__()
        self.tier: Any = tier
        self.vocab_size, self.k, self.sharpness, self.surprise = vocab_size, k, sharpness, surprise
        self.register_buffer("clock", torch.tensor(0))

    def predict(self, features: Tensor) -> Prediction:
        """Predict the symbol after each of N places from their features (N, d_model)."""
        found = self.tier.read(F.normalize(features.float().cpu(), dim=-1), self.k)
        known = found.ids[:, 0] >= 0
        shares = torch.where(known[:, None], self.sharpness * found.scores, 0.0).softmax(-1) * known[:, None]
        probabilities = torch.zeros(len(features), self.vocab_size)
        probabilities.scatter_add_(1, found.values[..., 0].long(), shares)
        best = found.scores[:, 0].contiguous()
        bucket = 1 + torch.bucketize(best, best.new_tensor(_LIKENESS))
        return Prediction(probabilities=probabilities, bucket=bucket * known)

    def remember(self, features: Tensor, symbols: Tensor, bits: Tensor) -> None:
        """Remember the symbols (N,) after places that cost `surprise` bits (N,) or more."""
        wanted = bits.cpu() >= self.surprise
        keys = F.normalize(features.float().cpu()[wanted], dim=-1)
        self.tier.write(keys, symbols.cpu()[wanted, None].float(), time=float(self.clock))
        self.clock.add_(1)

    def consolidate(self) -> None:
        """Consolidate the tier."""
        self.tier.consolidate()

    def state(self) -> dict[str, Any]:
        """Return all that is remembered, as copies."""
        return {"tier": self.tier.state(), "clock": int(self.clock)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken from.

        Raises:
            InputError: The state is that of a memory with other options.
        """
        self.tier.load_state(state["tier"])
        self.clock.fill_(state["clock"])
