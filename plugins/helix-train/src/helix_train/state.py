"""What a run must remember to go on as if it had never stopped, as nested arrays and plain values."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from helix_kernel.errors import IncompatibleCheckpointError
from helix_kernel.nesting import flatten, nest

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

State = dict[str, Any]


def parameter_groups(model: torch.nn.Module) -> list[State]:
    """Return the parameters in two groups, for optimizers that decay weights.

    Vectors (norms, biases) and parameters marked ``_no_weight_decay`` (a state-space model's
    A and D) are not decayed.
    """
    decayed: list[torch.nn.Parameter] = []
    spared: list[torch.nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            spare = parameter.ndim < 2 or getattr(parameter, "_no_weight_decay", False)
            (spared if spare else decayed).append(parameter)
    groups: list[State] = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def optimizer_state(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> State:
    """Return an optimizer's state by parameter name: ``{"state": {slot: {name: …}}, "param_groups"}``."""
    names = _names_by_index(optimizer, model)
    saved = optimizer.state_dict()
    slots: State = {}
    for index, entry in saved["state"].items():
        for slot, value in entry.items():
            slots.setdefault(slot, {})[names[index]] = value
    groups = [{**group, "params": [names[i] for i in group["params"]]} for group in saved["param_groups"]]
    return {"state": {slot: nest(values) for slot, values in slots.items()}, "param_groups": groups}


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, model: torch.nn.Module, state: State, *, options: Container[str] = ()
) -> None:
    """Put back what `optimizer_state` returned.

    Args:
        optimizer: Takes the state on.
        model: Names the optimizer's parameters.
        state: What `optimizer_state` returned.
        options: Options of the groups that stay as they are now, since a config set them; what the
            optimizer itself keeps there comes from the state.

    Raises:
        IncompatibleCheckpointError: The groups hold other parameters than the optimizer's.
    """
    names = _names_by_index(optimizer, model)
    groups = optimizer.state_dict()["param_groups"]
    _refuse_other_groups(
        [set(group["params"]) for group in state["param_groups"]],
        [{names[index] for index in group["params"]} for group in groups],
    )
    indices = {name: index for index, name in names.items()}
    entries: dict[int, State] = {}
    for slot, values in state["state"].items():
        for name, value in flatten(values).items():
            entries.setdefault(indices[name], {})[slot] = value
    for group, saved in zip(groups, state["param_groups"], strict=True):
        group.update({key: value for key, value in saved.items() if key != "params" and key not in options})
    optimizer.load_state_dict({"state": entries, "param_groups": groups})


def seed_rngs(seed: int) -> None:
    """Seed every global random number generator."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - datasets may draw from it


def rng_state() -> State:
    """Return the state of every global random number generator."""
    version, words, gauss = random.getstate()
    name, keys, *at = np.random.get_state(legacy=True)  # noqa: NPY002 - as above
    state: State = {
        "torch": torch.get_rng_state(),
        "python": {"version": version, "words": np.array(words, dtype=np.uint32), "gauss": gauss},
        "numpy": {"name": name, "keys": keys, "at": at},
    }
    if torch.cuda.is_available():
        state["cuda"] = {str(index): s for index, s in enumerate(torch.cuda.get_rng_state_all())}
    return state


def load_rng_state(state: State) -> None:
    """Put back what `rng_state` returned."""
    torch.set_rng_state(state["torch"])
    python = state["python"]
    random.setstate((python["version"], tuple(int(word) for word in python["words"]), python["gauss"]))
    keys = np.asarray(state["numpy"]["keys"], dtype=np.uint32)
    np.random.set_state((state["numpy"]["name"], keys, *state["numpy"]["at"]))  # noqa: NPY002 - as above
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([state["cuda"][key] for key in sorted(state["cuda"], key=int)])


@contextmanager
def kept_rngs() -> Iterator[None]:
    """Put every global random number generator back when the block ends."""
    state = rng_state()
    try:
        yield
    finally:
        load_rng_state(state)


def _refuse_other_groups(saved: list[set[str]], now: list[set[str]]) -> None:
    if saved == now:
        return
    odd = sorted(set().union(*saved) ^ set().union(*now))
    what = f"holds other parameters than this model: {', '.join(odd[:5])}" if odd else "groups them otherwise"
    more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
    raise IncompatibleCheckpointError(f"the checkpoint's optimizer {what}{more}")


def _names_by_index(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> dict[int, str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {index: names[id(parameter)] for index, parameter in enumerate(ordered)}
