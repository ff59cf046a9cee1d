"""The config.json that describes a Helix language model to `transformers`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from helix_ssm.hf.families import FAMILIES, Family
from helix_ssm.hf.refusal import unsupported

if TYPE_CHECKING:
    from helix_kernel.config import Resolved
    from helix_ssm.hf.fit import Shapes

Table = dict[str, Any]


def family_like(model: Resolved, source: str) -> Family:
    """Return the kind of model of `transformers` that a Helix model is.

    Args:
        model: The model, every option filled in.
        source: Where it comes from, for messages.

    Raises:
        IncompatibleCheckpointError: It is built like none; names the option that differs.
    """
    table = model.to_table()
    _require(source, "use", table["use"], "helix-ssm:language-model")
    _require(source, "pattern", table["pattern"], None)
    _require(source, "channel", table["channel"], None)
    _require(source, "norm.use", table["norm"]["use"], "helix-ssm:rms-norm")
    mixer = table["mixer"]
    for family in FAMILIES.values():
        if mixer["use"] == f"helix-ssm:{family.mixer}" and family.ours.items() <= mixer.items():
            return family
    mixers = dict.fromkeys(f"helix-ssm:{family.mixer}" for family in FAMILIES.values())
    raise unsupported(source, "model.mixer.use", mixer["use"], " or ".join(mixers))


def to_config(model: Resolved, family: Family, shapes: Shapes, source: str) -> Table:
    """Return the config.json of a Helix language model, with every value given.

    Args:
        model: The model, every option filled in.
        family: The kind of model that `family_like` found it to be.
        shapes: The shapes of its parameters.
        source: Where it comes from, for messages.

    Raises:
        IncompatibleCheckpointError: Its norms have several epsilons, where `transformers` has one.
    """
    table = model.to_table()
    config: Table = {"architectures": [family.architecture], "model_type": family.model_type}
    for field in family.fields:
        value = _get(table, field.option)
        if field.name in config and config[field.name] != value:
            raise unsupported(
                source, f"model.{field.option}", value, f"that of all norms, {config[field.name]!r}"
            )
        config[field.name] = value
    d_inner = config["expand"] * config["hidden_size"]
    if family.has_dt_rank:
        config["time_step_rank"] = shapes["blocks.0.mixer.dt_proj.weight"][1]
        config["intermediate_size"] = d_inner
    if family.has_heads:
        (config["num_heads"],) = shapes["blocks.0.mixer.A_log"]
        config["head_dim"] = d_inner // config["num_heads"]
        config["time_step_limit"] = table["mixer"]["dt_limit"] or (0.0, math.inf)
    for fixed in family.fixed:
        config[fixed.name] = fixed.allowed[0]
    # No id of a Helix model has a meaning of its own; without this, id 0 would end every text.
    return config | {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def _require(source: str, option: str, value: object, wanted: object) -> None:
    if value != wanted:
        raise unsupported(source, f"model.{option}", value, "none" if wanted is None else repr(wanted))


def _get(table: Table, option: str) -> Any:
    value: Any = table
    for part in option.split("."):
        value = value[part]
    return value
