"""The manifest and config classes: light to import, and true to the classes that they describe."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import attrs
import pytest

from helix_ssm import plugin

COMPONENTS = [*plugin.helix_layers(), *plugin.helix_ops(), *plugin.helix_backends()]
LAYERS = {component.name: component for component in plugin.helix_layers()}


def load(path):
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def test_importing_manifest_and_configs_imports_no_torch():
    code = (
        "import sys, helix_ssm.plugin as p, helix_ssm.config.models; p.helix_layers(); "
        "print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda component: component.name)
def test_every_target_exists(component):
    assert load(component.target) is not None
    assert component.summary


@pytest.mark.parametrize("component", LAYERS.values(), ids=list(LAYERS))
def test_config_has_the_targets_arguments_and_defaults(component):
    parameters = list(inspect.signature(load(component.target)).parameters.values())
    options = attrs.fields(load(component.config))
    assert sorted(p.name for p in parameters) == sorted(o.name for o in options)
    defaults = {p.name: attrs.NOTHING if p.default is p.empty else p.default for p in parameters}
    for option in options:
        assert default_value(option.default) == defaults[option.name], option.name
        assert option.metadata["help"], option.name


def default_value(default):
    """A table stands for the class that it names."""
    return load(LAYERS[default["use"]].target) if isinstance(default, dict) else default


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "language-model"])
def test_a_layer_needs_no_argument_but_its_width(name):
    required = [o.name for o in attrs.fields(load(LAYERS[name].config)) if o.default is attrs.NOTHING]
    assert required == ["d_model"]


def test_config_refuses_what_the_layer_would_refuse():
    for name, wrong in [
        ("mamba", {"d_state": 0}),
        ("hyena", {"time_scale": 0.0}),
        ("rms-norm", {"eps": -1.0}),
    ]:
        for make in (load(LAYERS[name].config), load(LAYERS[name].target)):
            with pytest.raises(ValueError, match="allowed"):
                make(d_model=8, **wrong)
