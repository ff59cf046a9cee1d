"""What `helix config init` writes is right, whatever is chosen, and never written over anything."""

from __future__ import annotations

import json
import tomllib

import jsonschema
import pytest

from helix_kernel import default_kernel, load_config
from helix_kernel.cli.direct import COMMANDS
from helix_kernel.config import resolve_document
from helix_kernel.config.starter import as_toml, starter
from helix_kernel.errors import ArgumentError

KERNEL = default_kernel()
CHOICES = [
    (section, component.name)
    for section, kind in KERNEL.registry.sections.items()
    for component in KERNEL.components(kind.name)
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("section", "name"), CHOICES, ids=[f"{s}-{n}" for s, n in CHOICES])
def test_every_component_of_every_section_can_be_chosen(section, name):
    text = as_toml(KERNEL, starter(KERNEL, {section: name}), "./x.json")
    config = resolve_document(tomllib.loads(text), kernel=KERNEL)
    assert config[section].component.name == name


@pytest.mark.parametrize("name", [component.name for component in KERNEL.components("layer")])
def test_every_layer_can_be_chosen_as_the_mixer(name):
    table = tomllib.loads(as_toml(KERNEL, starter(KERNEL, {"mixer": name}), "./x.json"))
    model = resolve_document(table, kernel=KERNEL)["model"]
    assert model.arguments["mixer"].component.name == name


def test_what_it_writes_is_checked_and_has_the_line_and_the_schema_that_editors_read(helix, here):
    code, out, _ = helix("config", "init", "mixer=s4d", "optimizer=lion")
    assert (code, "optimizer = lion" in out) == (0, True)
    first, *_ = (here / "config.toml").read_text().splitlines()
    assert first == "#:schema ./helix.schema.json"
    assert helix("config", "check", "config.toml")[0] == 0
    schema = json.loads((here / "helix.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(tomllib.loads((here / "config.toml").read_text()))


@pytest.mark.slow
def test_what_it_writes_trains(helix, here):
    assert helix("config", "init")[0] == 0
    small = ("model.d_model=8", "model.n_layers=1", "data.seq_len=16", "data.batch_size=2", "trainer.steps=2")
    little = ("data.validation_fraction=0.001", "trainer.measure_speed=false")
    code, _, error = helix("train", "config.toml", *small, *little, "trainer.out=run")
    assert code == 0, error


def test_every_option_stands_in_it_with_what_it_is(helix, here):
    helix("config", "init")
    text = (here / "config.toml").read_text()
    for section in load_config("config.toml").sections.values():
        assert f"# {section.component.summary}" in text
    assert "# lr = 0.001  # learning rate: a number >= 0" in text
    assert "d_model = 64  # Width" in text


def test_a_comment_taken_as_an_option_is_right(helix, here):
    helix("config", "init")
    lines = (here / "config.toml").read_text().splitlines()
    live = [
        line[2:] if line.startswith("# ") and " = " in line and "…" not in line else line for line in lines
    ]
    (here / "all.toml").write_text("\n".join(live))
    assert load_config("all.toml")["optimizer"] == load_config("config.toml")["optimizer"]
    assert load_config("all.toml")["trainer"] == load_config("config.toml")["trainer"]


def test_nothing_is_written_over(helix, here):
    (here / "config.toml").write_text("mine")
    code, _, error = helix("config", "init")
    assert (code, "exists already; choose another file by --out" in error) == (2, True)
    assert (here / "config.toml").read_text() == "mine"
    assert not (here / "helix.schema.json").exists()
    (here / "other.json").write_text("{}")
    code, _, error = helix("config", "init", "--out", "new.toml", "--schema", "other.json")
    assert (code, "is no schema of Helix" in error) == (2, True)
    assert (here / "other.json").read_text() == "{}"
    assert not (here / "new.toml").exists()


def test_its_own_schema_is_written_anew(helix, here):
    assert helix("config", "init", "--out", "a.toml")[0] == 0
    assert helix("config", "init", "--out", "b.toml")[0] == 0


def test_json_tells_what_was_written(helix, here):
    code, out, _ = helix("config", "init", "mixer=mamba2", "--json")
    told = json.loads(out)
    assert (code, told["file"], told["components"]["model"]) == (0, "config.toml", "language-model")


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ("model", "not of the form section=component"),
        ("mine.toml", "to name the file, write --out mine.toml"),
        (
            "modle=mamba",
            "'modle' is no section, and no component of helix-ssm:language-model. Did you mean 'model'?",
        ),
        ("optimizer=adamm", "no optimizer is called 'adamm'. Did you mean 'adam'?"),
        ("mixer=mamab", "Did you mean 'mamba'?"),
    ],
)
def test_a_wrong_choice_is_told_and_nothing_written(helix, here, choice, says):
    code, _, error = helix("config", "init", choice)
    assert (code, says in error) == (2, True), error
    assert list(here.iterdir()) == []


def test_without_plugins_there_is_nothing_to_write():
    from helix_toy.make import kernel_of

    with pytest.raises(ArgumentError, match="no layer is installed"):
        starter(kernel_of(), {})


def test_it_imports_no_torch(python, tmp_path):
    module, _, function = COMMANDS["config", "init"][0].partition(":")
    code = (
        f"import sys; from {module} import {function}\n"
        f"{function}(out={str(tmp_path / 'c.toml')!r}, json=True)\n"
        "print([m for m in ('torch', 'numpy', 'zarr') if m in sys.modules])"
    )
    assert python(code).endswith("[]")
