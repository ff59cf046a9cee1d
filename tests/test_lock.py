"""`helix config lock` and `--locked`: what serves a config is what served it when it was locked."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
import sys
import tomllib

import attrs
import pytest
from packaging.requirements import Requirement

from helix_kernel import load_config
from helix_kernel.errors import LockError
from helix_kernel.lock import load_locked, lock_path, lock_text

MANIFEST = """
from helix_kernel import Component, hookimpl

@hookimpl
def helix_layers():
    return [
        Component(name="ema", target="acme.layers:EMA", config="acme.configs:EMAConfig"),
        Component(name="outer", target="acme.layers:Outer", config="acme.configs:OuterConfig"),
        Component(name="borrowed", target="json:JSONDecoder"),
    ]
"""
LAYERS = "from acme.helpers import half\n\nclass EMA: ...\n\nclass Outer: ...\n"
CONFIGS = """
import attrs
from helix_kernel import ComponentOf, option
from typing import Annotated, Any

@attrs.frozen
class EMAConfig:
    decay: float = 0.5
    label: str = option("none", help="what it is called", locked=False)

@attrs.frozen
class OuterConfig:
    inner: Annotated[Any, ComponentOf("layer")] = attrs.field(factory=lambda: {"use": "ema"})
    named: dict[str, Annotated[Any, ComponentOf("layer")]] = attrs.field(factory=dict)
    label: str = option("none", help="what it is called", locked=False)
"""
CONFIG = '[model]\nuse = "outer"\nnamed = { first = { use = "ema", decay = 0.25 } }\n'
BACKEND = """
from helix_kernel import Component, hookimpl

@hookimpl
def helix_backends():
    return [Component(name="fast", target="json:dumps")]
"""


def install(root, name="acme", version="1.0", **sources):
    """Install a distribution as pip would, with a RECORD, in place of an older one."""
    package = root / name
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    for metadata in root.glob(f"{name}-*.dist-info"):
        shutil.rmtree(metadata)
    metadata = root / f"{name}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (metadata / "entry_points.txt").write_text(f"[helix_kernel.v1]\n{name} = {name}.plugin\n")
    for module, source in {"__init__": "", **sources}.items():
        (package / f"{module}.py").write_text(source)
    files = [f"{name}/{file.name}" for file in package.iterdir()]
    (metadata / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    return root


def acme(root, version="1.0", **changed):
    sources = {"plugin": MANIFEST, "layers": LAYERS, "configs": CONFIGS, "helpers": "half = 0.5\n"}
    return install(root, "acme", version, **{**sources, **changed})


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the path with the third-party distribution acme."""
    monkeypatch.setenv("HELIX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HELIX_PLUGINS", "acme,zeta")
    root = acme(tmp_path / "site")
    monkeypatch.syspath_prepend(str(root))
    return root


def forget():
    """Begin as a new process does, for a manifest may have changed."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("acme", "zeta")]:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def locked(site, write):
    """A config with its lock."""
    path = write(CONFIG)
    lock_path(path).write_text(lock_text(load_config(path)))
    forget()
    return path


def refusal(path, *overrides, **options):
    with pytest.raises(LockError) as caught:
        load_locked(path, overrides, **options)
    head, *lines = str(caught.value).splitlines()
    assert lines[-1].strip() == f"or, where this is meant, lock anew: helix config lock {path}"
    assert head == f"{path} is not what {str(options.get('lock', lock_path(path)))!r} locks:"
    return [line.strip() for line in lines[:-1]]


class TestFile:
    def test_it_records_each_component_nested_ones_too_and_its_distribution(self, locked):
        table = tomllib.loads(lock_path(locked).read_text())
        assert set(table["components"]) == {"layer/acme:outer", "layer/acme:ema"}
        ema = table["components"]["layer/acme:ema"]
        assert (ema["distribution"], ema["version"], ema["target"]) == ("acme", "1.0", "acme.layers:EMA")
        assert set(table["distributions"]) == {"acme", "helix-kernel"}
        digests = [ema["source"], table["config_digest"], table["distributions"]["acme"]["source"]]
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in digests)
        assert len(set(digests)) == 3

    def test_the_same_gives_the_same_bytes_from_another_folder_too(self, locked, tmp_path, monkeypatch):
        first = lock_path(locked).read_bytes()
        moved = tmp_path / "elsewhere"
        shutil.copytree(tmp_path / "site", moved)
        for file in moved.rglob("*.py"):  # as another system's checkout has them
            file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
        monkeypatch.syspath_prepend(str(moved))
        (tmp_path / "config").mkdir()
        copy = shutil.copy(locked, tmp_path / "config" / "copy.toml")
        assert lock_text(load_config(copy)).encode() == first

    def test_it_names_no_folder_of_the_machine(self, locked, tmp_path):
        text = lock_path(locked).read_text()
        assert str(tmp_path) not in text
        assert sys.prefix not in text

    def test_locking_imports_neither_targets_nor_torch(self, site, write, python):
        acme(site, layers="raise SystemExit('imported')")
        code = (
            "import sys; from helix_kernel.lock import lock_text; from helix_kernel import load_config\n"
            f"lock_text(load_config({str(write(CONFIG))!r}))\n"
            "print([m for m in ('torch', 'numpy', 'acme.layers') if m in sys.modules])"
        )
        assert python(code, site) == "[]"

    def test_backends_count_that_the_config_lets_serve(self, site, write):
        install(site, "zeta", plugin=BACKEND)
        for backends, counts in (("auto", True), ("fast", True), ("reference", False)):
            config = load_config(write(f'[kernel]\nbackends = ["{backends}"]\n{CONFIG}'))
            assert ("backend/zeta:fast" in config.record.components) is counts

    def test_ops_count_that_its_distributions_bring(self, example):
        components = load_config(example).record.components
        assert {name for name in components if name.startswith("op/")} >= {"op/helix-ssm:selective_scan"}

    def test_another_distributions_class_has_no_source_of_this_one(self, site, write):
        config = load_config(write('[model]\nuse = "borrowed"'))
        assert config.record.components["layer/acme:borrowed"].source == ""
        assert config.record.distributions["acme"].source


class TestHolding:
    def test_what_is_as_locked_is_loaded(self, locked):
        assert load_locked(locked) == load_config(locked)

    def test_one_line_of_a_targets_module(self, locked, site):
        acme(site, layers=LAYERS.replace("EMA: ...", "EMA: pass"))
        [line] = refusal(locked)
        assert line.startswith(
            "acme 1.0: its source is not what was recorded in layer/acme:ema (acme.layers:EMA), "
            "layer/acme:outer (acme.layers:Outer): "
        )
        assert line.endswith(" -m pip install --force-reinstall --no-deps acme==1.0")

    def test_one_line_of_a_module_that_no_component_names(self, locked, site):
        acme(site, helpers="half = 0.75\n")
        [line] = refusal(locked)
        assert line.startswith(
            "acme 1.0: its source is not what was recorded, in none of the components' own"
        )

    def test_a_config_class_counts_as_its_component(self, locked, site):
        acme(site, configs=f"{CONFIGS}\n# changed\n")
        assert "layer/acme:ema (acme.layers:EMA)" in refusal(locked)[0]

    def test_in_editable_mode_the_folder_is_named(self, locked, site):
        acme(site, helpers="half = 0.75\n")
        origin = {"dir_info": {"editable": True}, "url": site.as_uri()}
        (site / "acme-1.0.dist-info" / "direct_url.json").write_text(json.dumps(origin))
        assert f"bring back what was recorded in {site}" in refusal(locked)[0]

    def test_another_version_and_the_command_that_brings_back_the_locked_one(self, locked, site):
        acme(site, version="1.1")
        [line] = refusal(locked)
        what, _, mend = line.rpartition(": ")
        assert what == "acme: locked is 1.0, installed is 1.1"
        *pip, requirement = shlex.split(mend)
        assert pip[1:] == ["-m", "pip", "install"]
        assert str(Requirement(requirement)) == "acme==1.0"

    def test_a_version_without_the_component_is_told_as_a_version_first(self, locked, site):
        acme(site, version="0.9", plugin=MANIFEST.replace('"outer"', '"uter"'))
        first, *others = refusal(locked)
        assert first.startswith("acme: locked is 1.0, installed is 0.9: ")
        assert any("no layer is called 'outer'" in line for line in others)

    def test_a_distribution_that_is_gone_and_one_that_is_left_out(self, locked, site, monkeypatch):
        monkeypatch.setenv("HELIX_PLUGINS", "none")
        assert refusal(locked)[0] == (
            "acme: locked is 1.0, what is installed is broken or left out here: helix doctor"
        )
        shutil.rmtree(site / "acme-1.0.dist-info")
        importlib.invalidate_caches()
        assert refusal(locked)[0].startswith("acme: locked is 1.0, installed is none: ")

    def test_several_are_named_each_and_mended_at_once(self, locked, site, monkeypatch):
        install(site, "zeta", plugin=BACKEND)
        lock_path(locked).write_text(lock_text(load_config(locked)))
        acme(site, version="2.0")
        install(site, "zeta", "3.0", plugin=BACKEND)
        forget()
        one, two, together = refusal(locked)
        assert one.startswith("acme: locked is 1.0, installed is 2.0: ")
        assert two.startswith("zeta: locked is 1.0, installed is 3.0: ")
        assert together.startswith("all at once: ")
        assert together.endswith(" -m pip install acme==1.0 zeta==1.0")

    def test_a_backend_that_may_serve_and_was_not_there(self, locked, site):
        install(site, "zeta", plugin=BACKEND)
        [line] = refusal(locked)
        assert line == (
            "backend/zeta:fast: of zeta 1.0, may serve here and is not locked: "
            "export HELIX_PLUGINS_DISABLED=zeta"
        )

    @pytest.mark.parametrize(
        ("override", "says"),
        [
            ("model.inner.decay=0.75", "model.inner.decay: locked is 0.5, given is 0.75: set it back to 0.5"),
            ("model.named={}", "model.named.first.use: locked is 'acme:ema', given is absent"),
            ('kernel.prefer=["acme"]', "kernel.prefer: locked is [], given is ['acme']: set it back to []"),
        ],
    )
    def test_the_config_itself(self, locked, override, says):
        assert says in "\n".join(refusal(locked, override))

    def test_versions_are_those_of_components_in_tables_too(self, locked):
        inner, named = "layer/acme:ema", "layer/acme:outer"
        assert load_config(locked).versions() == {inner: "1.0", named: "1.0"}
        only_named = load_config(locked, ["model.inner.use=borrowed"])
        assert set(only_named.versions()) == {"layer/acme:borrowed", inner, named}

    def test_what_a_component_leaves_to_each_call_may_differ(self, locked):
        overrides = ["model.label=other"]
        assert load_locked(locked, overrides) == load_config(locked, overrides)
        assert refusal(locked, *overrides, "model.inner.label=other") == [
            "model.inner.label: locked is 'none', given is 'other': set it back to 'none'"
        ]

    def test_a_wrong_config_is_told_as_ever(self, locked):
        with pytest.raises(Exception, match=r"model\.decy: unknown option"):
            load_locked(locked, ["model.decy=1"])

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            (None, "there is no lock"),
            ("format = ", "cannot be read"),
            ("\xff", "cannot be read"),
            ("format = 2", "is no lock of format 1"),
            ("format = 1\n[config]\n", "is damaged"),
            ("format = 1\ncomponents = 3\n[distributions.x]\nversio = 1\n[config]\n", "is damaged"),
        ],
    )
    def test_a_lock_that_is_missing_or_damaged(self, locked, text, says):
        lock_path(locked).unlink()
        if text is not None:
            lock_path(locked).write_bytes(text.encode("latin-1"))
        with pytest.raises(LockError, match=says) as caught:
            load_locked(locked)
        assert f"make it by: helix config lock {locked}" in str(caught.value)

    def test_the_kernel_is_locked_too(self, locked):
        text = lock_path(locked).read_text()
        table = tomllib.loads(text)["distributions"]["helix-kernel"]
        lock_path(locked).write_text(text.replace(table["source"], "sha256:0"))
        assert refusal(locked)[0].startswith(f"helix-kernel {table['version']}: its source is not")


class TestCommands:
    def test_a_config_is_locked_checked_and_refused(self, helix, site, write):
        path = write(CONFIG)
        place = lock_path(path)
        assert helix("config", "lock", path) == (
            0,
            f"{place}: 2 components of 2 distributions; hold to it with --locked\n",
            "",
        )
        assert helix("config", "check", path, "--locked")[0] == 0
        acme(site, helpers="half = 0.75\n")
        assert helix("config", "check", path)[0] == 0
        code, out, err = helix("config", "check", path, "--locked")
        assert (code, out) == (2, "")
        assert err.startswith(
            f"error: {path} is not what {str(place)!r} locks:\n  acme 1.0: its source is not"
        )
        code, out, _ = helix("config", "check", path, "--locked", "--json")
        report = json.loads(out)
        assert (code, report["ok"]) == (2, False)
        assert "acme 1.0: its source" in report["locked"]

    def test_it_is_written_where_it_is_asked_for_with_the_overrides(self, helix, site, write, tmp_path):
        path, place = write(CONFIG), tmp_path / "locks" / "small.toml"
        code, _, err = helix("config", "lock", path, "--out", place)
        assert code == 2
        assert "cannot be written: No such file or directory" in err
        place.parent.mkdir()
        code, out, _ = helix("config", "lock", path, "model.inner.decay=0.75", "--out", place, "--json")
        told = json.loads(out)
        assert (code, told["lock"], set(told["components"])) == (
            0,
            str(place),
            {"layer/acme:ema", "layer/acme:outer"},
        )
        assert not lock_path(path).exists()
        assert helix("config", "check", path, "model.inner.decay=0.75", "--lock", place)[0] == 0
        assert helix("config", "check", path, "--lock", place)[0] == 2


def test_a_record_comes_back_from_its_plain_values(site, write):
    record = load_config(write(CONFIG)).record
    plain = json.loads(json.dumps(record.as_dict()))
    assert type(record).from_dict(plain).as_dict() == plain
    assert attrs.asdict(record)["components"]["layer/acme:ema"] == plain["components"]["layer/acme:ema"]
