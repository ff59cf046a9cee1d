"""What import-linter cannot see: which modules stay light, and that configs match their targets."""

from __future__ import annotations

import inspect

import attrs
import pytest

from helix_kernel import Kernel
from helix_kernel.config.schema import schema_of
from helix_kernel.targets import load_config_class, load_target

KERNEL = Kernel()
CONFIGURED = [c for c in KERNEL.components() if c.config and c.provider.startswith("helix-")]
OWN = [c for c in CONFIGURED if not c.target.startswith("torch.")]
HEAVY = ("torch", "numpy", "triton", "zarr")


def module(spelling):
    return spelling.partition(":")[0]


LIGHT = sorted({p.module for p in KERNEL.plugins} | {module(c.config) for c in CONFIGURED})


def test_there_is_something_to_test():
    assert {c.provider for c in OWN} >= {"helix-ssm", "helix-train", "helix-data"}
    assert {"helix_ssm.plugin", "helix_ssm.config.models", "helix_train.config"} <= set(LIGHT)


def test_manifests_and_config_modules_import_nothing_heavy(python):
    code = (
        "import sys, importlib\n"
        f"for name in {LIGHT!r}:\n"
        "    importlib.import_module(name)\n"
        f"    print(*[name + ' imports ' + heavy for heavy in {HEAVY!r} if heavy in sys.modules], end='')"
    )
    assert python(code) == ""


def test_no_manifest_of_ours_is_noted_as_heavy():
    assert [plugin.name for plugin in KERNEL.plugins if plugin.heavy_imports] == []


def ids(component):
    return f"{component.kind}-{component.qualified}"


@pytest.mark.parametrize("component", OWN, ids=ids)
def test_a_config_class_and_its_target_have_the_same_parameters_and_defaults(component):
    parameters = inspect.signature(load_target(component)).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        assert component.name == "trainer"  # which makes its config class of what it is given
        return
    options = schema_of(component).options
    assert set(options) == set(parameters)
    for name, option in options.items():
        parameter = parameters[name]
        assert parameter.kind is not parameter.POSITIONAL_ONLY
        assert option.required == (parameter.default is parameter.empty), name
        if not option.required and option.nested is None:
            assert option.default == parameter.default, name


@pytest.mark.parametrize("component", CONFIGURED, ids=ids)
def test_every_option_of_ours_says_what_it_is(component):
    config = load_config_class(component)
    assert attrs.has(config)
    assert config.__doc__
    assert [a.name for a in attrs.fields(config) if not a.metadata.get("help")] == []


@pytest.mark.parametrize("component", [c for c in CONFIGURED if c not in OWN], ids=ids)
def test_torchs_own_targets_take_what_the_config_class_offers(component):
    parameters = inspect.signature(load_target(component)).parameters
    options = schema_of(component).options
    assert set(options) <= set(parameters)
    for name, option in options.items():
        if not option.required:
            assert option.default == parameters[name].default, name
