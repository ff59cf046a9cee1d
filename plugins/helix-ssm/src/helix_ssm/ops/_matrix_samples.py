"""Samples of the ops whose heads each carry a matrix (K, V): the corners that all of them have."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs
import torch
from torch.nn import functional as F

from helix_kernel.ops import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor


@attrs.frozen(kw_only=True)
class Case:
    """Sizes of a call, and what is special about it.

    Args:
        batch_size: Rows B.
        seq_len: Tokens L.
        n_heads: Heads H.
        k_dim: Width K of a query and key.
        v_dim: Width V of a value.
        decay: How strong decays are.
        emptied: Tokens whose decay is minus infinity.
        bounds: Bounds of packed sequences; None where rows are not packed.
        state: Whether there is an initial state.
    """

    batch_size: int = 2
    seq_len: int = 7
    n_heads: int = 2
    k_dim: int = 4
    v_dim: int = 3
    decay: float = 0.5
    emptied: tuple[int, ...] = ()
    bounds: tuple[int, ...] | None = None
    state: bool = False


CASES: Mapping[str, Case] = MappingProxyType(
    {
        "plain": Case(),
        "state": Case(state=True),
        "one-step": Case(seq_len=1, state=True),
        "no-step": Case(seq_len=0, state=True),
        "one-channel": Case(k_dim=1, v_dim=1),
        "forgets-at-once": Case(seq_len=40, decay=50.0, state=True),
        "empties-the-memory": Case(seq_len=70, emptied=(0, 3, 64, 69), state=True),
        "over-two-chunks": Case(batch_size=1, seq_len=133, decay=0.05, state=True),
        "many-threads": Case(batch_size=3, seq_len=66, n_heads=5, k_dim=16, v_dim=24),
        "packed": Case(batch_size=1, seq_len=21, bounds=(0, 1, 5, 16, 16, 21)),
        "packed-one-step": Case(batch_size=1, seq_len=3, bounds=(0, 1, 2, 3), state=True),
        "packed-state": Case(batch_size=1, seq_len=80, bounds=(0, 70, 80), state=True),
    }
)
"""Corners of every op of this kind, by the names of their samples."""


def samples(arguments: Callable[[Case], tuple[object, ...]]) -> Iterator[Sample]:
    """Yield a sample of each case, with the arguments that an op has in it."""
    return (Sample(name, arguments(case)) for name, case in CASES.items())


class Draws:
    """Random arguments of one call, the same at each run.

    Args:
        case: Sizes of the call.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        self._generator = torch.Generator().manual_seed(case.seq_len * 100 + case.k_dim)

    def tokens(self, *shape: int) -> Tensor:
        """Draw numbers of each head and token (B, L, H, *shape)."""
        case = self._case
        return self._draw(case.batch_size, case.seq_len, case.n_heads, *shape)

    def keys(self) -> Tensor:
        """Draw queries or keys (B, L, H, K)."""
        return self.tokens(self._case.k_dim)

    def unit_keys(self) -> Tensor:
        """Draw keys of length 1 (B, L, H, K)."""
        return F.normalize(self.keys(), dim=-1)

    def values(self) -> Tensor:
        """Draw values (B, L, H, V)."""
        return self.tokens(self._case.v_dim)

    def log_decays(self, *shape: int) -> Tensor:
        """Draw logarithms of decays (B, L, H, *shape); every other one of an emptied token is -infinity."""
        logarithms = -self.tokens(*shape).abs() * self._case.decay
        logarithms[:, list(self._case.emptied), ..., ::2] = -torch.inf
        return logarithms

    def initial_state(self) -> Tensor | None:
        """Draw a state for each sequence (n, H, K, V), where the case has one."""
        case = self._case
        rows = case.batch_size if case.bounds is None else len(case.bounds) - 1
        return self._draw(rows, case.n_heads, case.k_dim, case.v_dim) if case.state else None

    def cu_seqlens(self) -> Tensor | None:
        """Return the bounds of packed sequences, where the case has them."""
        return None if self._case.bounds is None else torch.tensor(self._case.bounds)

    def _draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator, dtype=torch.float64)
