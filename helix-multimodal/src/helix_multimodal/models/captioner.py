"""The model `captioner`: a picture, a sound, or both, to a text, byte by byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from helix_kernel.errors import ArgumentError
from helix_multimodal.inputs import Padded, Tokens, join
from helix_multimodal.models.parts import EncoderFactory, Parts, hide_some
from helix_multimodal.named import named
from helix_multimodal.trunk import LayerFactory, Trunk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_BEGIN = 256
"""The id that stands before a text, after the bytes; a byte of 0 ends one."""

_MAMBA = named("layer", "mamba")


class Captioner(nn.Module):
    """The tokens of all parts, then a text, through causal layers: p(byte | parts, bytes before).

    Args:
        d_model: Width of the tokens.
        encoders: Build the encoders of what is described, by part.
        target: The part that holds the text, which has no encoder.
        layers: Build the layers.
        drop: How often training hides a part.

    Raises:
        ArgumentError: The target has an encoder, or a layer looks ahead.
    """

    causal = False

    def __init__(
        self,
        d_model: int,
        *,
        encoders: Mapping[str, EncoderFactory],
        target: str,
        layers: Sequence[LayerFactory] = (_MAMBA, _MAMBA),
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        if target in encoders:
            raise ArgumentError(f"encoders.{target}: it is the target, which would be read; leave it out")
        self.target, self.drop = target, drop
        self.parts = Parts(d_model, encoders)
        self.embedding = nn.Embedding(257, d_model)
        self.trunk = Trunk(d_model, layers)
        for layer in self.trunk.layers:
            if not getattr(layer, "causal", True):
                raise ArgumentError(
                    f"layers: {type(layer).__name__} looks ahead, and would see the text; allowed are "
                    "causal ones"
                )
        self.norm = nn.RMSNorm(d_model)
        self.head = nn.Linear(d_model, 256)

    def forward(self, inputs: Mapping[str, Padded]) -> Tensor:
        """Map data by part, the text among them, to logits (B, L, 256) of the text's bytes (B, L).

        Raises:
            ArgumentError: A part is missing from the data, or of another kind than its encoder takes.
        """
        if self.target not in inputs:
            raise ArgumentError(f"target: the data have no part {self.target!r}, but {sorted(inputs)}")
        tokens = self.parts(inputs)
        seen = hide_some(tokens, self.drop) if self.training else tokens
        return self._logits(join(list(seen.values())), inputs[self.target].values.long())

    @torch.no_grad()
    def caption(self, inputs: Mapping[str, Padded], *, n_bytes: int = 100) -> list[bytes]:
        """Return the likeliest text of each row, byte by byte; its end is a byte of 0, or `n_bytes`."""
        tokens = join(list(self.parts(inputs).values()))
        text = torch.zeros(len(tokens.values), 0, dtype=torch.int64, device=tokens.values.device)
        for _ in range(n_bytes):
            following = torch.cat([text, text.new_zeros(len(text), 1)], 1)
            text = torch.cat([text, self._logits(tokens, following)[:, -1].argmax(-1, keepdim=True)], 1)
            if bool((text == 0).any(1).all()):
                break
        return [bytes(row).split(b"\0")[0] for row in text.tolist()]

    def example_inputs(self, batch_size: int, *, seed: int) -> dict[str, Padded]:
        """Return small random data."""
        generator = torch.Generator().manual_seed(seed + 1)
        text = torch.randint(97, 123, (batch_size, 6), generator=generator, dtype=torch.uint8)
        known = self.parts.example(batch_size, seed=seed)
        return {**known, self.target: Padded(text, torch.full((batch_size, 1), 6))}

    def _logits(self, known: Tokens, text: Tensor) -> Tensor:
        begin = text.new_full((len(text), 1), _BEGIN)
        before = self.embedding(torch.cat([begin, text[:, :-1]], 1))
        shown = torch.ones_like(text, dtype=torch.bool)
        whole = self.trunk(join([known, Tokens(before, shown)]))
        logits: Tensor = self.head(self.norm(whole.values[:, known.values.shape[1] :]))
        return logits
