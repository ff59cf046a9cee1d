"""A call that is like one before gives what the first one would have given, with other tensors."""

from __future__ import annotations

import pytest
import torch

from helix_cpu import library
from helix_cpu.ops import causal_conv1d, rms_norm, selective_scan, ssd_scan
from helix_cpu.repeats import Repeats
from helix_kernel.errors import ArgumentError
from helix_ssm.ops import selective_scan as entry

BATCH_SIZE, D_MODEL, D_STATE, WIDTH, N_HEADS, HEAD_DIM = 2, 6, 3, 4, 3, 2


def draw(generator, *shape, dtype=torch.float32):
    return torch.randn(shape, generator=generator).to(dtype)


def scan_step(seed, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    u, delta, z = (draw(g, BATCH_SIZE, 1, D_MODEL, dtype=dtype) for _ in range(3))
    B, C = (draw(g, BATCH_SIZE, 1, D_STATE, dtype=dtype) for _ in range(2))
    A, state = -draw(g, D_MODEL, D_STATE).exp(), draw(g, BATCH_SIZE, D_MODEL, D_STATE)
    return u, delta, A, B, C, draw(g, D_MODEL), z, draw(g, D_MODEL), True, state, None


def ssd_step(seed, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    x, dt = draw(g, BATCH_SIZE, 1, N_HEADS, HEAD_DIM, dtype=dtype), draw(g, BATCH_SIZE, 1, N_HEADS)
    B, C = (draw(g, BATCH_SIZE, 1, 1, D_STATE, dtype=dtype) for _ in range(2))
    A, D, bias = -draw(g, N_HEADS).exp(), draw(g, N_HEADS), draw(g, N_HEADS)
    return x, dt, A, B, C, D, bias, True, [0.1, 1.5], draw(g, BATCH_SIZE, N_HEADS, HEAD_DIM, D_STATE), None


def conv_step(seed, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    x, state = (
        draw(g, BATCH_SIZE, 1, D_MODEL, dtype=dtype),
        draw(g, BATCH_SIZE, WIDTH - 1, D_MODEL, dtype=dtype),
    )
    return x, draw(g, D_MODEL, WIDTH), draw(g, D_MODEL), True, state, None


def norm_step(seed, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    x, z = (draw(g, BATCH_SIZE, 1, D_MODEL, dtype=dtype) for _ in range(2))
    return x, draw(g, D_MODEL), 1e-5, z, D_MODEL // 2, False


OPS = {
    "selective_scan": (selective_scan, scan_step),
    "ssd_scan": (ssd_scan, ssd_step),
    "causal_conv1d": (causal_conv1d, conv_step),
    "rms_norm": (rms_norm, norm_step),
}


@pytest.fixture(params=OPS)
def op(request, monkeypatch):
    """An op that has seen no call: its function, what draws a step, how often a call was like one before."""
    module, step = OPS[request.param]
    repeats, repeated = Repeats(module._FORWARD), []
    run = repeats.run

    def counted(args):
        results = run(args)
        repeated.extend([1] if results is not None else [])
        return results

    repeats.run = counted
    monkeypatch.setattr(module, "_REPEATS", repeats)
    return getattr(module, request.param), step, repeated


def results_of(function, args):
    results = function(*args)
    return results if isinstance(results, tuple) else (results,)


def same(found, expected):
    return all(
        a.dtype is b.dtype and a.shape == b.shape and a.stride() == b.stride() and torch.equal(a, b)
        for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_repeated_step_gives_what_the_first_one_would(op, dtype):
    function, step, repeated = op
    first = results_of(function, step(1, dtype))
    kept = tuple(result.clone() for result in first)
    second = results_of(function, step(2, dtype))
    assert len(repeated) == 1
    assert same(results_of(function, step(1, dtype)), kept)
    assert same(first, kept)  # later steps left the earlier results alone
    assert not torch.equal(second[0], first[0])


def test_without_some_tensors(op):
    function, step, repeated = op
    # A skip and no bias, then a bias and no skip: tensors of one shape in places that are not the same.
    for missing in (5, 7, 6) if function.__name__ == "selective_scan" else (-2,):
        ways = [step(seed) for seed in (1, 2)]
        if function.__name__ == "rms_norm":
            ways = [(*args[:3], None, *args[4:]) for args in ways]
        else:
            places = range(len(ways[0]))
            ways = [tuple(None if i == missing % len(args) else args[i] for i in places) for args in ways]
        before = len(repeated)
        expected = [results_of(function, args) for args in reversed(ways)][::-1]
        assert same(results_of(function, ways[0]), expected[0])
        assert len(repeated) == before + 2


def test_what_is_not_as_the_kernel_takes_it_is_no_repeat(op):
    function, step, repeated = op
    args = step(1)
    apart = torch.stack([args[0], args[0]], dim=-1)[..., 0]
    for _ in range(2):
        assert same(results_of(function, (apart, *args[1:])), results_of(function, args))
    assert len(repeated) == 1  # the second of the plain ones


def test_parameters_changed_in_place_count(op):
    function, step, repeated = op
    args = step(1)
    results_of(function, args)
    args[1].mul_(0.5)
    changed = results_of(function, args)
    assert len(repeated) == 1
    other = tuple(arg.clone() if isinstance(arg, torch.Tensor) else arg for arg in args)
    assert same(changed, results_of(function, other))


def test_results_lie_apart_from_each_other_and_the_arguments(op):
    function, step, _ = op
    args = step(1)
    tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
    tensors += [result for _ in range(3) for result in results_of(function, args) if result.numel()]
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)


def test_another_library_in_use_serves_repeats_too(op):
    function, step, repeated = op
    before = library.use()
    try:
        expected = results_of(function, step(1))
        for isa in library.supported():
            library.use(isa)
            found = results_of(function, step(1))
            assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(found, expected, strict=True))
    finally:
        library.restore(before)
    assert len(repeated) == len(library.supported())


@pytest.mark.usefixtures("serve")
def test_steps_of_inference_and_of_training_may_follow_each_other():
    def run():
        args = [arg.requires_grad_() if isinstance(arg, torch.Tensor) else arg for arg in scan_step(1)]
        return entry(*args[:-2], args[-2], True), args

    with torch.inference_mode():
        expected = torch.ops.helix.selective_scan(*scan_step(1))
    for enter in (torch.inference_mode, torch.enable_grad, torch.no_grad, torch.enable_grad):
        with enter():
            (y, state), args = run()
        assert same((y, state), expected[:2])
        if y.requires_grad:
            (y.sum() + state.sum()).backward()
            assert all(arg.grad is not None for arg in args if isinstance(arg, torch.Tensor))


@pytest.mark.parametrize("name", ["selective_scan", "ssd_scan", "causal_conv1d"])
def test_bounds_are_read_each_time(name):
    module, step = OPS[name]
    function = getattr(module, name)
    *args, _state, _ = step(1)
    args = [arg[:1] if isinstance(arg, torch.Tensor) and arg.dim() >= 3 else arg for arg in args]
    bounds = torch.tensor([0, 1])
    function(*args, None, bounds)
    bounds[0] = 1
    with pytest.raises(ArgumentError, match="rise from 0"):
        function(*args, None, bounds)
