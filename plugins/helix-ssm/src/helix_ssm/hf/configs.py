"""A config.json as the table of a Helix language model, and back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from helix_kernel.errors import IncompatibleCheckpointError, did_you_mean
from helix_ssm.hf.families import FAMILIES, Family, Field, Fixed
from helix_ssm.hf.refusal import unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from helix_kernel.config import Resolved

Table = dict[str, Any]


def to_model(config: Mapping[str, Any], source: str) -> Table:
    """Return the language model that a config.json describes, as a Helix config has it.

    Args:
        config: The parsed config.json.
        source: Where it comes from, for messages.

    Raises:
        IncompatibleCheckpointError: It describes another kind of model, or one with a property that
            Helix's layers have not; names the field, what it has and what is supported.
    """
    family = family_of(config, source)
    for fixed in (*family.fixed, Fixed("quantization_config", (None,))):
        _check_fixed(fixed, config, source)
    table: Table = {"use": "language-model", "norm": {"use": "rms-norm"}, "mixer": {"use": family.mixer}}
    for field in family.fields:
        _put(table, field.option, _value(field, config, source))
    if family.has_dt_rank:
        table["mixer"]["dt_rank"] = _dt_rank(config, table["d_model"], source)
        table["mixer"]["expand"] = _expand(config, table, source)
    return table


def family_of(config: Mapping[str, Any], source: str) -> Family:
    """Return the kind of model that a config.json describes.

    Raises:
        IncompatibleCheckpointError: It is none of those that fit.
    """
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        hint = did_you_mean(str(model_type), FAMILIES)
        raise unsupported(source, "model_type", model_type, f"{', '.join(FAMILIES)}.{hint}")
    family = FAMILIES[model_type]
    architectures = config.get("architectures") or [family.architecture]
    if architectures != [family.architecture]:
        raise unsupported(source, "architectures", architectures, [family.architecture])
    return family


def to_config(model: Resolved, source: str) -> Table:
    """Return the config.json of a Helix language model, with every value given.

    Args:
        model: The model, every option filled in.
        source: Where it comes from, for messages.

    Raises:
        IncompatibleCheckpointError: No model of `transformers` is built like it; says in what it differs.
    """
    table = model.to_table()
    family = _family_built_like(table, source)
    config: Table = {"architectures": [family.architecture], "model_type": family.model_type}
    for field in family.fields:
        value = _get(table, field.option)
        if config.setdefault(field.name, value) != value:
            raise _not_built(source, field.option, value, f"the {field.name} of all norms")
    if family.has_dt_rank:
        config["time_step_rank"] = table["mixer"]["dt_rank"] or _automatic_rank(table["d_model"])
        config["intermediate_size"] = config["expand"] * config["hidden_size"]
    for fixed in family.fixed:
        config[fixed.name] = fixed.allowed[0]
    # No id of a Helix model has a meaning of its own; without this, id 0 would end every text.
    return config | {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def _check_fixed(fixed: Fixed, config: Mapping[str, Any], source: str) -> None:
    value = _plain(config.get(fixed.name, fixed.allowed[0]))
    if value not in fixed.allowed:
        raise unsupported(source, fixed.name, value, " or ".join(map(repr, fixed.allowed)))


def _value(field: Field, config: Mapping[str, Any], source: str) -> float:
    value = config.get(field.name, field.default)
    if isinstance(field.default, bool):
        fits, allowed = isinstance(value, bool), "true or false"
    elif isinstance(field.default, int):
        fits, allowed = _is_whole(value), "a whole number >= 1"
    else:
        fits, allowed = _is_positive(value), "a number > 0"
    if not fits:
        raise unsupported(source, field.name, value, allowed)
    number: float = value
    return number


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _dt_rank(config: Mapping[str, Any], d_model: int, source: str) -> int:
    rank = config.get("time_step_rank", "auto")
    if rank == "auto":
        return _automatic_rank(d_model)
    if not _is_whole(rank):
        raise unsupported(source, "time_step_rank", rank, '"auto" or a whole number >= 1')
    return int(rank)


def _automatic_rank(d_model: int) -> int:
    return math.ceil(d_model / 16)


def _expand(config: Mapping[str, Any], table: Table, source: str) -> int:
    """Return the inner channels for each channel of the model; `transformers` goes by intermediate_size."""
    d_model, expand = table["d_model"], table["mixer"]["expand"]
    d_inner = config.get("intermediate_size", expand * d_model)
    if not _is_whole(d_inner) or d_inner % d_model:
        allowed = f"a multiple of hidden_size, which is {d_model}"
        raise unsupported(source, "intermediate_size", d_inner, allowed)
    return int(d_inner // d_model)


def _plain(value: Any) -> Any:
    """Return a value of config.json with infinities as numbers; `transformers` writes them as objects."""
    if isinstance(value, list):
        return tuple(_plain(item) for item in value)
    if isinstance(value, dict) and set(value) == {"__float__"}:
        return float(value["__float__"])
    return value


def _family_built_like(table: Table, source: str) -> Family:
    """Return the kind of model that a Helix model is, having compared whatever config.json cannot say."""
    _require(source, "use", table["use"], "helix-ssm:language-model")
    _require(source, "pattern", table["pattern"], None)
    _require(source, "channel", table["channel"], None)
    _require(source, "norm.use", table["norm"]["use"], "helix-ssm:rms-norm")
    mixer = table["mixer"]
    alike = [family for family in FAMILIES.values() if mixer["use"] == f"helix-ssm:{family.mixer}"]
    if not alike:
        mixers = dict.fromkeys(f"helix-ssm:{family.mixer}" for family in FAMILIES.values())
        raise _not_built(source, "mixer.use", mixer["use"], " or ".join(mixers))
    for family in alike:
        if all(mixer[name] == value for name, value in family.ours.items()):
            return family
    for name, value in alike[-1].ours.items():
        _require(source, f"mixer.{name}", mixer[name], value)
    raise AssertionError(mixer)


def _require(source: str, option: str, value: object, wanted: object) -> None:
    if value != wanted:
        raise _not_built(source, option, value, "left out" if wanted is None else repr(wanted))


def _put(table: Table, option: str, value: float) -> None:
    *parents, last = option.split(".")
    for parent in parents:
        table = table[parent]
    table[last] = value


def _get(table: Table, option: str) -> Any:
    value: Any = table
    for part in option.split("."):
        value = value[part]
    return value


def _not_built(source: str, option: str, value: object, wanted: str) -> IncompatibleCheckpointError:
    return IncompatibleCheckpointError(
        f"{source}: model.{option} is {value!r}, which no model of transformers that is written has; there "
        f"it is {wanted}"
    )
