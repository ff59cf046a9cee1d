"""A quantizer for rows of different lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from helix_multimodal.trunk import LayerFactory


class Quantized(nn.Module):
    """A layer that makes codes of vectors, shown what is there and nothing else.

    So padding moves no codebook and counts for none of the codes' use.

    Args:
        name: Name of the component, for messages.
        d_model: Width D of the vectors.
        quantizer: Builds a layer with ``encode`` and ``decode``, such as rvq or fsq.

    Raises:
        ArgumentError: The layer lacks a method.
    """

    def __init__(self, name: str, d_model: int, quantizer: LayerFactory) -> None:
        super().__init__()
        self.layer: Any = quantizer(d_model=d_model)
        for method in ("encode", "decode"):
            if not hasattr(self.layer, method):
                raise ArgumentError(
                    f"{name}: quantizer is {type(self.layer).__name__}, which has no {method}(); allowed is "
                    "a layer such as rvq or fsq"
                )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return what the codes of x (B, F, D) stand for where the mask (B, F) shows, and zeros elsewhere."""
        shown = x[mask]
        coded = self.layer(shown.unsqueeze(0))[0] if len(shown) else shown
        return torch.zeros_like(x).masked_scatter(mask.unsqueeze(-1), coded.to(x.dtype))

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes of x (B, F, D), as the layer gives them, of hidden vectors as well."""
        codes: Tensor = self.layer.encode(x)
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """Return the vectors (B, F, D) that codes stand for."""
        vectors: Tensor = self.layer.decode(codes)
        return vectors

    def auxiliary_loss(self) -> Tensor | None:
        """Return what the layer adds to the loss, or None."""
        own = getattr(self.layer, "auxiliary_loss", None)
        return None if own is None else own()
