"""What a component of a config reads beside its own section must be there, to every command and editor."""

from __future__ import annotations

import tomllib

import jsonschema
import pytest

from helix_kernel import Component, Kernel, Kind, hookimpl
from helix_kernel.config import resolve_document
from helix_kernel.config.json_schema import json_schema
from helix_kernel.errors import ConfigError
from helix_kernel.plugins import Manifest


@pytest.fixture(scope="module")
def schema():
    return jsonschema.Draft202012Validator(json_schema(Kernel()))


def without(config, section):
    """Return the text of a config without one of its tables."""
    tables = config.read_text().split("\n[")
    return "\n[".join(table for table in tables if not table.startswith((f"{section}]", f"{section}.")))


@pytest.mark.parametrize("section", ["model", "data", "loss", "optimizer", "schedule"])
def test_check_train_and_the_schema_refuse_a_run_that_lacks_a_section(helix, example, write, schema, section):
    text = without(example, section)
    config = write(text)
    checked = helix("config", "check", config)
    assert checked[0] == 2
    assert f"{section}: missing; helix-train:trainer reads it. It holds the " in checked[2]
    assert helix("train", config) == checked
    assert not schema.is_valid(tomllib.loads(text))
    assert schema.is_valid(tomllib.loads(example.read_text()))


def test_all_that_are_missing_are_told_at_once_beside_other_mistakes(write, helix):
    code, _, error = helix("config", "check", write("[trainer]\nsteps = -1\n"))
    assert code == 2
    assert [line.split(":")[0].strip() for line in error.splitlines()[1:]] == [
        "trainer.steps",
        *("model", "data", "loss", "optimizer", "schedule"),
    ]
    assert "It holds the schedule, installed: constant, cosine, " in error


def test_a_file_that_extends_another_may_leave_sections_to_it(example, write, helix, schema):
    config = write(f'extends = "{example}"\n[trainer]\nsteps = 3\n')
    assert helix("config", "check", config)[0] == 0
    assert schema.is_valid(tomllib.loads(config.read_text()))


def test_a_part_that_reads_no_other_stands_alone(write, helix):
    assert helix("config", "check", write('[loss]\nuse = "cross-entropy"\n'))[0] == 0


class Drills:
    """Two components of a kind, of which one reads a section of another kind, and one that nobody brings."""

    @hookimpl
    def helix_kinds(self):
        return [
            Kind(name="drill", plural="drills", section="drill", default="deep"),
            Kind(name="bit", plural="bits", section="bit"),
        ]

    @hookimpl
    def helix_drills(self):
        return [
            Component(name="deep", target="types:SimpleNamespace", sections=("bit", "data")),
            Component(name="flat", target="types:SimpleNamespace"),
        ]


@pytest.fixture(scope="module")
def drills():
    return Kernel(
        found=[], manifests=[Manifest(name="drills", provider="drills", version="1", module=Drills())]
    )


@pytest.mark.parametrize("drill", [{}, "deep", {"use": "drills:deep"}], ids=str)
def test_each_component_says_for_itself_what_it_reads(drills, drill):
    with pytest.raises(ConfigError) as caught:
        resolve_document({"drill": drill}, kernel=drills)
    bit, data = map(str, caught.value.problems)
    assert bit == "bit: missing; drills:deep reads it. It holds the bit, installed: none"
    assert data.startswith("data: missing; drills:deep reads it. It comes with helix-data: ")
    assert data.endswith("pip install helix-data")
    assert not jsonschema.Draft202012Validator(json_schema(drills)).is_valid({"drill": drill})


@pytest.mark.parametrize("drill", ["flat", {"use": "flat"}], ids=str)
def test_another_component_of_the_kind_asks_for_nothing(drills, drill):
    assert resolve_document({"drill": drill}, kernel=drills)["drill"].component.name == "flat"
    assert jsonschema.Draft202012Validator(json_schema(drills)).is_valid({"drill": drill})
