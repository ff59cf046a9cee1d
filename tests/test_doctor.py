"""`helix doctor`: each thing that is wrong is found, with the command that mends it."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest
from packaging.requirements import Requirement

from helix_kernel.diagnosis import mending
from helix_kernel.diagnosis.installation import Installation
from helix_kernel.diagnosis.targets import check_targets

LAYER = """
from helix_kernel import Component, hookimpl

@hookimpl
def helix_layers():
    return [Component(name="ema", target="{target}", config={config!r}, requires={requires!r})]
"""
COMMAND = """
from helix_kernel import Component, hookimpl

@hookimpl
def helix_commands():
    return [Component(name={name!r}, target="json:dumps")]
"""
KIND = """
from helix_kernel import Kind, hookimpl

@hookimpl
def helix_kinds():
    return [Kind(name="gauge", plural="gauges", section="optimizer")]
"""
HOOK = "import helix_kernel\n@helix_kernel.hookimpl\ndef {hook}():\n    return []\n"


def layer(target="json:dumps", config=None, requires=()):
    return LAYER.format(target=target, config=config, requires=requires)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A directory of installed distributions."""
    root = tmp_path / "site"
    root.mkdir()
    monkeypatch.syspath_prepend(root)
    monkeypatch.setenv("HELIX_CACHE_DIR", str(tmp_path / "cache"))
    return root


def install(site, name, source, *, version="1.0", requires=(), group="helix_kernel.v1", plugin=None, **files):
    """Install a distribution whose manifest has this source; None: there is no such module."""
    module = f"{name.replace('-', '_')}_manifest"
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    required = "".join(f"Requires-Dist: {line}\n" for line in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{required}")
    (info / "entry_points.txt").write_text(f"[{group}]\n{plugin or name} = {module}\n")
    sources = {f"{module}.py": source, **files}
    written = {path: text for path, text in sources.items() if text is not None}
    for path, text in written.items():
        (site / path).parent.mkdir(exist_ok=True)
        (site / path).write_text(text)
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in written))
    return info


@pytest.fixture
def doctor(helix, site, monkeypatch):
    """Run the command on what a test installed, or on all; returns its exit code and its findings."""

    def run(*arguments, everything=False):
        forget(site.parent)
        if not everything:
            names = {info.name.partition("-")[0] for info in site.glob("*.dist-info")}
            monkeypatch.setenv("HELIX_PLUGINS", ",".join(sorted(names)))
        code, out, err = helix("doctor", *arguments, "--json")
        assert err == ""
        found = [SimpleNamespace(**finding) for finding in json.loads(out)["findings"]]
        for finding in found:
            assert_well_formed(finding.mend)
        return code, found

    return run


def forget(folder):
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(folder)):
            del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def mend(monkeypatch):
    """Do what a finding says, in a shell; what it exports counts from then on."""

    def run(finding, **environment):
        script = f"set -e\n{finding.mend}\nenv -0"
        finished = subprocess.run(
            ["bash", "-c", script], env={**os.environ, **environment}, capture_output=True, check=True
        )
        for line in finished.stdout.split(b"\0"):
            name, _, value = line.decode(errors="replace").rpartition("\n")[2].partition("=")
            if name.startswith("HELIX_"):
                monkeypatch.setenv(name, value)

    return run


def assert_well_formed(commands):
    """Each line is one command that a shell splits into words, and pip's are of requirements."""
    for line in commands.splitlines():
        words = shlex.split(line)
        if words[0] in ("rm", "mv"):
            assert all(Path(word.replace("*", "")).is_absolute() for word in words[2:])
        elif words[0] == "export":
            assert re.fullmatch(r"HELIX_PLUGINS_DISABLED=[\w,-]+", words[1])
        else:
            assert words[1:3] == ["-m", "pip"]
            assert words[3] in ("install", "uninstall")
            given = [word for word in words[4:] if not word.startswith("-")]
            assert given
            for word in given:
                assert Path(word).is_absolute() or Requirement(word)


def test_nothing_is_wrong_with_what_we_ship(helix):
    code, out, err = helix("doctor")
    assert (code, err) == (0, "")
    assert out.endswith("Nothing is wrong.\n")
    assert len(out.splitlines()) < 60, "it fits on a screen"


@pytest.mark.slow
def test_nothing_is_wrong_with_what_we_ship_when_every_target_is_imported(helix):
    code, out, _ = helix("doctor", "--deep")
    assert code == 0
    assert out.endswith("Nothing is wrong.\n")


def test_it_says_who_serves_each_op_and_why_the_others_do_not(helix):
    code, out, _ = helix("doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert {plugin["provider"] for plugin in found["plugins"]} >= {"helix-ssm", "helix-train", "helix-data"}
    assert {tuple(plugin["api"]) for plugin in found["plugins"]} == {("1",)}
    assert {op["op"] for op in found["ops"]} >= {"selective_scan", "causal_conv1d", "long_conv", "rms_norm"}
    backends = {backend["name"] for backend in found["backends"]}
    for op in found["ops"]:
        assert {op["served_by"], *op["passed_over"]} - {"reference"} == backends
        assert all(op["passed_over"].values())
    assert found["environment"]["torch"]


def test_people_read_of_each_op_what_programs_do(helix):
    ops = json.loads(helix("doctor", "--json")[1])["ops"]
    text = " ".join(helix("doctor")[1].split())
    for op in ops:
        groups = re.findall(rf"{op['served_by']} serves on {op['device']}: ([\w, ]+?) not ", text)
        assert any(op["op"] in group.split(", ") for group in groups)
        assert all(f"not {name}: {' '.join(why.split())}" in text for name, why in op["passed_over"].items())


class TestLoading:
    def test_a_manifest_that_raises(self, site, doctor):
        install(site, "acme", "raise RuntimeError('boom')")
        code, [found] = doctor()
        assert (code, found.check) == (1, "broken")
        assert found.what == "plugin 'acme' of acme 1.0 (acme_manifest) failed: RuntimeError: boom"
        assert found.mend.endswith(" -m pip install --upgrade acme")
        assert found.note == "or leave it out: export HELIX_PLUGINS_DISABLED=acme"

    def test_leaving_it_out_mends_it_beside_what_is_left_out_already(self, site, doctor, monkeypatch):
        install(site, "acme", "raise RuntimeError('boom')")
        monkeypatch.setenv("HELIX_PLUGINS_DISABLED", "helix-ray")
        assert mending.leave_out("acme") == "export HELIX_PLUGINS_DISABLED=helix-ray,acme"
        monkeypatch.setenv("HELIX_PLUGINS_DISABLED", "helix-ray,acme")
        assert doctor() == (0, [])

    def test_an_entry_point_to_a_module_that_is_gone(self, site, doctor):
        install(site, "acme", None)
        code, [found] = doctor()
        assert code == 1
        assert "No module named 'acme_manifest'" in found.what
        assert found.mend.endswith("-m pip install --force-reinstall --no-deps acme==1.0")

    def test_a_broken_plugin_in_editable_mode_is_installed_again_from_its_folder(self, site, doctor):
        info = install(site, "acme", "raise RuntimeError('boom')")
        origin = {"dir_info": {"editable": True}, "url": (site / "a folder").as_uri()}
        (info / "direct_url.json").write_text(json.dumps(origin))
        (site / "a folder").mkdir()
        _, [found] = doctor()
        assert shlex.split(found.mend)[-2:] == ["-e", str(site / "a folder")]

    @pytest.mark.parametrize(
        ("group", "upgraded"),
        [("helix_kernel.v2", ["helix-kernel", "acme"]), ("helix_kernel.v0", ["acme"])],
    )
    def test_a_plugin_for_another_major_of_the_api(self, site, doctor, group, upgraded):
        install(site, "acme", "raise SystemExit('imported')", group=group)
        code, [found] = doctor()
        assert (code, found.check) == (1, "api")
        assert f"it is made for API '{group}', this kernel serves 'helix_kernel.v1'" in found.what
        assert shlex.split(found.mend)[5:] == upgraded

    def test_a_kind_whose_section_another_brings(self, site, doctor, mend):
        install(site, "acme", KIND)
        code, [found] = doctor()
        assert (code, found.check) == (1, "manifest")
        assert "has the section 'optimizer', which helix-kernel brings already" in found.what
        mend(found)
        assert doctor() == (0, [])

    def test_a_hook_with_a_misspelled_name(self, site, doctor):
        install(site, "acme", HOOK.format(hook="helix_layerz"))
        code, [found] = doctor()
        assert code == 1
        assert found.what == (
            "plugin 'acme' of acme: nothing calls helix_layerz(). Did you mean helix_layers()?"
        )

    @pytest.mark.parametrize(
        ("hook", "disabled", "says", "mend"),
        [
            ("helix_gizmos", "", "no installed plugin brings such a kind", "--upgrade acme"),
            ("helix_loggers", "helix-train,helix-ray", "its kind comes with helix-train", "helix-train"),
        ],
    )
    def test_a_hook_of_a_kind_that_is_not_installed_is_no_fault(
        self, site, doctor, monkeypatch, hook, disabled, says, mend
    ):
        install(site, "acme", HOOK.format(hook=hook))
        monkeypatch.setenv("HELIX_PLUGINS_DISABLED", disabled)
        code, found = doctor(everything=True)
        [found] = [finding for finding in found if finding.provider == "acme"]
        assert (code, found.level) == (0, "note")
        assert says in found.what
        assert found.mend.endswith(f" {mend}")

    def test_a_heavy_manifest(self, site, python):
        # In a process of its own: here torch is loaded already.
        install(site, "acme", "import torch")
        code = (
            "import json, contextlib, io\n"
            "from helix_kernel.cli.doctor import doctor\n"
            "with contextlib.redirect_stdout(io.StringIO()) as out: code = doctor(json=True)\n"
            "print(json.dumps([code, json.loads(out.getvalue())['findings']]))"
        )
        environment = {"HELIX_PLUGINS": "acme", "HELIX_CACHE_DIR": str(site.parent / "cache")}
        code, [finding] = json.loads(python(code, site, **environment))
        assert code == 1
        assert finding["what"].startswith("plugin 'acme' of acme: its manifest imports torch")
        assert finding["note"].endswith("inside the functions that use it, in acme_manifest")


class TestRequirements:
    @pytest.mark.parametrize(
        ("requirement", "installed", "mend"),
        [
            ("attrs>=999", attrs.__version__, "'attrs>=999'"),
            ("no-such-package-anywhere<2", "none", "'no-such-package-anywhere<2'"),
            ("no-such-package-anywhere[fast,b]", "none", "'no-such-package-anywhere[b,fast]'"),
        ],
    )
    def test_one_that_is_not_met(self, site, doctor, requirement, installed, mend):
        install(site, "acme", "", requires=[requirement])
        code, [found] = doctor()
        assert (code, found.check) == (1, "requirement")
        assert found.what == f"acme requires {requirement}, installed is {installed}"
        assert found.mend.endswith(f" -m pip install {mend}")

    @pytest.mark.parametrize("specifier", [">=9", "<0.0.1"])
    def test_the_range_of_kernels(self, site, doctor, specifier):
        install(site, "acme", "", requires=[f"helix-kernel{specifier}"])
        code, [found] = doctor()
        assert (code, found.check) == (1, "kernel-range")
        assert found.mend.endswith(f" -m pip install 'helix-kernel{specifier}'")
        assert found.note.endswith("-m pip install --upgrade acme")

    @pytest.mark.parametrize(
        "requirement", ["attrs>=20", "absent; python_version < '3'", "absent; extra == 'plot'"]
    )
    def test_one_that_is_met_or_not_asked_for_is_none(self, site, doctor, requirement):
        install(site, "acme", "", requires=[requirement])
        assert doctor() == (0, [])

    def test_one_that_nobody_understands(self, site, doctor):
        install(site, "acme", "", requires=["attrs at least twenty"])
        code, [found] = doctor()
        assert code == 1
        assert found.what == "acme requires 'attrs at least twenty', which no installer understands"

    @pytest.mark.parametrize(
        ("requires", "missing"),
        [("acme[fast]", "no-such-package>=2"), ("no-such-package", "no-such-package")],
    )
    def test_those_of_a_component_are_told_and_stop_nothing(self, site, doctor, requires, missing):
        extra = ["attrs; extra == 'fast'", "no-such-package>=2; extra == 'fast'"]
        install(site, "acme", layer("gone:Gone", requires=(requires,)), requires=extra)
        code, [found] = doctor()
        assert (code, found.level) == (0, "note")
        assert found.what == f"layer ema cannot be built without {missing}"
        assert found.mend.endswith(f"-m pip install {shlex.quote(requires)}")


class TestMetadata:
    def test_a_distribution_that_one_of_another_folder_hides(self, site, doctor, monkeypatch, mend):
        other = site.parent / "other folder"
        other.mkdir()
        install(site, "acme", "", version="1.0")
        install(other, "acme", "", version="2.0")
        monkeypatch.syspath_prepend(other)
        code, [found] = doctor()
        assert (code, found.check) == (1, "hidden")
        assert found.what.startswith(f"acme 1.0 in {site}")
        assert f"is hidden by 2.0 in {other}" in found.what
        mend(found)
        assert doctor() == (0, [])

    def test_two_versions_in_one_folder(self, site, doctor):
        older, newer = (install(site, "acme", "", version=version) for version in ("9.0", "10.0"))
        code, [found] = doctor()
        assert code == 1
        removal, again = found.mend.splitlines()
        assert set(shlex.split(removal)) == {"rm", "-r", str(older), str(newer)}
        assert again.endswith("--force-reinstall --no-deps acme==10.0")

    @pytest.mark.parametrize("name", ["METADATA", "RECORD"])
    def test_half_of_an_installation(self, site, doctor, name):
        info = install(site, "acme", "")
        (info / name).unlink()
        code, [found] = doctor()
        assert (code, found.check) == (1, "half-installed")
        assert found.what.endswith(f"{info} has no {name}")
        removal, again = found.mend.splitlines()
        assert shlex.split(removal) == ["rm", "-r", str(info)]
        assert again.endswith("acme==1.0")

    def test_an_operating_systems_package_needs_no_record(self, site, doctor):
        info = install(site, "acme", "")
        (info / "RECORD").unlink()
        (info / "INSTALLER").write_text("debian\n")
        assert doctor() == (0, [])

    def test_half_of_an_installation_is_one_finding_though_it_cannot_be_imported(self, site, doctor):
        info = install(site, "acme", None)
        (info / "RECORD").unlink()
        assert [finding.check for finding in doctor()[1]] == ["half-installed"]

    def test_a_folder_of_editable_mode_that_is_gone(self, site, doctor):
        info = install(site, "acme", None)
        origin = {"dir_info": {"editable": True}, "url": "file:///no/such%20folder"}
        (info / "direct_url.json").write_text(json.dumps(origin))
        code, [found] = doctor()
        assert (code, found.check) == (1, "editable-gone")
        assert found.what == "acme is installed in editable mode from /no/such folder, which is gone"
        assert found.mend.endswith("-m pip uninstall --yes acme")

    def test_what_a_stopped_installer_renamed(self, site, doctor, mend):
        install(site, "acme", layer())
        install(site, "~cme", layer(), version="0.9")
        (site / "~elix_ssm").mkdir()
        (site / "~orch").mkdir()  # not ours
        code, [found] = doctor()
        assert (code, found.check) == (1, "left-behind")
        assert "left ~cme-0.9.dist-info, ~elix_ssm in " in found.what
        mend(found)
        assert doctor() == (0, [])
        assert (site / "~orch").is_dir()

    def test_a_file_that_is_gone_is_put_back_by_what_it_says(self, site, doctor, mend, tmp_path):
        wheel(tmp_path / "wheels")
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels"), "PIP_TARGET": str(site)}
        pip |= {"PIP_UPGRADE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        with zipfile.ZipFile(tmp_path / "wheels/acme-1.0-py3-none-any.whl") as archive:
            archive.extractall(site)
        assert doctor() == (0, [])
        (site / "acme_layers.py").unlink()
        _, found = doctor()
        assert [finding.check for finding in found] == ["files-gone", "dead-target"]
        assert found[0].what == "acme 1.0 was installed with acme_layers.py, which is gone"
        mend(found[0], **pip)
        assert doctor() == (0, [])


def wheel(folder):
    """Write the wheel acme 1.0, of a manifest and a layer."""
    folder.mkdir()
    files = {
        "acme_manifest.py": layer("acme_layers:EMA"),
        "acme_layers.py": "class EMA: ...\n",
        "acme-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n",
        "acme-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "acme-1.0.dist-info/entry_points.txt": "[helix_kernel.v1]\nacme = acme_manifest\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, "acme-1.0.dist-info/RECORD"])
    with zipfile.ZipFile(folder / "acme-1.0-py3-none-any.whl", "w") as archive:
        for name, text in {**files, "acme-1.0.dist-info/RECORD": record}.items():
            archive.writestr(name, text)


class TestConflicts:
    def test_two_providers_of_one_name(self, site, doctor, mend):
        install(site, "acme", layer())
        install(site, "zeta", layer())
        code, [found] = doctor()
        assert (code, found.check) == (1, "two-providers")
        assert found.what.startswith("acme and zeta both offer the layer 'ema'")
        assert "use = 'acme:ema', or [kernel] prefer = ['acme']" in found.note
        mend(found)
        assert doctor() == (0, [])

    def test_a_config_settles_two_providers(self, site, doctor, write):
        install(site, "acme", layer())
        install(site, "zeta", layer())
        assert doctor(write('[kernel]\nprefer = ["zeta"]\n')) == (0, [])
        assert doctor(write('[kernel]\ndisabled = ["zeta"]\n')) == (0, [])
        assert doctor(write('[kernel]\ndisabled = ["other"]\n'))[0] == 1

    @pytest.mark.parametrize(
        ("name", "claimants"), [("greet", "acme and zeta"), ("config", "acme and helix-kernel and zeta")]
    )
    def test_commands_of_one_name(self, site, doctor, name, claimants):
        install(site, "acme", COMMAND.format(name=name))
        install(site, "zeta", COMMAND.format(name=name))
        code, [found] = doctor()
        assert (code, found.check) == (1, "commands-clash")
        assert found.what == f"{claimants} both bring the command {name!r}"
        assert f"helix acme:{name} or helix zeta:{name}" in found.note

    def test_plugins_of_one_name(self, site, doctor, mend):
        install(site, "acme", "", plugin="x")
        install(site, "zeta", "", plugin="x")
        code, [found] = doctor()
        assert (code, found.check) == (1, "plugin-names")
        assert found.what.startswith("acme and zeta both have a plugin called 'x'")
        mend(found)
        assert doctor() == (0, [])

    def test_two_distributions_that_own_one_import_package(self, site, doctor):
        install(site, "acme", "", **{"shared/__init__.py": "", "shared/a.py": ""})
        install(site, "zeta", "", **{"shared/__init__.py": "", "shared/b.py": ""})
        code, [found] = doctor()
        assert (code, found.check) == (1, "import-package")
        assert "acme and zeta both own the import package 'shared'" in found.what

    def test_a_namespace_package_may_be_shared(self, site, doctor):
        install(site, "acme", "", **{"shared/a.py": ""})
        install(site, "zeta", "", **{"shared/b.py": ""})
        assert doctor() == (0, [])

    def test_a_manifest_that_another_module_hides(self, site, doctor, monkeypatch, mend):
        other = site.parent / "other"
        other.mkdir()
        install(site, "acme", layer())
        (other / "acme_manifest.py").write_text("")
        monkeypatch.syspath_prepend(other)
        code, [found] = doctor()
        assert (code, found.check) == (1, "shadowed-module")
        assert f"is imported from {other / 'acme_manifest.py'}, which hides" in found.what
        mend(found)
        assert doctor() == (0, [])


class TestTargets:
    @pytest.mark.parametrize(
        ("target", "config", "says"),
        [
            ("gone.layers:EMA", None, "there is no module gone.layers"),
            ("acme_layers.deeper:EMA", None, "there is no module acme_layers.deeper"),
            ("acme_layers:Lost", None, "acme_layers has no Lost"),
            ("acme_layers:EMA", "acme_layers:LostConfig", "acme_layers has no LostConfig"),
        ],
    )
    def test_one_that_is_dead(self, site, doctor, target, config, says):
        bomb = "class EMA: ...\nraise SystemExit('imported')"
        install(site, "acme", layer(target, config), **{"acme_layers.py": bomb})
        code, [found] = doctor()
        assert (code, found.check) == (1, "dead-target")
        assert found.what == f"acme: {says}; layer ema ({config or target}) cannot be used"

    @pytest.mark.parametrize(
        "source",
        [
            "class EMA: ...",
            "def EMA(): ...",
            "async def EMA(): ...",
            "EMA = 1",
            "EMA: int = 1",
            "A, (EMA, *B) = 1, (2, 3)",
            "from json import dumps as EMA",
            "from json import *",
            "import EMA.deeper",
            "try:\n    import x\nexcept ImportError:\n    EMA = 1",
            "if True:\n    class EMA: ...",
            "with open('x') as EMA: ...",
            "for EMA in (): ...",
            "print(EMA := 1)",
            "def __getattr__(name): ...",
            "globals()['E' + 'MA'] = 1",
            "def make():\n    global EMA\n    EMA = 1",
            "this is no Python",
        ],
    )
    def test_one_that_may_be_alive_is_left_alone(self, site, doctor, source):
        install(site, "acme", layer("acme_layers:EMA.deep"), **{"acme_layers.py": source})
        assert doctor() == (0, [])

    @pytest.mark.parametrize("source", ["class Other:\n    EMA = 1", "def f(EMA): ...", "'EMA'\nEMAS = 1"])
    def test_a_name_that_is_not_the_modules_own_is_none(self, site, doctor, source):
        install(site, "acme", layer("acme_layers:EMA"), **{"acme_layers.py": source})
        assert doctor()[0] == 1

    @pytest.mark.parametrize(
        ("source", "says"),
        [
            ("raise OSError('no driver')", "importing acme_layers raised OSError: no driver"),
            ("raise SystemExit(3)", "importing acme_layers raised SystemExit: 3"),
            (
                "",
                "importing acme_layers raised AttributeError: module 'acme_layers' has no",
            ),
            ("this is no Python", "importing acme_layers raised SyntaxError: invalid syntax"),
        ],
    )
    def test_with_deep_each_is_imported(self, site, doctor, source, says):
        install(site, "acme", layer("acme_layers:EMA"), **{"acme_layers.py": f"from json import *\n{source}"})
        assert doctor() == (0, [])
        code, [found] = doctor("--deep")
        assert (code, found.check) == (1, "dead-target")
        assert says in found.what

    def test_a_module_of_a_namespace_package_is_found(self, site, doctor):
        (site / "shared" / "inner").mkdir(parents=True)
        (site / "shared" / "inner" / "layers.py").write_text("class EMA: ...")
        install(site, "acme", layer("shared.inner.layers:EMA"))
        assert doctor() == (0, [])

    def test_looking_at_what_we_ship_imports_none_of_it(self, python):
        code = (
            "import sys; from helix_kernel.diagnosis.installation import Installation\n"
            "from helix_kernel.diagnosis.targets import check_targets\n"
            "print(list(check_targets(Installation.here(), deep=False)),\n"
            "      [m for m in sys.modules if m in ('torch', 'helix_ssm.layers', 'triton')])"
        )
        assert python(code) == "[] []"

    def test_the_suite_of_a_kind_counts_too(self):
        installation = Installation.here()
        kinds = installation.kernel.registry.kinds
        kinds["layer"] = attrs.evolve(kinds["layer"], suite="gone:Suite")
        [found] = check_targets(installation, deep=False)
        assert "suite of kind layer (gone:Suite)" in found.what


class TestCaches:
    @pytest.fixture(autouse=True)
    def kept_at_once(self, monkeypatch):
        """Keep listings also while a folder of the checkout changes, and no bytecode of what is rewritten."""
        monkeypatch.setattr("helix_kernel.discovery.SETTLED_NS", -1)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def test_a_list_of_entry_points_that_is_stale(self, site, doctor, mend):
        info = install(site, "acme", "")
        os.utime(site, ns=(10**18, 10**18))
        doctor(everything=True)
        (info / "entry_points.txt").write_text("[helix_kernel.v1]\nother = acme_manifest\n")
        code, [found] = doctor(everything=True)
        assert (code, found.check) == (1, "stale-cache")
        assert found.what.startswith("the list of entry points that is kept in ")
        mend(found)
        assert doctor(everything=True) == (0, [])

    def test_a_list_of_components_that_is_stale(self, site, doctor, helix, mend):
        install(site, "acme", layer())
        kept = site / "acme_manifest.py"
        for path in (site, kept):
            os.utime(path, ns=(10**18, 10**18))
        helix("components")
        assert doctor(everything=True) == (0, [])
        kept.write_text(layer("json:loads"))
        os.utime(kept, ns=(10**18, 10**18))
        assert kept.stat().st_size == len(layer())
        code, [found] = doctor(everything=True)
        assert code == 1
        assert "the list of components" in found.what
        mend(found)
        assert doctor(everything=True) == (0, [])


def test_a_backend_whose_probe_raises(site, doctor):
    source = "from helix_kernel import Component, hookimpl\n@hookimpl\ndef helix_backends():\n"
    source += "    return [Component(name='bad', target='acme_backend:Bad')]\n"
    bad = "class Bad:\n    device_type, priority, ops = 'cpu', 1, {}\n"
    bad += "    def probe(self): raise OSError('no driver')\n"
    install(site, "acme", source, **{"acme_backend.py": bad})
    code, [found] = doctor()
    assert (code, found.provider) == (1, "acme")
    assert found.what == "choosing backends failed by acme: OSError: no driver"
    assert found.note == "or leave it out: export HELIX_PLUGINS_DISABLED=acme"


def test_people_read_the_same_findings(site, helix):
    install(site, "acme", "raise RuntimeError('boom')")
    code, out, _ = helix("doctor")
    assert code == 1
    assert "wrong: plugin 'acme' of acme 1.0 (acme_manifest) failed: RuntimeError: boom\n  mend: " in out
    assert out.endswith("\n1 thing is wrong\n")


def test_without_torch_it_says_what_still_works(helix, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, out, _ = helix("doctor")
    assert code == 0
    assert "torch is not installed: configs can be checked, but nothing can be built" in out


def test_accelerators_are_told_by_name_and_memory(monkeypatch, helix):
    import torch

    properties = SimpleNamespace(name="Toy 1", total_memory=3 << 30)
    for name, value in {
        "is_available": lambda: True,
        "current_accelerator": lambda: torch.device("cuda"),
        "device_count": lambda: 2,
    }.items():
        monkeypatch.setattr(torch.accelerator, name, value)
    monkeypatch.setattr(
        torch, "get_device_module", lambda _: SimpleNamespace(get_device_properties=lambda _: properties)
    )
    _, out, _ = helix("doctor")
    assert "accelerators cuda:0 Toy 1, 3.0 GiB; cuda:1 Toy 1, 3.0 GiB" in out


class TestCommands:
    def test_python_is_named_by_its_path_where_the_word_means_another(self, monkeypatch):
        monkeypatch.setenv("PATH", "/usr/bin:/bin")
        assert mending.install("a[b]>=1") == f"{shlex.quote(sys.executable)} -m pip install 'a[b]>=1'"
        monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
        assert mending.install("a[b]>=1") == "python -m pip install 'a[b]>=1'"

    def test_an_environment_of_uv_without_pip_is_mended_by_uv(self, monkeypatch):
        monkeypatch.setattr(mending, "find_spec", lambda _: None)
        monkeypatch.setattr(mending.shutil, "which", lambda _: "/bin/uv")
        assert mending.uninstall("acme") == f"uv pip uninstall --python {shlex.quote(sys.executable)} acme"
