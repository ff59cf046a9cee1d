"""The decoder `bytes`: the bytes of any kind of data, patch by patch, each byte after those before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_multimodal.decoders.stretch import Stretch
from helix_multimodal.encoders.element_bytes import element_width, from_bytes, n_bytes, to_bytes
from helix_multimodal.encoders.patch_embedding import BEYOND, N_SYMBOLS, PatchEmbedding, patches_of
from helix_multimodal.inputs import Padded, Tokens
from helix_multimodal.trunk import LayerFactory, Trunk

if TYPE_CHECKING:
    from collections.abc import Sequence

Values = Literal["uint8", "int32", "float32"]
_N_BYTES = 256


class Bytes(nn.Module):
    """p(byte | tokens, all bytes before it), by a model of patches over one of bytes.

    After bGPT (Wu et al. 2024, arXiv:2402.19155, section 3.1) and MEGABYTE (Yu et al. 2023, arXiv:2305.07185,
    section 2.2): layers over patches read the token that covers a patch (see `Stretch`) and the bytes of the
    patch before; layers within a patch read what they say and the bytes before. The loss is the mean
    cross-entropy of a row's bytes, in nats.

    Args:
        d_model: Width D of the tokens.
        patch: Bytes of a patch.
        values: The dtype that `reconstruct` makes of bytes: uint8 for text and pictures, int32 for pictures
            of 16 bits, float32 for sound; see `to_bytes`.
        layers: Build the causal layers over patches; without any, a patch knows of the one before it only.
        local: Build the causal layers over the bytes of a patch; without any, a byte knows of the one before.

    Raises:
        ArgumentError: A size is below 1, there is no such dtype, or a layer looks ahead.
    """

    modality = None

    def __init__(
        self,
        d_model: int,
        *,
        patch: int = 16,
        values: Values = "uint8",
        layers: Sequence[LayerFactory] = (),
        local: Sequence[LayerFactory] = (),
    ) -> None:
        super().__init__()
        if values not in get_args(Values):
            raise ArgumentError(f"bytes: values is {values!r}, allowed is {get_args(Values)}")
        self.before = PatchEmbedding("bytes", patch, d_model)
        self.patch, self.dtype = patch, getattr(torch, values)
        self.stretch = Stretch(d_model)
        self.layers = Trunk(d_model, layers)
        self.embedding = nn.Embedding(N_SYMBOLS, d_model)
        self.local = Trunk(d_model, local)
        _check_causal(self.layers, self.local)
        self.norm = nn.RMSNorm(d_model)
        self.head = nn.Linear(d_model, _N_BYTES)

    def forward(self, tokens: Tokens, like: Padded) -> Tensor:
        """Return logits (B, patches · patch, 256) of the bytes of `like`, each seeing those before it.

        Raises:
            ArgumentError: The values of `like` are not of the decoder's dtype.
        """
        self._check(like)
        data, lengths = to_bytes(like)
        ids, mask = patches_of(data, lengths, self.patch)
        return self._within(ids, self._over(tokens, ids, mask)).flatten(1, 2)

    def loss(self, prediction: Tensor, target: Padded) -> Tensor:
        """Return each row's mean cross-entropy, (B,), in nats a byte; 0 for a missing sample.

        Raises:
            ArgumentError: The target's values are not of the decoder's dtype.
        """
        self._check(target)
        data, lengths = to_bytes(target)
        length = min(prediction.shape[1], data.shape[1])
        own = torch.arange(length, device=lengths.device) < lengths[:, None]
        losses = F.cross_entropy(prediction[:, :length].mT, data[:, :length].long(), reduction="none")
        return losses.masked_fill(~own, 0).sum(1) / lengths.clamp(min=1)

    @torch.no_grad()
    def reconstruct(self, tokens: Tokens, sizes: Tensor) -> Padded:
        """Return the samples of the sizes (B, axes) whose every byte is the likeliest after those before it.

        Layers over patches are run once a patch, those within once a byte.
        """
        lengths = n_bytes(sizes, element_width(self.dtype))
        n_patches = max(1, -(-int(lengths.max()) // self.patch)) if len(lengths) else 1
        shape = (len(sizes), n_patches, self.patch)
        inside = (torch.arange(shape[1] * shape[2], device=sizes.device) < lengths[:, None]).view(shape)
        ids = torch.full(shape, BEYOND, device=sizes.device)
        for number in range(n_patches):
            # Later patches are not known yet, and the causal layers do not look there.
            over = self._over(tokens, ids, inside.any(-1))[:, number : number + 1]
            for place in range(self.patch):
                logits = self._within(ids[:, number : number + 1], over)[:, 0, place]
                chosen = logits.argmax(-1)
                ids[:, number, place] = torch.where(inside[:, number, place], chosen, BEYOND)
        data = ids.masked_fill(~inside, 0).flatten(1).to(torch.uint8)
        return from_bytes(data, sizes, self.dtype)

    def _over(self, tokens: Tokens, ids: Tensor, mask: Tensor) -> Tensor:
        """Return what is known of each patch (B, N, D) before its first byte."""
        known = self.stretch(tokens, mask.sum(1), ids.shape[1])
        before = self.before(F.pad(ids, (0, 0, 1, 0), value=BEYOND)[:, :-1])
        vectors: Tensor = self.layers(Tokens(known + before, mask)).values
        return vectors

    def _within(self, ids: Tensor, over: Tensor) -> Tensor:
        """Return logits (B, N, P, 256) of the bytes (B, N, P), given what is known of the patches."""
        before = F.pad(ids, (1, 0), value=BEYOND)[..., :-1]
        x = (self.embedding(before) + over.unsqueeze(2)).flatten(0, 1)
        shown = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        found = self.local(Tokens(x, shown)).values.view(*ids.shape, -1)
        logits: Tensor = self.head(self.norm(found))
        return logits

    def _check(self, batch: Padded) -> None:
        given = batch.values.dtype
        if given != self.dtype and not (given.is_floating_point and self.dtype.is_floating_point):
            raise ArgumentError(
                f"bytes: the batch has values of {given}, allowed is {self.dtype} (option values)"
            )


def _check_causal(*trunks: Trunk) -> None:
    for trunk in trunks:
        for layer in trunk.layers:
            if not getattr(layer, "causal", True):
                raise ArgumentError(
                    f"bytes: {type(layer).__name__} looks ahead, and would see the byte that it is to "
                    "predict; allowed are causal layers"
                )
