"""Layers of any kind over tokens of many lengths, packed where layers can, so that no padding is run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from helix_kernel.errors import ArgumentError
from helix_multimodal.inputs import Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

LayerFactory = Callable[..., nn.Module]
"""Builds one layer when called with ``d_model=…``."""


class Trunk(nn.Module):
    """x + layer(norm(x)) for each layer, with an RMS norm, over the visible tokens of each row alone.

    Where every layer takes ``cu_seqlens``, the visible tokens of all rows are run as one packed row.
    Otherwise each row's visible tokens are brought to its front, which is as good for layers that do not look
    ahead; one that does is told by ``mask=`` which are visible.

    Args:
        d_model: Width D.
        layers: Build the layers, in their order; without any, tokens stay as they are.

    Raises:
        ArgumentError: A layer looks ahead and takes neither ``cu_seqlens`` nor ``mask``.
    """

    def __init__(self, d_model: int, layers: Sequence[LayerFactory]) -> None:
        super().__init__()
        built = [layer(d_model=d_model) for layer in layers]
        self.layers = nn.ModuleList(built)
        self.norms = nn.ModuleList(nn.RMSNorm(d_model) for _ in built)
        self._packs = all("cu_seqlens" in _options(layer) for layer in built)
        self._masks = [not getattr(layer, "causal", True) for layer in built]
        for layer, looks_ahead in zip(built, self._masks, strict=True):
            if looks_ahead and not self._packs and "mask" not in _options(layer):
                raise ArgumentError(
                    f"layers: {type(layer).__name__} looks ahead and takes neither cu_seqlens nor "
                    "mask, so that it would see tokens that are not there; allowed is one that does "
                    "not look ahead, or takes one of them"
                )

    def forward(self, tokens: Tokens) -> Tokens:
        """Return the tokens (B, N, D) after all layers; what the mask hides is zero."""
        if not len(self.layers):
            return tokens
        if self._packs and not torch.compiler.is_compiling():
            return self._packed(tokens)
        return self._sorted(tokens)

    def _packed(self, tokens: Tokens) -> Tokens:
        ends = tokens.mask.sum(1).cumsum(0)
        bounds = torch.cat([ends.new_zeros(1), ends])
        x = tokens.values[tokens.mask].unsqueeze(0)
        if x.shape[1]:
            x = self._run(x, cu_seqlens=bounds)
        values = torch.zeros_like(tokens.values).masked_scatter(tokens.mask.unsqueeze(-1), x)
        return Tokens(values, tokens.mask)

    def _sorted(self, tokens: Tokens) -> Tokens:
        order = torch.argsort((~tokens.mask).long(), dim=1, stable=True).unsqueeze(-1)
        hidden = ~tokens.mask.unsqueeze(-1)
        places = order.expand_as(tokens.values)
        visible = tokens.mask.gather(1, order.squeeze(-1))
        x = tokens.values.masked_fill(hidden, 0).gather(1, places)
        x = self._run(x, mask=visible)
        back = torch.zeros_like(x).scatter(1, places, x)
        return Tokens(back.masked_fill(hidden, 0), tokens.mask)

    def _run(self, x: Tensor, *, mask: Tensor | None = None, cu_seqlens: Tensor | None = None) -> Tensor:
        for norm, layer, looks_ahead in zip(self.norms, self.layers, self._masks, strict=True):
            told: dict[str, Any] = {} if cu_seqlens is None else {"cu_seqlens": cu_seqlens}
            if looks_ahead and mask is not None:
                told = {"mask": mask}
            x = x + layer(norm(x), **told)
        return x


def _options(layer: nn.Module) -> set[str]:
    return set(inspect.signature(layer.forward).parameters)
