"""A call of `ssd_scan` as its kernels take it: sizes of blocks, summed steps, and walks over chunks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
import triton
from torch import Tensor

from helix_cuda.arguments import rows
from helix_cuda.kernels import ssd_scan as kernels
from helix_cuda.kernels import ssd_steps
from helix_cuda.ops.chunks import Chunks, cut

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROGRAMS = 528
"""Programs of a walk over chunks, below which sequences are cut into segments; four for each of 132 cores."""
_FEWEST_CHUNKS = 8
"""Chunks of a segment: with fewer, the states between segments would cost more than they bring."""
_LONGEST = 64
"""Tokens of a chunk, at most."""
_HEADS = 16
"""Heads whose steps one program sums up."""


class Blocks(NamedTuple):
    """Sizes of what a program has at once, powers of two: tokens, channels and states."""

    tokens: int
    channels: int  # for the gradient; the forward's are tuned
    states: int

    @classmethod
    def of(cls, dtype: torch.dtype, seq_len: int, head_dim: int, d_state: int) -> Blocks:
        """Choose them: the more states, the shorter the chunks, so that what is kept fits into registers.

        Products of float32 are made without tensor cores, and take more.
        """
        states = max(triton.next_power_of_2(d_state), 16)
        cells, widest = (2048, 16) if dtype is torch.float32 else (8192, 32)
        longest = max(min(_LONGEST, cells // states), 16)
        fits = max(triton.next_power_of_2(seq_len), 16)
        return cls(min(longest, fits), max(min(widest, triton.next_power_of_2(head_dim)), 16), states)


class Steps(NamedTuple):
    """What is given of the step sizes, and how they are made of it."""

    dt: Tensor  # (B, L, H), rows evenly apart
    A: Tensor  # (H,), or as `dt`
    bias: Tensor | None
    softplus: bool
    limit: Sequence[float] | None

    @property
    def flags(self) -> dict[str, bool]:
        """Constants of the kernels."""
        return {
            "softplus": self.softplus,
            "limited": self.limit is not None,
            "biased": self.bias is not None,
        }

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest size."""
        return (-math.inf, math.inf) if self.limit is None else (self.limit[0], self.limit[1])


class Call(NamedTuple):
    """A call, with x, B and C in the dtype of the products and their heads one after the other."""

    x: Tensor  # (B, L, H P)
    B: Tensor  # (B, L, G N)
    C: Tensor  # (B, L, G N)
    steps: Steps
    kept: (
        Tensor  # (H, tokens, 4), float32: step size, two parts of dt A summed from its chunk's start, unused
    )
    chunks: Chunks
    blocks: Blocks
    n_heads: int
    n_groups: int
    head_dim: int
    d_state: int

    @classmethod
    def of(
        cls, x: Tensor, steps: Steps, B: Tensor, C: Tensor, cu_seqlens: Tensor | None, dtype: torch.dtype
    ) -> Call:
        """Lay a call out and sum its steps up."""
        n_heads, head_dim, n_groups, d_state = *x.shape[2:], *B.shape[2:]
        blocks = Blocks.of(dtype, x.shape[1], head_dim, d_state)
        chunks = cut(x, blocks.tokens, cu_seqlens)
        kept = x.new_empty(n_heads, x.shape[0] * x.shape[1], 4, dtype=torch.float32)
        x, B, C = (tensor.to(dtype).flatten(2) for tensor in (x, B, C))
        call = cls(x, B, C, steps, kept, chunks, blocks, n_heads, n_groups, head_dim, d_state)
        ssd_steps.sums[call.steps_grid](*call.given_steps, kept, *call.step_sizes, **call.step_constants)
        return call

    @property
    def steps_grid(self) -> tuple[int, int]:
        """A program for each chunk and block of heads."""
        return self.chunks.n_slots, triton.cdiv(self.n_heads, _HEADS)

    @property
    def given_steps(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the kernels of `ssd_steps` read first."""
        dt, A, bias, *_ = self.steps
        return dt, A, dt if bias is None else bias

    @property
    def step_sizes(self) -> tuple[object, ...]:
        """Where chunks lie, sizes and strides, as the kernels of `ssd_steps` take them last."""
        dt, A, *_ = self.steps
        strides = row_stride(dt), row_stride(A) if A.dim() == 3 else 0
        return (*self.chunk_places, self.n_heads, *strides, *self.steps.limits)

    @property
    def step_constants(self) -> dict[str, object]:
        """Constants of the kernels of `ssd_steps`."""
        rates = self.steps.A.dim() == 3
        return {**self.steps.flags, "rates": rates, "HEADS": _HEADS, **self.constants("T")}

    @property
    def places(self) -> tuple[Tensor, Tensor, int, int, int]:
        """Where chunks and segments lie, the length of a row, and all tokens."""
        chunks, n_tokens = self.chunks, self.kept.shape[1]
        return chunks.bounds, chunks.firsts, chunks.per_row, self.x.shape[1], n_tokens

    @property
    def chunk_places(self) -> tuple[Tensor, int, int, int]:
        """Where chunks lie, the length of a row, and all tokens."""
        return (*self.places[:1], *self.places[2:])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Heads, heads of a group, channels of a head, states."""
        return self.n_heads, self.n_heads // self.n_groups, self.head_dim, self.d_state

    @property
    def n_blocks(self) -> int:
        """Blocks of channels of a head."""
        return -(-self.head_dim // self.blocks.channels)

    @property
    def segments(self) -> tuple[int, int]:
        """Segments of a sequence, and chunks of a segment."""
        n_chunks = triton.cdiv(self.x.shape[1], self.blocks.tokens)
        wanted = triton.cdiv(_PROGRAMS, self.chunks.n_sequences * self.n_heads * self.n_blocks)
        per_segment = triton.cdiv(n_chunks, min(wanted, triton.cdiv(n_chunks, _FEWEST_CHUNKS)))
        return triton.cdiv(n_chunks, per_segment), per_segment

    def walk_grid(self, meta: dict[str, int]) -> tuple[int]:
        """Return a program for each segment of each sequence, head and block of channels."""
        n_blocks = triton.cdiv(self.head_dim, meta["BP"])
        return (self.chunks.n_sequences * self.segments[0] * self.n_heads * n_blocks,)

    @property
    def fine(self) -> bool:
        """Whether products are of float32."""
        return self.x.dtype is torch.float32

    def constants(self, *names: str) -> dict[str, object]:
        """Return the sizes of blocks that are named, and whether sequences are packed."""
        sizes = dict(zip(("T", "BP", "BN"), self.blocks, strict=True))
        return {"PACKED": self.chunks.per_row == 0, **{name: sizes[name] for name in names}}

    def products(self, *names: str) -> dict[str, object]:
        """Return `constants`, and whether products are fine enough to tell the second parts of sums."""
        return {"FINE": self.fine, **self.constants(*names)}

    def new_states(self, rows: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return room for states (rows, H, P, N)."""
        return self.x.new_empty(rows, self.n_heads, self.head_dim, self.d_state, dtype=dtype)

    def starts(self, initial: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Return the state before each segment and the last; of one segment the given one, and None."""
        return (
            (initial, None) if self.segments[0] == 1 else self._between(self.x, self.B, initial, back=False)
        )

    def states(self, initial: Tensor | None) -> Tensor:
        """Return the state before each chunk (slots, H, P, N), in the dtype of the products."""
        return self._walk(self.x, self.B, self.starts(initial)[0], back=False)[0]

    def grad_states(self, grad_y: Tensor, grad_final: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the gradient of the state after each chunk, and that of the first state of all."""
        starts, first = grad_final, None
        if self.segments[0] > 1:
            starts, first = self._between(grad_y, self.C, grad_final, back=True)
        each, last = self._walk(grad_y, self.C, starts, back=True)
        return each, last if first is None else first

    def _between(self, x: Tensor, B: Tensor, initial: Tensor | None, *, back: bool) -> tuple[Tensor, Tensor]:
        n_segments, n_sequences = self.segments[0], self.chunks.n_sequences
        states = self.new_states(n_sequences * n_segments)
        totals = states.new_empty(states.shape[:2])
        self._launch_walk(x, B, None, None, states, totals, back=back)
        final = self.new_states(n_sequences)
        width = self.head_dim * self.d_state
        kernels.pass_on[(n_sequences * self.n_heads, triton.cdiv(width, 1024))](
            states,
            totals,
            final if initial is None else initial,
            final,
            self.n_heads,
            width,
            n_segments,
            BACK=back,
            HAS_INITIAL=initial is not None,
            BLOCK=1024,
        )
        return states, final

    def _walk(self, x: Tensor, B: Tensor, starts: Tensor | None, *, back: bool) -> tuple[Tensor, Tensor]:
        """Return the state before each chunk, or its gradient after it, and what each segment ends with."""
        each = self.new_states(self.chunks.n_slots, self.x.dtype)
        ends = self.new_states(self.chunks.n_sequences * self.segments[0])
        self._launch_walk(x, B, starts, each, ends, ends.new_empty(ends.shape[:2]), back=back)
        return each, ends

    def _launch_walk(
        self,
        x: Tensor,
        B: Tensor,
        starts: Tensor | None,
        each: Tensor | None,
        ends: Tensor,
        totals: Tensor,
        *,
        back: bool,
    ) -> None:
        (x, x_stride), (B, b_stride) = rows(x), rows(B)
        walk = kernels.walk_of_float32 if self.fine else kernels.walk
        walk[self.walk_grid](
            x,
            B,
            self.kept,
            ends if starts is None else starts,
            ends if each is None else each,
            ends,
            totals,
            *self.places,
            *self.shape,
            x_stride,
            b_stride,
            *self.segments,
            BACK=back,
            HAS_START=starts is not None,
            HAS_EACH=each is not None,
            **self.products("T", "BN"),
        )


def row_stride(tensor: Tensor) -> int:
    """Return how far apart the rows of a tensor lie, which `rows` returned."""
    return rows(tensor)[1]


def skip_strides(D: Tensor | None) -> tuple[int, int]:
    """Return how far apart the skip weights of heads and of channels lie."""
    if D is None:
        return 0, 0
    return (D.shape[1], 1) if D.dim() == 2 else (1, 0)
