"""Imported models compute what transformers computes: logits, greedy continuations, the states after."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

import helix_kernel
from helix_ssm.hf import export_hf, import_hf

VARIANTS = (
    "mamba",
    "mamba-untied",
    "mamba-biases",
    "falcon",
    "mamba2",
    "mamba2-tied",
    "mamba2-biases",
)


each_variant = pytest.mark.parametrize("variant", VARIANTS)


def assert_near(found, expected):
    """Compare to 1e-4, and to 1e-5 of the largest value: float32 keeps little more through a model."""
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
    assert len(state) == len(done.past_key_values.layers) == 2
    for (own, _), layer in zip(state, done.past_key_values.layers, strict=True):
        # Theirs keeps one input more than the convolution needs, and has channels before time.
        conv = layer.conv_states[0][:, :, 1:].transpose(1, 2)
        assert_near(own.conv, conv)
        assert_near(own.ssm, layer.recurrent_states[0])


@each_variant
@torch.inference_mode()
def test_left_padding_changes_nothing(variant, imported):
    theirs, _, run = imported(variant)
    ours = helix_kernel.load_model(run)
    starts = (0, 5, 16)
    mask = torch.arange(17) >= torch.tensor(starts)[:, None]
    batch = torch.where(mask, ids(3, 17), 0)
    found = ours(batch, mask=mask)
    for row, start in enumerate(starts):
        assert_near(found[row, start:], theirs(batch[row : row + 1, start:]).logits[0])
    padded = theirs(batch, attention_mask=mask.long(), use_cache=True)
    if theirs.config.use_bias:
        # in_proj's bias stands where nothing should, and transformers convolves it into the first tokens.
        assert (found[mask] - padded.logits[mask]).abs().max() > 0.01
        return
    assert_near(found[mask], padded.logits[mask])
    after, state = ours.prefill(batch, mask)
    assert_near(after, padded.logits[:, -1])
    following = ids(3, 1, seed=2)
    expected = theirs(following, cache_params=padded.cache_params, use_cache=True).logits[:, 0]
    assert_near(ours.step(following[:, 0], state)[0], expected)


@torch.inference_mode()
def test_the_authors_own_folders(make_theirs, variants, tmp_path):
    theirs = make_theirs(variants["mamba"])
    theirs.save_pretrained(tmp_path / "published")
    sizes = {"d_model": 48, "n_layer": 2, "vocab_size": 95, "pad_vocab_size_multiple": 101}
    config = {**sizes, "ssm_cfg": {"d_state": 5, "d_conv": 3}}
    (tmp_path / "published/config.json").write_text(json.dumps(config))
    tensors = load_file(tmp_path / "published/model.safetensors")
    embedding = tensors.pop("backbone.embeddings.weight")
    tensors |= {"backbone.embedding.weight": embedding, "lm_head.weight": embedding.clone()}
    save_file(tensors, tmp_path / "published/model.safetensors")
    assert import_hf(tmp_path / "published", tmp_path / "run").model_type == "mamba"
    theirs.config.layer_norm_epsilon = 1e-5
    for module in theirs.modules():  # mamba_ssm knows no other epsilon
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 1e-5
    ours = helix_kernel.load_model(tmp_path / "run")
    assert_near(ours(ids(2, 19)), theirs(ids(2, 19)).logits)
    export_hf(tmp_path / "run", tmp_path / "back")
    from transformers import AutoModelForCausalLM

    back = AutoModelForCausalLM.from_pretrained(tmp_path / "back").eval()
    assert_near(back(ids(2, 19)).logits, theirs(ids(2, 19)).logits)


@torch.inference_mode()
def test_a_limit_of_the_time_step_holds_for_every_token(make_theirs, variants, tmp_path):
    free, limited = (
        make_theirs({**variants["mamba2"], "time_step_limit": limit})
        for limit in ((0.0, math.inf), (0.1, 0.4))
    )
    limited.save_pretrained(tmp_path / "theirs")
    import_hf(tmp_path / "theirs", tmp_path / "run")
    ours = helix_kernel.load_model(tmp_path / "run")
    expected = limited(ids(2, 19)).logits
    assert (free(ids(2, 19)).logits - expected).abs().max() > 0.1
    assert_near(ours(ids(2, 19)), expected)
    _, state = ours.extend(ids(2, 19)[:, :18], ours.init_state(2))
    assert_near(ours.step(ids(2, 19)[:, 18], state)[0], expected[:, 18])
    # Theirs forgets the limit where it goes on from a cache by one token.
    cache = limited(ids(2, 19)[:, :18], use_cache=True).cache_params
    alone = limited(ids(2, 19)[:, 18:], cache_params=cache, use_cache=True).logits[:, 0]
    assert (alone - expected[:, 18]).abs().max() > 0.01
