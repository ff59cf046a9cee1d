"""Search expressions such as ``optimizer.lr=loguniform(1e-4, 1e-2)``: what a sweep draws each key from."""

from __future__ import annotations

import json
import math
import re
import tomllib
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

_EXPRESSION = re.compile(r"\s*([A-Za-z0-9_.\-]+)\s*=\s*([A-Za-z_]+)\s*\((.*)\)\s*", re.DOTALL)
_SCALARS = (bool, int, float, str, list)
_DRAWS: dict[str, Callable[..., Any]] = {
    "uniform": lambda random, low, high: random.uniform(low, high),
    "loguniform": lambda random, low, high: math.exp(random.uniform(math.log(low), math.log(high))),
    "randint": lambda random, low, high: random.randrange(low, high),
    "lograndint": lambda random, low, high: min(
        high - 1, math.floor(math.exp(random.uniform(math.log(low), math.log(high))))
    ),
    "choice": lambda random, *values: random.choice(values),
}
FORMS = {
    "uniform": "uniform(low, high)",
    "loguniform": "loguniform(low, high)",
    "randint": "randint(low, high)",
    "lograndint": "lograndint(low, high)",
    "choice": "choice(a, b, …)",
    "grid": "grid(a, b, …)",
}


@attrs.frozen(kw_only=True)
class Search:
    """What one key of a config is drawn from.

    Args:
        key: Dotted path in the config.
        kind: A name of `FORMS`.
        arguments: The bounds, or the values to choose from. Of whole numbers `high` itself is left out.
    """

    key: str
    kind: str
    arguments: tuple[Any, ...]

    def draw(self, random: random.Random) -> Any:
        """Return a value. Those of a grid are not drawn: each is taken."""
        return _DRAWS[self.kind](random, *self.arguments)


def parse_searches(texts: Sequence[str]) -> tuple[Search, ...]:
    """Read expressions, of which each is for another key.

    Raises:
        InputError: One is malformed, its bounds are wrong, or two are for one key.
    """
    found = tuple(parse_search(text) for text in texts)
    keys = [search.key for search in found]
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(f"--search: {key} is searched {keys.count(key)} times; give it once")
    return found


def parse_search(text: str) -> Search:
    """Read one expression; nothing of it is evaluated as code.

    Args:
        text: ``key=kind(arguments)``. Values to choose from are TOML, or text where they are not TOML.

    Raises:
        InputError: It is malformed, or its bounds are wrong.
    """
    match = _EXPRESSION.fullmatch(text)
    if match is None:
        raise InputError(
            f"--search {text!r} is not of the form key=kind(…), such as "
            f"optimizer.lr=loguniform(1e-4,1e-2). {_allowed()}"
        )
    key, kind, inner = match.groups()
    if kind not in FORMS:
        raise InputError(f"--search {text!r}: {kind!r} is unknown.{did_you_mean(kind, FORMS)} {_allowed()}")
    arguments = _arguments(inner)
    wrong = _wrong_values(arguments) if kind in ("choice", "grid") else _wrong_bounds(kind, arguments)
    if wrong:
        raise InputError(f"--search {text!r}: {wrong}; the form is {FORMS[kind]}")
    return Search(key=key, kind=kind, arguments=arguments)


def assignment(key: str, value: Any) -> str:
    """Return the override that gives a key a value, as `helix train` takes it."""
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _allowed() -> str:
    return f"Allowed: {', '.join(FORMS.values())}"


def _arguments(inner: str) -> tuple[Any, ...]:
    """Return values between commas: all of them TOML, or each TOML or text."""
    try:
        return tuple(tomllib.loads(f"values = [{inner}]")["values"])
    except (tomllib.TOMLDecodeError, KeyError):
        return tuple(_value(item.strip()) for item in inner.split(","))


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text


def _wrong_values(values: tuple[Any, ...]) -> str:
    """Return what is wrong with values to choose from; nothing where all is well."""
    if not values or any(value == "" for value in values):
        return "there is no value to choose, or one is empty"
    odd = [value for value in values if not isinstance(value, _SCALARS)]
    return f"{odd[0]!r} is no number, text or list; search the keys of a table one by one" if odd else ""


def _wrong_bounds(kind: str, bounds: tuple[Any, ...]) -> str:
    """Return what is wrong with the ends of a range; nothing where all is well."""
    whole = kind in ("randint", "lograndint")
    wanted = (int,) if whole else (int, float)
    if len(bounds) != 2 or any(isinstance(end, bool) or not isinstance(end, wanted) for end in bounds):
        return f"given {len(bounds)} ends, {list(bounds)}; it takes two {'whole ' if whole else ''}numbers"
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return f"the low end {low} is not below the high end {high}, both finite"
    if kind.startswith("log") and low <= 0:
        return f"the low end is {low}, allowed is > 0 for a logarithm"
    return ""
