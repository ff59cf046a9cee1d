"""Imported models compute what transformers computes: logits, greedy continuations, the states after."""

from __future__ import annotations

import pytest
import torch

import helix_kernel
from helix_kernel.checkpoint import Checkpoint, resolve

VARIANTS = ("mamba", "mamba-untied", "mamba-biases")


each_variant = pytest.mark.parametrize("variant", VARIANTS)


def assert_near(found, expected):
    """Compare to 1e-4, and to 1e-5 of the largest value: float32 keeps no more through three layers."""
    assert found.shape == expected.shape
    error = (found - expected).abs().max()
    assert error <= 1e-4
    assert error <= 1e-5 * expected.abs().max()


def ids(*shape, seed=1):
    return torch.randint(101, shape, generator=torch.Generator().manual_seed(seed))


def test_every_variant_is_compared(variants):
    assert set(VARIANTS) == set(variants)


@each_variant
def test_logits(variant, imported):
    theirs, _, run = imported(variant)
    ours = helix_kernel.load_model(run)
    with torch.inference_mode():
        expected, found = theirs(ids(3, 41)).logits, ours(ids(3, 41))
    assert expected.std() > 1  # so that the tolerance means something
    assert_near(found, expected)


@each_variant
@torch.inference_mode()
def test_greedy_continuation_and_the_state_after_it(variant, imported):
    theirs, _, run = imported(variant)
    ours = helix_kernel.load_model(run)
    prompt = ids(2, 13)
    done = theirs.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=64,
        do_sample=False,
        return_dict_in_generate=True,
    )
    logits, state = ours.extend(prompt, ours.init_state(2))
    chosen = [logits[:, -1].argmax(-1)]
    for _ in range(63):
        logits, state = ours.step(chosen[-1], state)
        chosen.append(logits.argmax(-1))
    assert torch.equal(torch.stack(chosen, 1), done.sequences[:, 13:])
    assert len(state) == len(done.past_key_values.layers) == 3
    for (own, _), layer in zip(state, done.past_key_values.layers, strict=True):
        # Theirs keeps one input more than the convolution needs, and has channels before time.
        conv = layer.conv_states[0][:, :, 1:].transpose(1, 2)
        assert_near(own.conv, conv)
        assert_near(own.ssm, layer.recurrent_states[0])


# With biases transformers lets padding in: in_proj's bias stands where nothing should, and is convolved.
@pytest.mark.parametrize("variant", [name for name in VARIANTS if "biases" not in name])
@torch.inference_mode()
def test_left_padding_changes_nothing(variant, imported):
    theirs, _, run = imported(variant)
    ours = helix_kernel.load_model(run)
    mask = torch.arange(17) >= torch.tensor([[0], [5], [16]])
    batch = torch.where(mask, ids(3, 17), 0)
    expected = theirs(batch, attention_mask=mask.long()).logits
    found = ours(batch, mask=mask)
    assert_near(found[mask], expected[mask])
    after, state = ours.prefill(batch, mask)
    assert_near(after, expected[:, -1])
    following = ids(3, 1, seed=2)
    cache = theirs(batch, attention_mask=mask.long(), use_cache=True).cache_params
    expected = theirs(following, cache_params=cache, use_cache=True).logits[:, 0]
    assert_near(ours.step(following[:, 0], state)[0], expected)
