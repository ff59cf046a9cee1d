"""mamba-ssm's scans over sequences by Helix's kernels, in the layouts that transformers calls them with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn import functional as F

from helix_cpu.transformers.kernels import SELECTIVE, SSD
from helix_cpu.transformers.layout import steps
from helix_cpu.transformers.packing import fits, one_row, sequences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_NO_LIMIT = (0.0, float("inf"))


def selective_scan_fn(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,  # noqa: FBT001, FBT002 - the signature that is stood in for
    return_last_state: bool = False,  # noqa: FBT001, FBT002 - as above
) -> Any:
    """Run the scan of Mamba over whole sequences.

    Args:
        hidden_states: Inputs (B, D, L).
        dt: Step sizes (B, D, L), before bias and softplus.
        A: Decay rates (D, N), real.
        B: Input projections (B, N, L).
        C: Output projections (B, N, L).
        D: Skip weights (D,).
        z: Gate (B, D, L).
        delta_bias: Added to `dt` (D,).
        delta_softplus: Whether to pass `dt` plus bias through softplus.
        return_last_state: Whether to return the state after the last step too.

    Returns:
        The result (B, D, L), with `return_last_state` also the state (B, D, N); or ``NotImplemented``.
    """
    if hidden_states.dim() != 3 or A.dim() != 2 or A.is_complex():
        return NotImplemented
    batch_size, d_model, seq_len = hidden_states.shape
    d_state = A.shape[1]
    if not (
        fits(dt, *hidden_states.shape)
        and fits(z, *hidden_states.shape)
        and fits(A, d_model, d_state)
        and fits(B, batch_size, d_state, seq_len)
        and fits(C, batch_size, d_state, seq_len)
        and fits(D, d_model)
        and fits(delta_bias, d_model)
    ):
        return NotImplemented
    u, delta, inputs, outputs = (steps(tensor) for tensor in (hidden_states, dt, B, C))
    gate = None if z is None else steps(z)
    results = SELECTIVE(u, delta, A, inputs, outputs, D, gate, delta_bias, delta_softplus, None, None)
    if results is NotImplemented:
        return NotImplemented
    y = results[0].transpose(1, 2)
    return (y, results[1]) if return_last_state else y


def mamba_chunk_scan_combined(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,  # noqa: ARG001 - the kernel has its own
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    dt_softplus: bool = False,  # noqa: FBT001, FBT002 - the signature that is stood in for
    dt_limit: Sequence[float] = _NO_LIMIT,
    return_final_states: bool = False,  # noqa: FBT001, FBT002 - as above
    z: Tensor | None = None,
    seq_idx: Tensor | None = None,
) -> Any:
    """Run the scan of Mamba-2 over whole sequences.

    Args:
        hidden_states: Inputs (B, L, H, P).
        dt: Step sizes (B, L, H), before bias, softplus and limit.
        A: Decay rates (H,).
        B: Input projections (B, L, G, N).
        C: Output projections (B, L, G, N).
        chunk_size: Not looked at.
        D: Skip weights (H,) or (H, P).
        dt_bias: Added to `dt` (H,).
        initial_states: State before the first step (B, H, P, N).
        dt_softplus: Whether to pass `dt` plus bias through softplus.
        dt_limit: Smallest and largest step size.
        return_final_states: Whether to return the state after the last step too.
        z: Gate (B, L, H, P).
        seq_idx: Which of the sequences packed into a row each step belongs to (B, L); not served together
            with `initial_states`.

    Returns:
        The result (B, L, H, P), with `return_final_states` also the state (B, H, P, N), the last sequence's
        of a row that packs several; or ``NotImplemented``.
    """
    if hidden_states.dim() != 4 or not _fits_ssd(hidden_states, dt, A, B, C, D, dt_bias, initial_states):
        return NotImplemented
    if not fits(z, *hidden_states.shape):
        return NotImplemented
    limit = None if dt_softplus and tuple(dt_limit) == _NO_LIMIT else tuple(dt_limit)
    tokens, bounds, last = [hidden_states, dt, B, C], None, None
    if seq_idx is not None:
        packed = sequences(seq_idx, hidden_states)
        if packed is None or initial_states is not None:
            return NotImplemented
        tokens, bounds, last = [one_row(tensor) for tensor in tokens], packed.bounds, packed.last
    x, delta, inputs, outputs = tokens
    results = SSD(x, delta, A, inputs, outputs, D, dt_bias, dt_softplus, limit, initial_states, bounds)
    if results is NotImplemented:
        return NotImplemented
    y, state = results[0].view(hidden_states.shape), results[1]
    y = y if z is None else y * F.silu(z)
    return (y, state if last is None else state[last]) if return_final_states else y


def fused(*_arguments: object) -> None:
    """Return None for mamba-ssm's functions that hold a whole layer, by which a model goes on with the parts.

    The fused functions pass over a mask that the parts honour, and are written for one activation.
    """


def _fits_ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    initial_states: Tensor | None,
) -> bool:
    batch_size, seq_len, n_heads, head_dim = x.shape
    if B.dim() != 4 or A.is_complex():
        return False
    n_groups, d_state = B.shape[2:]
    return (
        fits(dt, batch_size, seq_len, n_heads)
        and fits(A, n_heads)
        and fits(B, batch_size, seq_len, n_groups, d_state)
        and fits(C, *B.shape)
        and n_groups > 0
        and n_heads % n_groups == 0
        and (fits(D, n_heads) or fits(D, n_heads, head_dim))
        and fits(dt_bias, n_heads)
        and fits(initial_states, batch_size, n_heads, head_dim, d_state)
    )
