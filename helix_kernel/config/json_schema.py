"""One JSON Schema of everything installed, for editors. Imports no component's target.

Each component is written once for every set of arguments that parents supply, and each kind once for
every place that differs in them or in what is meant without a `use`; places refer to kinds, and kinds to
components, so that the size is that of what is installed and not of what can be nested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.config import KernelSettings
from helix_kernel.config.editor_hints import EditorHints, named
from helix_kernel.config.json_types import REFERENCE, TypeWriter, json_default
from helix_kernel.config.schema import Option, Schema, schema_of, schema_of_class
from helix_kernel.errors import DependencyError
from helix_kernel.options import ComponentOf, FactoryOf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helix_kernel.component import Component, Kind
    from helix_kernel.kernel import Kernel

    JsonSchema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ID = "urn:helix:config"
UNKNOWN_OPTIONS = (
    "Its options are not listed here, for only importing it tells them: helix config check does."
)


def json_schema(kernel: Kernel) -> JsonSchema:
    """Return the JSON Schema (draft 2020-12) of configs that this kernel can check."""
    return _Writer(kernel).document()


def schema_without_import(component: Component) -> Schema | None:
    """Return a component's schema, or None where only importing its target would tell it."""
    if component.config is None:
        return None
    try:
        return schema_of(component)
    except DependencyError:  # using the component is what reports this
        return None


@attrs.frozen
class _Place:
    """Where a component may stand.

    Args:
        kind: The kind wanted there.
        supplied: Arguments that whoever builds it adds.
        default: The table that a table without `use` is laid over, if there is one.
    """

    kind: str
    supplied: tuple[str, ...] = ()
    default: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        without = f"-without-{'-'.join(self.supplied)}" if self.supplied else ""
        given = "-".join(str(value) if key == "use" else key for key, value in (self.default or {}).items())
        return f"{self.kind}{without}{f'-or-{given}' if given else ''}".replace(":", ".")


class _Writer:
    def __init__(self, kernel: Kernel) -> None:
        self._registry = kernel.registry
        self._definitions: JsonSchema = {}
        self._hints = EditorHints(kernel.registry, schema_without_import)

    def document(self) -> JsonSchema:
        kinds = self._registry.sections
        name = {"type": "string"}
        extends = {
            "description": "Config files that this one builds on; what may go on in them is not checked",
            "anyOf": [name, {"type": "array", "items": name}],
        }
        settings = {"description": "Plugins and backends", **self._table(schema_of_class(KernelSettings), ())}
        read = [rule for kind in kinds.values() for rule in self._sections_read(kind)]
        versions = ", ".join(sorted(f"{p.provider} {p.version}" for p in self._registry.plugins))
        return {
            "$schema": DIALECT,
            "$id": ID,
            "title": "Helix config",
            "description": f"What `helix config check` accepts with {versions or 'no plugin'} installed",
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "extends": extends,
                "kernel": settings,
                **{section: self._hints.section(kind) for section, kind in kinds.items()},
            },
            # What a file leaves out may stand in one that it extends.
            "if": {"required": ["extends"]},
            "else": {
                "properties": {section: self._section(kind) for section, kind in kinds.items()},
                **({"allOf": read} if read else {}),
            },
            "$defs": {**self._definitions, **self._hints.definitions},
        }

    def _section(self, kind: Kind) -> JsonSchema:
        return self._kind(_Place(kind.name, kind.context, {"use": kind.default} if kind.default else None))

    def _sections_read(self, kind: Kind) -> Iterator[JsonSchema]:
        """Yield the sections that must stand beside one, for each component there that reads others."""
        names = named(self._registry, kind.name)
        for component in {c.qualified: c for c in names.values() if c.sections}.values():
            own = [name for name, other in names.items() if other == component]
            by_use = {"type": "object", "properties": {"use": {"enum": own}}}
            needs_use = {} if kind.default in own else {"required": ["use"]}
            chosen = {"anyOf": [{"enum": own}, {**by_use, **needs_use}]}
            yield {
                "if": {"required": [kind.section], "properties": {kind.section: chosen}},
                "then": {"required": list(component.sections)},
            }

    def _kind(self, place: _Place) -> JsonSchema:
        if place.name not in self._definitions:
            self._definitions[place.name] = {}  # a placeholder, since a kind may nest its own
            self._definitions[place.name] = self._at(place)
        return {"$ref": f"#/$defs/{place.name}"}

    def _at(self, place: _Place) -> JsonSchema:
        fitting = {
            name: component
            for name, component in named(self._registry, place.kind).items()
            if _fits(component, place.supplied)
        }
        if not fitting:
            return {"description": f"no {place.kind} that could stand here is installed", "not": {}}
        table = {
            "type": "object",
            "required": [] if place.default else ["use"],
            "properties": {"use": {"anyOf": [{"enum": list(fitting)}, REFERENCE]}},
            "allOf": [*self._branches(place, fitting), *self._branch_without_use(place)],
        }
        alone = [name for name, component in fitting.items() if _stands_alone(component, place.supplied)]
        # By type, not as alternatives, so that an error names the option and not the whole table.
        name = {"anyOf": [{"enum": alone}, REFERENCE]}
        return {"title": place.kind, "if": {"type": "object"}, "then": table, "else": name}

    def _branches(self, place: _Place, fitting: Mapping[str, Component]) -> Iterator[JsonSchema]:
        for component in {c.qualified: c for c in fitting.values()}.values():
            own = [name for name, other in fitting.items() if other == component]
            chosen = {"properties": {"use": {"enum": own}}, "required": ["use"]}
            yield {"if": chosen, "then": self._component(component, place.supplied)}

    def _branch_without_use(self, place: _Place) -> Iterator[JsonSchema]:
        default = place.default or {}
        component = self._registry.look_up(place.kind, default["use"]) if default else None
        if component is not None:
            then = self._component(component, place.supplied, tuple(key for key in default if key != "use"))
            yield {"if": {"not": {"required": ["use"]}}, "then": then}

    def _component(
        self, component: Component, supplied: tuple[str, ...], given: tuple[str, ...] = ()
    ) -> JsonSchema:
        name = _Place(f"{component.kind}.{component.provider}.{component.name}", supplied).name
        name += f"-given-{'-'.join(given)}" if given else ""
        if name not in self._definitions:
            self._definitions[name] = {}
            self._definitions[name] = self._options(component, supplied, given)
        return {"$ref": f"#/$defs/{name}"}

    def _options(self, component: Component, supplied: tuple[str, ...], given: tuple[str, ...]) -> JsonSchema:
        schema = schema_without_import(component)
        if schema is None:
            return {"title": component.qualified, "description": f"{component.summary}. {UNKNOWN_OPTIONS}"}
        table = self._table(schema, supplied, given)
        table["properties"]["use"] = True
        return {"title": component.qualified, "description": component.summary, **table}

    def _record(self, schema: Schema) -> JsonSchema:
        return self._table(schema, ())

    def _table(self, schema: Schema, supplied: tuple[str, ...], given: tuple[str, ...] = ()) -> JsonSchema:
        own = [option for option in schema.options.values() if option.name not in supplied]
        required = [option for option in own if option.required and option.name not in given]
        table = {
            "type": "object",
            "properties": {name: self._option(option, name) for option in own for name in option.names},
            "required": [option.name for option in required if not option.deprecated],
            "additionalProperties": schema.is_open,
        }
        one_name = [_by_one_name(option, required=option in required) for option in own if option.deprecated]
        return {**table, "allOf": one_name} if one_name else table

    def _option(self, option: Option, name: str) -> JsonSchema:
        types = TypeWriter(lambda marker: self._nested(marker, option.default), self._record)
        written = types.write(option.type, option.bounds)
        old = (
            f"Old name of {option.name} since version {option.deprecated[name]}. "
            if name != option.name
            else ""
        )
        if old:
            written["deprecated"] = True
        if old or option.help:
            written["description"] = f"{old}{option.help}"
        default = json_default(option.default)
        return written if default is None else {**written, "default": default}

    def _nested(self, marker: ComponentOf | FactoryOf, default: Any) -> JsonSchema:
        supplied = marker.supplies if isinstance(marker, FactoryOf) else ()
        laid_over = default if isinstance(default, Mapping) and "use" in default else None
        return self._kind(_Place(marker.kind, supplied, laid_over))


def _fits(component: Component, supplied: tuple[str, ...]) -> bool:
    """Whether it takes the arguments that it would be given; where that is not known, it is let through."""
    schema = schema_without_import(component)
    return schema is None or schema.is_open or schema.options.keys() >= set(supplied)


def _stands_alone(component: Component, supplied: tuple[str, ...]) -> bool:
    """Whether a name alone is enough: nothing that the component requires is left to the config."""
    schema = schema_without_import(component)
    options = schema.options.values() if schema else ()
    return not any(option.required and option.name not in supplied for option in options)


def _by_one_name(option: Option, *, required: bool) -> JsonSchema:
    """Allow an option by one of its names, and not by two."""
    by_name = [{"required": [name]} for name in option.names]
    return {"oneOf": by_name if required else [*by_name, {"not": {"anyOf": by_name}}]}
