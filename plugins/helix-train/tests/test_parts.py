import subprocess
import sys

import pytest
import torch

from helix_kernel import Kernel
from helix_kernel.plugins import Manifest
from helix_train import plugin
from helix_train.parts import LOSSES, METRICS, OPTIMIZERS, SCHEDULES

CONTEXT = {
    "loss": {},
    "metric": {},
    "optimizer": {"params": [torch.nn.Parameter(torch.zeros(1))]},
    "schedule": {"total_steps": 10},
}
PARTS = {"loss": LOSSES, "metric": METRICS, "optimizer": OPTIMIZERS, "schedule": SCHEDULES}
CASES = [(kind, component) for kind, components in PARTS.items() for component in components]


@pytest.fixture(scope="module")
def kernel():
    ours = Manifest(name="train", provider="helix-train", version="0", module=plugin)
    return Kernel(found=[], manifests=[ours])


@pytest.mark.parametrize(("kind", "component"), CASES, ids=lambda value: getattr(value, "name", value))
def test_the_kernel_builds_every_part_from_its_name(kernel, kind, component):
    built = kernel.build(kind, {"use": component.name}, **CONTEXT[kind])
    assert type(built).__name__ == component.target.rsplit(":")[-1]
    assert component.summary


def test_describing_the_parts_imports_neither_torch_nor_numpy():
    configs = ["losses.config", "metrics.config", "optimizers.config", "schedules.config"]
    modules = ["parts", *configs, "schedules.decay"]
    imports = ", ".join(f"helix_train.{module}" for module in modules)
    code = f"import sys, {imports}; sys.exit(' '.join({{'torch', 'numpy'}} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
