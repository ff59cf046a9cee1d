"""A state with its tensors taken out: a tree that ranks send one another, and that becomes one manifest."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch.distributed.tensor import DTensor

from helix_kernel.checkpoint.arrays import describe, identity, is_array, to_torch
from helix_kernel.checkpoint.dtypes import zarr_name
from helix_kernel.checkpoint.layout import to_text
from helix_kernel.checkpoint.tree import MAX_DEPTH, Decoder, Encoder, Place, path_of
from helix_kernel.errors import ArgumentError


@attrs.frozen
class Leaf:
    """Stands in a tree for a tensor.

    Args:
        name: Its keys and indices joined with dots, as torch names it.
        shape: Of the whole tensor.
        dtype: The Zarr name of its type.
        stored: Name of the first tensor that has the same memory on this rank, its own where there is
            none; None where this rank holds no element of it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored: str | None


@attrs.frozen
class TakenApart:
    """What `take_apart` returns.

    Args:
        tensors: Name → tensor; numpy's arrays as tensors that share their memory.
        tree: The state with a `Leaf` in place of each.
    """

    tensors: dict[str, torch.Tensor]
    tree: Any

    @property
    def leaves(self) -> dict[str, Leaf]:
        """The leaves by name."""
        return {name: node for name, node in named(self.tree) if isinstance(node, Leaf)}


@attrs.frozen
class Described:
    """A tree as a manifest says it.

    Args:
        document: The state as a document.
        leaves: Path → the tensor that is stored there.
        ties: Path of a tied tensor → the path under which it is stored.
    """

    document: Any
    leaves: dict[str, Leaf]
    ties: dict[str, str]


def take_apart(state: Mapping[Any, Any]) -> TakenApart:
    """Take the tensors and numpy arrays out of a state; copies none.

    Raises:
        ArgumentError: Two tensors have one name, or one is of a kind that no checkpoint holds.
    """
    tensors: dict[str, torch.Tensor] = {}
    first: dict[Hashable, str] = {}

    def take(value: Any, place: Place) -> Any:
        if not isinstance(value, torch.Tensor | np.ndarray):
            return value
        name = name_of(place)
        if name in tensors:
            raise ArgumentError(f"state has two tensors of the name {name!r}; rename a key")
        tensors[name] = tensor = _as_tensor(value, name)
        local = local_part(tensor)
        key = identity(local)
        whole = (tuple(tensor.shape), str(getattr(tensor, "placements", None)))
        stored = None if key is None else first.setdefault((key, whole), name)
        return Leaf(name, whole[0], str(zarr_name(describe(local, name)[1])), stored)

    return TakenApart(tensors, _rebuilt(state, take))


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return what this rank holds of a tensor."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()


def name_of(place: Place) -> str:
    """Return a place in a state as torch names it."""
    return ".".join(map(str, place))


def named(tree: Any, place: Place = ()) -> Iterator[tuple[str, Any]]:
    """Yield everything in a tree with its name: containers too, the root as an empty name."""
    yield name_of(place), tree
    items: Any = tree.items() if isinstance(tree, Mapping) else ()
    if isinstance(tree, list | tuple):
        items = enumerate(tree)
    for key, item in items:
        yield from named(item, (*place, key))


def plain(tree: Any) -> Any:
    """Return a tree of leaves and plain values as it would be loaded: nothing else is left in it.

    Raises:
        ArgumentError: A key or a value is of a type that no checkpoint holds.
    """
    described = _describe(tree, lambda leaf: leaf.name)
    return Decoder(described.leaves.__getitem__).decode(described.document)


def described(tree: Any) -> Described:
    """Return a tree as a manifest says it."""
    return _describe(tree, lambda leaf: leaf.stored or leaf.name)


def merged(trees: Sequence[Any]) -> Any:
    """Return the tree that holds what any rank holds.

    Tensors are tied if they share memory on every rank that holds elements of them.

    Args:
        trees: Those of rank 0, 1 and so on, as `plain` returns them.

    Raises:
        ArgumentError: Ranks have different values, or different shapes or types, at one place.
    """
    return _merged(list(enumerate(trees)), ())


def _merged(given: list[tuple[int, Any]], place: Place) -> Any:
    rank, first = given[0]
    rest = given[1:]
    if all(isinstance(tree, dict) for _, tree in given):
        keys = dict.fromkeys(key for _, tree in given for key in tree)
        return {key: _merged([(r, t[key]) for r, t in given if key in t], (*place, key)) for key in keys}
    if isinstance(first, list | tuple) and all(_alike(first, tree) for _, tree in rest):
        return type(first)(_merged([(r, t[i]) for r, t in given], (*place, i)) for i in range(len(first)))
    for other_rank, other in rest:
        if not _same(first, other):
            raise ArgumentError(
                f"state {path_of(place)!r} is {_shown(first)} on rank {rank} and {_shown(other)} on rank "
                f"{other_rank}; what differs between ranks needs a key for each rank"
            )
    if isinstance(first, Leaf):
        claims = {leaf.stored for _, leaf in given} - {None}
        return attrs.evolve(first, stored=claims.pop() if len(claims) == 1 else first.name)
    return first


def _alike(left: Any, right: Any) -> bool:
    return type(left) is type(right) and len(left) == len(right)


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, Leaf) and isinstance(right, Leaf):
        return (left.shape, left.dtype) == (right.shape, right.dtype)
    if any(isinstance(value, Leaf | dict | list | tuple) for value in (left, right)):
        return False
    return to_text({"": Encoder().encode(left)}) == to_text({"": Encoder().encode(right)})


def _shown(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, Leaf) else reprlib.repr(value)


def _describe(tree: Any, stored: Callable[[Leaf], str]) -> Described:
    """Encode a tree with a small array in place of each leaf: one for all leaves that are stored as one."""
    stands: dict[str, np.ndarray] = {}
    leaves: dict[int, Leaf] = {}

    def stand(value: Any, place: Place) -> Any:
        if not isinstance(value, Leaf):
            if is_array(value) and not isinstance(value, str):
                kind = f"{type(value).__module__}.{type(value).__qualname__}"
                raise ArgumentError(
                    f"state {path_of(place)!r} is a {kind}; allowed are torch tensors, numpy arrays, None, "
                    "bool, int, float, str, and lists, tuples and mappings of them"
                )
            return value
        array = stands.setdefault(stored(value), np.zeros(1))
        leaves.setdefault(id(array), value)
        return array

    encoder = Encoder()
    document = encoder.encode(_rebuilt(tree, stand))
    by_path = {path: leaves[id(array)] for path, array in encoder.arrays.items()}
    return Described(document, by_path, encoder.ties)


def _rebuilt(value: Any, at: Callable[[Any, Place], Any], place: Place = ()) -> Any:
    """Return a tree with each value that is no container replaced."""
    if len(place) > MAX_DEPTH:
        return value  # for the encoder to refuse
    if isinstance(value, Mapping):
        return {key: _rebuilt(item, at, (*place, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_rebuilt(item, at, (*place, index)) for index, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    return at(value, place)


def _as_tensor(value: torch.Tensor | np.ndarray, name: str) -> torch.Tensor:
    if isinstance(value, np.ndarray):
        if not (value.flags.c_contiguous and value.flags.writeable and value.dtype.isnative):
            raise ArgumentError(
                f"state {name!r} is a view in numpy that torch cannot share: give a copy of it"
            )
        describe(value, name)
        return to_torch(value)
    if isinstance(value, DTensor):
        if any(placement.is_partial() for placement in value.placements):
            raise ArgumentError(
                f"state {name!r} is a DTensor whose sum is not yet taken ({value.placements}); "
                "redistribute it to Shard or Replicate first"
            )
    elif hasattr(value, "local_shards"):
        raise ArgumentError(f"state {name!r} is a ShardedTensor; allowed are tensors and DTensors (FSDP2)")
    return value
