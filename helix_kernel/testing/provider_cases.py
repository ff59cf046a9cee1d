"""The cases that ``pytest --helix-provider NAME`` derives from what a provider declares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from helix_kernel import default_kernel
from helix_kernel.config.schema import schema_of
from helix_kernel.errors import UnknownNameError, did_you_mean
from helix_kernel.testing.layers import LayerSuite
from helix_kernel.testing.losses import LossSuite
from helix_kernel.testing.manifests import ComponentSuite, ManifestSuite
from helix_kernel.testing.ops import OpSuite
from helix_kernel.testing.optimizers import OptimizerSuite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn
    from torch.optim import Optimizer

    from helix_kernel.component import Component
    from helix_kernel.plugins import Plugin


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each suite the provider's components of its kind."""
    provider = metafunc.config.getoption("--helix-provider")
    if "plugin" in metafunc.fixturenames:
        plugins = _plugins(provider)
        metafunc.parametrize("plugin", plugins, ids=[plugin.name for plugin in plugins])
    elif "component" in metafunc.fixturenames:
        kind = getattr(metafunc.cls, "kind", None)
        components = [c for p in _plugins(provider) for c in p.components if kind in (None, c.kind)]
        metafunc.parametrize("component", components, ids=[f"{c.kind}-{c.name}" for c in components])


class _Derived:
    """Hands the component that pytest chose to the methods that a suite overrides."""

    component: Any = None

    @pytest.fixture(autouse=True)
    def choose(self, component: Component) -> None:
        self.component = component

    def build(self, **arguments: Any) -> Any:
        """Build the component, or skip it where an option stands that no suite can guess."""
        options = schema_of(self.component).options.values()
        unknown = [o.name for o in options if o.required and o.name not in arguments]
        if unknown:
            pytest.skip(f"{self.component.qualified} requires {', '.join(unknown)}: subclass the suite")
        table = {"use": self.component.qualified}
        return default_kernel().build(self.component.kind, table, **arguments)


class TestManifest(ManifestSuite):
    """Every manifest of the provider."""


class TestComponent(ComponentSuite):
    """Every component of the provider."""


class TestLayer(_Derived, LayerSuite):
    """Every layer that needs no option but its width."""

    kind = "layer"

    def make_layer(self) -> nn.Module:
        layer: nn.Module = self.build(d_model=self.d_model)
        return layer


class TestLoss(_Derived, LossSuite):
    """Every loss."""

    kind = "loss"

    def make_loss(self, reduction: str) -> nn.Module:
        loss: nn.Module = self.build(reduction=reduction)
        return loss


class TestOptimizer(_Derived, OptimizerSuite):
    """Every optimizer, with its defaults."""

    kind = "optimizer"

    def make_optimizer(self, params: Sequence[Any]) -> Optimizer:
        optimizer: Optimizer = self.build(params=params)
        return optimizer


class TestOp(_Derived, OpSuite):
    """Every op contract, served by its reference and then by the best backend installed."""

    kind = "op"

    @pytest.fixture(autouse=True, params=["reference", "auto"])
    def serve(self, request: pytest.FixtureRequest) -> Iterator[None]:
        with default_kernel().backends([request.param]):
            yield


def _plugins(provider: str) -> list[Plugin]:
    plugins = [plugin for plugin in default_kernel().plugins if plugin.provider == provider]
    if not plugins:
        known = sorted({plugin.provider for plugin in default_kernel().plugins})
        failures = "; ".join(str(failure) for failure in default_kernel().failures)
        raise UnknownNameError(
            f"--helix-provider: no plugin of {provider!r} is installed.{did_you_mean(provider, known)} "
            f"Installed: {', '.join(known)}. {failures}"
        )
    return plugins
