"""The alignment `ctc`: how likely a text is, its bytes spread over tokens in any way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_multimodal.alignment.pairs import Scale, both_there, in_front, precise
from helix_multimodal.checks import check_at_least

if TYPE_CHECKING:
    from helix_multimodal.inputs import Padded, Tokens

_BLANK = 256
_N_SYMBOLS = 257
_IMPOSSIBLE = -20.0
"""Score of a text that is longer than the tokens can say: below any byte that is guessed."""


class CTC(nn.Module):
    """s_ij = log p(text j | tokens i) / bytes of text j, times a learned number.

    Graves et al. 2006, "Connectionist temporal classification", equation 3: the sum over all ways to write
    the text, with blanks and repetitions, into the places that the tokens give.

    Args:
        d_model: Width of the tokens.
        upsample: Places that each token gives, so that few tokens can say many bytes.

    Raises:
        ArgumentError: A size is below 1.
    """

    reads: Literal["bytes"] = "bytes"

    def __init__(self, d_model: int, *, upsample: int = 1) -> None:
        super().__init__()
        check_at_least("ctc", d_model=d_model, upsample=upsample)
        self.upsample = upsample
        self.head = nn.Linear(d_model, upsample * _N_SYMBOLS)
        self.scale = Scale(1.0)

    def forward(self, x: Tokens, y: Padded) -> Tensor:
        """Return scores (B of x, B of y) of tokens (B, N, D) and bytes (B, L) uint8.

        Raises:
            ArgumentError: y is not of bytes.
        """
        if y.values.dim() != 2 or y.values.dtype != torch.uint8:
            raise ArgumentError("ctc: y is no batch of bytes; allowed is a Padded of (B, L) uint8")
        likely = self._log_probabilities(in_front(x))  # (B, T, S)
        n_places = x.mask.sum(1) * self.upsample
        text, lengths = y.values.long(), y.sizes[:, 0]
        n_x, n_y = len(n_places), len(lengths)
        pairs = likely.transpose(0, 1)[:, :, None].expand(-1, -1, n_y, -1).flatten(1, 2)  # (T, pairs, S)
        losses = F.ctc_loss(
            pairs,
            text[None].expand(n_x, -1, -1).flatten(0, 1),
            n_places[:, None].expand(-1, n_y).flatten(),
            lengths[None].expand(n_x, -1).flatten(),
            blank=_BLANK,
            reduction="none",
            zero_infinity=True,
        )
        scores = -losses.view(n_x, n_y) / lengths.clamp(min=1)
        possible = n_places[:, None] >= (lengths + _repeats(y))[None]
        scores = torch.where(possible, scores, torch.full_like(scores, _IMPOSSIBLE))
        return both_there(self.scale(scores), x.present, y.present)

    def _log_probabilities(self, x: Tokens) -> Tensor:
        logits = precise(self.head(x.values))
        return torch.unflatten(logits, 2, (self.upsample, _N_SYMBOLS)).flatten(1, 2).log_softmax(-1)


def _repeats(text: Padded) -> Tensor:
    """Return how many bytes are those before them, (B,): each needs a blank between."""
    same = (text.values[:, 1:] == text.values[:, :-1]) & text.within(0)[:, 1:]
    return same.sum(1)
