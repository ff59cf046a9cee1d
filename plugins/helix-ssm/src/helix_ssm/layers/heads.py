"""How layers with heads divide their width among them."""

from __future__ import annotations

from helix_kernel.errors import ArgumentError
from helix_ssm.layers.protocol import check_at_least

_WIDEST = 64


def choose_heads(layer: str, d_model: int, n_heads: int | None, head_dim: int | None) -> tuple[int, int]:
    """Return n_heads and head_dim, of which what is None follows from the other and from d_model.

    Where both are None, heads are as wide as can be up to 64, with d_model = n_heads * head_dim.

    Raises:
        ArgumentError: A size is below 1, or the one that is given does not divide d_model.
    """
    check_at_least(layer, "d_model", d_model, 1)
    given = {"n_heads": n_heads, "head_dim": head_dim}
    for name, size in given.items():
        if size is not None:
            check_at_least(layer, name, size, 1)
    if n_heads is not None and head_dim is not None:
        return n_heads, head_dim
    if n_heads is None and head_dim is None:
        head_dim = max(width for width in range(1, min(_WIDEST, d_model) + 1) if d_model % width == 0)
        return d_model // head_dim, head_dim
    for name, size in given.items():
        if size is not None and d_model % size:
            raise ArgumentError(f"{layer}: {name} is {size}, allowed is a divisor of d_model={d_model}")
    return n_heads or d_model // (head_dim or 1), head_dim or d_model // (n_heads or 1)
