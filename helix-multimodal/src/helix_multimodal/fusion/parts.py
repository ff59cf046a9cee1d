"""What fusions share: checks of their parts, and the vector of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from helix_kernel.errors import ArgumentError, did_you_mean
from helix_multimodal.inputs import Tokens, pool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def checked_names(fusion: str, parts: Sequence[str]) -> tuple[str, ...]:
    """Return the names of what is fused.

    Raises:
        ArgumentError: There is none, or one twice.
    """
    if not parts:
        raise ArgumentError(f"{fusion}: parts is empty; name one at least")
    twice = sorted({name for name in parts if list(parts).count(name) > 1})
    if twice:
        raise ArgumentError(f"{fusion}: parts names {twice[0]!r} twice")
    return tuple(parts)


def chosen(fusion: str, parts: Mapping[str, Tokens], names: Sequence[str]) -> list[Tokens]:
    """Return the tokens of each name, in their order, with zeros where the mask hides.

    Raises:
        ArgumentError: One is missing, or the mapping has another.
    """
    for name in names:
        if name not in parts:
            raise ArgumentError(
                f"{fusion}: the part {name!r} is missing; given are {sorted(parts)}."
                + did_you_mean(name, set(parts) - set(names))
            )
    for name in parts:
        if name not in names:
            raise ArgumentError(
                f"{fusion}: there is no part {name!r}, allowed is {list(names)}.{did_you_mean(name, names)}"
            )
    return [
        Tokens(parts[name].values.masked_fill(~parts[name].mask.unsqueeze(-1), 0), parts[name].mask)
        for name in names
    ]


def stacked(tokens: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
    """Return the mean of each part's tokens, (B, P, D), and which parts there are, bool (B, P)."""
    return torch.stack([pool(part) for part in tokens], 1), torch.stack([t.present for t in tokens], 1)


def mean_of_present(values: Tensor, present: Tensor) -> Tensor:
    """Return the mean over the parts that are there, (B, D) of (B, P, D); zeros where none is."""
    weights = present.unsqueeze(-1).to(values.dtype)
    return (values * weights).sum(1) / weights.sum(1).clamp(min=1)


def mixed(values: Tensor, logits: Tensor, present: Tensor) -> Tensor:
    """Return the sum over the parts that are there, (B, D) of (B, P, D), weighed by the softmax over them.

    The logits (…, P, D or 1) are broadcast. Where no part is, there are zeros.
    """
    shown = present.unsqueeze(-1)
    weights = torch.where(shown, logits, torch.finfo(logits.dtype).min / 2).softmax(1)
    return (weights * values * shown).sum(1)
