"""Phases: when in its rhythm a motif recurs, who recurs together, and when a state has forgotten."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs
import numpy as np
import torch

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

    from helix_kernel.memory import MemoryTier

    Floats = NDArray[np.float64]


def phase(gap: Floats, unit: float = 1.0) -> Floats:
    """Return φ = 2π log₂(Δt / unit) in [0, 2π) of times between recurrences, all above 0.

    Gaps that differ by powers of two have the same phase, whatever the unit.
    """
    return np.asarray((np.log2(np.asarray(gap, np.float64) / unit) % 1.0) * (2 * math.pi))


@attrs.frozen(kw_only=True, eq=False)
class Synchrony:
    """How far the members of each of n components are in step.

    Args:
        order: (n,) Kuramoto's order parameter |Σ e^{iφ}| / members: 1 where all phases are equal, 0 where
            they cancel, or where there are no members (Kuramoto, Chemical Oscillations, Waves, and
            Turbulence, 1984).
        mean: (n,) the phase of that sum, in (-π, π].
    """

    order: Floats
    mean: Floats

    def gate(self, component: NDArray[np.int64], phases: Floats) -> Floats:
        """Return by how much each of N motifs is read: 1 - r(1 - cos(φ - ψ)) / 2, from 0 to 1.

        r and ψ are the order and mean phase of the motif's component. Where nothing is in step (r = 0) all
        is read; the more is, the less of what is out of step. A component of -1 is none: the gate is open.
        """
        r = np.where(component >= 0, self.order[component] if len(self.order) else 0.0, 0.0)
        mean = self.mean[component] if len(self.mean) else 0.0
        return np.asarray(1.0 - r * (1.0 - np.cos(phases - mean)) / 2.0)


def synchrony(component: NDArray[np.int64], phases: Floats, n_components: int) -> Synchrony:
    """Return how far members are in step, of N motifs with a component (-1: none) and a phase each."""
    members = component >= 0
    of, phi = component[members], phases[members]
    real, imaginary = (
        np.bincount(of, weights=part(phi), minlength=n_components) for part in (np.cos, np.sin)
    )
    size = np.bincount(of, minlength=n_components).clip(min=1)
    return Synchrony(order=np.hypot(real, imaginary) / size, mean=np.arctan2(imaginary, real))


def own_clock(decay: Tensor, elapsed: Tensor) -> tuple[Tensor, Tensor]:
    """Return when a state has forgotten by another factor of e, place by place.

    A linear state h ← a·h + … keeps the share Π a of what it held. Its own time runs by -ln a a place, and
    each unit of it is one time constant.

    Args:
        decay: (B, L) the share a that is kept at each place, above 0 and at most 1.
        elapsed: (B,) own time since the last tick, from what came before; 0 at the start.

    Returns:
        Ticks (B, L) bool, and the own time since the last one (B,).

    Raises:
        ArgumentError: A decay is out of range.
    """
    if decay.numel() and not bool(((decay > 0) & (decay <= 1)).all()):
        raise ArgumentError("decay has values outside of (0, 1]: a share that is kept")
    own = elapsed[:, None].double() - decay.detach().double().log().cumsum(1)
    before = torch.cat([elapsed[:, None].double(), own], 1)[:, :-1]
    last = own[:, -1] if decay.shape[1] else elapsed.double()
    return own.floor() > before.floor(), last - last.floor()


class StateFeed:
    """Writes what a layer with a state gives into a memory, whenever the state has forgotten by a factor e.

    It is a forward hook, of training and of evaluation alike: at each tick of `own_clock` the memory is given
    the layer's output there as key, scaled to unit length, and the layer's input as value. Sequences of one
    call begin anew. What is written comes as slowly as the state forgets, so a memory of some size reaches
    as many of the state's own time constants back, whether these are short or long.

    Args:
        layer: From (B, L, D) to (B, L, D).
        tier: Takes keys and values of D numbers.
        decay: Of the layer's input (B, L, D): the share (B, L) of its state that it keeps at each place.
    """

    def __init__(self, layer: nn.Module, tier: MemoryTier, *, decay: Callable[[Tensor], Tensor]) -> None:
        self.tier, self.decay, self.time = tier, decay, 0.0
        self._handle: RemovableHandle = layer.register_forward_hook(self._feed)

    def remove(self) -> None:
        """Write no more."""
        self._handle.remove()

    def _feed(self, _layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0].detach()
        ticks, _ = own_clock(self.decay(x), torch.zeros(len(x)))
        keys = torch.nn.functional.normalize(output.detach()[ticks].float(), dim=-1)
        self.tier.write(keys, x[ticks].float(), time=self.time)
        self.time += x.shape[1]
