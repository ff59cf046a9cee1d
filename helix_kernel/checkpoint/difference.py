"""What two checkpoints differ in: config, components, other values, arrays and by how much."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from helix_kernel.checkpoint.blocks import aligned, blocks
from helix_kernel.checkpoint.tree import Decoder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from helix_kernel.checkpoint.reader import Checkpoint

ABSENT = object()
"""Stands for a value that one of the two does not have."""

COMPONENTS_IN_CONFIG = "kernel.components."
"""Below this path a frozen config repeats what the attribute ``components`` says."""

_ARRAY = object()


@attrs.frozen
class Change:
    """An array of which elements changed. Norms are of float64, and NaN where an element is.

    Args:
        name: Its path.
        norm: L2 norm of the change.
        relative: The same, divided by the norm in the first checkpoint; infinite where that is zero.
        largest: Largest absolute change of an element.
        n_changed: How many elements have other bits.
        n_elements: How many there are.
    """

    name: str
    norm: float
    relative: float
    largest: float
    n_changed: int
    n_elements: int


@attrs.frozen(kw_only=True)
class Difference:
    """What two checkpoints differ in; values are pairs, `ABSENT` where one has none.

    Args:
        config: Dotted path → the values.
        components: Name → the versions.
        attributes: Dotted path of any other attribute → the values.
        values: Dotted path of a value of the state that is no array → the values.
        only_first: Arrays that only the first has.
        only_second: Arrays that only the second has.
        forms: Arrays of another shape or type → both, as text.
        ties: Arrays that are tied otherwise → the paths that they are stored under.
        changes: Arrays of which elements changed.
    """

    config: dict[str, tuple[Any, Any]]
    components: dict[str, tuple[Any, Any]]
    attributes: dict[str, tuple[Any, Any]]
    values: dict[str, tuple[Any, Any]]
    only_first: list[str]
    only_second: list[str]
    forms: dict[str, tuple[str, str]]
    ties: dict[str, tuple[str, str]]
    changes: list[Change]

    def __bool__(self) -> bool:
        return any(attrs.astuple(self, recurse=False))


def difference(first: Checkpoint, second: Checkpoint) -> Difference:
    """Compare two checkpoints; of the arrays only those with other digests are read, in bounded memory.

    Raises:
        CheckpointError: An array that has to be read is damaged.
    """
    described = dict(first.attributes), dict(second.attributes)
    config = _differing(*(attributes.pop("config", {}) for attributes in described))
    components = [attributes.pop("components", None) or {} for attributes in described]
    names = [{**{name: name for name in c.arrays}, **c.ties} for c in (first, second)]
    common = [name for name in names[0] if name in names[1]]
    forms = {name: pair for name in common if (pair := _forms(first, second, name))[0] != pair[1]}
    stored = [
        name for name in common if name not in forms and not (name in first.ties and name in second.ties)
    ]
    return Difference(
        config={path: pair for path, pair in config.items() if not path.startswith(COMPONENTS_IN_CONFIG)},
        components=_pairs(*components),
        attributes=_differing(*described),
        values=_differing(_values(first), _values(second)),
        only_first=sorted(names[0].keys() - names[1].keys()),
        only_second=sorted(names[1].keys() - names[0].keys()),
        forms=forms,
        ties={n: (names[0][n], names[1][n]) for n in common if names[0][n] != names[1][n]},
        changes=[change for name in stored if (change := _change(first, second, name)).n_changed],
    )


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path of each value that is neither a mapping nor a list that holds one."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple) and any(isinstance(item, dict | list | tuple) for item in value):
        items = enumerate(value)
    for key, item in items:
        yield from leaves(item, f"{path}.{key}" if path else str(key))
    if not items and path:
        yield path, value


def _change(first: Checkpoint, second: Checkpoint, name: str) -> Change:
    array = first[name]
    n_elements = math.prod(array.shape)
    if first.digest(name) == second.digest(name):
        return Change(name, 0.0, 0.0, 0.0, 0, n_elements)
    squares = squares_before = largest = 0.0
    n_changed = 0
    with np.errstate(over="ignore", invalid="ignore"):  # infinite and NaN elements show in the result
        for before, after in aligned(blocks(first, name), blocks(second, name)):
            old, new = _numbers(before), _numbers(after)
            apart = np.abs(new - old)
            squares += float(np.square(apart).sum())
            squares_before += float(np.square(np.abs(old)).sum())
            largest = float(np.maximum(largest, apart.max()))
            n_changed += _count_other_bits(before, after)
    norm, norm_before = math.sqrt(squares), math.sqrt(squares_before)
    relative = norm / norm_before if norm_before else math.inf if norm else 0.0
    return Change(name, norm, relative, largest, n_changed, n_elements)


def _numbers(array: np.ndarray) -> np.ndarray:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _count_other_bits(left: np.ndarray, right: np.ndarray) -> int:
    word = f"u{min(left.itemsize, 8)}"
    differing = left.view(word) != right.view(word)
    if left.itemsize > 8:  # complex128 is two words
        differing = differing[0::2] | differing[1::2]
    return int(np.count_nonzero(differing))


def _forms(first: Checkpoint, second: Checkpoint, name: str) -> tuple[str, str]:
    one, other = ((c[name].dtype.name, c[name].shape) for c in (first, second))
    return f"{one[0]} {one[1]}", f"{other[0]} {other[1]}"


def _values(checkpoint: Checkpoint) -> Any:
    return Decoder(lambda _: _ARRAY).decode(checkpoint.manifest.state)


def _differing(first: Any, second: Any) -> dict[str, tuple[Any, Any]]:
    return _pairs(dict(leaves(first)), dict(leaves(second)))


def _pairs(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what differs; a NaN is like any other NaN."""
    found = {}
    for path in dict.fromkeys((*first, *second)):
        pair = (first.get(path, ABSENT), second.get(path, ABSENT))
        if _ARRAY not in pair and repr(pair[0]) != repr(pair[1]):
            found[path] = pair
    return found
