"""The structured state-space layer of Gu et al. (2021), S4, arXiv:2111.00396."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_ssm.layers._check import check_dt_range, check_even
from helix_ssm.layers.dplr import DPLR, with_conjugates, without_conjugates
from helix_ssm.layers.hippo import normal_plus_low_rank
from helix_ssm.layers.protocol import at_least_float32, check_at_least, check_chunk, without_weight_decay
from helix_ssm.ops import long_conv


class S4(nn.Module):
    """S4 block: each channel through its own system that begins as HiPPO-LegS, GELU, a gated output map.

    Each channel u obeys h' = A h + B u, y = C h + D u with A = diag(Lambda) - P P* (section 3.1; Q = P,
    which with Re Lambda < 0 keeps A stable whatever is learnt), made discrete by the bilinear rule with
    its own dt (equation 3). Lambda, P and B begin as HiPPO-LegS in the basis of appendix C.1. Over a
    sequence that is a convolution whose kernel is found by Cauchy sums (appendix C.3, `dplr.DPLR`), in
    O(L N) a channel; a step costs O(N) by the rank-1 structure. Numbers come in conjugate pairs, of which
    one each is a parameter. The block ends in out_proj(GELU(y)), gated by half of its outputs.

    The system is computed in float64, so a device must have that.

    Args:
        d_model: Width D of input and output.
        d_state: Real states N of each channel, even.
        dt_min: Smallest initial step size; step sizes begin log-uniform.
        dt_max: Largest initial step size.

    Raises:
        ArgumentError: A size is below 1, d_state is odd, or dt_min and dt_max are not
            0 < dt_min <= dt_max.
    """

    def __init__(self, d_model: int, *, d_state: int = 64, dt_min: float = 1e-3, dt_max: float = 0.1) -> None:
        super().__init__()
        check_at_least("s4", "d_model", d_model, 1)
        check_at_least("s4", "d_state", d_state, 1)
        check_even("s4", "d_state", d_state, "")
        check_dt_range("s4", dt_min, dt_max)
        self.d_model, self.d_state = d_model, d_state
        Lambda, P, B = (x.to(torch.complex64).repeat(d_model, 1) for x in normal_plus_low_rank(d_state))
        log_dt = torch.empty(d_model).uniform_(math.log(dt_min), math.log(dt_max))
        self.log_dt = without_weight_decay(nn.Parameter(log_dt))
        self.A_log = without_weight_decay(nn.Parameter((-Lambda.real).log()))
        self.A_imag = without_weight_decay(nn.Parameter(Lambda.imag.clone()))
        self.P = without_weight_decay(nn.Parameter(torch.view_as_real(P).clone()))
        self.B = without_weight_decay(nn.Parameter(torch.view_as_real(B).clone()))
        self.C = nn.Parameter(torch.view_as_real(torch.randn_like(B)).clone())
        self.D = nn.Parameter(torch.randn(d_model))
        self.out_proj = nn.Linear(d_model, 2 * d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, L, D) to (B, L, D)."""
        check_chunk("s4", x, self.d_model)
        return self._output(long_conv(x, self.kernel(x.shape[1]), D=self.D))

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return the state before the first token: zeros (B, D, N/2, 2), real and imaginary part."""
        device = self.C.device if device is None else device
        dtype = self.C.dtype if dtype is None else dtype
        return at_least_float32(torch.zeros(batch_size, *self.C.shape, device=device, dtype=dtype))

    def extend(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state, in O(B L D N)."""
        check_chunk("s4", x, self.d_model)
        if x.shape[1] == 0:
            return self._output(x), state
        y, h = self._system().run(with_conjugates(_complex(state)), x.double())
        return self._output(y.to(x.dtype) + self.D * x), _real(h).to(state.dtype)

    def step(self, x_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state, in O(D N)."""
        system = self._system()
        h = system.step(with_conjugates(_complex(state)), x_t.double())
        return self._output(system.output(h).to(x_t.dtype) + self.D * x_t), _real(h).to(state.dtype)

    def kernel(self, seq_len: int) -> Tensor:
        """Return the convolution's kernel K (D, seq_len), float32 or wider (equation 5)."""
        if seq_len == 0:
            return at_least_float32(self.D.unsqueeze(-1)[:, :0])
        return self._system().kernel(seq_len).to(self._precision)

    @property
    def _precision(self) -> torch.dtype:
        return at_least_float32(self.log_dt[:0]).dtype

    def _system(self) -> DPLR:
        return DPLR(
            dt=self.log_dt.double().exp().unsqueeze(-1),
            Lambda=with_conjugates(torch.complex(-self.A_log.double().exp(), self.A_imag.double())),
            P=with_conjugates(_complex(self.P)),
            B=with_conjugates(_complex(self.B)),
            C=with_conjugates(_complex(self.C)),
            precision=self._precision,
        )

    def _output(self, y: Tensor) -> Tensor:
        return F.glu(self.out_proj(F.gelu(y)))


def _complex(x: Tensor) -> Tensor:
    """Return what parameters and states hold as one complex128 number a mode."""
    return torch.view_as_complex(x.double().contiguous())


def _real(modes: Tensor) -> Tensor:
    """Return a system's state (B, D, N) as real and imaginary parts (B, D, N/2, 2)."""
    return torch.view_as_real(without_conjugates(modes).resolve_conj())
