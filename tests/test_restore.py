"""Opening a run's checkpoint: what must be installed, and what must fit."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import torch

import helix_kernel
from helix_kernel import Kernel
from helix_kernel.checkpoint import save
from helix_kernel.checkpoint.pack_files import PackFiles
from helix_kernel.diagnosis.mending import install
from helix_kernel.errors import CheckpointError, IncompatibleCheckpointError
from helix_kernel.hooks import API_VERSION
from helix_kernel.nesting import nest
from helix_kernel.plugins import Manifest, failure
from helix_kernel.registry import Registry
from helix_kernel.restore import load_weights, open_model, open_run

if TYPE_CHECKING:
    from pathlib import Path

MODEL = {"use": "helix-ssm:language-model", "d_model": 8, "n_layers": 1, "mixer": {"use": "helix-ssm:linear"}}
VERSIONS = {"layer/helix-ssm:language-model": "0.1.0", "layer/helix-ssm:linear": "0.1.0"}


def saved(tmp_path: Path, **changes: Any) -> Path:
    kernel = helix_kernel.default_kernel()
    model = kernel.build("layer", {**MODEL, "mixer": {"use": "linear"}})
    path = tmp_path / "step-00000001"
    attributes = {"config": {"model": MODEL}, "components": VERSIONS, "step": 1, **changes}
    save(path, {"model": nest(model.state_dict())}, attributes=attributes)
    return path


def with_versions(version: str, *, without: str = "") -> Kernel:
    kernel = Kernel()
    plugins = [
        attrs.evolve(p, version=version if p.provider == "helix-ssm" else p.version)
        for p in kernel.plugins
        if p.provider != without
    ]
    kernel.registry = Registry(plugins, kernel.failures)
    return kernel


def test_a_model_comes_back_with_its_weights(tmp_path: Path):
    path = saved(tmp_path)
    model = helix_kernel.load_model(path)
    assert not model.training
    ids = torch.randint(0, 256, (2, 5))
    assert torch.equal(model(ids), helix_kernel.load_model(path)(ids))


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the arrays' bytes that are read from here on."""
    counted = [0]
    read = PackFiles.read_into

    def count(self: PackFiles, pack: str, offset: int, target: memoryview, owner: str) -> None:
        counted[0] += len(target)
        read(self, pack, offset, target, owner)

    monkeypatch.setattr(PackFiles, "read_into", count)
    return counted


@pytest.mark.parametrize("version", ["0.1.0", "0.1.7"])
def test_the_same_version_line_opens(version: str, tmp_path: Path):
    assert open_run(saved(tmp_path), kernel=with_versions(version)).path.name == "step-00000001"


@pytest.mark.parametrize("version", ["1.0.0", "0.2.0"])
def test_another_version_line_is_refused_with_the_command_before_any_weight_is_read(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, reads = saved(tmp_path), counted_reads(monkeypatch)
    line = rf"helix-ssm 0\.1\.0, installed is {version}, another \w+ version.* pip install helix-ssm==0\.1\.0"
    with pytest.raises(IncompatibleCheckpointError, match=line):
        helix_kernel.load_model(path, kernel=with_versions(version))
    assert reads == [0]
    helix_kernel.load_model(path)
    assert reads[0] > 1000


def test_other_versions_that_have_all_components_open_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    kernel = with_versions("1.0.0")
    with pytest.raises(IncompatibleCheckpointError, match=r"accept_versions=True, or --accept-versions"):
        open_model(saved(tmp_path), kernel=kernel)
    opened = open_model(tmp_path / "step-00000001", kernel=kernel, accept_versions=True)
    assert opened.run.config(["model"], kernel=kernel)["model"].component.name == "language-model"
    assert not helix_kernel.load_model(opened.run.path, kernel=kernel, accept_versions=True).training
    assert "is opened all the same: it needs helix-ssm 0.1.0, installed is 1.0.0" in caplog.text


def test_a_component_that_is_gone_is_refused_by_name_whatever_is_accepted(tmp_path: Path):
    versions = {**VERSIONS, "layer/helix-ssm:lost": "0.0.9"}
    config = {"model": {**MODEL, "mixer": {"use": "helix-ssm:lost"}}}
    path = saved(tmp_path, config=config, components=versions)
    message = r"installed is 0\.1\.0, which has no layer/helix-ssm:lost: .* -m pip install helix-ssm==0\.0\.9"
    with pytest.raises(IncompatibleCheckpointError, match=message) as caught:
        open_run(path, accept_versions=True)
    assert "--accept-versions" not in str(caught.value)


def test_another_api_is_refused_and_accepted_by_the_same_name(tmp_path: Path):
    path = saved(tmp_path, api=API_VERSION + 1)
    message = (
        rf"plugin API {API_VERSION + 1}, installed is {API_VERSION} \(helix-kernel .*: "
        ".* -m pip install --upgrade helix-kernel"
    )
    with pytest.raises(IncompatibleCheckpointError, match=message):
        open_run(path)
    assert open_run(path, accept_versions=True).path == path


def test_only_what_is_asked_for_is_needed(tmp_path: Path):
    config = {"model": MODEL, "data": {"use": "acme:corpus"}}
    path = saved(tmp_path, config=config, components={**VERSIONS, "dataset/acme:corpus": "3.0"})
    assert open_model(path).run.path == path
    with pytest.raises(IncompatibleCheckpointError, match=r"not installed: .* -m pip install acme==3\.0"):
        open_model(path, also=["data"])


def test_one_command_installs_all_that_is_missing(tmp_path: Path):
    config = {"model": MODEL, "data": {"use": "acme:corpus"}}
    path = saved(tmp_path, config=config, components={**VERSIONS, "dataset/acme:corpus": "3.0"})
    with pytest.raises(IncompatibleCheckpointError) as caught:
        open_run(path, kernel=with_versions("0.1.0", without="helix-ssm"))
    assert f"all at once: {install('acme==3.0', 'helix-ssm==0.1.0')}" in str(caught.value)


def test_a_damaged_newest_step_is_passed_over_after_the_check(tmp_path: Path):
    first = saved(tmp_path)
    second = shutil.copytree(first, tmp_path / "step-00000002")
    pack = second / "data-00000.bin"
    pack.write_bytes(bytes([pack.read_bytes()[0] ^ 1]) + pack.read_bytes()[1:])
    assert open_run(tmp_path).path == first


def test_a_provider_that_is_not_installed_is_named_with_the_command(tmp_path: Path):
    with pytest.raises(
        IncompatibleCheckpointError, match=r"not installed: .* pip install helix-ssm==0\.1\.0"
    ):
        helix_kernel.load_model(saved(tmp_path), kernel=with_versions("0.1.0", without="helix-ssm"))


def test_a_provider_that_is_broken_is_not_called_missing(tmp_path: Path):
    kernel = with_versions("0.1.0", without="helix-ssm")
    source = Manifest(name="ssm", provider="helix-ssm", version="0.1.0", module="helix_ssm.plugin")
    broken = failure(source, RuntimeError("boom"))
    kernel.registry = Registry(kernel.plugins, [broken])
    with pytest.raises(IncompatibleCheckpointError, match=r"installed but broken: .* RuntimeError: boom"):
        helix_kernel.load_model(saved(tmp_path), kernel=kernel)


def test_options_that_a_component_no_longer_takes_are_named(tmp_path: Path):
    path = saved(tmp_path, config={"model": {**MODEL, "n_heads": 3}})
    with pytest.raises(IncompatibleCheckpointError, match=r"model\.n_heads: unknown option"):
        helix_kernel.load_model(path)


def test_arrays_without_a_config_are_not_a_run(tmp_path: Path):
    save(tmp_path / "plain", {"weights": torch.zeros(3)})
    with pytest.raises(IncompatibleCheckpointError, match="no config"):
        open_run(tmp_path / "plain")


def test_a_directory_without_checkpoints_is_said_so(tmp_path: Path):
    with pytest.raises(CheckpointError):
        open_run(tmp_path)


def test_weights_that_do_not_fit_change_nothing():
    module = torch.nn.Linear(2, 3)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(IncompatibleCheckpointError) as caught:
        load_weights(module, {"weight": torch.zeros(3, 4), "scale": torch.zeros(1)}, "here")
    message = str(caught.value)
    assert "weight: (3, 4) in the checkpoint, (3, 2) in the model" in message
    assert "missing: bias (3,)" in message
    assert "left over: scale (1,)" in message
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_a_missing_weight_is_told_the_nearest_name_that_is_left_over():
    weights = {"weights": torch.zeros(3, 2), "bias": torch.zeros(3), "scale": torch.zeros(1)}
    message = r"missing: weight \(3, 2\), nearest of those left over: weights\n"
    with pytest.raises(IncompatibleCheckpointError, match=message):
        load_weights(torch.nn.Linear(2, 3), weights, "here")


def test_of_many_weights_that_do_not_fit_the_first_of_each_kind_are_named():
    weights = {"left": {str(i): torch.zeros(1) for i in range(7)}}
    module = torch.nn.ParameterList([torch.zeros(1)] * 6)
    with pytest.raises(IncompatibleCheckpointError) as caught:
        load_weights(module, weights, "here")
    lines = str(caught.value).splitlines()[1:]
    assert [line.strip().partition(" (")[0] for line in lines] == [
        *(f"missing: {i}" for i in range(5)),
        "and 1 more",
        *(f"left over: left.{i}" for i in range(5)),
        "and 2 more",
    ]
