"""The model `quantised-autoencoder`: bytes to codes and back, in which a quantizer learns its codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_data.quantizers.codebook import VQ
from helix_data.quantizers.quantizer import check_at_least
from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

LayerFactory = Callable[..., nn.Module]
"""Builds one layer when called with ``d_model=…``."""


class QuantisedAutoencoder(nn.Module):
    """logits = out(decoder(quantizer(encoder(patches(bytes))))), for the bytes themselves.

    A patch of bytes becomes one vector, and so one code, or as many as the quantizer gives a position; a row
    that ends within a patch is filled up with zeros. Encoder and decoder are residual: x + layer(norm(x)),
    with an RMS norm. What a code is about can come from the whole row, so the model looks ahead.

    Args:
        d_model: Width D of the residual streams.
        patch: Bytes that become one position.
        encoder: Builds the layers before the quantizer.
        quantizer: Builds a layer with ``encode`` and ``decode``.
        decoder: Builds the layers after the quantizer.

    Raises:
        ArgumentError: A size is below 1, or the quantizer lacks a method.
    """

    causal = False
    vocab_size = 256

    def __init__(
        self,
        d_model: int,
        *,
        patch: int = 1,
        encoder: Sequence[LayerFactory] = (),
        quantizer: LayerFactory = VQ,
        decoder: Sequence[LayerFactory] = (),
    ) -> None:
        super().__init__()
        check_at_least("quantised-autoencoder", "d_model", d_model, 1)
        check_at_least("quantised-autoencoder", "patch", patch, 1)
        self.d_model, self.patch = d_model, patch
        self.embedding = nn.Embedding(self.vocab_size, d_model)
        self.in_proj = nn.Linear(patch * d_model, d_model)
        self.encoder = nn.ModuleList(_Residual(d_model, layer) for layer in encoder)
        self.quantizer: Any = quantizer(d_model=d_model)
        self.decoder = nn.ModuleList(_Residual(d_model, layer) for layer in decoder)
        self.norm = nn.RMSNorm(d_model)
        self.out_proj = nn.Linear(d_model, patch * self.vocab_size)
        for method in ("encode", "decode"):
            if not hasattr(self.quantizer, method):
                kind = type(self.quantizer).__name__
                raise ArgumentError(
                    f"quantised-autoencoder: quantizer is {kind}, which has no {method}(); "
                    "allowed is a layer such as vq, rvq or fsq"
                )

    def forward(self, ids: Tensor) -> Tensor:
        """Map bytes (B, L) int64 to logits (B, L, 256) of the same bytes.

        Raises:
            ArgumentError: ids have another shape or dtype.
        """
        return self._logits(self.quantizer(self._encoded(ids)))[:, : ids.shape[1]]

    def encode(self, ids: Tensor) -> Tensor:
        """Return the codes of bytes (B, L) int64, one position for each patch, as the quantizer gives them.

        Raises:
            ArgumentError: ids have another shape or dtype.
        """
        codes: Tensor = self.quantizer.encode(self._encoded(ids))
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """Return logits (B, n_positions · patch, 256) of the bytes that codes stand for."""
        return self._logits(self.quantizer.decode(codes))

    def auxiliary_loss(self) -> Tensor | None:
        """Return the sum of what the layers add to the loss, as a quantizer's commitment, or None."""
        layers = [self.quantizer, *(residual.layer for residual in (*self.encoder, *self.decoder))]
        losses = [layer.auxiliary_loss() for layer in layers if hasattr(layer, "auxiliary_loss")]
        known = [loss for loss in losses if loss is not None]
        return torch.stack(known).sum() if known else None

    def _encoded(self, ids: Tensor) -> Tensor:
        if ids.dim() != 2 or ids.dtype != torch.int64:
            raise ArgumentError(
                f"quantised-autoencoder: ids have shape {tuple(ids.shape)} and dtype {ids.dtype}, "
                "allowed is int64 (B, L)"
            )
        padded = F.pad(ids, (0, -ids.shape[1] % self.patch))
        vectors: Tensor = self.embedding(padded)
        patches = vectors.reshape(len(ids), -1, self.patch * self.d_model)
        return _through(self.encoder, self.in_proj(patches))

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out_proj(self.norm(_through(self.decoder, x)))
        return logits.reshape(len(x), -1, self.vocab_size)


class _Residual(nn.Module):
    """x + layer(norm(x)) over x (B, L, D)."""

    def __init__(self, d_model: int, layer: LayerFactory) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(d_model)
        self.layer = layer(d_model=d_model)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.layer(self.norm(x))
        return y


def _through(layers: nn.ModuleList, x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x
