"""A model that tells to which of several classes a whole sequence belongs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast, get_args

import torch
from torch import Tensor, nn

from helix_kernel.errors import ArgumentError
from helix_ssm.layers import auxiliary
from helix_ssm.layers._check import check_choice
from helix_ssm.layers.encoder import Encoder
from helix_ssm.layers.protocol import at_least_float32, check_at_least
from helix_ssm.layers.rms_norm import RMSNorm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helix_ssm.layers.block import LayerFactory

Pooling = Literal["last", "mean", "max", "attention"]


class Classifier(nn.Module):
    """Logits of classes: head(pool(norm(blocks(embedding(ids))))).

    Mixers are taken as they are. A causal one, with pooling "last", reads the sequence once, as a
    recurrence does; to look both ways, wrap it in `bidirectional`.

    Args:
        d_model: Width D of the residual stream.
        n_classes: Number of classes.
        n_layers: Number of blocks; None for as many as the pattern names.
        mixer: Builds every block's layer along the sequence.
        pattern: Instead of `mixer`: builds the blocks' layers along the sequence, which take turns.
        channel: Builds a block's second layer, across channels; None for none.
        norm: Builds the norm before each layer and before the pooling.
        vocab_size: Number of token ids; 256 for bytes.
        pooling: How a sequence's vectors x_t become one: the "last", their "mean", the "max" of each
            channel, or by "attention" their mean with weights softmax over t of a learnt w · x_t.
        dropout: Probability that an element of a layer's output is dropped in training.

    Raises:
        ArgumentError: A size is below 1, dropout is not in [0, 1), there is no such pooling, or not
            exactly one of mixer and pattern is given.
    """

    # One answer for a sequence depends on all of it.
    causal = False

    def __init__(
        self,
        d_model: int,
        *,
        n_classes: int = 2,
        n_layers: int | None = None,
        mixer: LayerFactory | None = None,
        pattern: Sequence[LayerFactory] | None = None,
        channel: LayerFactory | None = None,
        norm: LayerFactory = RMSNorm,
        vocab_size: int = 256,
        pooling: Pooling = "mean",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_at_least("classifier", "n_classes", n_classes, 1)
        check_choice("classifier", "pooling", pooling, get_args(Pooling))
        self.encoder = Encoder(
            "classifier",
            d_model,
            n_layers=n_layers,
            mixer=mixer,
            pattern=pattern,
            channel=channel,
            norm=norm,
            vocab_size=vocab_size,
            dropout=dropout,
        )
        self.vocab_size, self.n_classes, self.pooling = vocab_size, n_classes, pooling
        self.score = nn.Linear(d_model, 1, bias=False) if pooling == "attention" else None
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, ids: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Map sequences to logits of classes.

        Args:
            ids: (B, L) int64 in [0, vocab_size).
            mask: Which ids count (B, L), bool, where rows are padded on either side; at least one in each
                row. What is padding changes nothing.

        Returns:
            Logits (B, n_classes).

        Raises:
            ArgumentError: ids or mask have another shape or dtype, or a row has no id that counts.
        """
        x = self.encoder(ids, mask=mask)
        if not x.shape[1] or (mask is not None and not bool(mask.any(1).all())):
            raise ArgumentError("classifier: a row has no id that counts, allowed is one or more")
        return cast("Tensor", self.head(self._pool(x, mask)))

    def auxiliary_loss(self) -> Tensor | None:
        """Return the sum of the blocks' own losses over the last forward in training, or None."""
        return auxiliary.collect(self)

    def set_activation_checkpointing(self, *, enabled: bool) -> None:
        """Choose whether training keeps only each block's input; see `Stack`."""
        self.encoder.blocks.set_activation_checkpointing(enabled=enabled)

    def _pool(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return one vector (B, D) for each row of x (B, L, D)."""
        if self.pooling == "last":
            return x[:, -1] if mask is None else _last(x, mask)
        if self.pooling == "max":
            return (x if mask is None else x.masked_fill(~mask.unsqueeze(-1), -torch.inf)).amax(1)
        weights = x.new_zeros(x.shape[:2]) if self.score is None else self.score(x).squeeze(-1)
        if mask is not None:
            weights = weights.masked_fill(~mask, -torch.inf)
        weights = at_least_float32(weights).softmax(-1)
        return (weights.unsqueeze(-1) * x).sum(1).to(x.dtype)


def _last(x: Tensor, mask: Tensor) -> Tensor:
    """Return each row's vector at the last place that counts."""
    places = torch.arange(x.shape[1], device=x.device)
    return x[torch.arange(len(x), device=x.device), (places * mask).argmax(1)]
