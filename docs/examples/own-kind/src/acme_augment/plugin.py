"""What acme-augment offers: the kind `augmentation`, one of them, and the dataset that applies any."""

from __future__ import annotations

import helix_kernel
from helix_kernel import Component, Kind

_TEXT = {"use": "text-bytes", "paths": ["<files>"], "seq_len": 16, "batch_size": 4}


@helix_kernel.hookimpl
def helix_kinds() -> list[Kind]:
    """Bring the kind. From then on every plugin has the hook `helix_augmentations`."""
    return [
        Kind(
            name="augmentation",
            plural="augmentations",
            summary="What changes the inputs of training batches, so that a model sees more than there is",
            section="augmentation",
            suite="acme_augment.testing:AugmentationSuite",
        )
    ]


@helix_kernel.hookimpl
def helix_augmentations() -> list[Component]:
    """Return the augmentations of this distribution."""
    return [
        Component(
            name="mask-bytes",
            target="acme_augment.mask_bytes:MaskBytes",
            config="acme_augment.config:MaskBytesConfig",
            summary="Bytes that are replaced by one that stands for nothing",
            examples=({}, {"rate": 0.9, "replacement": 255}),
        )
    ]


@helix_kernel.hookimpl
def helix_datasets() -> list[Component]:
    """Return the dataset; it is ignored where helix-data, whose kind it is, is not installed."""
    return [
        Component(
            name="augmented",
            target="acme_augment.augmented:Augmented",
            config="acme_augment.config:AugmentedConfig",
            summary="Another dataset, the inputs of whose training batches are augmented",
            examples=({"data": _TEXT, "augmentation": {"use": "mask-bytes"}},),
        )
    ]
