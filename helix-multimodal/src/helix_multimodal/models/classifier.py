"""The model `multimodal-classifier`: any parts of a thing to its class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from helix_multimodal.fusion.late_logits import LateLogits
from helix_multimodal.models.parts import EncoderFactory, Parts, hide_some

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from helix_multimodal.inputs import Padded


class MultimodalClassifier(nn.Module):
    """logits = fusion of the tokens of all parts; a part that is missing has no say.

    Args:
        d_model: Width of the tokens.
        encoders: Build the encoders, by part.
        n_classes: Number of classes.
        fusion: Builds the fusion.
        drop: How often training hides a part.
    """

    causal = False

    def __init__(
        self,
        d_model: int,
        *,
        encoders: Mapping[str, EncoderFactory],
        n_classes: int,
        fusion: Callable[..., nn.Module] = LateLogits,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.n_classes, self.drop = n_classes, drop
        self.parts = Parts(d_model, encoders)
        self.fusion = fusion(d_model=d_model, d_out=n_classes, parts=tuple(encoders))

    def forward(self, inputs: Mapping[str, Padded]) -> Tensor:
        """Map data by part to logits (B, n_classes).

        Raises:
            ArgumentError: A part is missing from the data, or of another kind than its encoder takes.
        """
        tokens = self.parts(inputs)
        logits: Tensor = self.fusion(hide_some(tokens, self.drop) if self.training else tokens)
        return logits

    def example_inputs(self, batch_size: int, *, seed: int) -> dict[str, Padded]:
        """Return small random data."""
        return self.parts.example(batch_size, seed=seed)
