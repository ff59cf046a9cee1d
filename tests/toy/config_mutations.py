"""Seeded mutations of a config: each changes one thing, at a place that the seed picks."""

from __future__ import annotations

import copy
import datetime as dt
import math
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Table = dict[str, Any]
Place = tuple[Any, Any]  # what holds a value, and its key there


def mutations(configs: dict[str, Table], names: list[str], count: int) -> Iterator[tuple[str, Table]]:
    """Yield `count` mutated configs, each with what was done, every kind of mutation in turn.

    Args:
        configs: Right configs, by name.
        names: Names of components of all kinds.
        count: How many.
    """
    sources = sorted(configs)
    for seed in range(count):
        rng = Random(seed)
        kind = sorted(MUTATIONS)[seed % len(MUTATIONS)]
        source = rng.choice(sources)
        table = copy.deepcopy(configs[source])
        path = MUTATIONS[kind](table, rng, names)
        yield f"{seed}: {kind} at {path} of {source}", table


def _values(value: Any, path: str = "") -> Iterator[tuple[str, Place]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        below = f"{path}.{key}" if path else str(key)
        yield below, (value, key)
        yield from _values(item, below)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _at(wanted: Callable[[Any, Any], bool], change: Callable[[Any, Random, list[str]], Any]) -> Any:
    """Return a mutation that replaces one of the values that are wanted (by key and value)."""

    def mutate(table: Table, rng: Random, names: list[str]) -> str:
        found = [(path, place) for path, place in _values(table) if wanted(place[1], place[0][place[1]])]
        if not found:
            return "nothing"
        path, (holder, key) = rng.choice(found)
        holder[key] = change(holder[key], rng, names)
        return path

    return mutate


def _in_a_table(change: Callable[[Table, Random], None]) -> Any:
    def mutate(table: Table, rng: Random, _names: list[str]) -> str:
        tables = [("", table), *((path, h[k]) for path, (h, k) in _values(table) if isinstance(h[k], dict))]
        path, chosen = rng.choice(tables)
        change(chosen, rng)
        return path or "the whole"

    return mutate


def _drop(table: Table, rng: Random) -> None:
    del table[rng.choice(sorted(table))]


def _misspell_key(table: Table, rng: Random) -> None:
    key = rng.choice(sorted(table))
    table[key[:1] + key] = table.pop(key)


def _misspelt(text: str, rng: Random) -> str:
    at = rng.randrange(len(text))
    return text[:at] + text[at + 1 :] + "x"


def _number(_key: Any, value: Any) -> bool:
    return _is_number(value)


def _integer(_key: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _use(key: Any, _value: Any) -> bool:
    return key == "use"


def _table(_key: Any, value: Any) -> bool:
    return isinstance(value, dict)


def _list(_key: Any, value: Any) -> bool:
    return isinstance(value, list)


def _leaf(key: Any, value: Any) -> bool:
    return key != "use" and not isinstance(value, dict | list)


def _any(_key: Any, _value: Any) -> bool:
    return True


def _always(value: Any) -> Callable[[Any, Random, list[str]], Any]:
    return lambda _old, _rng, _names: copy.deepcopy(value)


MUTATIONS: dict[str, Callable[[Table, Random, list[str]], str]] = {
    "unknown key": _in_a_table(lambda table, rng: table.update({rng.choice(["zzz", "name", "type"]): 1})),
    "unicode key": _in_a_table(lambda table, rng: table.update({rng.choice(["größe", "幅", ""]): 1})),
    "misspelt key": _in_a_table(_misspell_key),
    "left out": _in_a_table(_drop),
    "extra section": lambda table, rng, _: str(table.setdefault(rng.choice(["models", "foo", "block"]), {})),
    "misspelt use": _at(_use, lambda old, rng, _: _misspelt(old, rng)),
    "another component": _at(_use, lambda _old, rng, names: rng.choice(names)),
    "use is a number": _at(_use, _always(3)),
    "text for a number": _at(_number, lambda old, _rng, _names: str(old)),
    "true for a number": _at(_number, _always(True)),
    "list for a scalar": _at(_leaf, lambda old, _rng, _names: [old]),
    "table for a scalar": _at(_leaf, _always({"a": 1})),
    "scalar for a table": _at(_table, lambda _old, rng, _: rng.choice([3, 1.5, False])),
    "name for a table": _at(_table, lambda old, _rng, _: old.get("use", "trainer")),
    "list for a table": _at(_table, lambda old, _rng, _: [old]),
    "scalar for a list": _at(_list, _always(3)),
    "empty list": _at(_list, _always([])),
    "empty table": _at(_table, _always({})),
    "zero": _at(_number, _always(0)),
    "negative": _at(_number, lambda old, _rng, _: -abs(old) - 1),
    "large": _at(_number, lambda _old, rng, _: rng.choice([2**70, 1e30])),
    "beyond a float": _at(_number, _always(10**400)),
    "whole float": _at(_integer, lambda old, _rng, _: float(old)),
    "broken number": _at(_integer, lambda old, _rng, _: old + 0.5),
    "integer for a float": _at(lambda _key, value: isinstance(value, float), _always(1)),
    "not a number": _at(_number, _always(math.nan)),
    "infinity": _at(_number, lambda _old, rng, _: rng.choice([math.inf, -math.inf])),
    "null": _at(_any, _always(None)),
    "date": _at(_leaf, _always(dt.date(2026, 1, 1))),
    "reference": _at(_leaf, _always("${optimizer.lr}")),
    "reference to nothing": _at(_leaf, _always("${model.nothing}")),
    "reference within text": _at(_leaf, _always("a ${trainer.steps} b")),
    "reference for a table": _at(_table, _always("${model.mixer}")),
    "empty text": _at(_any, _always("")),
}
