"""The kernel: finds components among the installed plugins, and builds them from config tables."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from helix_kernel import plugins as _plugins
from helix_kernel.discovery import entry_points
from helix_kernel.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from helix_kernel.backends import BackendSelector, Selection
    from helix_kernel.build import Factory
    from helix_kernel.component import Component
    from helix_kernel.config.resolve import Resolver
    from helix_kernel.discovery import EntryPoint


class Kernel:
    """Everything that the installed plugins offer. An ordinary object: make as many as you like.

    The environment variables HELIX_PLUGINS (only these) and HELIX_PLUGINS_DISABLED count beside
    the arguments. Nothing of a plugin that is left out is imported.

    Args:
        plugins: Use only these, by distribution or entry point; all if left out.
        disabled: Leave these out.
        prefer: Providers that win where several offer one name, the first first.
        found: The plugins to choose from; those installed if left out.
        manifests: Further manifests, for plugins that are not installed.
    """

    def __init__(
        self,
        *,
        plugins: Sequence[str] | None = None,
        disabled: Sequence[str] = (),
        prefer: Sequence[str] = (),
        found: Sequence[EntryPoint] | None = None,
        manifests: Sequence[_plugins.Manifest] = (),
    ) -> None:
        allowed, denied = _plugins.selection_from_environment()
        installed = entry_points() if found is None else found
        chosen = _plugins.select(installed, allowed, denied)
        chosen = _plugins.select(chosen, plugins, disabled)
        loaded, failures = _plugins.load(chosen, manifests)
        left_out = {e.provider for e in installed} - {e.provider for e in chosen}
        self.registry = Registry(loaded, failures, prefer, sorted(left_out))

    @property
    def plugins(self) -> tuple[_plugins.Plugin, ...]:
        """The plugins that loaded."""
        return self.registry.plugins

    @property
    def failures(self) -> tuple[_plugins.PluginFailure, ...]:
        """The plugins that did not, and why."""
        return self.registry.failures

    @cached_property
    def resolver(self) -> Resolver:
        """Checks config tables against the components' schemas."""
        from helix_kernel.config.resolve import Resolver

        return Resolver(self.registry)

    @cached_property
    def backend_selector(self) -> BackendSelector:
        """The installed backends, and what decides which of them serves an op."""
        from helix_kernel.backends import BackendSelector

        return BackendSelector(
            {c.name: self.build("backend", c.qualified) for c in self.components("backend")}
        )

    def preferring(self, prefer: Sequence[str]) -> Kernel:
        """Return this kernel with other preferred providers; nothing is loaded anew."""
        other = object.__new__(type(self))
        other.registry = self.registry.preferring(prefer)
        return other

    def components(self, kind: str | None = None) -> list[Component]:
        """Return what is installed, of one kind or of all.

        Raises:
            UnknownNameError: There is no such kind.
        """
        return self.registry.components(kind)

    def find(self, kind: str, name: str) -> Component:
        """Return a component by its name, alias or ``provider:name``.

        Raises:
            UnknownNameError: Nobody offers it.
            AmbiguousNameError: Several providers do.
        """
        return self.registry.find(kind, name)

    def factory(self, kind: str, table: Any) -> Factory:
        """Return a factory: calling it with the arguments that `table` leaves out builds one.

        Args:
            kind: Kind of the component.
            table: A table with `use`, or a component's name.

        Raises:
            ConfigError: What is wrong with the table.
        """
        from helix_kernel.build import Factory
        from helix_kernel.config.resolve import Resolved
        from helix_kernel.config.schema import schema_of
        from helix_kernel.renames import told_once

        if isinstance(table, Resolved):
            return Factory(table)
        with told_once():
            component = self.resolver.component(kind, table)
            given = set(table) if isinstance(table, Mapping) else set()
            options = schema_of(component).options.values()
            left_out = {o.name for o in options if o.required and not given & set(o.names)}
            return Factory(self.resolver.resolve(kind, table, supplied=tuple(sorted(left_out))))

    def build(self, kind: str, table: Any, **context: Any) -> Any:
        """Build a component.

        Args:
            kind: Kind of the component.
            table: A table with `use`, a component's name, or what a config resolved to.
            context: Arguments that the table leaves to the caller.

        Raises:
            ConfigError: What is wrong with the table.
            ArgumentError: An argument is given twice, unknown, or missing.
            DependencyError: The target cannot be imported.
        """
        from helix_kernel.build import build
        from helix_kernel.config.resolve import Resolved

        if isinstance(table, Resolved):
            return build(table, context)
        return build(self.resolver.resolve(kind, table, supplied=tuple(context)), context)

    def use_backends(self, names: Sequence[str]) -> Selection:
        """Choose, for the whole process, which backends serve ops.

        Args:
            names: ``["auto"]``, ``["reference"]``, or names of backends, the most wanted first.

        Raises:
            InputError: A backend that is named is unknown or not available here.
        """
        return self.backend_selector.use(names)

    def backends(self, names: Sequence[str]) -> AbstractContextManager[Selection]:
        """Choose backends as `use_backends` does, until the ``with`` block ends."""
        return self.backend_selector.using(names)


@lru_cache(maxsize=1)
def default_kernel() -> Kernel:
    """Return one kernel of everything installed, made at the first call."""
    return Kernel()


def load_model(checkpoint: str | Path, *, kernel: Kernel | None = None, accept_versions: bool = False) -> Any:
    """Build a checkpoint's model and load its weights.

    Args:
        checkpoint: A checkpoint, or a run's directory (its newest good checkpoint).
        kernel: Looks components up; made from the checkpoint's config if left out.
        accept_versions: Open it with components of other versions too, where they exist.

    Returns:
        The ``nn.Module``, in evaluation mode, on the CPU; with averaged weights where the run kept any.

    Raises:
        CheckpointError: The checkpoint is missing or damaged.
        IncompatibleCheckpointError: Its components are not installed or of another version, which
            is said before any weight is read; or its weights do not fit its config.
    """
    from helix_kernel.restore import open_model

    return open_model(checkpoint, kernel=kernel, accept_versions=accept_versions).model
