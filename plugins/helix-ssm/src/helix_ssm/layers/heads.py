"""How layers with heads divide their width among them."""

from __future__ import annotations

from helix_kernel.errors import ArgumentError
from helix_ssm.layers.protocol import check_at_least

_WIDEST = 64


def choose_heads(
    layer: str, d_model: int, n_heads: int | None, head_dim: int | None, *, prefer_even: bool = False
) -> tuple[int, int]:
    """Return n_heads and head_dim, of which what is None follows from the other and from d_model.

    Where both are None, heads are as wide as can be up to 64, with d_model = n_heads * head_dim.

    Args:
        layer: Name of the layer, for messages.
        d_model: Width that heads divide.
        n_heads: Number of heads, or None.
        head_dim: Width of a head, or None.
        prefer_even: Whether any even width comes before an odd one, where both are None.

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
        head_dim = widest_head(d_model, prefer_even=prefer_even)
        return d_model // head_dim, head_dim
    for name, size in given.items():
        if size is not None and d_model % size:
            raise ArgumentError(f"{layer}: {name} is {size}, allowed is a divisor of d_model={d_model}")
    return n_heads or d_model // (head_dim or 1), head_dim or d_model // (n_heads or 1)


def widest_head(width: int, *, prefer_even: bool = False) -> int:
    """Return the largest divisor of a width up to 64, or the largest even one if there is any."""
    divisors = (size for size in range(1, min(_WIDEST, width) + 1) if width % size == 0)
    return max(divisors, key=lambda size: (prefer_even and size % 2 == 0, size))
