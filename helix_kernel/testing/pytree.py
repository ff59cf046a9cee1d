"""Walking a layer's state: tuples, named tuples, lists and dicts of tensors, to any depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def leaves(tree: Any) -> Iterator[Any]:
    """Yield the leaves of a tree from left to right; an empty container has none."""
    if isinstance(tree, dict):
        for value in tree.values():
            yield from leaves(value)
    elif isinstance(tree, tuple | list):
        for value in tree:
            yield from leaves(value)
    else:
        yield tree


def map_leaves(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Return a tree of the same shape whose leaves are `function` of the trees' leaves."""
    if isinstance(tree, dict):
        return {key: map_leaves(function, *(t[key] for t in (tree, *others))) for key in tree}
    if isinstance(tree, tuple | list):
        mapped = [map_leaves(function, *values) for values in zip(tree, *others, strict=True)]
        return type(tree)(*mapped) if hasattr(tree, "_fields") else type(tree)(mapped)
    return function(tree, *others)
