"""Ops in CUDA graphs and in torch.compile do what they do one by one, and the same each time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch

import helix_ssm.ops  # noqa: F401 - defines the contracts
from helix_cuda import production
from helix_cuda.ops import NAMES, implementations
from helix_cuda.self_check import few
from helix_kernel.ops import defined

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: interpreted it shows nothing"
)
SANITIZED = """
import sys
import torch
import helix_ssm.ops
from helix_cuda.self_check import failure
from helix_kernel.ops import defined
sys.exit(failure(defined()[sys.argv[1]], torch.device("cuda")))
"""


def fullest(op, device, dtype=torch.float32):
    """Return the arguments of the sample that gives the most."""
    samples = [
        sample
        for sample in few(defined()[op].contract)
        if not any(isinstance(arg, torch.Tensor) and arg.is_complex() for arg in sample.args)
    ]
    sample = max(samples, key=lambda sample: sum(arg is not None for arg in sample.args))
    return [
        arg.to(device, dtype if arg.is_floating_point() else None) if isinstance(arg, torch.Tensor) else arg
        for arg in sample.args
    ]


def both(op, args):
    """Return results and gradients of an op's kernels."""
    contract, kernels = defined()[op].contract, implementations()
    results = kernels[op](*args)
    results = results if isinstance(results, tuple) else (results,)
    n_grads = len(results) - len(contract.saved)
    grads = [torch.ones_like(result) for result in results[:n_grads]]
    return [*results, *kernels[contract.backward_name](*grads, *results[n_grads:], *args)]


def differentiated(call, args):
    """Return the first result and the gradients of its squares."""
    leaves = [
        arg.detach().requires_grad_() if isinstance(arg, torch.Tensor) and arg.is_floating_point() else arg
        for arg in args
    ]
    results = call(*leaves)
    y = results[0] if isinstance(results, tuple) else results
    wanted = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    return [y, *torch.autograd.grad(y.square().sum(), wanted, allow_unused=True)]


def assert_equal(found, expected):
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)


@pytest.mark.usefixtures("serve")
@pytest.mark.parametrize(
    "op", [name if name == "rms_norm" else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_compiled_whole_an_op_gives_what_it_gives_alone(op, device):
    args = fullest(op, device)
    expected = differentiated(defined()[op], args)
    backend = "inductor" if device == "cuda" else "aot_eager"

    @torch.compile(fullgraph=True, backend=backend)
    def compiled(*given):
        return defined()[op](*given)

    for left, right in zip(differentiated(compiled, args), expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("op", NAMES)
def test_a_graph_replayed_on_other_values_gives_what_eager_calls_do(op):
    args = fullest(op, "cuda")
    both(op, args)  # compiled and tuned before it is captured
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = both(op, args)
    for arg in args:
        if isinstance(arg, torch.Tensor) and arg.is_floating_point():
            arg.mul_(0.5)
    graph.replay()
    assert_equal(captured, both(op, args))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("op", NAMES)
def test_a_decoding_step_can_be_captured(op):
    args = production.call(op, small_and_negative(), 4, 1)
    expected = implementations()[op](*args)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = implementations()[op](*args)
    graph.replay()
    results = [each if isinstance(each, tuple) else (each,) for each in (captured, expected)]
    assert_equal(*results)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("op", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_twenty_repeats_at_the_size_of_a_model_are_equal(op, dtype):
    args = production.call(op, small_and_negative(dtype), 2, 1024)
    expected = both(op, args)
    for _ in range(20):
        assert_equal(both(op, args), expected)


@pytest.mark.gpu
@pytest.mark.slow
@needs_gpu
@pytest.mark.skipif(not shutil.which("compute-sanitizer"), reason="compute-sanitizer is not installed")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck"])
@pytest.mark.parametrize("op", NAMES)
def test_nothing_is_read_or_written_that_must_not_be(op, tool):
    command = [
        "compute-sanitizer",
        "--tool",
        tool,
        "--error-exitcode",
        "9",
        sys.executable,
        "-c",
        SANITIZED,
        op,
    ]
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]


def small_and_negative(dtype=torch.float32):
    """Make tensors of values that every op can take for thousands of steps: decays that decay."""
    generator = torch.Generator().manual_seed(0)

    def new(*shape, wide=False):
        values = -0.1 * torch.rand(shape, generator=generator)
        return values.to("cuda", torch.float32 if wide else dtype)

    return new
