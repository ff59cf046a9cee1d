"""What a run must remember to go on as if it had never stopped, as nested arrays and plain values."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from helix_kernel.errors import IncompatibleCheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

State = dict[str, Any]


def nest(flat: Mapping[str, Any]) -> State:
    """Turn dotted names into nested mappings: ``blocks.0.weight`` to ``{"blocks": {"0": …}}``."""
    nested: State = {}
    for name, value in flat.items():
        *parents, last = name.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return nested


def flatten(nested: Mapping[str, Any], prefix: str = "") -> State:
    """Turn nested mappings into dotted names, the reverse of `nest`."""
    flat: State = {}
    for name, value in nested.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            flat.update(flatten(value, f"{path}."))
        else:
            flat[path] = value
    return flat


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


def load_optimizer_state(optimizer: torch.optim.Optimizer, model: torch.nn.Module, state: State) -> None:
    """Put back what `optimizer_state` returned.

    Raises:
        IncompatibleCheckpointError: The groups hold other parameters than the optimizer's.
    """
    names = _names_by_index(optimizer, model)
    indices = {name: index for index, name in names.items()}
    held = [name for group in state["param_groups"] for name in group["params"]]
    if sorted(held) != sorted(indices):
        odd = sorted(set(held) ^ set(indices))[:5]
        raise IncompatibleCheckpointError(
            f"the checkpoint's optimizer holds other parameters than this model: {', '.join(odd)}, …"
        )
    entries: dict[int, State] = {}
    for slot, values in state["state"].items():
        for name, value in flatten(values).items():
            entries.setdefault(indices[name], {})[slot] = value
    groups = [{**g, "params": [indices[n] for n in g["params"]]} for g in state["param_groups"]]
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


def _names_by_index(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> dict[int, str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {index: names[id(parameter)] for index, parameter in enumerate(ordered)}
