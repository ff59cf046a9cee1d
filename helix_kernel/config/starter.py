"""Makes a config to begin with: the components that were chosen, and what they cannot do without."""

from __future__ import annotations

import math
import types
import typing
from itertools import chain
from typing import TYPE_CHECKING, Any

import tomli_w

from helix_kernel.config.json_types import json_default
from helix_kernel.config.schema import Option, schema_of
from helix_kernel.config.structure import describe
from helix_kernel.errors import ArgumentError, ConfigError, did_you_mean
from helix_kernel.options import FactoryOf

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from helix_kernel.component import Component
    from helix_kernel.kernel import Kernel

    Table = dict[str, Any]

SECTIONS = ("model", "data", "loss", "optimizer", "schedule", "trainer")
"""What a run needs, in the order in which it is read."""
_FIRST_CHOICE = {
    "layer": ("language-model", "mamba"),
    "dataset": ("text-bytes",),
    "loss": ("cross-entropy",),
    "optimizer": ("adamw",),
    "schedule": ("cosine",),
}
"""What is taken of a kind where nothing is chosen: of those that fit, the first."""
_SENSIBLE: Mapping[str, Any] = {
    "d_model": 64,
    "n_layers": 2,
    "mixer": {"use": "mamba"},
    "source": "python-docs",
    "seq_len": 128,
    "batch_size": 8,
    "steps": 200,
    "total_steps": 200,
    "lr": 1e-3,
}
"""Values of options that many components have."""


def starter(kernel: Kernel, choices: Mapping[str, str]) -> Table:
    """Return a small config that is right.

    Args:
        kernel: What is installed.
        choices: Names of components by section (``model``), or by option of the model's (``mixer``).

    Raises:
        ArgumentError: A choice is of no section, and of no option that holds a component.
        ConfigError: A component that was chosen cannot stand there.
        UnknownNameError: A component that was chosen is not installed.
    """
    sections = [name for name in SECTIONS if name in kernel.registry.sections]
    wanted = sections + [
        name for name in kernel.registry.sections if name in choices and name not in sections
    ]
    of_model = {name: use for name, use in choices.items() if name not in kernel.registry.sections}
    made = {name: _section(kernel, name, choices.get(name), of_model) for name in wanted}
    _refuse_unused(kernel, made, of_model)
    return made


def as_toml(kernel: Kernel, table: Table, schema: str) -> str:
    """Return a config as TOML, with every further option beside it as a comment.

    Args:
        kernel: What is installed.
        table: What `starter` returned.
        schema: Path of the JSON Schema, for editors.
    """
    lines = [f"#:schema {schema}", ""]
    for name, section in table.items():
        kind = kernel.registry.sections[name]
        lines += _table_lines(kernel, kind.name, name, section, kind.context)
    return "\n".join(lines).rstrip() + "\n"


def _section(kernel: Kernel, name: str, chosen: str | None, of_model: Mapping[str, str]) -> Table:
    kind = kernel.registry.sections[name]
    names = (
        [chosen] if chosen else [*([kind.default] if kind.default else []), *_candidates(kernel, kind.name)]
    )
    nested = of_model if name == "model" else {}
    return _first_right(kernel, kind.name, names, kind.context, nested)


def _candidates(kernel: Kernel, kind: str) -> list[str]:
    known = [component.name for component in kernel.components(kind)]
    return [*(name for name in _FIRST_CHOICE.get(kind, ()) if name in known), *known]


def _first_right(
    kernel: Kernel, kind: str, names: list[str], supplied: tuple[str, ...], nested: Mapping[str, str]
) -> Table:
    """Return the first table that resolves, of each component in turn the shortest."""
    wrong: ConfigError | None = None
    for table in chain.from_iterable(_tables(kernel, kernel.find(kind, n), supplied, nested) for n in names):
        try:
            kernel.resolver.resolve(kind, table, supplied=supplied)
        except ConfigError as error:
            wrong = wrong or error
        else:
            return table
    raise wrong or ArgumentError(f"no {kind} is installed")


def _tables(
    kernel: Kernel, component: Component, supplied: tuple[str, ...], nested: Mapping[str, str]
) -> Iterator[Table]:
    """Yield tables of a component, from what it requires to what is sensible beside that."""
    options = {o.name: o for o in schema_of(component).options.values() if o.name not in supplied}
    chosen = {
        name: _nested(kernel, option, nested[name])
        for name, option in options.items()
        if name in nested and option.nested
    }
    required = {name: _value(kernel, option) for name, option in options.items() if option.required}
    sensible = {name: value for name, value in _SENSIBLE.items() if name in options}
    least = {
        "use": component.name,
        **required,
        **{n: v for n, v in sensible.items() if n in required},
        **chosen,
    }
    yield least
    yield {**least, **sensible, **chosen}
    for example in component.examples:
        yield {**least, **{name: value for name, value in example.items() if name in options}, **chosen}


def _nested(kernel: Kernel, option: Option, chosen: str | None = None) -> Any:
    marker = option.nested
    assert marker is not None
    supplied = marker.supplies if isinstance(marker, FactoryOf) else ()
    names = (
        [chosen]
        if chosen
        else list(reversed(_FIRST_CHOICE.get(marker.kind, ()))) or _candidates(kernel, marker.kind)
    )
    table = _first_right(kernel, marker.kind, names, supplied, {})
    return [table] if _is_list(option.type) else table


def _value(kernel: Kernel, option: Option) -> Any:
    """Return some value that an option allows."""
    if option.nested:
        return _nested(kernel, option)
    kind = typing.get_origin(option.type) or option.type
    if kind is typing.Literal:
        return typing.get_args(option.type)[0]
    if kind in (int, float):
        return _number(option, kind)
    return {bool: False, str: "text", list: [], tuple: [], dict: {}}.get(kind, "text")


def _number(option: Option, kind: type) -> float:
    bounds = option.bounds
    candidates: list[float] = [1, 2, 0, 0.5, -1, 1e-3]
    if bounds is not None and bounds.ge is not None:
        candidates.append(kind(bounds.ge))
    return next(
        (n for n in candidates if isinstance(n, kind | int) and (not bounds or bounds.allows(n))), math.nan
    )


def _is_list(annotation: Any) -> bool:
    origin = typing.get_origin(annotation) or annotation
    if origin in (typing.Union, types.UnionType):
        return all(_is_list(part) for part in typing.get_args(annotation) if part is not type(None))
    return origin in (list, tuple)


def _refuse_unused(kernel: Kernel, made: Table, of_model: Mapping[str, str]) -> None:
    unused = [name for name in of_model if name not in made["model"]]
    if unused:
        model = kernel.find("layer", made["model"]["use"])
        holders = [o.name for o in schema_of(model).options.values() if o.nested]
        known = [*kernel.registry.sections, *holders]
        hint = did_you_mean(unused[0], known)
        raise ArgumentError(
            f"{unused[0]!r} is no section, and no component of {model.qualified}.{hint} "
            f"Choose of: {', '.join(known)}"
        )


def _table_lines(
    kernel: Kernel, kind: str, path: str, table: Mapping[str, Any], supplied: tuple[str, ...]
) -> Iterator[str]:
    component = kernel.find(kind, table["use"])
    options = {n: o for n, o in schema_of(component).options.items() if n not in supplied}
    yield f"# {component.summary}"
    yield f"[{path}]"
    below = [name for name, value in table.items() if isinstance(value, dict) and "use" in value]
    for name, value in table.items():
        if name not in below:
            note = f"  # {options[name].help}" if name in options and options[name].help else ""
            yield f"{_entry(name, value)}{note}"
    for name, option in options.items():
        if name not in table:
            yield f"# {_commented(option)}"
    yield ""
    for name in below:
        marker = options[name].nested
        inner = marker.supplies if isinstance(marker, FactoryOf) else ()
        yield from _table_lines(kernel, marker.kind if marker else kind, f"{path}.{name}", table[name], inner)


def _commented(option: Option) -> str:
    default = json_default(option.default)
    shown = _entry(option.name, default) if default is not None else f"{option.name} = …"
    limits = f" {option.bounds}" if option.bounds else ""
    return f"{shown}  # {option.help or 'an option'}: {describe(option.type)}{limits}"


def _entry(name: str, value: Any) -> str:
    """Return ``name = value`` on one line, tables inline."""
    return f"{name} = {_inline(value)}"


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(_entry(name, item) for name, item in value.items() if item is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_inline(item) for item in value)}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").strip()
