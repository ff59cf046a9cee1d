"""What the kinds of this distribution must be: encoder, decoder, fusion, alignment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from helix_multimodal.inputs import Padded, Tokens


class Encoder(Protocol):
    """An `nn.Module` from a batch of one kind of data to tokens; built with ``d_model``.

    What it gives of a row depends on that row alone, and not on what lies beyond its own size.

    Attributes:
        modality: Name of the modality whose tensors it takes; None for one that takes the bytes of any.
    """

    modality: str | None

    def forward(self, batch: Padded) -> Tokens:
        """Return the tokens (B, N, D) of a batch; a row of a missing sample has none.

        Raises:
            ArgumentError: The batch is of another kind of data.
        """
        ...


class Decoder(Protocol):
    """An `nn.Module` from tokens to one kind of data; built with ``d_model``.

    Attributes:
        modality: Name of the modality whose tensors it makes; None for the bytes of any.
    """

    modality: str | None

    def forward(self, tokens: Tokens, like: Padded) -> Tensor:
        """Predict a batch from tokens.

        Args:
            tokens: What is known of each row, (B, N, D).
            like: The batch in question: its sizes are given; a decoder that goes byte by byte also reads, for
                each byte, those before it (teacher forcing), and no other reads its values.

        Returns:
            The prediction, as `loss` takes it.
        """
        ...

    def loss(self, prediction: Tensor, target: Padded) -> Tensor:
        """Return the loss of each row, (B,); 0 for a missing sample."""
        ...

    def reconstruct(self, tokens: Tokens, sizes: Tensor) -> Padded:
        """Return data in the modality's dtype, of the sizes (B, axes) int64, without gradient."""
        ...


class Fusion(Protocol):
    """An `nn.Module` that makes one vector of several kinds of data.

    It is built with ``d_model``, ``d_out`` and ``parts``, which are the names of what it fuses, at least
    one. A part that a row lacks counts for nothing: the output is that of the parts that are there, whatever
    the hidden tokens hold. A row that lacks all is zero.
    """

    def forward(self, parts: Mapping[str, Tokens]) -> Tensor:
        """Return the fused vectors (B, d_out) of tokens (B, N, D) by the names of their parts.

        Raises:
            ArgumentError: A part is missing from the mapping, or unknown.
        """
        ...


class Alignment(Protocol):
    """An `nn.Module` that tells how well two things belong together; built with ``d_model``.

    Attributes:
        reads: What it compares: ``vectors`` (one token a row), ``tokens`` (sequences or sets of them), or
            ``bytes`` (tokens of the one, a `Padded` of bytes (B, L) uint8 of the other).
    """

    reads: Literal["vectors", "tokens", "bytes"]

    def forward(self, x: Tokens, y: Tokens | Padded) -> Tensor:
        """Return scores (B of x, B of y): the higher, the better; softmax over a row picks a partner.

        A row that is missing has the score 0 with all.
        """
        ...
