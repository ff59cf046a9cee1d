"""Each function put into transformers gives what transformers' own gives, and declines what it cannot."""

from __future__ import annotations

import importlib
import inspect

import pytest
import torch

from helix_cpu.transformers import patch as module

pytest.importorskip("transformers")

MAMBA = "transformers.models.mamba.modeling_mamba"
MAMBA2 = "transformers.models.mamba2.modeling_mamba2"
QWEN = "transformers.models.qwen3_next.modeling_qwen3_next"
KIMI = "transformers.models.kimi_linear.modeling_kimi_linear"
WHERE = {
    "causal_conv1d_fn": MAMBA,
    "causal_conv1d_update": MAMBA,
    "mamba_selective_scan": MAMBA,
    "mamba_selective_state_update": MAMBA,
    "mamba2_chunk_scan": MAMBA2,
    "mamba2_selective_state_update": MAMBA2,
    "torch_chunk_gated_delta_rule": QWEN,
    "torch_recurrent_gated_delta_rule": QWEN,
    "chunk_kimi_delta_attention": KIMI,
    "recurrent_kimi_delta_attention": KIMI,
}
B, L, D, N, K, H, G, P = 2, 21, 6, 5, 4, 4, 2, 3


def theirs(name):
    """Return transformers' own function, out of what logs and checks around it."""
    return inspect.unwrap(getattr(importlib.import_module(WHERE[name]), name))


def ours(name):
    return module._resolve(module._FUNCTIONS[name])


class Draw:
    """Random tensors, the same ones each time."""

    def __init__(self, dtype=torch.float32):
        self.generator = torch.Generator().manual_seed(0)
        self.dtype = dtype

    def __call__(self, *shape):
        return torch.randn(shape, generator=self.generator).to(self.dtype)

    def rates(self, *shape):
        return -torch.rand(shape, generator=self.generator) - 0.1

    def shares(self, *shape):
        return torch.rand(shape, generator=self.generator).to(self.dtype)


def convolution(d, **options):
    return (d(B, D, L), d(D, K), d(D)), {"activation": "silu", **options}


def convolution_step(d, seq_len=1, kept=K):
    return (d(B, D, seq_len), d(B, D, kept), d(D, K), d(D), "silu"), {}


def scan(d, **options):
    tensors = (d(B, D, L), d(B, D, L), d.rates(D, N), d(B, N, L), d(B, N, L))
    return tensors, {"D": d(D), "z": d(B, D, L), "delta_bias": d(D), "delta_softplus": True, **options}


def step(d, **options):
    tensors = (d(B, D, N), d(B, D), d(B, D), d.rates(D, N), d(B, N), d(B, N))
    return tensors, {"D": d(D), "z": d(B, D), "dt_bias": d(D), "dt_softplus": True, **options}


def chunks(d, **options):
    tensors = (d(B, L, H, P), d(B, L, H), d.rates(H), d(B, L, G, N), d(B, L, G, N), 8)
    return tensors, {"D": d(H), "dt_bias": d(H), "dt_softplus": True, **options}


def step_of_heads(d, *, tied, **options):
    dt, rates, bias, skip = d(B, H, 1), d.rates(H, 1, 1), d(H, 1), d(H, 1)
    if tied:
        dt, bias, skip = dt.expand(B, H, P), bias.expand(H, P), skip.expand(H, P)
        rates = rates.expand(H, P, N)
    else:
        dt, rates, bias, skip = d(B, H, P), d.rates(H, P, N), d(H, P), d(H, P)
    tensors = (d(B, H, P, N), d(B, H, P), dt, rates, d(B, G, N), d(B, G, N))
    return tensors, {"D": skip, "z": d(B, H, P), "dt_bias": bias, "dt_softplus": True, **options}


def delta(d, heads=H, **options):
    tensors = (d(B, L, heads, K), d(B, L, heads, K), d(B, L, H, P), d.rates(B, L, H), d.shares(B, L, H))
    return tensors, {"use_qk_l2norm_in_kernel": True, "initial_state": d(B, H, K, P), **options}


def kda(d, **options):
    tensors = (d(B, L, H, K), d(B, L, H, K), d(B, L, H, P), d.rates(B, L, H, K), d.shares(B, L, H))
    return tensors, {"use_qk_l2norm_in_kernel": True, "initial_state": d(B, H, K, P), **options}


CASES = {
    "conv": ("causal_conv1d_fn", convolution, {}),
    "conv, no activation": ("causal_conv1d_fn", convolution, {"activation": None}),
    "conv step": ("causal_conv1d_update", convolution_step, {}),
    "conv step, several tokens": ("causal_conv1d_update", convolution_step, {"seq_len": 3}),
    "conv step, more tokens than taps": ("causal_conv1d_update", convolution_step, {"seq_len": 9}),
    "conv step, shortest state": ("causal_conv1d_update", convolution_step, {"kept": K - 1}),
    "conv step, long state": ("causal_conv1d_update", convolution_step, {"kept": K + 4, "seq_len": 2}),
    "scan": ("mamba_selective_scan", scan, {}),
    "scan, state": ("mamba_selective_scan", scan, {"return_last_state": True}),
    "scan, bare": ("mamba_selective_scan", scan, {"D": None, "z": None, "delta_bias": None}),
    "step": ("mamba_selective_state_update", step, {}),
    "step, bare": ("mamba_selective_state_update", step, {"D": None, "z": None, "dt_bias": None}),
    "chunks": ("mamba2_chunk_scan", chunks, {}),
    "chunks, state": ("mamba2_chunk_scan", chunks, {"return_final_states": True}),
    "chunks, limit": ("mamba2_chunk_scan", chunks, {"dt_limit": (0.1, 0.7)}),
    "chunks, no softplus": ("mamba2_chunk_scan", chunks, {"dt_softplus": False, "D": None}),
    "step of heads": ("mamba2_selective_state_update", step_of_heads, {"tied": True}),
    "step of heads, bare": (
        "mamba2_selective_state_update",
        step_of_heads,
        {"tied": True, "D": None, "z": None, "dt_bias": None},
    ),
    "step of channels in heads": ("mamba2_selective_state_update", step_of_heads, {"tied": False}),
    "delta": ("torch_chunk_gated_delta_rule", delta, {}),
    "delta, state": ("torch_chunk_gated_delta_rule", delta, {"output_final_state": True}),
    "delta, start at 0": ("torch_chunk_gated_delta_rule", delta, {"initial_state": None}),
    "delta, keys as they are": (
        "torch_recurrent_gated_delta_rule",
        delta,
        {"use_qk_l2norm_in_kernel": False},
    ),
    "delta, grouped": ("torch_recurrent_gated_delta_rule", delta, {"heads": G, "output_final_state": True}),
    "kda": ("chunk_kimi_delta_attention", kda, {"output_final_state": True}),
    "kda, step by step": ("recurrent_kimi_delta_attention", kda, {"output_final_state": False}),
}


def build(case, dtype=torch.float32):
    name, builder, options = CASES[case]
    draw = Draw(dtype)
    made = {key: value for key, value in options.items() if key in inspect.signature(builder).parameters}
    args, kwargs = builder(draw, **made)
    return name, args, {**kwargs, **{key: value for key, value in options.items() if key not in made}}


def tensors_of(values):
    values = values if isinstance(values, tuple) else (values,)
    return [value for value in values if value is not None]


def assert_close(mine, other, tolerance):
    assert mine.shape == other.shape
    assert (mine.double() - other.double()).abs().max() <= tolerance * other.double().abs().max() + 1e-30


@pytest.mark.parametrize("case", CASES)
def test_results_and_states_are_those_of_transformers(case):
    name, args, kwargs = build(case)
    their_args = [arg.clone() if torch.is_tensor(arg) else arg for arg in args]
    expected = tensors_of(theirs(name)(*their_args, **kwargs))
    results = tensors_of(ours(name)(*args, **kwargs))
    assert len(results) == len(expected)
    for mine, other in zip(results, expected, strict=True):
        assert_close(mine, other, 1e-5)
    for mine, other in zip(tensors_of(args), tensors_of(tuple(their_args)), strict=True):
        if torch.is_tensor(mine):  # states are changed in place, all else is not
            assert_close(mine, other, 1e-6)


@pytest.mark.parametrize("case", [case for case in CASES if "step" not in case])
def test_gradients_are_those_of_transformers(case):
    name, args, kwargs = build(case)

    def gradients(function):
        inputs = [*args, *kwargs.values()]
        leaves = [value for value in inputs if torch.is_tensor(value)]
        for leaf in leaves:
            leaf.requires_grad_().grad = None
        results = tensors_of(function(*args, **kwargs))
        draw = Draw()
        sum((result * draw(*result.shape)).sum() for result in results).backward()
        return [leaf.grad for leaf in leaves]

    for mine, other in zip(gradients(ours(name)), gradients(theirs(name)), strict=True):
        assert_close(mine, other, 1e-5)


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_is_closer_to_the_truth_than_transformers_or_as_close(case):
    name, args, kwargs = build(case, torch.bfloat16)

    def widen(value):
        return value.float().clone() if torch.is_tensor(value) else value

    exact = tensors_of(
        theirs(name)(*map(widen, args), **{key: widen(value) for key, value in kwargs.items()})
    )
    other_args = [arg.clone() if torch.is_tensor(arg) else arg for arg in args]
    other = tensors_of(theirs(name)(*other_args, **kwargs))
    results = tensors_of(ours(name)(*args, **kwargs))
    for mine, their, truth in zip(results, other, exact, strict=True):
        assert mine.dtype in (torch.bfloat16, torch.float32)
        error, allowed = ((tensor.float() - truth).abs().max() for tensor in (mine, their))
        assert error <= 1.1 * allowed + 2**-8 * truth.abs().max()


@pytest.mark.parametrize("case", CASES)
def test_float64_is_declined_and_changes_nothing(case):
    name, args, kwargs = build(case, torch.float64)
    before = [arg.clone() if torch.is_tensor(arg) else arg for arg in args]
    assert ours(name)(*args, **kwargs) is NotImplemented
    for mine, other in zip(args, before, strict=True):
        assert torch.equal(mine, other) if torch.is_tensor(mine) else mine == other


@pytest.mark.parametrize("case", CASES)
def test_no_shape_that_does_not_fit_reaches_a_kernel(case):
    name, args, kwargs = build(case)
    for i, arg in enumerate(args):
        if torch.is_tensor(arg):
            for dim in range(arg.dim()):
                if (CASES[case][0], i, dim) not in FREE:
                    wrong = (*args[:i], longer(arg, dim), *args[i + 1 :])
                    assert ours(name)(*wrong, **kwargs) is NotImplemented, (i, dim)
    for key, value in kwargs.items():
        if torch.is_tensor(value):
            for dim in range(value.dim()):
                assert ours(name)(*args, **{**kwargs, key: longer(value, dim)}) is NotImplemented, (key, dim)


# Dimensions that no other argument need have: rows, lengths, taps, and channels of a head.
FREE = {
    ("causal_conv1d_fn", 0, 0),
    ("causal_conv1d_fn", 0, 2),
    ("causal_conv1d_fn", 1, 1),
    ("causal_conv1d_update", 0, 2),
    ("causal_conv1d_update", 1, 2),
    ("causal_conv1d_update", 2, 1),
    ("mamba2_chunk_scan", 0, 3),
    ("torch_chunk_gated_delta_rule", 2, 3),
}


def longer(tensor, dim):
    return torch.cat([tensor, tensor], dim)


@pytest.mark.parametrize("name", WHERE)
def test_arguments_have_the_names_and_order_of_transformers(name):
    mine, other = (list(inspect.signature(function).parameters) for function in (ours(name), theirs(name)))
    shared = [parameter for parameter in other if parameter in mine]
    assert mine[: len(shared)] == other[: len(shared)]
    assert set(other) - set(mine) <= {"kwargs", "use_mambapy", "use_associative_scan"}


def test_an_activation_that_no_kernel_has_is_declined():
    (x, weight, bias), _ = convolution(Draw())
    assert ours("causal_conv1d_fn")(x, weight, bias, activation="gelu") is NotImplemented
    assert ours("causal_conv1d_update")(x, x.clone(), weight, bias, "gelu") is NotImplemented


def test_the_gate_that_mamba_ssm_knows_and_transformers_does_not():
    args, kwargs = chunks(Draw())
    z = Draw()(B, L, H, P)
    gated = ours("mamba2_chunk_scan")(*args, **kwargs, z=z)
    assert_close(gated, ours("mamba2_chunk_scan")(*args, **kwargs) * torch.nn.functional.silu(z), 1e-6)


def test_fused_layers_are_left_to_their_parts():
    for name in ("mamba_inner_fn", "mamba2_split_conv1d_scan_combined"):
        assert ours(name)(torch.ones(1), 2) is None
