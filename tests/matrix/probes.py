"""What must work in an environment of the matrix."""

import json

from packaging.requirements import Requirement

from matrix import wheels
from matrix.environments import FailedError, link

IMPORT_ALL = """
import importlib, json, pkgutil, sys
package = importlib.import_module(sys.argv[1])
failed = {}
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if "templates" in module.name.split(".") or module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        failed[module.name] = (error.name or "").partition(".")[0]
    except Exception as error:
        failed[module.name] = f"{type(error).__name__}: {error}"
print(json.dumps(failed))
"""

SAVE = """
import sys
import numpy as np
from helix_kernel.checkpoint import load, save
save("checkpoint", {"w": np.arange(6.0).reshape(2, 3), "n": 3}, attributes={"step": 1})
assert load("checkpoint")["w"].sum() == 15.0
assert "torch" not in sys.modules
"""

TRAIN = """
[model]
use = "language-model"
d_model = 16
n_layers = 1
mixer = { use = "mamba" }
[data]
use = "text-bytes"
source = "python-docs"
seq_len = 32
batch_size = 2
[loss]
use = "cross-entropy"
[optimizer]
use = "adamw"
[schedule]
use = "constant"
[trainer]
steps = 2
out = "run"
"""


def kernel_alone(environment):
    """The kernel has no plugin and no torch, and its commands work all the same."""
    if (
        environment.run(environment.python, "-c", "import importlib.util as u; print(u.find_spec('torch'))")
        != "None\n"
    ):
        raise FailedError("torch is installed, which the kernel must not require")
    _expect(environment.json("plugins"), {"plugins": [], "failures": []})
    _expect(environment.json("components"), {"components": []})
    schema = json.loads(environment.helix("config", "schema"))
    _expect("kernel" in schema["properties"], expected=True)
    environment.helix("doctor", "--deep")
    environment.run(environment.python, "-c", SAVE)
    for words in (["verify", "checkpoint"], ["inspect", "checkpoint"], ["diff", "checkpoint", "checkpoint"]):
        environment.helix("checkpoint", *words)
    environment.helix("checkpoint", "export", "checkpoint", "weights.safetensors")


def every_module(environment, wheel):
    """Each module is imported; what only an extra brings may be missing."""
    package = wheel.name.partition("-")[0]
    failed = json.loads(environment.run(environment.python, "-c", IMPORT_ALL, package))
    optional = {name.replace("-", "_") for name in wheels.extras(wheel)}
    wrong = {module: why for module, why in failed.items() if why not in optional | {"torch"} - _needs(wheel)}
    if wrong:
        told = "; ".join(f"{module}: {why}" for module, why in wrong.items())
        raise FailedError(f"not imported with what is required: {told}")


def plugin(environment, wheel, companions):
    """A plugin is found and nothing is wrong with it; with extras and companions, its components conform."""
    name = wheel.name.partition("-")[0].replace("_", "-")
    listing = environment.json("plugins")
    _expect(listing["failures"], [])
    _expect({one["provider"] for one in listing["plugins"]}, {name})
    _expect(bool(environment.json("components")["components"]), expected=True)
    environment.helix("doctor", "--deep")
    link(environment.site, [Requirement("pytest"), *wheels.extra_requirements(wheel)])
    for companion in companions:
        environment.pip("install", "--quiet", "--no-deps", companion)
        link(environment.site, wheels.requirements(companion))
    options = ["-q", "-p", "no:cacheprovider", "-k", "manifest or component", "--tb", "short"]
    environment.run(environment.python, "-m", "pytest", "--helix-provider", name, *options)


def everything(environment):
    """All plugins stand beside one another, and a run trains, resumes and is described."""
    listing = environment.json("plugins")
    _expect(listing["failures"], [])
    found = {one["provider"] for one in listing["plugins"]}
    _expect(found, wheels.PROJECTS.keys() - {wheels.KERNEL})
    environment.helix("doctor", "--deep")
    (environment.folder / "config.toml").write_text(TRAIN)
    environment.helix("train", "config.toml")
    environment.helix("train", "config.toml", "trainer.steps=4", "trainer.resume=true")
    environment.helix("checkpoint", "inspect", "run")


def _needs(wheel):
    return {line.name.replace("-", "_") for line in wheels.requirements(wheel)}


def _expect(found, expected):
    if found != expected:
        raise FailedError(f"found {found}, expected {expected}")
