"""The hooks that a plugin's manifest implements, and the kinds that the kernel brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

from helix_kernel.component import Component, Kind
from helix_kernel.discovery import GROUP_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

API_VERSION = 1
GROUP = f"{GROUP_PREFIX}{API_VERSION}"
PROJECT = "helix_kernel"

hookimpl = pluggy.HookimplMarker(PROJECT)
_hookspec = pluggy.HookspecMarker(PROJECT)

CORE_KINDS = (
    Kind(
        name="backend",
        plural="backends",
        summary="Implementations of ops for a type of device",
        suite="helix_kernel.testing.backends:BackendSuite",
        template="helix_kernel.new:templates/backend",
    ),
    Kind(
        name="layer",
        plural="layers",
        summary="Sequence layers and models",
        section="model",
        suite="helix_kernel.testing.layers:LayerSuite",
        template="helix_kernel.new:templates/layer",
    ),
    Kind(
        name="loss",
        plural="losses",
        summary="Training objectives",
        section="loss",
        suite="helix_kernel.testing.losses:LossSuite",
        template="helix_kernel.new:templates/loss",
    ),
    Kind(
        name="optimizer",
        plural="optimizers",
        summary="Parameter update rules",
        section="optimizer",
        context=("params",),
        suite="helix_kernel.testing.optimizers:OptimizerSuite",
        template="helix_kernel.new:templates/optimizer",
    ),
    Kind(
        name="modality",
        plural="modalities",
        summary="Kinds of data: detect, load, encode, decode",
        suite="helix_kernel.testing.modalities:ModalitySuite",
        template="helix_kernel.new:templates/modality",
    ),
    Kind(
        name="memory_tier",
        plural="memory_tiers",
        summary="Tiers of an associative memory",
        suite="helix_kernel.testing.memory_tiers:MemoryTierSuite",
        template="helix_kernel.new:templates/memory_tier",
    ),
    Kind(
        name="scheduling_policy",
        plural="scheduling_policies",
        summary="Planners of tasks on devices",
        suite="helix_kernel.testing.scheduling_policies:SchedulingPolicySuite",
        template="helix_kernel.new:templates/scheduling_policy",
    ),
    Kind(
        name="op",
        plural="ops",
        summary="Op contracts: schema, reference, gradient, samples",
        suite="helix_kernel.testing.ops:OpSuite",
        template="helix_kernel.new:templates/op",
    ),
    Kind(
        name="command",
        plural="commands",
        summary="Commands of the helix program",
        template="helix_kernel.new:templates/command",
    ),
)


class HookSpecs:
    """What a manifest may implement. Every hook returns a sequence of components."""

    @_hookspec
    def helix_kinds(self) -> Sequence[Kind]:
        """Return kinds of the plugin's own; each brings its hook ``helix_<plural>``."""
        raise NotImplementedError

    @_hookspec
    def helix_backends(self) -> Sequence[Component]:
        """Return backends: targets that build a `helix_kernel.backends.Backend`."""
        raise NotImplementedError

    @_hookspec
    def helix_layers(self) -> Sequence[Component]:
        """Return layers: targets that build an ``nn.Module`` from (B, L, D) to (B, L, D)."""
        raise NotImplementedError

    @_hookspec
    def helix_losses(self) -> Sequence[Component]:
        """Return losses: targets that build an ``nn.Module`` of ``(prediction, target, *, mask)``."""
        raise NotImplementedError

    @_hookspec
    def helix_optimizers(self) -> Sequence[Component]:
        """Return optimizers: targets that build a ``torch.optim.Optimizer`` from ``params``."""
        raise NotImplementedError

    @_hookspec
    def helix_modalities(self) -> Sequence[Component]:
        """Return modalities: targets with ``sniff``, ``load``, ``encode``, ``decode``, ``save``."""
        raise NotImplementedError

    @_hookspec
    def helix_memory_tiers(self) -> Sequence[Component]:
        """Return memory tiers: targets with ``write``, ``read``, ``consolidate`` and state."""
        raise NotImplementedError

    @_hookspec
    def helix_scheduling_policies(self) -> Sequence[Component]:
        """Return scheduling policies: targets with ``plan(tasks, devices, *, seed)``."""
        raise NotImplementedError

    @_hookspec
    def helix_ops(self) -> Sequence[Component]:
        """Return op contracts: targets that are a `helix_kernel.ops.OpContract`."""
        raise NotImplementedError

    @_hookspec
    def helix_commands(self) -> Sequence[Component]:
        """Return commands of the ``helix`` program: targets that are plain functions."""
        raise NotImplementedError


def plugin_manager() -> pluggy.PluginManager:
    """Return a pluggy manager that knows the kernel's hooks and no plugin."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(HookSpecs)
    return manager


def add_kind(manager: pluggy.PluginManager, kind: Kind) -> None:
    """Give every plugin the hook of a kind that another plugin brings."""

    def spec() -> Sequence[Component]:
        raise NotImplementedError

    spec.__doc__ = f"Return components of kind {kind.name!r}: {kind.summary}."
    holder = type("KindSpecs", (), {kind.hook: staticmethod(_hookspec(spec))})
    manager.add_hookspecs(holder)
