from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch.nn import functional as F
from transformers import LlamaConfig, MistralConfig, Qwen3Config
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding
from transformers.models.mistral.modeling_mistral import MistralAttention, MistralRotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3RotaryEmbedding

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers import kv_cache, protocol, softmax_attention
from helix_ssm.layers.attention import Attention
from helix_ssm.layers.language_model import LanguageModel
from helix_ssm.layers.mamba import Mamba
from helix_ssm.layers.rotary import rotate

D_MODEL = 32
SIZES = {
    "hidden_size": D_MODEL,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "rms_norm_eps": 1e-5,
    "attn_implementation": "eager",
}
OURS = {"n_heads": 4, "n_kv_heads": 2, "head_dim": 6}


class TestAttention(LayerSuite):
    def make_layer(self):
        return Attention(self.d_model)


class TestGroupedQueries(LayerSuite):
    def make_layer(self):
        return Attention(self.d_model, n_heads=4, n_kv_heads=2, head_dim=4, qk_norm=True, bias=True)


class TestWindow(LayerSuite):
    def make_layer(self):
        return Attention(self.d_model, n_heads=2, n_kv_heads=1, window=4)


class TestEncoder(LayerSuite):
    def make_layer(self):
        return Attention(self.d_model, n_heads=2, causal=False)


@pytest.fixture(name="small_blocks")
def fixture_small_blocks(monkeypatch):
    """Cut work into blocks so small that short sequences have many."""
    monkeypatch.setattr(softmax_attention, "_BLOCK", 3)
    monkeypatch.setattr(kv_cache, "N_RECENT", 3)


@pytest.mark.usefixtures("small_blocks")
class TestManyBlocks(TestAttention):
    pass


@pytest.mark.usefixtures("small_blocks")
class TestWindowInManyBlocks(TestWindow):
    pass


def load(layer, theirs):
    weights = {name.replace("o_proj", "out_proj"): w for name, w in theirs.state_dict().items()}
    layer.load_state_dict(weights)
    return layer.double()


def by_transformers(theirs, rotary, config, x, *, mask):
    theirs, positions = copy.deepcopy(theirs).double(), torch.arange(x.shape[1]).unsqueeze(0)
    mask = mask(
        config=config, inputs_embeds=x, attention_mask=None, past_key_values=None, position_ids=positions
    )
    return theirs(x, rotary(config)(x, positions), mask)[0]


@pytest.mark.parametrize("bias", [False, True])
def test_agrees_with_llama(bias):
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, attention_bias=bias)
    theirs = LlamaAttention(config, 0)
    layer, x = load(Attention(D_MODEL, **OURS, bias=bias), theirs), torch.randn(2, 21, D_MODEL).double()
    expected = by_transformers(theirs, LlamaRotaryEmbedding, config, x, mask=create_causal_mask)
    # Their cosines are of float32 angles.
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("window", [1, 2, 5, 20, 40])
@pytest.mark.parametrize("block", [1, 4, 128])
def test_agrees_with_mistrals_window(window, block, monkeypatch):
    monkeypatch.setattr(softmax_attention, "_BLOCK", block)
    torch.manual_seed(0)
    config = MistralConfig(**SIZES, sliding_window=window)
    theirs = MistralAttention(config, 0)
    layer, x = load(Attention(D_MODEL, **OURS, window=window), theirs), torch.randn(2, 21, D_MODEL).double()
    expected = by_transformers(
        theirs, MistralRotaryEmbedding, config, x, mask=create_sliding_window_causal_mask
    )
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=2e-6)
    y, _ = layer.extend(x, layer.init_state(2))
    torch.testing.assert_close(y, expected, rtol=0, atol=2e-6)


def test_norms_of_queries_and_keys_agree_with_qwen3():
    torch.manual_seed(0)
    config = Qwen3Config(**SIZES)
    theirs = Qwen3Attention(config, 0)
    torch.nn.init.uniform_(theirs.q_norm.weight)
    torch.nn.init.uniform_(theirs.k_norm.weight)
    layer, x = load(Attention(D_MODEL, **OURS, qk_norm=True), theirs), torch.randn(2, 21, D_MODEL).double()
    expected = by_transformers(theirs, Qwen3RotaryEmbedding, config, x, mask=create_causal_mask)
    # Their norm computes in float32.
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=3e-6)


def test_the_encoders_attention_is_torchs_multihead_attention():
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(D_MODEL, 4, bias=False, batch_first=True).double()
    layer = Attention(D_MODEL, n_heads=4, causal=False, positions="none").double()
    maps = zip((layer.q_proj, layer.k_proj, layer.v_proj), theirs.in_proj_weight.chunk(3), strict=True)
    for ours, weight in maps:
        ours.weight.data = weight.data
    layer.out_proj.weight.data = theirs.out_proj.weight.data
    x = torch.randn(2, 9, D_MODEL).double()
    torch.testing.assert_close(layer(x), theirs(x, x, x)[0])


def test_scores_depend_on_distance_alone():
    q, k = torch.randn(2, 1, 10).double()

    def score(at_q, at_k):
        turned = (rotate(x, torch.tensor([at]), theta=10000.0) for x, at in ((q, at_q), (k, at_k)))
        return (next(turned) * next(turned)).sum()

    torch.testing.assert_close(score(7, 4), score(1_000_003, 1_000_000))
    assert not torch.isclose(score(7, 4), score(7, 5))


def test_rows_of_unequal_lengths_can_be_joined():
    for window in (None, 5):
        layer, x = Attention(8, n_heads=2, window=window).double(), torch.randn(2, 100, 8).double()
        states = [
            layer.extend(x[row : row + 1, :length], layer.init_state(1))[1]
            for row, length in enumerate((3, 90))
        ]
        y, _ = layer.extend(torch.stack([x[0, 3:8], x[1, 90:95]]), protocol.join(states))
        torch.testing.assert_close(y[0], layer(x)[0, 3:8])
        torch.testing.assert_close(y[1], layer(x)[1, 90:95])


def test_a_hybrid_language_model_goes_on_from_prompts_of_unequal_lengths():
    torch.manual_seed(0)
    pattern = [Mamba, Attention, partial(Attention, window=3)]
    model = LanguageModel(8, pattern=pattern, vocab_size=11).double().eval()
    ids, mask = torch.randint(11, (2, 9)), torch.tensor([[0] * 5 + [1] * 4, [1] * 9]).bool()
    logits, state = model.prefill(ids, mask)
    token = logits.argmax(-1)
    after, _ = model.step(token, state)
    for row, prompt in enumerate((ids[:1, 5:], ids[1:])):
        whole = model(torch.cat([prompt, token[row : row + 1, None]], dim=1))[0]
        torch.testing.assert_close(torch.stack([logits[row], after[row]]), whole[-2:])


def test_packed_chunks_waste_no_slots_on_the_longest_row():
    layer = Attention(8).eval()
    state = layer.init_state(2)
    for length in (100, 1):
        bounds = torch.tensor([0, length, 101])
        _, state = layer.extend(torch.randn(1, 101, 8), state, cu_seqlens=bounds)
    assert state.settled.n_slots == 101
    assert state.length.tolist() == [101, 101]


def test_a_windows_state_never_grows():
    layer = Attention(8, window=6)
    state = layer.init_state(1)
    sizes = [tensor.shape for tensor in (*state.settled, *state.recent)]
    for seq_len in (1, 200, 3):
        _, state = layer.extend(torch.randn(1, seq_len, 8), state)
        assert [tensor.shape for tensor in (*state.settled, *state.recent)] == sizes


def test_a_step_copies_few_tokens():
    """The settled part of the state is handed on as it is, until 64 more tokens have come."""
    layer = Attention(8).eval()
    with torch.no_grad():
        _, state = layer.extend(torch.randn(1, 500, 8), layer.init_state(1))
        moved = 0
        for _ in range(130):
            before = state.settled.keys.data_ptr()
            _, state = layer.step(torch.randn(1, 8), state)
            moved += state.settled.keys.data_ptr() != before
            assert state.recent.n_slots < kv_cache.N_RECENT
    assert moved == 2


@pytest.mark.parametrize("window", [None, 16])
def test_no_square_of_the_sequence_is_made(window):
    """Peak memory is linear in length: no tensor as large as one mask of L by L comes to be."""
    seq_len = 3000
    layer, x = Attention(8, window=window), torch.randn(1, seq_len, 8)
    largest = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **kwargs or {})
            tensors = torch.utils._pytree.tree_leaves(out)
            largest.extend(t.numel() for t in tensors if isinstance(t, torch.Tensor))
            return out

    with Watch():
        layer(x).sum().backward()
        _, state = layer.extend(x[:, :10], layer.init_state(1))
        if window is not None:
            layer.extend(x, state)
    assert max(largest) < seq_len**2 / 10


def test_half_precision_softmax_is_in_float32():
    torch.manual_seed(0)
    layer, x = Attention(16, n_heads=2), torch.randn(2, 40, 16)
    torch.nn.init.normal_(layer.q_proj.weight)
    expected = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        stepped, state = layer.extend(x[:, :9], layer.init_state(2))
        stepped, _ = layer.step(x[:, 9], state)
    y.float().sum().backward()
    assert y.dtype == stepped.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=0.1, atol=0.1)
    torch.testing.assert_close(stepped.float(), expected[:, 9], rtol=0.1, atol=0.1)


def test_a_state_of_another_dtype_than_the_layers_is_kept():
    layer, x = Attention(8), torch.randn(1, 5, 8)
    y, state = layer.extend(x, layer.init_state(1, dtype=torch.float64))
    assert (y.dtype, state.recent.keys.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(y, layer(x))


@pytest.mark.parametrize(
    ("given", "heads"),
    [
        ({"d_model": 8}, (1, 1, 8)),
        ({"d_model": 256}, (4, 4, 64)),
        ({"d_model": 66}, (3, 3, 22)),
        ({"d_model": 768, "n_heads": 8}, (8, 8, 96)),
        ({"d_model": 768, "head_dim": 128, "n_kv_heads": 2}, (6, 2, 128)),
        ({"d_model": 10, "n_heads": 3, "head_dim": 4}, (3, 3, 4)),
    ],
)
def test_heads_follow_from_the_width(given, heads):
    layer = Attention(**given)
    assert (layer.n_heads, layer.n_kv_heads, layer.head_dim) == heads


def test_an_encoders_attention_has_no_state():
    with pytest.raises(ArgumentError, match="causal is False, allowed is True where a state is kept"):
        Attention(8, causal=False).init_state(1)


def test_a_state_of_another_batch_is_refused():
    layer = Attention(8)
    with pytest.raises(ArgumentError, match="state has 2 rows, allowed are 3"):
        layer.extend(torch.zeros(3, 1, 8), layer.init_state(2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d_model": 0}, "d_model is 0"),
        ({"n_heads": 3}, "n_heads is 3, allowed is a divisor of d_model=8"),
        ({"n_heads": 0}, "n_heads is 0"),
        ({"head_dim": 5}, "head_dim is 5, allowed is a divisor of d_model=8"),
        ({"n_heads": 4, "n_kv_heads": 3}, "n_kv_heads is 3, allowed is a divisor of n_heads=4"),
        ({"n_heads": 8}, "head_dim is 1, allowed is an even number"),
        ({"positions": "rotarry"}, "'rotarry', allowed are 'rotary', 'none'. Did you mean 'rotary'"),
        ({"rope_theta": 0.0}, "rope_theta is 0.0"),
        ({"window": 0}, "window is 0"),
        ({"window": 4, "causal": False}, "window is 4, allowed is None with causal=False"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ArgumentError, match=message):
        Attention(**{"d_model": 8, **wrong})


def test_the_formula():
    """Equation 1 of Vaswani et al. (2017) with all of its scores written out."""
    torch.manual_seed(0)
    layer, x = Attention(8, n_heads=2, positions="none").double(), torch.randn(1, 7, 8).double()
    q, k, v = ((x @ m.weight.T).view(7, 2, 4) for m in (layer.q_proj, layer.k_proj, layer.v_proj))
    heads = []
    for head in range(2):
        scores = q[:, head] @ k[:, head].T / 2
        scores[torch.ones(7, 7).triu(1).bool()] = -torch.inf
        heads.append(F.softmax(scores, -1) @ v[:, head])
    torch.testing.assert_close(layer(x)[0], torch.cat(heads, -1) @ layer.out_proj.weight.T)
