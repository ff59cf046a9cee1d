"""The state-space layer with many inputs and outputs of Smith et al. (2023), S5, arXiv:2208.04933."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_ssm.layers._check import check_dt_range
from helix_ssm.layers.hippo import normal_modes
from helix_ssm.layers.protocol import (
    at_least_float32,
    check_at_least,
    check_chunk,
    full_precision,
    without_weight_decay,
)
from helix_ssm.ops import diagonal_scan
from helix_ssm.ops._check import n_states


class S5(nn.Module):
    """S5 block: all channels through one diagonal linear system, then GELU and a sigmoid gate.

    Section 3 of the paper. The state, in the basis where A is diagonal, obeys h_t = exp(dt A) h_{t-1} +
    B' x_t with B' = (exp(dt A) - 1) / A B: zero-order hold, with a step size for each mode; and y_t =
    C h_t + D x_t. Modes come in conjugate pairs, of which only one is kept, so that C h_t is 2 Re(C h_t).
    The block ends in g sigmoid(W g) with g = GELU(y).

    A begins as HiPPO-N, the normal part of HiPPO-LegS, or as `n_blocks` smaller ones along the diagonal.
    With its eigenvectors V, B begins as V* B_0 and C as C_0 V with B_0 and C_0 real and normal, so that
    the system begins as a real one (appendix B.1).

    Args:
        d_model: Width D of input and output, the paper's H.
        d_state: Real states N of the system, the paper's P.
        n_blocks: Blocks of the initial A, the paper's J.
        dt_min: Smallest initial step size; step sizes begin log-uniform.
        dt_max: Largest initial step size.

    Raises:
        ArgumentError: A size is below 1, d_state is no multiple of 2 n_blocks, or dt_min and dt_max are
            not 0 < dt_min <= dt_max.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        n_blocks: int = 1,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
    ) -> None:
        super().__init__()
        for name, size in {"d_model": d_model, "d_state": d_state, "n_blocks": n_blocks}.items():
            check_at_least("s5", name, size, 1)
        if d_state % (2 * n_blocks):
            raise ArgumentError(
                f"s5: d_state is {d_state}, allowed is a multiple of 2 n_blocks = {2 * n_blocks}"
            )
        check_dt_range("s5", dt_min, dt_max)
        self.d_model, self.d_state = d_model, d_state
        A, V = hippo_n(d_state, n_blocks)
        log_dt = torch.empty(d_state // 2).uniform_(math.log(dt_min), math.log(dt_max))
        self.log_dt = without_weight_decay(nn.Parameter(log_dt))
        self.A_log = without_weight_decay(nn.Parameter((-A.real).log()))
        self.A_imag = without_weight_decay(nn.Parameter(A.imag.clone()))
        B = torch.randn(d_state, d_model) / math.sqrt(d_model)
        C = torch.randn(d_model, d_state)
        self.B = nn.Parameter(torch.view_as_real(V.mH @ B.to(V.dtype)).clone())
        self.C = nn.Parameter(torch.view_as_real(C.to(V.dtype) @ V).clone())
        self.D = without_weight_decay(nn.Parameter(torch.randn(d_model)))
        self.gate = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Map x (B, L, D), or packed sequences (1, T, D), to the same shape."""
        return self.extend(x, self.init_state(n_states(cu_seqlens, x.shape[0])), cu_seqlens=cu_seqlens)[0]

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return the state before the first token: zeros (B, N/2, 2), real and imaginary part of a mode."""
        device = self.B.device if device is None else device
        dtype = self.B.dtype if dtype is None else dtype
        return at_least_float32(torch.zeros(batch_size, self.d_state // 2, 2, device=device, dtype=dtype))

    def extend(self, x: Tensor, state: Tensor, *, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state."""
        check_chunk("s5", x, self.d_model)
        decay, B = self._system()
        inputs = at_least_float32(x)
        with full_precision(x):
            h, final = diagonal_scan(
                decay,
                torch.view_as_complex(F.linear(inputs, B).view(*x.shape[:2], self.d_state // 2, 2)),
                initial_state=torch.view_as_complex(state.contiguous()),
                return_final_state=True,
                cu_seqlens=cu_seqlens,
            )
            y = F.linear(torch.view_as_real(h).flatten(-2), self._output_map()) + self.D * inputs
        g = F.gelu(y.to(x.dtype))
        return g * torch.sigmoid(self.gate(g)), torch.view_as_real(final).to(state.dtype)

    def step(self, x_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state, in O(D N)."""
        y, state = self.extend(x_t.unsqueeze(1), state)
        return y.squeeze(1), state

    def _system(self) -> tuple[Tensor, Tensor]:
        """Return exp(dt A) (N/2,) complex, and B' with both parts of a mode side by side (N, D)."""
        dt = torch.exp(at_least_float32(self.log_dt))
        A = torch.complex(-torch.exp(at_least_float32(self.A_log)), at_least_float32(self.A_imag))
        B = torch.view_as_complex(at_least_float32(self.B).contiguous())
        discrete = (torch.expm1(dt * A) / A).unsqueeze(-1) * B
        return torch.exp(dt * A), torch.view_as_real(discrete).transpose(1, 2).flatten(0, 1)

    def _output_map(self) -> Tensor:
        """Return the real map (D, N) from both parts of each mode to 2 Re(C h)."""
        C = at_least_float32(self.C)
        return torch.stack([2 * C[..., 0], -2 * C[..., 1]], dim=-1).flatten(1)


def hippo_n(d_state: int, n_blocks: int) -> tuple[Tensor, Tensor]:
    """Return modes (N/2,) and eigenvectors (N, N/2), complex64, of HiPPO-N blocks along a diagonal.

    The other half of the modes and eigenvectors are their conjugates (section 4.3 and appendix B.1.1).
    """
    modes, vectors = normal_modes(d_state // n_blocks)
    blocks: Tensor = torch.block_diag(*[vectors] * n_blocks)  # type: ignore[no-untyped-call]  # torch
    return modes.repeat(n_blocks).to(torch.complex64), blocks.to(torch.complex64)
