"""What helix-data offers: the kind `dataset`, and the datasets themselves."""

from __future__ import annotations

import helix_kernel
from helix_kernel import Component, Kind


@helix_kernel.hookimpl
def helix_kinds() -> list[Kind]:
    """Return the kind that a config's ``[data]`` table holds."""
    return [
        Kind(
            name="dataset",
            plural="datasets",
            summary="Sources of batches, each a pure function of (seed, step, rank)",
            section="data",
        )
    ]


@helix_kernel.hookimpl
def helix_datasets() -> list[Component]:
    """Return the datasets of this distribution."""
    return [
        Component(
            name="text-bytes",
            target="helix_data.text_bytes:TextBytes",
            config="helix_data.config:TextBytesConfig",
            summary="Raw bytes of files, or of texts that Python carries, in shuffled windows",
        ),
        Component(
            name="span-corruption",
            target="helix_data.span_corruption:SpanCorruption",
            config="helix_data.config:SpanCorruptionConfig",
            summary="Windows of bytes with spans blanked out, to be filled in (Raffel et al. 2020)",
        ),
    ]
