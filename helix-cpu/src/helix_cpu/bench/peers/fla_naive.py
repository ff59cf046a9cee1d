"""flash-linear-attention's own plain recurrences, which are what it has for a CPU.

Its packages import Triton, which a CPU has no use for; the files of these functions import torch alone (one
of them einops too), and are loaded by themselves.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_cpu.bench.contest import AbsentError, Entry
from helix_cpu.bench.peers import installed

if TYPE_CHECKING:
    from helix_cpu.bench.inputs import DeltaRule, Gated, Rwkv

DISTRIBUTION = "fla-core"


def gla(inputs: Gated) -> Entry:
    """Gated linear attention; its scale is always 1 / sqrt(K)."""
    run = function("gla", "naive_recurrent_gla")
    i = inputs
    return Entry(lambda: run(i.q, i.k, i.v, i.g), _output)


def gated_delta_rule(inputs: DeltaRule) -> Entry:
    """The gated delta rule."""
    run = function("gated_delta_rule", "naive_recurrent_gated_delta_rule")
    i = inputs
    return Entry(lambda: run(i.q, i.k, i.v, i.beta, i.g, i.scale), _output)


def rwkv7(inputs: Rwkv) -> Entry:
    """RWKV-7's recurrence, a diagonal plus rank one: heads before time, queries scaled by 1 / sqrt(K)."""
    run = function("generalized_delta_rule/dplr", "dplr_recurrence")
    i = inputs
    q = i.r * i.r.shape[-1] ** 0.5
    tensors = tuple(tensor.transpose(1, 2).contiguous() for tensor in (q, i.k, i.v, i.a, i.b, i.w))
    return Entry(lambda: run(*tensors), lambda results: results[0].transpose(1, 2))


def function(folder: str, name: str) -> Any:
    """Return a function of fla's, from the file ``naive.py`` of an op.

    Raises:
        AbsentError: fla, or einops, is not installed, or this version has no such function.
    """
    spec = importlib.util.find_spec("fla")
    if spec is None:
        raise AbsentError(f"absent: pip install {DISTRIBUTION}")
    (root, *_) = spec.submodule_search_locations or ("",)
    path = Path(root, "ops", folder, "naive.py")
    file = importlib.util.spec_from_file_location(f"_naive_{name}", path)
    if not path.exists() or file is None or file.loader is None:
        raise AbsentError(f"fla-core {installed(DISTRIBUTION)} has no {path.name} of {folder}")
    module = importlib.util.module_from_spec(file)
    try:
        file.loader.exec_module(module)
        return getattr(module, name)
    except (ImportError, AttributeError) as error:
        raise AbsentError(f"fla-core {installed(DISTRIBUTION)} has no {name} here: {error}") from error


def _output(results: Any) -> Any:
    return results[0]
