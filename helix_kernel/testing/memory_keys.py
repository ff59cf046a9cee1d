"""Keys and values that the suite of memory tiers writes, drawn as a tier's dtypes ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from helix_kernel.memory import MemoryTier

_N_SYMBOLS = 3


def keys_of(tier: MemoryTier, count: int, *, seed: int) -> Tensor:
    """Return keys (count, d_key), no two alike, that depend on the arguments only.

    Floating keys are of unit length. Keys of symbols differ at their beginnings and often share an end.
    """
    import torch

    dtype = _dtype_of(tier, "key_dtype")
    if dtype == torch.uint8:
        return _symbols(count, tier.d_key, seed=seed)
    drawn = torch.randn(count, tier.d_key, generator=torch.Generator().manual_seed(seed))
    return (drawn / drawn.square().sum(-1, keepdim=True).sqrt()).to(dtype)


def values_of(tier: MemoryTier, count: int, *, seed: int) -> Tensor:
    """Return values (count, d_value) that depend on the arguments only; those of integers are below 128."""
    import torch

    dtype, generator = _dtype_of(tier, "value_dtype"), torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        return torch.randn(count, tier.d_value, generator=generator).to(dtype)
    return torch.randint(128, (count, tier.d_value), generator=generator).to(dtype)


def _dtype_of(tier: MemoryTier, name: str) -> torch.dtype:
    import torch

    dtype: torch.dtype = getattr(tier, name, torch.float32)
    return dtype


def _symbols(count: int, d_key: int, *, seed: int) -> Tensor:
    """Return rows of symbols: a number of its own in the first two places, few symbols in the others."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    n_own = min(d_key, 2)
    assert count <= 256**n_own, f"there are only {256**n_own} keys of d_key={d_key}, and not {count}"
    numbers = torch.randperm(256**n_own, generator=generator)[:count, None]
    own = numbers >> torch.tensor([0, 8])[:n_own] & 255
    others = 97 + torch.randint(_N_SYMBOLS, (count, d_key - n_own), generator=generator)
    return torch.cat([own, others], 1).to(torch.uint8)
