"""What the checks look at: the loaded plugins, and the metadata of the distributions that they come from."""

from __future__ import annotations

from importlib.metadata import PathDistribution
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from helix_kernel.discovery import entry_points
from helix_kernel.kernel import Kernel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from helix_kernel.config import KernelSettings
    from helix_kernel.discovery import EntryPoint


@attrs.frozen
class Installation:
    """Everything of Helix that is installed and not left out.

    Args:
        kernel: With the plugins loaded.
        found: Their entry points, read afresh.
        distributions: By provider, the metadata of each that has an entry point.
    """

    kernel: Kernel
    found: tuple[EntryPoint, ...]
    distributions: Mapping[str, PathDistribution]

    @classmethod
    def here(cls, settings: KernelSettings | None = None) -> Installation:
        """Return what is installed in this environment.

        Args:
            settings: The ``[kernel]`` table of a config, which may leave plugins out or prefer some.
        """
        found = entry_points(cached=False)
        kernel = (
            Kernel(found=found)
            if settings is None
            else Kernel(
                found=found, plugins=settings.plugins, disabled=settings.disabled, prefer=settings.prefer
            )
        )
        kept = tuple(entry for entry in found if entry.provider not in kernel.registry.left_out)
        return cls(kernel, kept, {entry.provider: PathDistribution(Path(entry.location)) for entry in kept})
