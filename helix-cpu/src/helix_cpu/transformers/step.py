"""mamba-ssm's decoding step of both scans by Helix's kernels, as transformers calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn import functional as F

from helix_cpu.transformers.kernels import SELECTIVE, SSD
from helix_cpu.transformers.packing import fits

if TYPE_CHECKING:
    from torch import Tensor


def selective_state_update(
    state: Tensor,
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,  # noqa: FBT001, FBT002 - the signature that is stood in for
    z: Tensor | None = None,
) -> Any:
    """Run one step of either scan, and move its state along.

    Args:
        state: State (B, D, N), or in heads (B, H, P, N); changed in place.
        hidden_states: Input (B, D) or (B, H, P).
        dt: Step sizes, shaped as the input.
        A: Decay rates (D, N) or (H, P, N).
        B: Input projection (B, N), in heads (B, G, N).
        C: Output projection, shaped as `B`.
        D: Skip weights (D,) or (H, P).
        dt_bias: Added to `dt` (D,) or (H, P).
        dt_softplus: Whether to pass `dt` plus bias through softplus.
        z: Gate, shaped as the input.

    Returns:
        The result, shaped as the input, or ``NotImplemented``.
    """
    if not _fits_step(state, hidden_states, dt, A, B, C, D, dt_bias, z):
        return NotImplemented
    if state.dim() == 3:
        gate, results = None, _step(state, hidden_states, dt, A, B, C, D, dt_bias, dt_softplus, z)
    elif _one_rate_a_head(A, dt, dt_bias):
        gate, results = z, _step_heads(state, hidden_states, dt, A, B, C, D, dt_bias, dt_softplus)
    else:
        # Heads lie end to end, which keeps the channels of a group together.
        before, rates = state.flatten(1, 2), A.flatten(0, 1)
        x, delta = hidden_states.flatten(1), dt.flatten(1)
        skip, bias = (None if tensor is None else tensor.flatten() for tensor in (D, dt_bias))
        gate, results = z, _step(before, x, delta, rates, B, C, skip, bias, dt_softplus, None)
    if results is NotImplemented:
        return NotImplemented
    y, final_state = results
    state.copy_(final_state.view(state.shape))
    y = y.view(hidden_states.shape)
    return y if gate is None else y * F.silu(gate)


def _step(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,  # noqa: FBT001 - passed on
    z: Tensor | None,
) -> Any:
    """Step channels that each have rates of their own."""
    u, delta, inputs, outputs = (tensor.unsqueeze(1) for tensor in (x, dt, B, C))
    gate = None if z is None else z.unsqueeze(1)
    return SELECTIVE(u, delta, A, inputs, outputs, D, gate, dt_bias, dt_softplus, state, None)


def _step_heads(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,  # noqa: FBT001 - passed on
) -> Any:
    """Step heads whose channels share one rate, which arrives repeated for each of them."""
    bias = None if dt_bias is None else dt_bias[:, 0]
    tokens = (tensor.unsqueeze(1) for tensor in (x, dt[:, :, 0], B, C))
    u, delta, inputs, outputs = tokens
    return SSD(u, delta, A[:, 0, 0], inputs, outputs, D, bias, dt_softplus, None, state, None)


def _one_rate_a_head(A: Tensor, dt: Tensor, dt_bias: Tensor | None) -> bool:
    return A.stride(-1) == A.stride(-2) == dt.stride(-1) == 0 and (dt_bias is None or dt_bias.stride(-1) == 0)


def _fits_step(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    z: Tensor | None,
) -> bool:
    batch_size, *channels, d_state = state.shape
    if len(channels) not in (1, 2) or B.dim() != len(channels) + 1 or A.is_complex():
        return False
    groups = B.shape[1:-1]
    return (
        fits(x, batch_size, *channels)
        and fits(dt, batch_size, *channels)
        and fits(z, batch_size, *channels)
        and fits(A, *channels, d_state)
        and fits(B, batch_size, *groups, d_state)
        and fits(C, *B.shape)
        and all(size > 0 and channels[0] % size == 0 for size in groups)
        and fits(D, *channels)
        and fits(dt_bias, *channels)
    )
