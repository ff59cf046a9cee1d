"""Sequences packed into rows are kept apart by convolution and scan alike, or transformers refuses them."""

from __future__ import annotations

import importlib

import pytest
import torch

from helix_cpu import patch_transformers
from helix_cpu.transformers import convolution, delta, scan
from helix_cpu.transformers.packing import one_row, sequences

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

SEQ_IDX = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2, 2], [3, 3, 3, 3, 3, 3, 3, 3, 3]])
PARTS = ((0, slice(0, 3)), (0, slice(3, 7)), (0, slice(7, 9)), (1, slice(0, 9)))
B, L = SEQ_IDX.shape
H, K, P = 2, 4, 3


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def conv(x, **options):
    weight, bias = draw(6, K), draw(6)
    y = convolution.causal_conv1d_fn(x.transpose(1, 2), weight, bias, "silu", **options)
    return y if y is NotImplemented else y.transpose(1, 2)


def chunks(x, dt, B, C, **options):
    rates = torch.tensor([-0.5, -1.0])
    return scan.mamba_chunk_scan_combined(x, dt, rates, B, C, 8, dt_softplus=True, **options)


def gated_delta(q, k, v, g, beta, **options):
    found = delta.chunk_gated_delta_rule(q, k, v, g, beta, use_qk_l2norm_in_kernel=True, **options)
    return found if found is NotImplemented else found[0]


def kda(q, k, v, g, beta, **options):
    found = delta.fused_recurrent_kda(q, k, v, g, beta, use_qk_l2norm_in_kernel=True, **options)
    return found if found is NotImplemented else found[0]


QKV = (draw(B, L, H, K), draw(B, L, H, K) + 1, draw(B, L, H, P))
BETA = torch.rand(B, L, H, generator=torch.Generator().manual_seed(0))
CASES = {
    "convolution": (conv, (draw(B, L, 6),)),
    "scan": (chunks, (draw(B, L, H, P), draw(B, L, H), draw(B, L, 1, 5), draw(B, L, 1, 5) - 1)),
    "delta": (gated_delta, (*QKV, -draw(B, L, H).abs(), BETA)),
    "kda": (kda, (*QKV, -draw(B, L, H, K).abs(), BETA)),
}


@pytest.mark.parametrize("case", CASES)
def test_packed_is_one_by_one(case):
    function, tokens = CASES[case]
    packed = function(*tokens, seq_idx=SEQ_IDX)
    for row, part in PARTS:
        alone = function(*(tensor[row : row + 1, part].contiguous() for tensor in tokens))
        assert torch.allclose(packed[row : row + 1, part], alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seq_idx", [SEQ_IDX - 1, SEQ_IDX[:1], SEQ_IDX[:, :0]])
def test_padding_and_other_shapes_are_declined(case, seq_idx):
    function, tokens = CASES[case]
    assert function(*tokens, seq_idx=seq_idx) is NotImplemented


def test_the_state_kept_of_a_row_is_that_of_its_last_sequence():
    function, tokens = CASES["scan"]
    _, states = function(*tokens, seq_idx=SEQ_IDX, return_final_states=True)
    for row, part in (PARTS[2], PARTS[3]):
        alone = (tensor[row : row + 1, part].contiguous() for tensor in tokens)
        _, state = function(*alone, return_final_states=True)
        assert torch.allclose(states[row], state[0], rtol=1e-6, atol=1e-6)


def test_packed_with_states_is_declined():
    _, tokens = CASES["scan"]
    state = torch.zeros(B, H, P, 5)
    assert chunks(*tokens, seq_idx=SEQ_IDX, initial_states=state) is NotImplemented
    for case in ("delta", "kda"):
        function, tokens = CASES[case]
        assert function(*tokens, seq_idx=SEQ_IDX, initial_state=torch.zeros(B, H, K, P)) is NotImplemented
        assert function(*tokens, seq_idx=SEQ_IDX, output_final_state=True) is NotImplemented


@pytest.mark.parametrize("case", ["delta", "kda"])
def test_bounds_that_the_convolution_was_not_told_are_declined(case):
    function, tokens = CASES[case]
    assert function(*tokens, cu_seqlens=torch.tensor([0, L])) is NotImplemented


def test_sequences_and_rows():
    packed = sequences(SEQ_IDX, torch.zeros(B, L))
    assert packed.bounds.tolist() == [0, 3, 7, 9, 18]
    assert packed.last.tolist() == [2, 3]
    assert one_row(SEQ_IDX).tolist() == [SEQ_IDX.flatten().tolist()]


def test_a_model_that_scans_apart_trains_packed():
    """Attention learns the bounds from positions that start again, the layers with a state from seq_idx."""
    torch.manual_seed(0)
    config = transformers.BambaConfig(
        vocab_size=61,
        hidden_size=32,
        num_hidden_layers=2,
        intermediate_size=48,
        num_attention_heads=2,
        num_key_value_heads=1,
        attn_layer_indices=[1],
        mamba_n_heads=4,
        mamba_d_state=8,
    )
    model = transformers.BambaForCausalLM(config).train()
    lengths = (5, 9, 3)
    rows = [
        torch.randint(3, 61, (1, length), generator=torch.Generator().manual_seed(length))
        for length in lengths
    ]
    packed = {
        "input_ids": torch.cat(rows, dim=1),
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "seq_idx": torch.repeat_interleave(torch.tensor([0, 1, 2]), torch.tensor(lengths))[None].int(),
    }
    with pytest.raises(ValueError, match="can't keep packed sequences apart"):
        model(**packed, use_cache=False)
    expected = [model(input_ids=row, use_cache=False).logits for row in rows]
    with patch_transformers():
        logits = model(**packed, use_cache=False).logits
    assert torch.allclose(logits, torch.cat(expected, dim=1), rtol=1e-5, atol=1e-5)


def test_where_the_scan_has_no_bounds_the_convolution_takes_none():
    jamba = importlib.import_module("transformers.models.jamba.modeling_jamba")
    x, weight = draw(B, 6, L), draw(6, K)
    with patch_transformers():
        assert jamba.causal_conv1d_fn(x, weight, activation="silu", seq_idx=None).shape == x.shape
        with pytest.raises(ValueError, match="can't keep packed sequences apart"):
            jamba.causal_conv1d_fn(x, weight, activation="silu", seq_idx=SEQ_IDX)
