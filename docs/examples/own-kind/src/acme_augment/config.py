"""Options of what acme-augment offers. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any

import attrs

from helix_kernel import ComponentOf, option


@attrs.frozen(kw_only=True)
class MaskBytesConfig:
    """Bytes that are replaced by one that stands for nothing."""

    rate: float = option(0.1, ge=0, le=1, help="share of the bytes that are replaced")
    replacement: int = option(0, ge=0, le=255, help="the byte in their place")


@attrs.frozen(kw_only=True)
class AugmentedConfig:
    """Another dataset, the inputs of whose training batches are augmented."""

    data: Annotated[Any, ComponentOf("dataset")] = option(help="the dataset")
    augmentation: Annotated[Any, ComponentOf("augmentation")] = option(
        {"use": "mask-bytes"}, help="what changes its inputs"
    )
