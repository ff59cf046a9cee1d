"""The JSON Schema that editors use agrees with what `helix config check` says."""

from __future__ import annotations

import json
import tomllib

import jsonschema
import pytest
from helix_toy.make import toy_kernel

from helix_kernel import Kernel, load_config
from helix_kernel.config import resolve_document
from helix_kernel.config.document import _apply
from helix_kernel.config.json_schema import json_schema
from helix_kernel.errors import ConfigError

TOY = """
[model]
use = "stack"
n_layers = 2
[model.block]
use = "block"
d_state = 2
limits = {a = 1.5}
window = {size = 2}
[model.head]
use = "block"
d_model = 4
[gadget]
low = -1
"""


@pytest.fixture(scope="module")
def installed():
    kernel = Kernel()
    return kernel, jsonschema.Draft202012Validator(json_schema(kernel))


@pytest.fixture(scope="module")
def toy():
    kernel = toy_kernel()
    return kernel, jsonschema.Draft202012Validator(json_schema(kernel))


def agree(kernel, validator, table):
    """Say whether a config is right, which the check and the schema must answer alike."""
    try:
        resolve_document(table, kernel=kernel)
        checked = True
    except ConfigError:
        checked = False
    assert validator.is_valid(table) is checked, list(validator.iter_errors(table))
    return checked


@pytest.mark.parametrize("which", ["installed", "toy"])
def test_it_is_a_valid_schema_that_can_be_written(which, request):
    _, validator = request.getfixturevalue(which)
    jsonschema.Draft202012Validator.check_schema(validator.schema)
    assert json.loads(json.dumps(validator.schema, default=str))["$schema"].endswith("2020-12/schema")


def test_it_accepts_the_example_and_its_frozen_form(example, installed):
    kernel, validator = installed
    table = tomllib.loads(example.read_text())
    assert agree(kernel, validator, table)
    frozen = tomllib.loads(load_config(example, kernel=kernel).to_toml())
    assert agree(kernel, validator, frozen)


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ("model.d_model=64", True),
        ("model.d_model='${data.seq_len}'", True),
        ("model.mixer.use=s4d", True),
        ("model.mixer='hyena'", True),
        ("model.mixer='helix-ssm:hyena'", True),
        ("optimizer={use = 'lion', lr = 1e-4}", True),
        ("optimizer.betas=[0.9, 0.95]", True),
        ("model.channel={use = 'mlp', activation = 'gelu'}", True),
        ("trainer.resume=auto", True),
        ("trainer.resume=true", True),
        ("kernel.disabled=['helix-cuda']", True),
        ("loss='mse'", True),
        ("model.d_modl=64", False),
        ("model.d_model='64'", False),
        ("model.d_model=0", False),
        ("model.d_model=true", False),
        ("model.dropout=1", False),
        ("model.use=langauge-model", False),
        ("model.mixer.use=rms-nrm", False),
        ("model.mixer.d_model=4", False),
        ("model.mixer={}", False),
        ("model.mixer=3", False),
        ("model=5", False),
        ("data.source=python-doc", False),
        ("optimizer.betas=[0.9]", False),
        ("optimizer.betas=[0.9, 'a']", False),
        ("optimizer.params=1", False),
        ("trainer.precision=fp8", False),
        ("trainer.steps=-1", False),
        ("trainer.use=trainr", False),
        ("kernel.prefer='helix-ssm'", False),
        ("kernel.pluggins=[]", False),
        ("modle.use=mamba", False),
        ("schedule.warmup_steps=1.5", False),
    ],
)
def test_it_agrees_with_the_check_on_changes_of_the_example(example, installed, change, right):
    table = tomllib.loads(example.read_text())
    _apply(table, change)
    assert agree(*installed, table) is right


@pytest.mark.parametrize("missing", [("model", "d_model"), ("trainer", "steps"), ("loss", "use")])
def test_it_agrees_that_what_is_required_is_missing(example, installed, missing):
    table = tomllib.loads(example.read_text())
    del table[missing[0]][missing[1]]
    assert agree(*installed, table) is False


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ("model.extras=['block', {use = 'brick', rate = 0.5}]", True),
        ("model.head={use = 'block', d_model = 4, pair = [1, 2.5], limits = {a = 1}}", True),
        ("model.head={use = 'block', d_model = 4, window = {size = 3}, either = 5, mode = 3}", True),
        ("model.head={use = 'block', d_model = 4, limits = '${model.block.limits}'}", True),
        ("model.head={use = 'block', d_model = 4, window = '${model.block.window}'}", True),
        ("model.block=block", True),
        ("gadget=range", True),
        ("gadget={use = 'range'}", True),
        ("model.extras=['blocc']", False),
        ("model.head=block", False),
        ("model.head={use = 'block', d_model = 4, pair = [1]}", False),
        ("model.head={use = 'block', d_model = 4, pair = [1, 2, 3]}", False),
        ("model.head={use = 'block', d_model = 4, limits = {a = 'b'}}", False),
        ("model.head={use = 'block', d_model = 4, window = {siz = 3}}", False),
        ("model.head={use = 'block', d_model = 4, window = {size = 0}}", False),
        ("model.head={use = 'block', d_model = 4, either = 1.5}", False),
        ("model.head={use = 'block', d_model = 4, rate = 1.0}", False),
        ("model.head={use = 'block', d_model = 4, rate = 0.0}", False),
        ("gadget.use=block", False),
    ],
)
def test_it_agrees_with_the_check_on_every_kind_of_option(toy, change, right):
    table = tomllib.loads(TOY)
    _apply(table, change)
    assert agree(*toy, table) is right


def test_editors_are_told_what_an_option_is_and_its_default(toy):
    branches = toy[1].schema["$defs"]["layer"]["anyOf"][0]["allOf"]
    block = next(b for b in branches if "block" in b["if"]["properties"]["use"]["enum"])
    assert block["then"]["description"] == "one of everything"
    assert block["then"]["properties"]["d_state"]["description"] == "states"
    assert block["then"]["properties"]["d_state"]["default"] == 16


def test_a_component_whose_options_are_unknown_is_left_open(toy):
    for name in ("scale", "anything", "absent", "nameless"):
        assert toy[1].is_valid({"model": {"use": name, "whatever": 1}})


def test_a_file_may_extend_others(toy):
    assert toy[1].is_valid({"extends": "base.toml"})
    assert toy[1].is_valid({"extends": ["a.toml", "b.toml"]})
    assert not toy[1].is_valid({"extends": 3})


def test_it_is_made_without_importing_torch(python):
    code = (
        "import sys; from helix_kernel import Kernel\n"
        "from helix_kernel.config.json_schema import json_schema\n"
        "json_schema(Kernel()); print([m for m in ('torch', 'numpy', 'zarr') if m in sys.modules])"
    )
    assert python(code) == "[]"
