"""From ids to vectors: embedding, residual blocks of any mixers, norm. What is below an encoder's head."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from helix_ssm.layers import protocol
from helix_ssm.layers.bidirectional import Bidirectional
from helix_ssm.layers.packing import pack, unpack
from helix_ssm.layers.protocol import check_ids
from helix_ssm.layers.stack import Stack, checked_mixers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helix_ssm.layers.block import LayerFactory


class Encoder(nn.Module):
    """norm(blocks(embedding(ids))), whose blocks may look ahead.

    Embeddings begin with a standard deviation of 0.02, as a language model's.

    Args:
        model: Name of the model that it is a part of, for messages.
        d_model: Width D.
        n_layers: Number of blocks; None for as many as the pattern names.
        mixer: Builds every block's layer along the sequence.
        pattern: Instead of `mixer`: builds the blocks' layers along the sequence, which take turns.
        channel: Builds each block's second layer, across channels; None for none.
        norm: Builds the norm before each layer and at the end.
        vocab_size: Number of tokens.
        n_blanks: Number of ids that follow the tokens' and stand for none of them.
        both_ways: Whether a layer that keeps a state, and so reads only what came before, is made to look
            both ways by `Bidirectional`.
        dropout: Probability that an element of a layer's output is dropped in training.

    Raises:
        ArgumentError: A size is below 1, dropout is not in [0, 1), or not exactly one of mixer and
            pattern is given.
    """

    def __init__(
        self,
        model: str,
        d_model: int,
        *,
        n_layers: int | None,
        mixer: LayerFactory | None,
        pattern: Sequence[LayerFactory] | None,
        channel: LayerFactory | None,
        norm: LayerFactory,
        vocab_size: int,
        n_blanks: int = 0,
        both_ways: bool = False,
        dropout: float,
    ) -> None:
        super().__init__()
        sizes = {"d_model": d_model, "vocab_size": vocab_size}
        mixers = checked_mixers(model, sizes, n_layers=n_layers, mixer=mixer, pattern=pattern)
        if both_ways:
            mixers = [_both_ways(mixer) for mixer in mixers]
            channel = None if channel is None else _both_ways(channel)
        self._model = model
        self.embedding = nn.Embedding(vocab_size + n_blanks, d_model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = Stack(d_model, mixers=mixers, channel=channel, norm=norm, dropout=dropout)
        self.norm = norm(d_model=d_model)

    def forward(self, ids: Tensor, *, mask: Tensor | None = None, cu_seqlens: Tensor | None = None) -> Tensor:
        """Map ids to vectors.

        Args:
            ids: (B, L) int64.
            mask: Which ids count (B, L), bool, where rows are padded on either side. What is padding
                changes nothing, and gets zeros.
            cu_seqlens: Instead of a mask: bounds (n + 1,) of n sequences packed into one row.

        Returns:
            (B, L, D).

        Raises:
            ArgumentError: ids, mask or cu_seqlens have another shape or dtype.
        """
        check_ids(self._model, ids)
        if mask is not None:
            packed, cu_seqlens = pack(ids, mask)
            return unpack(self(packed, cu_seqlens=cu_seqlens), mask)
        return cast("Tensor", self.norm(self.blocks(self.embedding(ids), cu_seqlens=cu_seqlens)))


def _both_ways(factory: LayerFactory) -> LayerFactory:
    """Return a factory of layers that look ahead, or treat each position on its own."""

    def build(*, d_model: int) -> nn.Module:
        layer = factory(d_model=d_model)
        return Bidirectional(d_model, mixer=factory) if protocol.is_stateful(layer) else layer

    return build
