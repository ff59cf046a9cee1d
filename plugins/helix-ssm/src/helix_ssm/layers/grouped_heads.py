"""How Mamba's later layers divide their inner channels among heads, and heads among groups."""

from __future__ import annotations

from helix_kernel.errors import ArgumentError
from helix_ssm.layers.heads import widest_head


def choose_head_dim(layer: str, d_inner: int, n_groups: int, head_dim: int | None) -> int:
    """Return how wide a head is; where it is None, as wide as can be up to 64.

    Raises:
        ArgumentError: Groups do not divide d_inner, or heads do not divide a group.
    """
    group_size, rest = divmod(d_inner, n_groups)
    if rest:
        raise ArgumentError(f"{layer}: n_groups is {n_groups}, allowed is a divisor of d_inner={d_inner}")
    if head_dim is None:
        return widest_head(group_size)
    if head_dim < 1 or group_size % head_dim:
        raise ArgumentError(
            f"{layer}: head_dim is {head_dim}, allowed is a divisor of d_inner / n_groups = {group_size}"
        )
    return head_dim
