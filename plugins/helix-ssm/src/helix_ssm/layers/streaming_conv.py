"""A causal convolution of any length, token by token, in O(L log^2 L) for L tokens.

The relaxed ("online") multiplication of van der Hoeven, brought to long convolutions by Oncescu et al.
2024, "Flash Inference", arXiv:2410.12982: after t tokens, with U the largest power of two that
divides t, the inputs (t - U, t] are convolved at once with the lags 1..2U - 1 that reach the outputs
(t, t + U]. Every pair of an input and a later output is met by exactly one of these tiles: at the one t
between them that the highest power of two divides. Nothing is approximated.

A chunk is cut into aligned pieces of powers of two. Inside a piece of length P the tiles are one ordinary
convolution; the piece as a whole then counts as one step, of a coarser clock. One token is P = 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from helix_ssm.layers.protocol import at_least_float32, full_precision
from helix_ssm.ops import long_conv

_DIRECT = 32
"""Largest tile that is a product with a Toeplitz matrix; larger ones are made by FFT."""


class StreamingConvState(NamedTuple):
    """What a convolution keeps of T tokens: for each digit 1 of T in binary, two tensors (B, 2^k, D).

    The digits cut the T inputs into blocks, the largest and oldest first. Blocks are never changed and
    merge as a binary counter carries, so that a token is copied O(log T) times in all. Nothing is kept
    of no tokens. T being in the shapes, rows can be joined only where they have seen equally many tokens.

    Attributes:
        blocks: The inputs, block by block.
        pending: For each block, what its inputs add to as many outputs after it, float32 or wider.
    """

    blocks: tuple[Tensor, ...] = ()
    pending: tuple[Tensor, ...] = ()

    @property
    def n_tokens(self) -> int:
        """How many tokens T the state has seen."""
        return sum(block.shape[1] for block in self.blocks)


def n_lags(n_tokens: int, seq_len: int) -> int:
    """Return how many lags of its kernel `extend` needs for a chunk of L tokens that follows T.

    It is 2U for the highest power of two U that divides one of T + 1..T + L, where pieces end: O(1) for
    half of all tokens, and O(log T) for a token on average.
    """
    lags = 0
    for piece in _pieces(n_tokens, seq_len):
        n_tokens += piece
        lags = max(lags, 2 * _power_of_two_in(n_tokens))
    return lags


def extend(kernel: Tensor, x: Tensor, state: StreamingConvState) -> tuple[Tensor, StreamingConvState]:
    """Convolve a chunk with all that came before it and itself: y_t = sum over s <= t of kernel_{t-s} x_s.

    Args:
        kernel: The impulse response (D, K), lag 0 first, of at least `n_lags` lags.
        x: Inputs (B, L, D) that follow the state's tokens.
        state: From `extend`, or `StreamingConvState()` before the first token. It stays valid.

    Returns:
        y (B, L, D) in the dtype of x, and the next state.
    """
    outputs = [x[:, :0]]
    for piece in torch.split(x, _pieces(state.n_tokens, x.shape[1]), dim=1) if x.shape[1] else ():
        outputs.append(_piece_output(kernel, piece, state))
        state = _after(kernel, piece, state)
    return torch.cat(outputs, dim=1), state


def _pieces(n_tokens: int, seq_len: int) -> list[int]:
    """Cut a chunk of L tokens that follows T into powers of two, each dividing the place where it starts."""
    pieces = []
    while seq_len:
        longest = 1 << (seq_len.bit_length() - 1)
        pieces.append(min(longest, _power_of_two_in(n_tokens)) if n_tokens else longest)
        n_tokens += pieces[-1]
        seq_len -= pieces[-1]
    return pieces


def _power_of_two_in(n: int) -> int:
    """Return the largest power of two that divides n > 0."""
    return n & -n


def _piece_output(kernel: Tensor, x: Tensor, state: StreamingConvState) -> Tensor:
    """Add up what is pending for a piece's outputs and the convolution inside it."""
    length = x.shape[1]
    inside = kernel[:, 0].to(x.dtype) * x if length == 1 else long_conv(x, kernel[:, :length])
    y, since = at_least_float32(inside), 0
    for block, pending in zip(reversed(state.blocks), reversed(state.pending), strict=True):
        y = y + pending[:, since : since + length]
        since += block.shape[1]  # the tokens after the end of the next older block
    return y.to(x.dtype)


def _after(kernel: Tensor, x: Tensor, state: StreamingConvState) -> StreamingConvState:
    """Count a piece: merge it with the blocks into which it carries, and make the tile of what results."""
    kept, length = len(state.blocks), x.shape[1]
    while kept and state.blocks[kept - 1].shape[1] == length:
        kept, length = kept - 1, 2 * length
    # A view of a wider tensor would keep all of that alive.
    block = torch.cat([*state.blocks[kept:], x], dim=1) if kept < len(state.blocks) else x.contiguous()
    pending = _tile(at_least_float32(block), at_least_float32(kernel[:, : 2 * length]))
    return StreamingConvState((*state.blocks[:kept], block), (*state.pending[:kept], pending))


def _tile(block: Tensor, kernel: Tensor) -> Tensor:
    """Return what inputs (B, U, D) add to the U outputs after them, by the lags 1..2U - 1 of (D, 2U)."""
    length = block.shape[1]
    with full_precision(block):
        if length <= _DIRECT:
            # Row m holds the lags 1 + m, 2 + m, … from output m back to the newest input, the next, …
            lags = kernel[:, 1:].unfold(-1, length, 1)
            return torch.einsum("bjd,dmj->bmd", block.flip(1), lags.to(block.dtype))
        # Of a cyclic convolution of length 2U the second half has not wrapped around.
        spectrum = torch.fft.rfft(block.transpose(1, 2), n=2 * length) * torch.fft.rfft(kernel)
        cyclic: Tensor = torch.fft.irfft(spectrum, n=2 * length)
        return cyclic[..., length:].transpose(1, 2)
