"""How much of a codebook the last training batches used."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn


class CodebookUse(nn.Module):
    """Counts the codes that training chooses, in buffers that are saved with the layer's weights.

    Ranks that train together count together.

    Args:
        n_codes: Codes in each codebook.
        n_codebooks: Codebooks that are counted apart.
        n_batches: Training batches after which a code counts as unused, and the time constant of the
            running frequencies.
    """

    frequencies: Tensor
    """(n_codebooks, n_codes) share of each code in a batch, a running mean that is not debiased."""
    idle: Tensor
    """(n_codebooks, n_codes) int64: training batches since a code was last used."""

    def __init__(self, n_codes: int, *, n_codebooks: int = 1, n_batches: int) -> None:
        super().__init__()
        self.n_batches = n_batches
        self.register_buffer("frequencies", torch.zeros(n_codebooks, n_codes))
        self.register_buffer("idle", torch.full((n_codebooks, n_codes), n_batches))

    @torch.no_grad()
    def count(self, ids: Tensor) -> None:
        """Take in a training batch.

        Args:
            ids: The codes chosen, (..., n_codebooks) int64.
        """
        chosen = ids.reshape(-1, ids.shape[-1]).T
        counts = torch.zeros_like(self.idle).scatter_add_(1, chosen, torch.ones_like(chosen))
        if n_ranks() > 1:
            distributed.all_reduce(counts)
        shares = (counts / counts.sum(1, keepdim=True)).to(self.frequencies.dtype)
        self.frequencies.lerp_(shares, 1 / self.n_batches)
        self.idle.copy_(torch.where(counts > 0, 0, self.idle + 1))

    def measured(self) -> dict[str, float]:
        """Return, for each codebook, what the last training batches used of it; nothing before the first.

        Returns:
            ``perplexity``: exp of the entropy of the codes' frequencies, at most the number of codes;
            ``codes_used``: share of the codes that were chosen in the last batches, 0 to 1;
            ``dead_codes``: how many were not. With several codebooks each name is preceded by the number
            of its own from 0, such as ``0.perplexity``.
        """
        sums = self.frequencies.double().sum(1)
        if not bool((sums > 0).all()):
            return {}
        p = self.frequencies.double() / sums.unsqueeze(1)
        perplexity = torch.special.entr(p).sum(1).exp()
        used = self.idle < self.n_batches
        found: dict[str, float] = {}
        for book in range(len(p)):
            prefix = f"{book}." if len(p) > 1 else ""
            found[f"{prefix}perplexity"] = float(perplexity[book])
            found[f"{prefix}codes_used"] = float(used[book].double().mean())
            found[f"{prefix}dead_codes"] = float((~used[book]).sum())
        return found


def n_ranks() -> int:
    """Return how many processes train together."""
    together = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if together else 1
