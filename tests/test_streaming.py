"""Language models over sequences longer than memory: chunks with carried state equal one pass."""

from __future__ import annotations

import pytest
import torch

from helix_kernel import default_kernel
from helix_train.losses.classification import CrossEntropy
from helix_train.objective import Examples, Objective
from helix_train.streaming import backward_in_chunks

B, L = 2, 41
MIXERS = {
    "mamba": ["mamba"],
    "hyena": ["hyena"],
    "mixed": ["mamba", "hyena", "s4d"],
}


def language_model(mixers, **options):
    torch.manual_seed(0)
    table = {"use": "language-model", "d_model": 8, "vocab_size": 11, **options}
    if len(mixers) == 1:
        table.update(n_layers=2, mixer={"use": mixers[0]})
    else:
        table.update(pattern=[{"use": mixer} for mixer in mixers])
    return default_kernel().build("layer", table)


def gradients(model, run):
    model.zero_grad()
    loss = run(Objective(model=model, loss=CrossEntropy()))
    return loss.task, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("mixers", MIXERS.values(), ids=MIXERS)
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
