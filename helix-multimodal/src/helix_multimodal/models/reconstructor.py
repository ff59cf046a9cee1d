"""The model `reconstructor`: one kind of data through a code of tokens and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from helix_multimodal.inputs import Padded, Tokens
from helix_multimodal.models.parts import EncoderFactory, Parts
from helix_multimodal.trunk import LayerFactory, Trunk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Reconstructor(nn.Module):
    """decoder(layers(encoder(x))), trained by what the decoder says of the distance to x.

    Args:
        d_model: Width of the tokens.
        part: The part that is coded.
        encoder: Builds the encoder.
        decoder: Builds the decoder.
        layers: Build the layers between them.
        n_tokens: Tokens of the code, each the mean of a stretch of tokens; None for as many as there are.
    """

    causal = False

    def __init__(
        self,
        d_model: int,
        *,
        part: str,
        encoder: EncoderFactory,
        decoder: Callable[..., nn.Module],
        layers: Sequence[LayerFactory] = (),
        n_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.part, self.n_tokens = part, n_tokens
        self.parts = Parts(d_model, {part: encoder})
        self.trunk = Trunk(d_model, layers)
        self.decoder: Any = decoder(d_model=d_model)

    def forward(self, inputs: Mapping[str, Padded]) -> Tensor:
        """Map data by part to the distances of their reconstructions, (B,); 0 for a missing one.

        Raises:
            ArgumentError: The part is missing from the data, or of another kind.
        """
        code, given = self.encode(inputs), inputs[self.part]
        distances: Tensor = self.decoder.loss(self.decoder(code, given), given)
        return distances

    def encode(self, inputs: Mapping[str, Padded]) -> Tokens:
        """Return the code of the part."""
        tokens: Tokens = self.trunk(self.parts(inputs)[self.part])
        return tokens if self.n_tokens is None else _means(tokens, self.n_tokens)

    def reconstruct(self, inputs: Mapping[str, Padded]) -> Padded:
        """Return the part as it comes back from its code."""
        back: Padded = self.decoder.reconstruct(self.encode(inputs), inputs[self.part].sizes)
        return back

    def auxiliary_loss(self) -> Tensor | None:
        """Return what the decoder adds to the loss, such as a quantizer's commitment, or None."""
        own = getattr(self.decoder, "auxiliary_loss", None)
        return None if own is None else own()

    def example_inputs(self, batch_size: int, *, seed: int) -> dict[str, Padded]:
        """Return small random data."""
        return self.parts.example(batch_size, seed=seed)


def _means(tokens: Tokens, n: int) -> Tokens:
    """Return the means of n stretches of each row's visible tokens, of like length; empty ones are hidden."""
    counts = tokens.mask.sum(1, keepdim=True)
    places = (tokens.mask.cumsum(1) - 1).clamp(min=0) * n // counts.clamp(min=1)
    stretch = nn.functional.one_hot(places.clamp(max=n - 1), n).to(tokens.values.dtype)
    weights = stretch * tokens.mask.unsqueeze(-1)  # (B, N, n)
    sizes = weights.sum(1).unsqueeze(-1)  # (B, n, 1)
    sums = torch.einsum("bni,bnd->bid", weights, tokens.values)
    return Tokens(sums / sizes.clamp(min=1), sizes.squeeze(-1) > 0)
