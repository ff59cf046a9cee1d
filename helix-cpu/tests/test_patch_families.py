"""Models of transformers give the same logits, gradients and words when Helix's kernels serve them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from helix_cpu import patch_transformers

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

SCAN = {"causal_conv1d_fn", "mamba_selective_scan"}
STEP = {"causal_conv1d_update", "mamba_selective_state_update"}
CHUNKS = {"causal_conv1d_fn", "mamba2_chunk_scan"}
STEP2 = {"causal_conv1d_update", "mamba2_selective_state_update"}
DELTA = {"causal_conv1d_fn", "torch_chunk_gated_delta_rule"}
DELTA_STEP = {"causal_conv1d_update", "torch_recurrent_gated_delta_rule"}
KDA = {"causal_conv1d_fn", "chunk_kimi_delta_attention"}
KDA_STEP = {"causal_conv1d_update", "recurrent_kimi_delta_attention"}

MAMBA2 = {"mamba_n_heads": 4, "mamba_n_groups": 2, "mamba_d_state": 8, "mamba_chunk_size": 8}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}
MIXED = {"layer_types": ["linear_attention", "full_attention"]}
LINEAR = {"linear_key_head_dim": 8, "linear_num_key_heads": 2}
EXPERTS = {"moe_intermediate_size": 16, "num_experts_per_tok": 2}

# By the name of its classes: what must serve a sequence, what a step, and what its config has of its own.
FAMILIES = {
    "Mamba": (SCAN, STEP, {"state_size": 4}),
    "FalconMamba": (SCAN, STEP, {"state_size": 4}),
    "Mamba2": (
        CHUNKS,
        STEP2,
        {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 2, "chunk_size": 8},
    ),
    "Jamba": (
        SCAN,
        STEP,
        {**HEADS, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4},
    ),
    "Zamba": (
        SCAN,
        STEP,
        {
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "num_hidden_layers": 5,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "mamba_d_state": 4,
        },
    ),
    "Zamba2": (
        CHUNKS,
        STEP2,
        {
            "num_attention_heads": 2,
            "num_hidden_layers": 3,
            "layers_block_type": ["mamba", "hybrid", "mamba"],
            "mamba_d_state": 8,
            "mamba_ngroups": 2,
            "n_mamba_heads": 4,
            "chunk_size": 8,
        },
    ),
    "Bamba": (CHUNKS, STEP2, {**HEADS, **MAMBA2, "attn_layer_indices": [1]}),
    "FalconH1": (CHUNKS, STEP2, {**HEADS, **MAMBA2, "mamba_d_ssm": 64, "mamba_d_head": 16}),
    "NemotronH": (
        CHUNKS,
        STEP2,
        {
            **HEADS,
            "num_hidden_layers": 3,
            "layers_block_type": ["mamba", "attention", "mlp"],
            "head_dim": 16,
            "ssm_state_size": 8,
            "mamba_num_heads": 4,
            "mamba_head_dim": 16,
            "n_groups": 2,
            "chunk_size": 8,
        },
    ),
    "GraniteMoeHybrid": (
        CHUNKS,
        STEP2,
        {
            **HEADS,
            **MAMBA2,
            "layer_types": ["mamba", "attention"],
            "num_local_experts": 2,
            "shared_intermediate_size": 48,
        },
    ),
    "Qwen3Next": (
        DELTA,
        DELTA_STEP,
        {
            **HEADS,
            **LINEAR,
            **EXPERTS,
            **MIXED,
            "head_dim": 16,
            "linear_value_head_dim": 8,
            "linear_num_value_heads": 4,
            "shared_expert_intermediate_size": 16,
            "num_experts": 4,
        },
    ),
    "OlmoHybrid": (
        DELTA,
        DELTA_STEP,
        {**HEADS, **LINEAR, **MIXED, "linear_value_head_dim": 16, "linear_num_value_heads": 2},
    ),
    "KimiLinear": (
        KDA,
        KDA_STEP,
        {
            **EXPERTS,
            **MIXED,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "linear_head_dim": 8,
            "linear_num_heads": 2,
            "num_local_experts": 2,
            "kv_lora_rank": 8,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
        },
    ),
    "Lfm2": (
        {"causal_conv1d_fn"},
        {"causal_conv1d_update"},
        {**HEADS, "layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    ),
}
COMMON = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WITHOUT_MLP = ("Mamba", "FalconMamba", "Mamba2")  # whose intermediate size is the mixers'


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """Build a small random model; gives it with what must serve its sequences and its steps."""
    name = request.param
    sequence, step, config = FAMILIES[name]
    if not hasattr(transformers, f"{name}ForCausalLM"):
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    common = dict(COMMON)
    if name in WITHOUT_MLP:
        del common["intermediate_size"]
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(
        getattr(transformers, f"{name}Config")(**{**common, **config})
    )
    with torch.no_grad():
        for parameter in model.parameters():  # no weight stays at 0 or 1, where errors could hide
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model, sequence, step


@pytest.fixture(params=["whole", "left-padded"])
def batch(request):
    """Two rows of tokens, in one case with padding to the left of the first."""
    tokens = torch.randint(3, 61, (2, 19), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens)
    if request.param == "left-padded":
        mask[0, :5] = 0
        tokens[0, :5] = 0
    return {"input_ids": tokens, "attention_mask": mask}


def test_logits_and_gradients(family, batch):
    model, sequence, _ = family
    model.train()
    expected, expected_grads = differentiate(model, batch)
    with patch_transformers() as patch:
        before = Counter(patch.calls)
        logits, grads = differentiate(model, batch)
        served = Counter(patch.calls) - before
    assert sequence <= set(served)
    assert largest(logits - expected) <= 1e-5 * largest(expected)
    noise = 1e-7 * max(map(largest, expected_grads.values()))  # what is 0 but for rounding
    assert grads.keys() == expected_grads.keys()
    for name, grad in grads.items():
        error = largest(grad - expected_grads[name])
        assert error <= 1e-5 * largest(expected_grads[name]) + noise, name


def test_generation(family, batch):
    model, sequence, step = family
    model.eval()
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(**batch, **options)
    with patch_transformers() as patch:
        before = Counter(patch.calls)
        words = model.generate(**batch, **options)
        served = Counter(patch.calls) - before
    assert sequence | step <= set(served)
    assert words.shape == (2, 27)
    assert torch.equal(words, expected)


def differentiate(model, batch):
    """Return the logits that no padding is part of, and every gradient of a random weighing of them."""
    model.zero_grad()
    logits = model(**batch, use_cache=False).logits[batch["attention_mask"].bool()]
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    (logits * weights).sum().backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return logits.detach(), grads


def largest(tensor):
    return tensor.abs().max().item()
