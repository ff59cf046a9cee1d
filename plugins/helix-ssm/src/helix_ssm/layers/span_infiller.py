"""A model that fills in what is blanked out of a sequence, from what stands before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_ssm.layers import auxiliary
from helix_ssm.layers.encoder import Encoder
from helix_ssm.layers.rms_norm import RMSNorm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helix_ssm.layers.block import LayerFactory


class SpanInfiller(nn.Module):
    """Bidirectional encoder over ids with blanks: at each position, logits of the token that belongs there.

    Span corruption (Raffel et al. 2020, T5, arXiv:1910.10683, section 3.1.4) with the blanks left where
    they are, as in BERT (Devlin et al. 2019, arXiv:1810.04805, section 3.1): one mask id stands in place of
    each corrupted token. A layer that keeps a state, and so reads only what came before, is made to look
    both ways by `Bidirectional`; one that looks ahead by itself, such as attention with causal=False,
    is taken as it is.

    Args:
        d_model: Width D of the residual stream.
        n_layers: Number of blocks; None for as many as the pattern names.
        mixer: Builds every block's layer along the sequence.
        pattern: Instead of `mixer`: builds the blocks' layers along the sequence, which take turns.
        channel: Builds a block's second layer, across channels; None for none.
        norm: Builds the norm before each layer and before the head.
        vocab_size: Number V of tokens; 256 for bytes. The mask id is V.
        tie_embeddings: Whether the head uses the tokens' embeddings.
        dropout: Probability that an element of a layer's output is dropped in training.

    Attributes:
        mask_id: The id V that stands for a blank.
        vocab_size: Number of ids that it takes, V + 1: the tokens and the mask.

    Raises:
        ArgumentError: A size is below 1, dropout is not in [0, 1), or not exactly one of mixer and
            pattern is given.
    """

    causal = False

    def __init__(
        self,
        d_model: int,
        *,
        n_layers: int | None = None,
        mixer: LayerFactory | None = None,
        pattern: Sequence[LayerFactory] | None = None,
        channel: LayerFactory | None = None,
        norm: LayerFactory = RMSNorm,
        vocab_size: int = 256,
        tie_embeddings: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(
            "span-infiller",
            d_model,
            n_layers=n_layers,
            mixer=mixer,
            pattern=pattern,
            channel=channel,
            norm=norm,
            vocab_size=vocab_size,
            n_blanks=1,
            both_ways=True,
            dropout=dropout,
        )
        self.mask_id, self.vocab_size = vocab_size, vocab_size + 1
        self.head = None if tie_embeddings else nn.Linear(d_model, vocab_size, bias=False)
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, ids: Tensor, *, mask: Tensor | None = None, cu_seqlens: Tensor | None = None) -> Tensor:
        """Map ids to logits of the tokens that belong there, blanks or not.

        Args:
            ids: (B, L) int64 in [0, V]; V is a blank.
            mask: Which ids count (B, L), bool, where rows are padded on either side: blanks do, padding
                does not. It gets logits of zero.
            cu_seqlens: Instead of a mask: bounds (n + 1,) of n sequences packed into one row.

        Returns:
            Logits (B, L, V).

        Raises:
            ArgumentError: ids, mask or cu_seqlens have another shape or dtype.
        """
        x = self.encoder(ids, mask=mask, cu_seqlens=cu_seqlens)
        weight = self.encoder.embedding.weight[: self.mask_id] if self.head is None else self.head.weight
        return F.linear(x, weight)

    @torch.no_grad()
    def infill(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Fill in blanks, greedily: all at once, each with the token most probable where it stands.

        Neighbouring blanks do not see what is put into one another, so that long spans may repeat or miss
        a token.

        Args:
            ids: (B, L) int64; what stands in blanks is not read.
            mask: Where the blanks are (B, L), bool.

        Returns:
            The ids (B, L), with a token from [0, V) in each blank.

        Raises:
            ArgumentError: ids or mask have another shape or dtype.
        """
        if mask.dtype != torch.bool or mask.shape != ids.shape:
            raise ArgumentError(
                f"span-infiller: mask has shape {tuple(mask.shape)} and dtype {mask.dtype}, "
                f"allowed is bool {tuple(ids.shape)}, the ids' shape"
            )
        logits = self(ids.masked_fill(mask, self.mask_id))
        return torch.where(mask, logits.argmax(-1), ids)

    def auxiliary_loss(self) -> Tensor | None:
        """Return the sum of the blocks' own losses over the last forward in training, or None."""
        return auxiliary.collect(self)

    def set_activation_checkpointing(self, *, enabled: bool) -> None:
        """Choose whether training keeps only each block's input; see `Stack`."""
        self.encoder.blocks.set_activation_checkpointing(enabled=enabled)
