"""What the models share: the encoders of their parts, and the hiding of parts in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from helix_kernel.errors import ArgumentError, did_you_mean
from helix_multimodal.inputs import Padded, Tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

EncoderFactory = Callable[..., nn.Module]
"""Builds an encoder when called with ``d_model=…``."""

_EXAMPLES: dict[str | None, tuple[torch.dtype, tuple[int, ...]]] = {
    "text": (torch.uint8, (40,)),
    "image": (torch.uint8, (3, 16, 16)),
    "audio": (torch.float32, (1, 1600)),
    "video": (torch.uint8, (4, 3, 16, 16)),
    "point-cloud": (torch.float32, (24, 3)),
    None: (torch.uint8, (40,)),
}


class Parts(nn.Module):
    """An encoder for each part of the data.

    Args:
        d_model: Width of all tokens.
        encoders: Build the encoders, by the names of the parts.

    Raises:
        ArgumentError: There is none.
    """

    def __init__(self, d_model: int, encoders: Mapping[str, EncoderFactory]) -> None:
        super().__init__()
        if not encoders:
            raise ArgumentError("encoders is empty; name one part at least, such as [model.encoders.picture]")
        self.encoders = nn.ModuleDict({name: build(d_model=d_model) for name, build in encoders.items()})

    def forward(self, inputs: Mapping[str, Padded], names: Sequence[str] | None = None) -> dict[str, Tokens]:
        """Return the tokens of the parts named, all if None is.

        Raises:
            ArgumentError: The data lack one of them.
        """
        found = {}
        for name in self.encoders if names is None else names:
            if name not in inputs:
                raise ArgumentError(
                    f"encoders.{name}: the data have no part {name!r}, but {sorted(inputs)}."
                    f"{did_you_mean(name, list(inputs))}"
                )
            found[name] = self.encoders[name](inputs[name])
        return found

    def example(self, batch_size: int, *, seed: int) -> dict[str, Padded]:
        """Return small random data for every part; where there are several, the last row lacks the first."""
        generator = torch.Generator().manual_seed(seed)
        found = {name: example_of(encoder, batch_size, generator) for name, encoder in self.encoders.items()}
        if len(found) > 1:
            first = next(iter(found.values()))
            first.values[-1], first.sizes[-1] = 0, 0
        return found


def example_of(encoder: nn.Module, batch_size: int, generator: torch.Generator) -> Padded:
    """Return small random data such as an encoder takes, of its modality's dtype and axes."""
    modality = getattr(encoder, "modality", None)
    dtype, shape = _EXAMPLES[modality if isinstance(modality, str) else None]
    if dtype is torch.uint8:
        values = torch.randint(1, 256, (batch_size, *shape), generator=generator, dtype=dtype)
    else:
        values = torch.rand(batch_size, *shape, generator=generator, dtype=dtype) * 2 - 1
    return Padded(values, torch.tensor(shape).repeat(batch_size, 1))


def hide_some(parts: Mapping[str, Tokens], probability: float) -> dict[str, Tokens]:
    """Return the parts, each hidden in each row with a probability, but for one of those that are there."""
    names = list(parts)
    if len(names) < 2 or not probability:
        return dict(parts)
    present = torch.stack([parts[name].present for name in names], 1)  # (B, P)
    drawn = torch.rand(present.shape, device=present.device)
    stays = drawn.masked_fill(~present, -1).argmax(1, keepdim=True)
    kept = (drawn >= probability) | torch.zeros_like(present).scatter(1, stays, value=True)
    return {name: masked(parts[name], kept[:, place]) for place, name in enumerate(names)}


def masked(tokens: Tokens, rows: Tensor) -> Tokens:
    """Return tokens of which only some rows, bool (B,), are left."""
    return Tokens(tokens.values, tokens.mask & rows[:, None])
