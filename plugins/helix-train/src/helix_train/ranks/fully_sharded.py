"""Ranks that each hold a part of every weight, gradient and moment: ``trainer.parallel = "fsdp2"``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from helix_kernel.checkpoint import ArrayInfo, Checkpoint
from helix_train.distributed_checkpoint import load_sharded
from helix_train.ranks.several import SeveralRanks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from helix_kernel.checkpoint.location import Place


class FullySharded(SeveralRanks):
    """A rank whose share of the model is cut by torch's FSDP2, ``fully_shard``, block by block.

    A block's weights are gathered for its forward and its backward pass alone. Gradients are joined in each
    micro-batch, so that no rank ever holds all of them. Every rank goes on with the buffers of rank 0.
    """

    def prepare(self, model: torch.nn.Module, *, streams: bool) -> torch.nn.Module:
        """Cut the weights where they stand; see `Ranks.prepare`.

        A model that streams is cut as a whole, since its blocks are not run by calling them.

        Raises:
            HelixError: The ranks have built different models.
        """
        self._require_alike(model)
        self._model = model
        marks = {name: dict(vars(parameter)) for name, parameter in model.named_parameters()}
        mesh = init_device_mesh(self.device.type, (self.world_size,))
        for part in (model,) if streams else (*blocks(model), model):
            fully_shard(part, mesh=mesh)
        for name, parameter in model.named_parameters():
            vars(parameter).update(marks[name])  # such as what keeps an optimizer from decaying it
        if streams:
            for method in ("init_state", "extend"):
                register_fsdp_forward_method(model, method)
        # Torch warns of what would go wrong if the model's output were changed in place, which it is not.
        told = rf"FSDP2-wrapped module \({type(model).__name__}\) returned a view"
        warnings.filterwarnings("ignore", told, UserWarning)
        return model

    @contextmanager
    def accumulating(self, *, last: bool) -> Iterator[None]:
        """Join buffers in the last micro-batch; see `Ranks.accumulating`."""
        yield
        if last:
            self._share_buffers()

    def load(self, checkpoint: Place, model: torch.nn.Module) -> dict[str | int, Any]:
        """Return a checkpoint's state, with the own part of what belongs to a weight; see `Ranks.load`."""
        with Checkpoint.open(checkpoint) as saved:
            tree: Any = saved.tree()
        state: dict[str | int, Any] = _to_fill(tree, _sharded(model))
        names = state["rng"].keys()
        if n_saved := sum(str(name).startswith("rank-") for name in names):
            own = f"rank-{self.rank}"
            state["rng"] = {name: state["rng"][name] for name in names if name == own}
        load_sharded(checkpoint, state, process_group=self._group)
        if n_saved:
            state["rng"] = dict.fromkeys(f"rank-{rank}" for rank in range(n_saved)) | state["rng"]
        return state


def blocks(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the parts of a model that are sharded one by one: the elements of its outermost containers.

    A container is a module that is iterated over its children, such as ``nn.ModuleList`` and
    ``nn.Sequential``. Each element must be run by calling it.
    """
    found: list[torch.nn.Module] = []
    for child in model.children():
        if isinstance(child, Iterable) and list(child) == list(child.children()):
            found += [block for block in child.children() if any(True for _ in block.parameters())]
        else:
            found += blocks(child)
    return found


def _sharded(model: torch.nn.Module) -> dict[str, DTensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, DTensor)}


def _to_fill(tree: Any, like: Mapping[str, DTensor], place: tuple[str, ...] = ()) -> Any:
    """Return a checkpoint's tree with a tensor to be filled in place of each array."""
    if isinstance(tree, ArrayInfo):
        return _empty(tree, like.get(_weight_at(place)))
    if isinstance(tree, dict):
        return {key: _to_fill(item, like, (*place, str(key))) for key, item in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_to_fill(item, like, (*place, str(i))) for i, item in enumerate(tree))
    return tree


def _weight_at(place: tuple[str, ...]) -> str:
    """Return the name of the weight to which an array at a place in a state belongs."""
    depth = {"model": 1, "averaged": 1, "optimizer": 3}.get(place[0], len(place))
    return ".".join(place[depth:])


def _empty(info: ArrayInfo, like: DTensor | None) -> Tensor:
    dtype = getattr(torch, info.dtype)
    if like is None or like.shape != info.shape:
        return torch.empty(info.shape, dtype=dtype)
    return torch.empty_like(like, dtype=dtype)
