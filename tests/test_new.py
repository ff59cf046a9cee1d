"""`helix new`: which names it takes, what it refuses, and that it writes everything or nothing."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs
import pytest
from helix_toy.make import component, kernel_of, manifest

import helix_kernel
from helix_kernel import Kind, default_kernel
from helix_kernel.backends import BackendSelector, Probe
from helix_kernel.cli.new import new
from helix_kernel.errors import ArgumentError, UnknownNameError
from helix_kernel.new.distribution import Distribution, range_of, write
from helix_kernel.new.names import LONGEST, Names, check_free, names_of
from helix_kernel.new.template import SUFFIX, TemplateError, render, template_of, variants_of

if TYPE_CHECKING:
    from collections.abc import Mapping

LAYER = default_kernel().registry.kinds["layer"]
BACKEND = default_kernel().registry.kinds["backend"]
NAMES = Names(name="leaky-sum", provider="helix-leaky-sum", package="helix_leaky_sum")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_names_follow_from_the_component():
    assert names_of("leaky-sum") == NAMES
    assert (NAMES.module, NAMES.class_name) == ("leaky_sum", "LeakySum")
    assert names_of("helix-sum").provider == "helix-sum"
    assert names_of("a", "some-parts").package == "some_parts"
    assert names_of("a", "some-parts", "parts").package == "parts"


@pytest.mark.parametrize("name", ["layer", "backend", "x", "a1-b2", "q" * LONGEST])
def test_a_kebab_name_is_taken(name):
    assert names_of(name, "parts").name == name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "LeakySum"}, "Did you mean 'leaky-sum'"),
        ({"name": "leaky_sum"}, "Did you mean 'leaky-sum'"),
        ({"name": "leaky sum "}, "Did you mean 'leaky-sum'"),
        ({"name": "4bit"}, "a letter first"),
        ({"name": ""}, "NAME is ''"),
        ({"name": "../up"}, "NAME is '../up'"),
        ({"name": "q" * (LONGEST + 1)}, f"allowed are {LONGEST}"),
        ({"name": "lambda"}, "'lambda', which is a word that Python keeps"),
        ({"name": "a", "provider": "Some_Parts"}, "--provider is 'Some_Parts'.* Did you mean 'some-parts'"),
        ({"name": "a", "package": "some-parts"}, "'some-parts', which is no Python identifier"),
        ({"name": "a", "package": "import"}, "'import', which is a word that Python keeps"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_another_name_is_refused_with_what_is_allowed(given, message):
    with pytest.raises(ArgumentError, match=message):
        names_of(**given)


def test_a_name_that_another_component_has_is_refused_with_those_near_it():
    layers = [component(name="leaky-sum"), component(name="leaky-sums", aliases=("leaky-mean",))]
    registry = kernel_of(manifest(layers=layers)).registry
    with pytest.raises(ArgumentError, match=r"'leaky-sum' already, of helix-toy 1.2.3: .*leaky-sums"):
        check_free(NAMES, "layer", registry)
    with pytest.raises(ArgumentError, match="'leaky-mean' already, of helix-toy"):
        check_free(attrs.evolve(NAMES, name="leaky-mean"), "layer", registry)
    check_free(NAMES, "loss", registry)


def test_a_name_of_helix_is_refused_even_where_its_distribution_is_not_installed():
    with pytest.raises(ArgumentError, match="a layer 'mamba' already, of helix-ssm"):
        check_free(attrs.evolve(NAMES, name="mamba"), "layer", kernel_of().registry)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"provider": "helix-ray"}, "a distribution of Helix itself"),
        ({"provider": "helix-kernel"}, "a distribution of Helix itself"),
        ({"provider": "attrs"}, "a distribution attrs .* is installed already.*pip uninstall attrs"),
        ({"package": "attrs"}, "a package 'attrs' can be imported already"),
        ({"package": "json"}, "a package 'json' can be imported already"),
    ],
    ids=str,
)
def test_a_distribution_or_package_that_is_there_is_not_hidden(change, message):
    with pytest.raises(ArgumentError, match=message):
        check_free(attrs.evolve(NAMES, **change), "layer", kernel_of().registry)


def test_only_a_word_in_two_curly_brackets_is_a_placeholder():
    text = "{{name}} {name} {{ name }} ${{ matrix.python }} {{1, 2}, {3}} {{{name}}}"
    assert render(text, {"name": "N"}) == "N {name} {{ name }} ${{ matrix.python }} {{1, 2}, {3}} {N}"


def test_a_placeholder_without_a_value_is_an_error():
    with pytest.raises(TemplateError, match=r"{{nme}}, which has no value; known are .*'name'"):
        render("{{nme}}", {"name": "N"})


def test_the_brackets_of_other_languages_survive():
    files = Distribution(kind=BACKEND, names=NAMES, variant="native").files()
    assert "${{ matrix.python }}" in files[".github/workflows/ci.yml"]
    assert '"${Python_EXECUTABLE}" -m nanobind' in files["CMakeLists.txt"]
    assert "NB_MODULE(_kernels, module) {" in files["native/rms_norm.cpp"]


def test_a_kind_with_variants_has_a_default_and_says_which_there_are():
    assert list(variants_of(BACKEND)) == ["native", "python", "triton"]
    plain = Distribution(kind=BACKEND, names=NAMES).files()
    assert plain == Distribution(kind=BACKEND, names=NAMES, variant="python").files()
    with pytest.raises(ArgumentError, match=r"'tritn', allowed is one of .* Did you mean 'triton'"):
        template_of(BACKEND, "tritn")
    with pytest.raises(ArgumentError, match="allowed is nothing: a layer has one template"):
        template_of(LAYER, "native")


def test_a_plugins_own_kind_brings_its_own_template(tmp_path, monkeypatch):
    folder = tmp_path / "codec_parts/template/src/{{package}}"
    folder.mkdir(parents=True)
    (tmp_path / "codec_parts/__init__.py").write_text("")
    (tmp_path / f"codec_parts/template/src/{{{{package}}}}/{{{{module}}}}.py{SUFFIX}").write_text(
        "# {{name}}, {{hint}}\n"
    )
    (tmp_path / "codec_parts/template/template.toml").write_text(
        'requires = ["{{owner}}"]\n[texts]\ncomponent = "{{name}}"\nsummary = "S"\nuse = "U"\nfiles = ""\n'
        'hint = "of {{kind}}"\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    kind = Kind(name="codec", plural="codecs", template="codec_parts:template", provider="codec-parts")
    files = Distribution(kind=kind, names=NAMES, owner_version="2.3.4").files()
    assert files["src/helix_leaky_sum/leaky_sum.py"] == "# leaky-sum, of codec\n"
    assert '"codec-parts>=2.3,<3"' in files["pyproject.toml"]
    assert "def helix_codecs()" in files["src/helix_leaky_sum/plugin.py"]


def test_a_kind_without_a_template_gets_a_generic_one():
    files = Distribution(
        kind=Kind(name="codec", plural="codecs", provider="codec-parts"), names=NAMES
    ).files()
    assert "The codec `leaky-sum`." in files["src/helix_leaky_sum/leaky_sum.py"]


@pytest.mark.parametrize("where", ["helix_kernel.new:templates/lair", "no_such_package:template"])
def test_a_template_that_is_missing_is_said_with_its_owner(where):
    kind = Kind(name="codec", plural="codecs", template=where, provider="codec-parts")
    with pytest.raises(TemplateError, match=f"codec of codec-parts names the template '{where}'"):
        template_of(kind)


@pytest.mark.parametrize("name", ["any", "layer-suite", "value-error"])
def test_a_class_that_its_own_code_needs_is_refused(name):
    kind = default_kernel().registry.kinds["optimizer" if name == "any" else "layer"]
    with pytest.raises(ArgumentError, match="which its own code needs for something else"):
        Distribution(kind=kind, names=attrs.evolve(NAMES, name=name)).files()


@pytest.mark.parametrize("kind", [k.name for k in default_kernel().registry.kinds.values()])
def test_a_component_may_be_called_as_its_kind(kind):
    name = kind.replace("_", "-")
    files = Distribution(
        kind=default_kernel().registry.kinds[kind], names=names_of(name, "some-parts")
    ).files()
    for path, text in files.items():
        if path.endswith(".py"):
            compile(text, path, "exec")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.1.0", ">=0.1,<0.2"),
        ("0.9.3", ">=0.9,<0.10"),
        ("1.4.2", ">=1.4,<2"),
        ("0.2.0.dev1", ">=0.2.0.dev1,<0.3"),
    ],
)
def test_the_range_begins_with_the_installed_version(version, expected):
    from packaging.specifiers import SpecifierSet

    assert range_of(version) == expected
    assert SpecifierSet(expected).contains(version, prereleases=True)


def test_what_it_depends_on_are_the_versions_that_are_installed():
    files = Distribution(kind=LAYER, names=NAMES).files()
    assert f'"helix-kernel{range_of(helix_kernel.__version__)}"' in files["pyproject.toml"]


def test_a_directory_that_is_there_is_left_alone(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "work.txt").write_text("mine")
    with pytest.raises(ArgumentError, match="nothing is overwritten"):
        write({"work.txt": "new"}, mine)
    with pytest.raises(ArgumentError, match="is no directory: make it first"):
        write({"work.txt": "new"}, tmp_path / "missing/new")
    assert [path.read_text() for path in mine.iterdir()] == ["mine"]
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_write_that_fails_midway_leaves_nothing(tmp_path):
    with pytest.raises(ArgumentError, match="cannot be written"):
        write({"a": "first", "a/b": "below a file"}, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_appears_meanwhile_is_left_alone(tmp_path, monkeypatch):
    target = tmp_path / "new"

    def appears(self, to, rename=os.rename):
        to.mkdir()
        (to / "work.txt").write_text("mine")
        rename(self, to)

    monkeypatch.setattr(Path, "rename", appears)
    with pytest.raises(ArgumentError, match="cannot be written"):
        write({"work.txt": "new"}, target)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert (target / "work.txt").read_text() == "mine"


def test_the_command_says_what_to_do_next(helix):
    code, out, _ = helix("new", "layer", "leaky-sum")
    assert code == 0
    assert "cd helix-leaky-sum\n  pip install -e '.[test]'\n  pytest\n" in out
    assert Path("helix-leaky-sum/src/helix_leaky_sum/leaky_sum.py").exists()
    assert [path.name for path in Path().iterdir()] == ["helix-leaky-sum"]


def test_a_kind_of_a_plugin_makes_it_a_requirement_in_the_version_that_is_installed(helix):
    assert helix("new", "schedule", "leaky-sum")[0] == 0
    installed = next(
        plugin.version for plugin in default_kernel().plugins if plugin.provider == "helix-train"
    )
    assert f'"helix-train{range_of(installed)}"' in Path("helix-leaky-sum/pyproject.toml").read_text()


@pytest.mark.parametrize(("interpreted", "chosen"), [("1", ("other",)), ("0", ("peak", "other"))])
def test_a_triton_backend_that_interprets_serves_only_where_it_is_named(monkeypatch, interpreted, chosen):
    new("backend", "peak", out="made", kernel="triton")
    monkeypatch.syspath_prepend("made/src")
    monkeypatch.delitem(sys.modules, "helix_peak", raising=False)
    peak = importlib.import_module("helix_peak.peak").Peak
    monkeypatch.setattr(peak, "probe", Other.probe)  # as if there were a GPU
    monkeypatch.setenv("TRITON_INTERPRET", interpreted)
    assert BackendSelector({"peak": peak(), "other": Other()}).select(["auto"]).chosen == chosen
    assert BackendSelector({"peak": peak()}).select(["peak"]).chosen == ("peak",)


class Other:
    """Another backend, the least wanted of ours."""

    device_type = "cpu"
    priority = 0
    ops: Mapping[str, object] = MappingProxyType({})

    def probe(self):
        return Probe(available=True, reason="always there", devices=("cpu",))


def test_json_is_one_object_that_names_every_file(helix):
    code, out, _ = helix("new", "losses", "leaky-sum", "--provider", "my-parts", "--out", "here", "--json")
    told = json.loads(out)
    assert (code, told["kind"], told["package"], told["directory"]) == (0, "loss", "my_parts", "here")
    written = (str(path.relative_to("here")) for path in Path("here").rglob("*") if path.is_file())
    assert sorted(written) == told["files"]
    assert told["next"][0] == "cd here"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lair", "leaky-sum"), "no kind is called 'lair'. Did you mean 'layer'?"),
        (("layer", "mamba"), "there is a layer 'mamba' already, of helix-ssm"),
        (("layer", "leaky_sum"), "Did you mean 'leaky-sum'?"),
        (("layer", "leaky-sum", "--kernel", "native"), "a layer has one template"),
        (("layer", "leaky-sum", "--out", "."), "nothing is overwritten"),
        (
            (),
            "needs a KIND and a NAME, such as: helix new layer my-layer\n  Kinds: alignment, backend, ",
        ),
        (("--kernel", "native"), "needs a KIND and a NAME"),
        (("memory_tiers",), "needs a NAME, too, such as: helix new memory_tier my-memory-tier\n"),
        (("lair",), "no kind is called 'lair'. Did you mean 'layer'?"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_input_writes_nothing(helix, arguments, message):
    code, out, err = helix("new", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert list(Path().iterdir()) == []


def test_help_lists_the_kinds_and_the_kernels_of_a_backend(helix):
    code, out, _ = helix("new", "--help")
    assert code == 0
    for kind in default_kernel().registry.kinds:
        assert f"{kind}: " in out
    assert "native, python, triton" in " ".join(out.split())


def test_a_kind_of_a_plugin_that_is_not_installed_names_the_plugin(monkeypatch):
    with pytest.raises(UnknownNameError, match="pip install helix-data"):
        kernel_of().registry.kind("dataset")
