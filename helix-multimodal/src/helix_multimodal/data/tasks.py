"""What is to be predicted of a batch: partners, classes, bytes, or the data themselves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from helix_multimodal.config.data import FileGroupsConfig
    from helix_multimodal.data.groups import Group
    from helix_multimodal.inputs import Padded


def labels_of(groups: Sequence[Group], options: FileGroupsConfig) -> tuple[str, ...]:
    """Return the names of the classes that groups are of, sorted."""
    return tuple(sorted({_label(group, options) for group in groups}))


def targets_of(
    options: FileGroupsConfig,
    inputs: Mapping[str, Padded],
    groups: Sequence[Group],
    classes: Sequence[str],
) -> tuple[Tensor, Tensor | None]:
    """Return a batch's targets, and which of them count; None for all.

    For ``retrieval`` these are (B, 2) int64: the place of each query's partner, and of each target's. For
    ``classification`` (B,) int64; for ``captioning`` the target's bytes (B, L) int64, the zero that ends them
    among them; for ``reconstruction`` zeros (B,) float32, since a model of that task gives the distances
    themselves.
    """
    if options.task == "retrieval":
        return torch.arange(len(groups))[:, None].repeat(1, 2), None
    if options.task == "classification":
        return torch.tensor([classes.index(_label(group, options)) for group in groups]), None
    if options.task == "captioning":
        assert options.target is not None
        part = inputs[options.target]
        return part.values.long(), part.within(0) | _ends(part)
    return torch.zeros(len(groups)), None


def _ends(text: Padded) -> Tensor:
    """Return where texts (B, L) end, bool (B, L): the place after the last byte, where there is one."""
    places = torch.arange(text.values.shape[1])
    return (places == text.sizes[:, :1]) & text.present[:, None]


def _label(group: Group, options: FileGroupsConfig) -> str:
    folder, _, name = group.name.rpartition("/")
    return folder if options.labels == "folder" else re.split(r"[-_][^-_]*$", name)[0]
