"""What an older version of a plugin named otherwise still loads: configs, overrides and checkpoints."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
import torch
from helix_toy.make import install

import helix_kernel
from helix_kernel import default_kernel, load_config
from helix_kernel.checkpoint import load
from helix_kernel.errors import ConfigError, IncompatibleCheckpointError
from helix_kernel.nesting import flatten

VERSIONS = Path(__file__).parent / "versions"
PAGE = Path(__file__).parent.parent / "docs/how-to/rename.md"
NAME_WARNING = "layer 'smoother' is called 'ema' since acme-averages 0.2; use the new name"
KEY_WARNING = "acme-averages:ema: option 'rate' is called 'decay' since version 0.2; use the new name"


@pytest.fixture
def acme(tmp_path, monkeypatch, fresh_kernel):
    """Install a version of acme-averages in place of another; returns its folder."""
    before = list(sys.path)

    def installed(version, as_version=""):
        folder = tmp_path / f"site-{as_version or version}"
        if not folder.exists():
            shutil.copytree(VERSIONS / f"acme-{version}/acme_averages", folder / "acme_averages")
            install(folder, "acme-averages", "acme = acme_averages.plugin", version=as_version or version)
        monkeypatch.setattr(sys, "path", [str(folder), *before])
        for name in [name for name in sys.modules if name.partition(".")[0] == "acme_averages"]:
            del sys.modules[name]
        default_kernel.cache_clear()
        return folder

    yield installed
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme_averages"]:
        del sys.modules[name]


@pytest.fixture
def config(tmp_path):
    """A config written for version 0.1, with a text to train on beside it."""
    (tmp_path / "book.txt").write_text("It was the best of times, it was the worst of times. " * 40)
    text = (VERSIONS / "config-0.1.toml").read_text()
    path = tmp_path / "config.toml"
    path.write_text(text.replace("[data]\n", f"[data]\npaths = [{str(tmp_path / 'book.txt')!r}]\n"))
    return path


def told(action):
    """Return what an action returns, and every warning about an old name."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = action()
    return result, [str(w.message) for w in caught if w.category is FutureWarning]


def frozen(path, *overrides):
    return load_config(path, overrides).to_toml()


class TestConfigs:
    def test_an_old_config_means_the_new_names_and_is_told_each_once(self, acme, config):
        acme("0.2")
        resolved, warned = told(lambda: load_config(config))
        mixer = resolved["model"].arguments["mixer"]
        assert (mixer.component.qualified, mixer.arguments["decay"]) == ("acme-averages:ema", 0.8)
        assert warned == [NAME_WARNING, KEY_WARNING]

    def test_names_used_many_times_are_told_once(self, acme, config):
        acme("0.2")
        pattern = "model.pattern=[{use='smoother'}, {use='smoother', rate=0.5}, {use='smoother', rate=0.1}]"
        text = re.sub(r"\[model.mixer\]\n.*\n.*\n", "", config.read_text())
        config.write_text(text)
        assert told(lambda: load_config(config, [pattern, "model.n_layers=3"]))[1] == [
            NAME_WARNING,
            KEY_WARNING,
        ]

    def test_old_names_in_overrides_are_taken(self, acme, config):
        acme("0.2")
        changes = ["model.mixer={use = 'ema'}", "model.mixer.rate=0.25"]
        resolved, warned = told(lambda: load_config(config, changes))
        assert resolved["model"].arguments["mixer"].arguments["decay"] == 0.25
        assert warned == [KEY_WARNING]

    def test_a_reference_to_an_old_name_finds_the_default(self, acme, config):
        acme("0.2")
        changes = ["model.mixer={use = 'ema'}", "optimizer.lr='${model.mixer.rate}'"]
        resolved, _ = told(lambda: load_config(config, changes))
        assert resolved["optimizer"].arguments["lr"] == 0.9

    def test_the_frozen_config_has_the_new_names_and_is_quiet(self, acme, config, tmp_path):
        acme("0.2")
        text, _ = told(lambda: frozen(config))
        assert "smoother" not in text
        assert "rate" not in tomllib.loads(text)["model"]["mixer"]
        (tmp_path / "frozen.toml").write_text(text)
        assert told(lambda: frozen(tmp_path / "frozen.toml")) == (text, [])

    def test_an_option_by_both_names_is_refused(self, acme, config):
        acme("0.2")
        with pytest.raises(ConfigError) as caught:
            told(lambda: load_config(config, ["model.mixer.decay=0.5"]))
        message = "model.mixer.rate: an old name of decay, which is given too; leave one out"
        assert message in str(caught.value)

    def test_a_wrong_value_of_an_old_name_is_reported_by_the_new(self, acme, config):
        acme("0.2")
        with pytest.raises(ConfigError, match=r"model\.mixer\.decay: given 2\.0, allowed is >= 0 and < 1"):
            told(lambda: load_config(config, ["model.mixer.rate=2"]))

    def test_commands_show_what_is_old_without_lines_of_code(self, acme, config):
        done = subprocess.run(
            [sys.executable, "-m", "helix_kernel.cli", "config", "check", str(config)],
            env={**os.environ, "PYTHONPATH": str(acme("0.2"))},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == f"warning: {NAME_WARNING}\nwarning: {KEY_WARNING}\n"

    def test_show_finds_an_old_name(self, acme, helix):
        acme("0.2")
        (code, out, _), warned = told(lambda: helix("show", "layer", "smoother"))
        assert (code, warned) == (0, [NAME_WARNING])
        assert out.startswith("layer acme-averages:ema 0.2")

    def test_a_part_is_built_by_old_names(self, acme):
        acme("0.2")
        table = {"use": "smoother", "rate": 0.5}
        layer, warned = told(lambda: default_kernel().build("layer", table, d_model=3))
        assert layer.decay.tolist() == [0.5] * 3
        assert warned == [NAME_WARNING, KEY_WARNING]
        made, warned = told(lambda: default_kernel().factory("layer", table))
        assert (made(d_model=2).decay.tolist(), warned) == ([0.5] * 2, [NAME_WARNING, KEY_WARNING])


def train(helix, config, out, *options):
    code, _, error = helix("train", config, f"trainer.out={out}", *options)
    assert code == 0, error
    return error


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the run of version 0.1 is kept for all tests."""
    return tmp_path_factory.mktemp("versions") / "run"


class TestCheckpoints:
    @pytest.fixture
    def old(self, acme, config, helix, tmp_path, kept):
        """A run of version 0.1 that stopped after four steps."""
        acme("0.1")
        if not kept.exists():
            train(helix, config, kept)
        return shutil.copytree(kept, tmp_path / "run")

    def test_a_run_of_the_old_version_is_trained_on_as_if_nothing_had_changed(
        self, acme, config, helix, old, tmp_path, caplog
    ):
        train(helix, config, tmp_path / "whole", "trainer.steps=6")
        acme("0.2")
        arguments = (helix, config, old, "trainer.resume=true", "trainer.steps=6")
        log, warned = told(lambda: train(*arguments))
        assert warned == [NAME_WARNING, KEY_WARNING]  # of the config, which the user can mend
        assert "model.mixer" not in log  # no note that the config differs from the checkpoint's
        (line,) = [r.getMessage() for r in caplog.records if "opened all the same" in r.getMessage()]
        assert line.endswith("it needs acme-averages 0.1, installed is 0.2, which reads it")
        done = load(old / "checkpoints/step-00000006", as_torch=True)
        whole = load(tmp_path / "whole/checkpoints/step-00000006", as_torch=True)
        for part in ("model", "optimizer"):
            expected = {
                key.replace("mixer.weight", "mixer.decay"): v for key, v in flatten(whole[part]).items()
            }
            found = flatten(done[part])
            groups = "param_groups"
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[key], expected[key]) for key in found if key != groups)
        assert "blocks.0.mixer.decay" in str(done["optimizer"]["param_groups"])

    def test_its_model_loads_with_one_warning(self, acme, old, caplog):
        acme("0.2")
        model, warned = told(lambda: helix_kernel.load_model(old))
        saved = load(old / "checkpoints/step-00000004", only=["model"], as_torch=True)
        mixer = saved["model"]["blocks"]["0"]["mixer"]
        assert torch.equal(model.state_dict()["blocks.0.mixer.decay"], mixer["weight"])
        assert (warned, len(caplog.records)) == ([], 1)

    def test_a_run_begins_with_its_weights(self, acme, config, helix, old, tmp_path):
        acme("0.2")
        log, _ = told(lambda: train(helix, config, tmp_path / "new", f"trainer.initial_weights='{old}'"))
        assert f"beginning with the weights of {old}" in log

    def test_inspecting_it_says_that_it_is_read(self, acme, helix, old):
        acme("0.2")
        code, out, _ = helix("checkpoint", "inspect", old)
        assert code == 0
        assert re.search(r"layer/acme-averages:smoother +0\.1 +0\.2 +read by 0\.2", out)

    def test_versions_that_it_does_not_declare_are_refused_as_before(self, acme, old):
        folder = acme("0.2")
        manifest = folder / "acme_averages/plugin.py"
        manifest.write_text(manifest.read_text().replace('reads=">=0.1"', 'reads=">=0.1.5"'))
        with pytest.raises(IncompatibleCheckpointError, match=r"needs acme-averages 0\.1, installed is 0\.2"):
            helix_kernel.load_model(old)

    def test_what_the_upgrade_leaves_out_is_missed(self, acme, old):
        folder = acme("0.2")
        upgrades = folder / "acme_averages/upgrades.py"
        upgrades.write_text(upgrades.read_text().replace('"decay"', '"dcay"'))
        message = (
            r"missing: blocks\.0\.mixer\.decay \(8,\), nearest of those left over: blocks\.0\.mixer\.dcay"
        )
        with pytest.raises(IncompatibleCheckpointError, match=message):
            helix_kernel.load_model(old)

    def test_an_upgrade_that_fails_is_named(self, acme, old):
        folder = acme("0.2")
        upgrades = folder / "acme_averages/upgrades.py"
        upgrades.write_text(upgrades.read_text().replace("return renamed", "return 1 / 0 or renamed"))
        message = (
            r"the upgrade 'acme_averages\.upgrades:to_0_2' of blocks\.0\.mixer failed: ZeroDivisionError"
        )
        with pytest.raises(IncompatibleCheckpointError, match=message):
            helix_kernel.load_model(old)

    def test_a_checkpoint_of_a_newer_version_is_refused(self, acme, config, helix, tmp_path):
        acme("0.2", as_version="0.3")
        told(lambda: train(helix, config, tmp_path / "newer"))
        acme("0.2")
        with pytest.raises(IncompatibleCheckpointError, match=r"needs acme-averages 0\.3, installed is 0\.2"):
            helix_kernel.load_model(tmp_path / "newer")


def test_the_page_shows_the_code_that_is_tested():
    blocks = re.findall(
        r"```(?:python|toml)\n# acme-averages/(\S+)\n(.*?)```", PAGE.read_text(), flags=re.DOTALL
    )
    assert {path for path, _ in blocks} >= {f"acme_averages/{n}.py" for n in ("plugin", "config", "upgrades")}
    for path, text in blocks:
        if path != "pyproject.toml":
            assert (VERSIONS / "acme-0.2" / path).read_text() == text, path
