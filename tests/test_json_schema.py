"""The JSON Schema that editors use agrees with what `helix config check` says."""

from __future__ import annotations

import json
import tomllib

import jsonschema
import pytest
from helix_toy.make import component, manifest, toy_kernel

from helix_kernel import Kernel, load_config
from helix_kernel.config import resolve_document
from helix_kernel.config.document import _apply
from helix_kernel.config.json_schema import UNKNOWN_OPTIONS, json_schema
from helix_kernel.config.schema import schema_of
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


@pytest.mark.parametrize("which", [pytest.param("installed", marks=pytest.mark.slow), "toy"])
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


def followed_by_taplo(schema, value):
    """Yield the schemas that Taplo shows for a key or value: what it follows, and not what it ignores."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield from followed_by_taplo(schema, schema["$defs"][value["$ref"].removeprefix("#/$defs/")])
        else:
            yield value
            for part in (*value.get("anyOf", ()), *value.get("oneOf", ())):
                yield from followed_by_taplo(schema, part)


def shown_at(schema, *path):
    """Return the schemas that Taplo shows at a path of a config."""
    found = list(followed_by_taplo(schema, schema))
    for key in path:
        below = [s["items"] if key == 0 else s["properties"][key] for s in found if _has(s, key)]
        found = [shown for value in below for shown in followed_by_taplo(schema, value)]
    return found


def _has(schema, key):
    return "items" in schema if key == 0 else key in schema.get("properties", {})


@pytest.mark.parametrize(
    "path", [("model", "use"), ("model", "mixer", "use"), ("model", "pattern", 0, "use")]
)
def test_editors_complete_the_components_with_what_each_is(installed, path):
    kernel, validator = installed
    (use,) = [shown for shown in shown_at(validator.schema, *path) if "enum" in shown]
    told = dict(zip(use["enum"], use["x-taplo"]["docs"]["enumValues"], strict=True))
    mamba = kernel.find("layer", "mamba")
    assert {component.name for component in kernel.components("layer")} <= told.keys()
    assert told["mamba"] == told["helix-ssm:mamba"] == f"{mamba.summary} (helix-ssm)"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (("model",), "Sequence layers and models"),
        (("model", "d_model"), "Width of input and output"),
        (("model", "mixer", "d_state"), "`mamba`"),
        (("optimizer", "betas"), ""),
        (("trainer", "steps"), "optimizer steps"),
        (("trainer", "callbacks", 0, "use"), "The callback to use"),
        (("kernel", "prefer"), "providers that win"),
        (("extends",), "Config files"),
    ],
)
def test_editors_are_told_what_an_option_is(installed, path, says):
    described = [s["description"] for s in shown_at(installed[1].schema, *path) if "description" in s]
    assert described
    assert says in " ".join(described)


def test_an_old_name_is_told_in_the_completion(toy):
    (use,) = [shown for shown in shown_at(toy[1].schema, "model", "use") if "enum" in shown]
    told = dict(zip(use["enum"], use["x-taplo"]["docs"]["enumValues"], strict=True))
    assert told["blok"] == "old name of `block` since helix-toy 1.1. one of everything (helix-toy)"


def test_every_component_and_option_is_described(installed):
    kernel, validator = installed
    for part in kernel.components():
        tables = [
            table
            for name, table in validator.schema["$defs"].items()
            if table.get("title") == part.qualified and name.startswith(f"{part.kind}.")
        ]
        for table in tables:
            assert table["description"] == part.summary != ""
            assert all(o is True or o["description"] for o in table["properties"].values()), part.name
    titled = {table.get("title") for table in validator.schema["$defs"].values()}
    assert titled >= {
        c.qualified for kind in ("layer", "optimizer", "callback") for c in kernel.components(kind)
    }


def test_an_option_has_its_description_default_and_range(toy):
    block = toy[1].schema["$defs"]["layer.helix-toy.block"]
    assert (block["title"], block["description"]) == ("helix-toy:block", "one of everything")
    assert block["properties"]["d_state"]["description"] == "states"
    assert block["properties"]["d_state"]["default"] == 16
    assert block["properties"]["where"]["default"] == "here"
    assert block["properties"]["window"]["default"] == {"size": 8, "shape": "hann"}


def test_an_error_names_the_option_and_not_the_table(installed, example):
    table = tomllib.loads(example.read_text())
    table["model"]["mixer"]["d_state"] = "16"
    (error,) = installed[1].iter_errors(table)
    assert list(error.absolute_path) == ["model", "mixer", "d_state"]


def test_its_size_grows_with_what_is_installed_and_not_with_what_nests(installed):
    kernel, validator = installed
    schema = validator.schema
    n_options = sum(
        len(schema_of(c).options)
        for kind in kernel.registry.kinds
        if kind not in ("op", "command", "backend")
        for c in kernel.components(kind)
    )
    assert len(json.dumps(schema)) < 700 * n_options


@pytest.fixture(scope="module")
def renamed():
    part = component("renamed", target="helix_toy.parts:anything", config="helix_toy.config:RenamedConfig")
    kernel = toy_kernel(manifest(name="more", provider="more", layers=[part]))
    return kernel, jsonschema.Draft202012Validator(json_schema(kernel))


@pytest.mark.parametrize(
    ("options", "right"),
    [
        ({"width": 3}, True),
        ({"n_channels": 3}, True),
        ({"size": 3, "speed": 0.5}, True),
        ({"width": 3, "block": {"d_state": 2}}, True),
        ({"width": 3, "block": {"use": "block", "d_model": 2}}, True),
        ({"width": 3, "window": {"size": 2}}, True),
        ({}, False),
        ({"speed": 0.5}, False),
        ({"width": 3, "size": 3}, False),
        ({"n_channels": 3, "size": 3}, False),
        ({"width": 3, "rate": 0.5, "speed": 0.5}, False),
        ({"n_channels": 0}, False),
        ({"width": 3, "block": {"use": "block"}}, False),
    ],
)
@pytest.mark.filterwarnings("ignore:.*is called:FutureWarning")
def test_it_agrees_with_the_check_on_old_names(renamed, options, right):
    assert agree(*renamed, {"model": {"use": "renamed", **options}}) is right


def test_an_old_name_is_marked_as_deprecated(renamed):
    properties = renamed[1].schema["$defs"]["layer.more.renamed"]["properties"]
    assert properties["speed"]["deprecated"] is True
    assert properties["speed"]["description"] == "Old name of rate since version 1.2. a fraction"
    assert "deprecated" not in properties["rate"]


def test_a_component_that_cannot_stand_in_a_place_is_not_offered_there(toy):
    block = toy[1].schema["$defs"]["layer-without-d_model-or-block-d_state"]
    assert "stack" in block["then"]["properties"]["use"]["anyOf"][0]["enum"]
    kernel = toy_kernel()
    with pytest.raises(ConfigError, match="cannot stand here"):
        kernel.resolver.resolve("gadget", {"use": "range"}, supplied=("d_model",))
    assert not toy[1].is_valid({"model": {"use": "stack", "block": "range"}})


def test_a_component_whose_options_are_unknown_is_left_open_and_says_so(toy):
    assert UNKNOWN_OPTIONS in toy[1].schema["$defs"]["layer.helix-toy.scale"]["description"]
    for name in ("scale", "anything", "absent", "nameless"):
        assert toy[1].is_valid({"model": {"use": name, "whatever": 1}})


def test_a_file_may_extend_others(toy):
    assert toy[1].is_valid({"extends": "base.toml"})
    assert toy[1].is_valid({"extends": ["a.toml", "b.toml"]})
    assert not toy[1].is_valid({"extends": 3})
    assert toy[1].is_valid({"extends": "base.toml", "model": {"d_state": 3}})
    assert not toy[1].is_valid({"extends": "base.toml", "modle": {}})


def test_it_is_made_without_importing_torch(python):
    code = (
        "import sys; from helix_kernel import Kernel\n"
        "from helix_kernel.config.json_schema import json_schema\n"
        "json_schema(Kernel()); print([m for m in ('torch', 'numpy', 'zarr') if m in sys.modules])"
    )
    assert python(code) == "[]"
