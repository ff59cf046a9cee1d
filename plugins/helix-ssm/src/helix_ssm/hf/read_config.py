"""The language model that a config.json describes, as a Helix config has it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from helix_kernel.errors import did_you_mean
from helix_ssm.hf.families import FAMILIES, Family, Field, Fixed
from helix_ssm.hf.refusal import unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

Table = dict[str, Any]
_NO_LIMIT = (0.0, math.inf)
_N_HEADS = 128
"""What `transformers` takes for num_heads where config.json leaves it out."""


def to_model(config: Mapping[str, Any], source: str) -> Table:
    """Return the language model that a config.json describes, as a Helix config has it.

    Args:
        config: The parsed config.json.
        source: Where it comes from, for messages.

    Raises:
        IncompatibleCheckpointError: It describes another kind of model, or one with a property that
            Helix's layers have not; names the field, what it has and what is supported.
    """
    family = _family_of(config, source)
    for fixed in (*family.fixed, Fixed("quantization_config", (None,))):
        _check_fixed(fixed, config, source)
    table: Table = {"use": "language-model", "norm": {"use": "rms-norm"}, "mixer": {"use": family.mixer}}
    for field in family.fields:
        _put(table, field.option, _value(field, config, source))
    if family.has_dt_rank:
        table["mixer"]["dt_rank"] = _dt_rank(config, table["d_model"], source)
        table["mixer"]["expand"] = _expand(config, table, source)
    if family.has_heads:
        _check_heads(config, table, source)
        table["mixer"]["dt_limit"] = _dt_limit(config, source)
    return table


def _family_of(config: Mapping[str, Any], source: str) -> Family:
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        hint = did_you_mean(str(model_type), FAMILIES)
        raise unsupported(source, "model_type", model_type, f"{', '.join(FAMILIES)}.{hint}")
    family = FAMILIES[model_type]
    architectures = config.get("architectures") or [family.architecture]
    if architectures != [family.architecture]:
        raise unsupported(source, "architectures", architectures, [family.architecture])
    return family


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


def _check_heads(config: Mapping[str, Any], table: Table, source: str) -> None:
    mixer = table["mixer"]
    n_heads, rest = divmod(mixer["expand"] * table["d_model"], mixer["head_dim"])
    if rest:
        raise unsupported(source, "head_dim", mixer["head_dim"], "a divisor of expand * hidden_size")
    if config.get("num_heads", _N_HEADS) != n_heads:
        allowed = f"expand * hidden_size / head_dim, which is {n_heads}"
        raise unsupported(source, "num_heads", config.get("num_heads", _N_HEADS), allowed)
    if n_heads % mixer["n_groups"]:
        allowed = f"a divisor of num_heads, which is {n_heads}"
        raise unsupported(source, "n_groups", mixer["n_groups"], allowed)


def _dt_limit(config: Mapping[str, Any], source: str) -> tuple[float, float] | None:
    limit = _plain(config.get("time_step_limit", _NO_LIMIT))
    if limit == _NO_LIMIT:
        return None
    try:
        low, high = (float(bound) for bound in limit)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not 0 <= low <= high:
        raise unsupported(source, "time_step_limit", limit, "two numbers, 0 <= smallest <= largest")
    return low, high


def _plain(value: Any) -> Any:
    """Return a value of config.json with infinities as numbers; `transformers` writes them as objects."""
    if isinstance(value, list):
        return tuple(_plain(item) for item in value)
    if isinstance(value, dict) and set(value) == {"__float__"}:
        return float(value["__float__"])
    return value


def _put(table: Table, option: str, value: float) -> None:
    *parents, last = option.split(".")
    for parent in parents:
        table = table[parent]
    table[last] = value
