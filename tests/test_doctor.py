"""`helix doctor`: each thing that is wrong is found, with what mends it."""

from __future__ import annotations

import json
import sys

import attrs
import pytest


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A directory of installed distributions."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HELIX_CACHE_DIR", str(tmp_path / "cache"))
    yield tmp_path
    sys.modules.pop("acme_manifest", None)


def install(site, name, source, *, version="1.0", requires=()):
    """Install a distribution whose manifest has this source; None: there is no such module."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    required = "".join(f"Requires-Dist: {line}\n" for line in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{required}")
    (info / "entry_points.txt").write_text(f"[helix_kernel.v1]\n{name} = {name}_manifest\n")
    if source is not None:
        (site / f"{name}_manifest.py").write_text(source)


@pytest.fixture
def doctor(helix):
    """Run the command; returns its exit code and its findings."""

    def run():
        code, out, err = helix("doctor", "--json")
        assert err == ""
        found = [(finding["what"], finding["mend"]) for finding in json.loads(out)["findings"]]
        return code, found

    return run


def test_nothing_is_wrong_with_what_we_ship(helix):
    code, out, err = helix("doctor")
    assert (code, err) == (0, "")
    assert out.endswith("Nothing is wrong.\n")


def test_it_says_who_serves_each_op_and_why_the_others_do_not(helix):
    code, out, _ = helix("doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert {plugin["provider"] for plugin in found["plugins"]} >= {"helix-ssm", "helix-train", "helix-data"}
    assert {op["op"] for op in found["ops"]} >= {"selective_scan", "causal_conv1d", "long_conv", "rms_norm"}
    backends = {backend["name"] for backend in found["backends"]}
    for op in found["ops"]:
        assert {op["served_by"], *op["passed_over"]} - {"reference"} == backends
        assert all(op["passed_over"].values())
    assert found["environment"]["torch"]


class TestFindings:
    def test_a_manifest_that_raises(self, site, doctor):
        install(site, "acme", "raise RuntimeError('boom')")
        code, [(what, mend)] = doctor()
        assert code == 1
        assert what == "plugin 'acme' of acme 1.0 (acme_manifest) failed: RuntimeError: boom"
        assert mend.startswith("pip install --upgrade --force-reinstall acme, or leave it out")
        assert mend.endswith("HELIX_PLUGINS_DISABLED=acme")

    def test_what_it_says_to_do_mends_a_broken_plugin(self, site, doctor, monkeypatch):
        install(site, "acme", "raise RuntimeError('boom')")
        monkeypatch.setenv("HELIX_PLUGINS_DISABLED", "acme")
        assert doctor() == (0, [])

    def test_an_entry_point_to_a_module_that_is_gone(self, site, doctor):
        install(site, "acme", None)
        code, [(what, _)] = doctor()
        assert code == 1
        assert "No module named 'acme_manifest'" in what

    def test_a_hook_that_nothing_calls(self, site, doctor):
        source = "import helix_kernel\n@helix_kernel.hookimpl\ndef helix_layerz():\n    return []\n"
        install(site, "acme", source)
        code, [(what, mend)] = doctor()
        assert code == 1
        assert what == "plugin 'acme' of acme: nothing calls helix_layerz()"
        assert "helix_layers" in mend

    @pytest.mark.parametrize(
        ("requirement", "installed", "mend"),
        [
            ("attrs>=999", attrs.__version__, "pip install 'attrs>=999'"),
            ("no-such-package-anywhere<2", "none", "pip install 'no-such-package-anywhere<2'"),
        ],
    )
    def test_a_requirement_that_is_not_met(self, site, doctor, requirement, installed, mend):
        install(site, "acme", "", requires=[requirement])
        assert doctor() == (1, [(f"acme requires {requirement}, installed is {installed}", mend)])

    @pytest.mark.parametrize(
        "requirement", ["attrs>=20", "absent; python_version < '3'", "absent; extra == 'plot'"]
    )
    def test_a_requirement_that_is_met_or_not_asked_for_is_none(self, site, doctor, requirement):
        install(site, "acme", "", requires=[requirement])
        assert doctor() == (0, [])

    def test_a_requirement_that_nobody_understands(self, site, doctor):
        install(site, "acme", "", requires=["attrs at least twenty"])
        code, [(what, mend)] = doctor()
        assert code == 1
        assert what == "acme requires 'attrs at least twenty', which no installer understands"
        assert "acme" in mend

    def test_a_distribution_that_another_hides(self, site, doctor, monkeypatch):
        other = site / "other"
        other.mkdir()
        monkeypatch.syspath_prepend(other)
        install(site, "acme", "", version="1.0")
        install(other, "acme", "", version="2.0")
        code, [(what, mend)] = doctor()
        assert code == 1
        assert what.startswith("acme 1.0 in ")
        assert "is hidden by another of its name" in what
        assert mend.startswith("pip uninstall acme")

    def test_a_heavy_manifest(self, site, python):
        # In a process of its own: here torch is loaded already.
        install(site, "acme", "import torch")
        code = (
            "import json, contextlib, io\n"
            "from helix_kernel.cli.doctor import doctor\n"
            "with contextlib.redirect_stdout(io.StringIO()) as out: code = doctor(json=True)\n"
            "print(json.dumps([code, json.loads(out.getvalue())['findings']]))"
        )
        environment = {"HELIX_PLUGINS": "acme", "HELIX_CACHE_DIR": str(site / "cache")}
        code, [finding] = json.loads(python(code, site, **environment))
        assert code == 1
        assert finding["what"].startswith("plugin 'acme' of acme: its manifest imports torch")
        assert finding["mend"].endswith("inside the functions that use it, in acme_manifest")

    def test_a_backend_whose_probe_raises(self, doctor, monkeypatch):
        def crash(self, names):
            raise OSError("no driver")

        monkeypatch.setattr("helix_kernel.backends.BackendSelector.select", crash)
        code, [(what, mend)] = doctor()
        assert code == 1
        assert what == "choosing backends failed: OSError: no driver"
        assert "HELIX_PLUGINS_DISABLED" in mend


def test_people_read_the_same_findings(site, helix):
    install(site, "acme", "raise RuntimeError('boom')")
    code, out, _ = helix("doctor")
    assert code == 1
    assert "wrong: plugin 'acme' of acme 1.0 (acme_manifest) failed: RuntimeError: boom\n  mend: pip" in out
    assert out.endswith("\n1 thing is wrong\n")


def test_without_torch_it_says_what_still_works(helix, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, out, _ = helix("doctor")
    assert code == 0
    assert "torch is not installed: configs can be checked, but nothing can be built" in out
