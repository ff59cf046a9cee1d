"""What editors show of a config that they do not follow the rules of: names to complete, and what they mean.

Taplo, the language server of most editors' TOML support, completes and explains what ``properties``,
``anyOf`` and ``$ref`` lead to, as deep as they nest; it ignores ``if``. So the hints stand beside the rules,
allow everything, tell each option of all components of a kind together, and go one level deep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.options import markers_within

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from helix_kernel.component import Component, Kind
    from helix_kernel.config.schema import Option, Schema
    from helix_kernel.registry import Registry

    JsonSchema = dict[str, Any]


def named(registry: Registry, kind: str) -> dict[str, Component]:
    """Return the components of a kind by every name that means one of them alone, sorted."""
    names = {
        name
        for c in registry.components(kind)
        for name in (*c.names, *(f"{c.provider}:{n}" for n in c.names))
    }
    found = {name: registry.look_up(kind, name) for name in sorted(names)}
    return {name: component for name, component in found.items() if component is not None}


@attrs.frozen
class EditorHints:
    """Writes the hints of the kinds that a config may hold.

    Args:
        registry: Where components are looked up.
        schema_of: Returns a component's schema, or None where it is not known.
    """

    registry: Registry
    schema_of: Callable[[Component], Schema | None]
    definitions: JsonSchema = attrs.field(factory=dict)

    def section(self, kind: Kind) -> JsonSchema:
        """Return the hints of a section, which allow every value."""
        described = {"title": kind.name, "description": kind.summary or f"The {kind.name} to use"}
        return {**described, "anyOf": [self._kind(kind.name, nests=True), True]}

    def _kind(self, kind: str, *, nests: bool) -> JsonSchema:
        name = f"hints.{kind}" if nests else f"hints.nested.{kind}"
        if name not in self.definitions:
            self.definitions[name] = {}
            self.definitions[name] = self._table(kind, nests=nests)
        return {"$ref": f"#/$defs/{name}"}

    def _table(self, kind: str, *, nests: bool) -> JsonSchema:
        options: dict[str, list[tuple[Component, Option]]] = {}
        for component in self.registry.components(kind):
            schema = self.schema_of(component)
            for option in schema.options.values() if schema else ():
                options.setdefault(option.name, []).append((component, option))
        own = {name: self._option(takers, nests=nests) for name, takers in sorted(options.items())}
        return {"properties": {"use": _use_of(kind, named(self.registry, kind)), **own}}

    def _option(self, takers: list[tuple[Component, Option]], *, nests: bool) -> JsonSchema:
        described: JsonSchema = {"description": _together(takers)}
        kinds = sorted({m.kind for _, option in takers for m in markers_within(option.type)}) if nests else []
        if not kinds:
            return described
        hints = [self._kind(kind, nests=False) for kind in kinds]
        return {**described, "anyOf": [*hints, *({"items": hint} for hint in hints), True]}


def _use_of(kind: str, names: Mapping[str, Component]) -> JsonSchema:
    """Return the key `use`: its values, and what each is, as Taplo reads it."""
    docs = [_about(name, component) for name, component in names.items()]
    return {
        "description": f"The {kind} to use",
        "enum": list(names),
        "x-taplo": {"docs": {"main": f"The {kind} to use", "enumValues": docs}},
    }


def _about(name: str, component: Component) -> str:
    since = component.deprecated.get(name.rpartition(":")[2])
    old = f"old name of `{component.name}` since {component.provider} {since}. " if since else ""
    return f"{old}{component.summary} ({component.provider})"


def _together(takers: list[tuple[Component, Option]]) -> str:
    """Return what each component means by an option, those of one meaning in one line."""
    meanings: dict[str, list[str]] = {}
    for component, option in takers:
        meanings.setdefault(option.help, []).append(f"`{component.name}`")
    if len(meanings) == 1:
        return next(iter(meanings))
    return "\n\n".join(f"{', '.join(names)}: {help_text}" for help_text, names in meanings.items())
