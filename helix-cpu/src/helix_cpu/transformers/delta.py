"""fla's gated delta rule and Kimi delta attention by Helix's kernels, laid out (B, L, H, K)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from helix_cpu.transformers.kernels import GATED_DELTA, RWKV7
from helix_cpu.transformers.packing import fits, one_row, sequences

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_EPS = 1e-6


def chunk_gated_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    chunk_size: int = 64,  # noqa: ARG001 - the kernel has its own
    initial_state: Tensor | None = None,
    output_final_state: bool = False,  # noqa: FBT001, FBT002 - the signature that is stood in for
    use_qk_l2norm_in_kernel: bool = False,  # noqa: FBT001, FBT002 - as above
    cu_seqlens: Tensor | None = None,
    seq_idx: Tensor | None = None,
) -> Any:
    """Run the gated delta rule, whose state decays by one number a head and step.

    Args:
        query: Queries (B, L, H, K), or fewer heads, each for as many consecutive ones of `value`.
        key: Keys, shaped as `query`.
        value: Values (B, L, H, V).
        g: Logarithms of the decays (B, L, H), at most 0.
        beta: Strengths of the writes (B, L, H).
        chunk_size: Not looked at.
        initial_state: State before the first step (B, H, K, V).
        output_final_state: Whether to return the state after the last step; else None is in its place.
        use_qk_l2norm_in_kernel: Whether to scale queries and keys to length 1 first.
        cu_seqlens: Served only beside `seq_idx`: alone, the convolution before has mixed the sequences.
        seq_idx: Which of the sequences packed into a row each step belongs to (B, L); not served together
            with states.

    Returns:
        The result (B, L, H, V) in the dtype of `query`, and the state (B, H, K, V) or None; or
        ``NotImplemented``.
    """
    if not _fits(query, key, value, beta, initial_state) or not fits(g, *value.shape[:3]):
        return NotImplemented
    tokens = (*_heads(query, key, value, normalize=use_qk_l2norm_in_kernel), value, g, beta)
    scale = query.shape[3] ** -0.5
    return _run(
        lambda q, k, v, decay, strength, state, bounds: GATED_DELTA(
            q, k, v, decay, strength, scale, state, bounds
        ),
        tokens,
        query.dtype,
        initial_state,
        cu_seqlens,
        seq_idx,
        keep=output_final_state,
    )


def fused_recurrent_gated_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,  # noqa: FBT001, FBT002 - the signature that is stood in for
    use_qk_l2norm_in_kernel: bool = False,  # noqa: FBT001, FBT002 - as above
    cu_seqlens: Tensor | None = None,
    seq_idx: Tensor | None = None,
) -> Any:
    """Run the gated delta rule as `chunk_gated_delta_rule` does: the kernel is the same."""
    return chunk_gated_delta_rule(
        query,
        key,
        value,
        g,
        beta,
        initial_state=initial_state,
        output_final_state=output_final_state,
        use_qk_l2norm_in_kernel=use_qk_l2norm_in_kernel,
        cu_seqlens=cu_seqlens,
        seq_idx=seq_idx,
    )


def chunk_kda(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    chunk_size: int = 64,  # noqa: ARG001 - the kernel has its own
    initial_state: Tensor | None = None,
    output_final_state: bool = False,  # noqa: FBT001, FBT002 - the signature that is stood in for
    use_qk_l2norm_in_kernel: bool = False,  # noqa: FBT001, FBT002 - as above
    cu_seqlens: Tensor | None = None,
    seq_idx: Tensor | None = None,
) -> Any:
    """Run Kimi delta attention: the gated delta rule with a decay for each channel of the keys.

    Its step (I - beta k k^T) diag(exp(g)) S + beta k v^T is that of RWKV-7's recurrence, which reads the
    state by -exp(g) k and writes what it read by beta k.

    Args:
        query: Queries (B, L, H, K), or fewer heads, each for as many consecutive ones of `value`.
        key: Keys, shaped as `query`.
        value: Values (B, L, H, V).
        g: Logarithms of the decays (B, L, H, K), at most 0.
        beta: Strengths of the writes (B, L, H).
        chunk_size: Not looked at.
        initial_state: As for `chunk_gated_delta_rule`, and so the rest.
        output_final_state: As there.
        use_qk_l2norm_in_kernel: As there.
        cu_seqlens: As there.
        seq_idx: As there.

    Returns:
        As `chunk_gated_delta_rule`.
    """
    if not _fits(query, key, value, beta, initial_state) or not fits(g, *value.shape[:3], query.shape[3]):
        return NotImplemented
    q, k = _heads(query, key, value, normalize=use_qk_l2norm_in_kernel)
    writes = beta.unsqueeze(-1) * k
    tokens = (q * query.shape[3] ** -0.5, g, writes, value, -(g.exp() * k))
    return _run(
        lambda r, w, write, v, read, state, bounds: RWKV7(r, w, write, v, read, write, state, bounds),
        tokens,
        query.dtype,
        initial_state,
        cu_seqlens,
        seq_idx,
        keep=output_final_state,
    )


def fused_recurrent_kda(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,  # noqa: FBT001, FBT002 - the signature that is stood in for
    use_qk_l2norm_in_kernel: bool = False,  # noqa: FBT001, FBT002 - as above
    cu_seqlens: Tensor | None = None,
    seq_idx: Tensor | None = None,
) -> Any:
    """Run Kimi delta attention as `chunk_kda` does: the kernel is the same."""
    return chunk_kda(
        query,
        key,
        value,
        g,
        beta,
        initial_state=initial_state,
        output_final_state=output_final_state,
        use_qk_l2norm_in_kernel=use_qk_l2norm_in_kernel,
        cu_seqlens=cu_seqlens,
        seq_idx=seq_idx,
    )


def _run(
    op: Callable[..., Any],
    tokens: tuple[Tensor, ...],
    dtype: torch.dtype,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    seq_idx: Tensor | None,
    *,
    keep: bool,
) -> Any:
    """Run an op over rows, or over the sequences packed into them."""
    if seq_idx is None:
        if cu_seqlens is not None:
            return NotImplemented
        results = op(*tokens, initial_state, None)
        if results is NotImplemented:
            return NotImplemented
        return results[0].to(dtype), results[1] if keep else None
    packed = sequences(seq_idx, tokens[0])
    if packed is None or keep or initial_state is not None:
        return NotImplemented
    results = op(*map(one_row, tokens), None, packed.bounds)
    if results is NotImplemented:
        return NotImplemented
    return results[0].view(*seq_idx.shape, *results[0].shape[2:]).to(dtype), None


def _heads(query: Tensor, key: Tensor, value: Tensor, *, normalize: bool) -> tuple[Tensor, Tensor]:
    """Return queries and keys for each head of the values, at length 1 where asked, computed in float32."""
    pair = (query, key)
    if normalize:
        wide = (tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in pair)
        pair = tuple(t * torch.rsqrt((t * t).sum(-1, keepdim=True) + _EPS) for t in wide)  # type: ignore[assignment]  # two
    repeats = value.shape[2] // query.shape[2]
    if repeats > 1:
        pair = tuple(tensor.repeat_interleave(repeats, dim=2) for tensor in pair)  # type: ignore[assignment]  # as above
    return pair


def _fits(query: Tensor, key: Tensor, value: Tensor, beta: Tensor, initial_state: Tensor | None) -> bool:
    if query.dim() != 4 or value.dim() != 4:
        return False
    batch_size, seq_len, n_heads, v_dim = value.shape
    groups, k_dim = query.shape[2:]
    return (
        fits(query, batch_size, seq_len, groups, k_dim)
        and fits(key, *query.shape)
        and fits(beta, batch_size, seq_len, n_heads)
        and fits(initial_state, batch_size, n_heads, k_dim, v_dim)
        and groups > 0
        and n_heads % groups == 0
    )
