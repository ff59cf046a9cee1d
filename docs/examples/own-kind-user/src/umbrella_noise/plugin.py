"""What umbrella-noise offers: an augmentation. The kind is acme-augment's, which nothing here imports."""

from __future__ import annotations

import helix_kernel
from helix_kernel import Component


@helix_kernel.hookimpl
def helix_augmentations() -> list[Component]:
    """Return the augmentations; the hook is ignored where acme-augment is not installed."""
    return [
        Component(
            name="swap-neighbours",
            target="umbrella_noise.swap_neighbours:SwapNeighbours",
            config="umbrella_noise.config:SwapNeighboursConfig",
            summary="Bytes that change places with the next one, as in hasty typing",
        )
    ]
