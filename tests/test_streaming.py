"""Language models over sequences longer than memory: chunks with carried state equal one pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helix_kernel import default_kernel
from helix_train.losses.classification import CrossEntropy
from helix_train.objective import Examples, Objective
from helix_train.streaming import backward_in_chunks

BENCHMARK = Path(__file__).parent / "benchmarks/sequence/long_context.py"
B, L = 2, 41
MIXERS = {
    "mamba": ["mamba"],
    "hyena": ["hyena"],
    "mixed": ["mamba", "hyena", "s4d"],
}
OTHERS = {
    name: [name]
    for name in (
        *("attention", "conv", "gated-deltanet", "gla", "mamba2", "mamba3", "min-gru", "multi-hybrid"),
        *("reversible", "rg-lru", "rnn", "rwkv7", "s4", "s4d", "s5"),
    )
}


@pytest.fixture(autouse=True)
def _fast_ops():
    with default_kernel().backends(["auto"]):
        yield


def language_model(mixers, **options):
    torch.manual_seed(0)
    blocks = (
        {"n_layers": 2, "mixer": {"use": mixers[0]}}
        if len(mixers) == 1
        else {"pattern": [{"use": mixer} for mixer in mixers]}
    )
    table = {"use": "language-model", "d_model": 8, "vocab_size": 11, **blocks, **options}
    return default_kernel().build("layer", table)


def gradients(model, run):
    model.zero_grad()
    loss = run(Objective(model=model, loss=CrossEntropy()))
    return loss.task, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("mixers", (MIXERS | OTHERS).values(), ids=MIXERS | OTHERS)
def test_exact_gradients_through_chunks_are_those_of_one_pass(mixers):
    model = language_model(mixers, channel={"use": "mlp"}).double().train()
    ids = torch.randint(11, (B, L + 1), generator=torch.Generator().manual_seed(1))
    examples = Examples(inputs=ids[:, :-1], targets=ids[:, 1:])
    loss, expected = gradients(model, lambda objective: objective.backward(examples))
    for chunk_len in (9, 40):
        found_loss, found = gradients(
            model,
            lambda objective, chunk_len=chunk_len: backward_in_chunks(
                objective, examples, chunk_len=chunk_len, gradient="exact"
            ),
        )
        torch.testing.assert_close(found_loss, loss, rtol=1e-12, atol=0)
        for name, gradient in expected.items():
            difference = (found[name] - gradient).abs().max()
            assert difference <= 1e-10 * gradient.abs().max(), f"{name}: {float(difference):.2g}"


def largest_difference(model, n_bytes, chunk_len):
    """Return how far chunks are from one pass, relative to the largest logit."""
    ids = torch.randint(model.vocab_size, (1, n_bytes), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = model(ids)
        state, difference = model.init_state(1), 0.0
        for start in range(0, n_bytes, chunk_len):
            logits, state = model.extend(ids[:, start : start + chunk_len], state)
            difference = max(difference, float((logits - whole[:, start : start + chunk_len]).abs().max()))
        return difference / float(whole.abs().max())


@pytest.mark.parametrize("mixers", MIXERS.values(), ids=MIXERS)
def test_8_192_bytes_in_chunks_are_one_pass(mixers):
    assert largest_difference(language_model(mixers).eval(), 8192, chunk_len=3000) < 1e-5


@pytest.mark.slow
def test_65_536_bytes_in_chunks_are_one_pass():
    model = language_model(["mamba"], d_model=256, n_layers=4, vocab_size=256).eval()
    assert largest_difference(model, 65_536, chunk_len=2048) < 1e-5


@pytest.mark.slow
def test_the_benchmark_of_long_contexts_prints_its_table_and_meets_its_limits():
    command = [sys.executable, BENCHMARK, "--mixer", "mamba", "--lengths", "4096", "32768"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| mamba")]
    assert [cells[1] for cells in rows] == ["4,096", "32,768"]
    assert all(cells[-1] == "yes |" for cells in rows)
