"""Every kernel compiles for the GPUs that we mean, fits into their shared memory and spills no register.

A process of its own compiles, since this one may interpret: Triton does not do both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from helix_cuda.ops import NAMES

COMPILER = """
import json, sys
import attrs
import helix_ssm.ops
from helix_cuda.offline import compile_op
for line in sys.stdin:
    order = json.loads(line)
    launches = compile_op(order.pop("op"), order["arch"], thorough=order["all"], every_config=order["all"])
    found = [attrs.asdict(launch) | {"wrong": launch.why_not(order["arch"])} for launch in launches]
    print(json.dumps(found), flush=True)
"""
PLANTED = """
import helix_ssm.ops, torch, triton
import triton.language as tl
from helix_cuda import offline
from helix_cuda.tuning import tuned

@tuned([triton.Config({}, num_warps=warps, maxnreg=32) for warps in (1, 2)], key=["n"])
@triton.jit
def spills(x, n, SIDE: tl.constexpr):
    at = tl.arange(0, SIDE)[:, None] * SIDE + tl.arange(0, SIDE)[None, :]
    tile = tl.load(x + at)
    for _ in range(n):
        tile = tile * tl.sum(tile)
    tl.store(x + at, tile)

@triton.jit
def refused(x, SIDE: tl.constexpr):
    tl.store(x + tl.arange(0, SIDE), 1.0)

@triton.jit
def sound(x):
    tl.store(x, 1.0)

def planted(x, *rest):
    new = x.new_empty(64, 64, dtype=torch.float32)
    spills[(1,)](new, 4, SIDE=64)
    refused[(1,)](new, SIDE=17)
    sound[(1,)](new)
    return torch.empty_like(x)

offline.implementations = lambda: {"rms_norm": planted, "rms_norm_backward": lambda *_: None}
for launch in offline.compile_op("rms_norm", "sm_90", every_config=True):
    print(f"{launch.kernel} {launch.config}: {launch.why_not('sm_90')}".splitlines()[0])
"""


SPILLS_TOO = {
    ("sm_80", "gated_delta_rule_backward.of_keys"),
    ("sm_80", "gated_delta_rule_backward.of_values"),
    ("sm_80", "selective_scan_backward.gradients"),
    ("sm_80", "ssd_scan._outputs"),
    ("sm_80", "ssd_scan_backward._projections"),
    ("sm_80", "ssd_steps.sums"),
    ("sm_90", "gla.walk"),  # of float32 only
    ("sm_90", "ssd_scan_backward._projections"),  # of float32 only
}
"""What spills in its first configuration: sizes were chosen for bfloat16 on Hopper, whose products read their
operands from shared memory where others want them in registers."""


def start(*command, **pipes):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True, env=environment, **pipes
    )


@pytest.fixture(scope="session", autouse=True)
def _own_cache(pytestconfig, tmp_path_factory):
    """Keep what compiled beside pytest's own notes: only what has changed is compiled again."""
    notes = (
        pytestconfig.getini("cache_dir") if pytestconfig.pluginmanager.has_plugin("cacheprovider") else None
    )
    folder = tmp_path_factory.mktemp("triton") if notes is None else pytestconfig.rootpath / notes / "triton"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(folder))
        yield


@pytest.fixture(scope="session")
def compiled():
    """Compile an op's kernels; returns the table of launches."""
    with start("-c", COMPILER, stdin=subprocess.PIPE) as process:

        def run(op, arch, *, everything=False):
            process.stdin.write(json.dumps({"op": op, "arch": arch, "all": everything}) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()


def wrong_of(launches):
    return [
        f"{launch['op']} ({launch['call']}), {launch['kernel']} [{launch['config']}] {launch['wrong']}"
        for launch in launches
        if launch["wrong"]
    ]


@pytest.mark.parametrize("op", NAMES)
def test_every_kernel_compiles_for_hopper_at_the_sizes_of_models(compiled, op):
    launches = compiled(op, "sm_90")
    assert {launch["op"] for launch in launches} == {op, f"{op}_backward"}
    assert not wrong_of(launches)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("op", NAMES)
def test_every_kernel_compiles_for_every_sample_in_every_configuration(compiled, op, arch):
    """A configuration that is no kernel's first may be refused or spill: it is measured, and not chosen."""
    launches = compiled(op, arch, everything=True)
    assert not [launch for launch in launches if launch["error"]]
    first = [launch for launch in launches if launch["is_first"]]
    known = [launch for launch in first if (arch, launch["kernel"]) in SPILLS_TOO and launch["spills"]]
    assert not wrong_of(launch for launch in first if launch not in known)


def test_what_spills_or_is_refused_is_found_and_told(tmp_path):
    program = tmp_path / "planted.py"
    program.write_text(PLANTED)
    process = start(program)
    lines = process.communicate()[0].splitlines()
    assert process.returncode == 0
    told = {line.partition(": ")[0]: line.partition(": ")[2] for line in lines}
    assert len(told) == 4
    assert told["__main__.sound "] == "None"
    assert "does not compile: CompilationError" in told["__main__.refused SIDE=17"]
    for warps in (1, 2):
        assert "spills" in told[f"__main__.spills SIDE=64, num_warps={warps}, num_stages=3"]
