"""Tests of memory_layer.py, nearest.py and memory_state.py, which it is made of."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from helix_kernel import default_kernel
from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_kernel.testing.pytree import leaves, map_leaves
from helix_topo import nearest
from helix_topo.memory_layer import MemoryLayer
from helix_topo.memory_state import N_RECENT


class TestFew(LayerSuite):
    """Two are read, of the last nine: so few that backward keeps them rather than all scores."""

    def make_layer(self) -> torch.nn.Module:
        return MemoryLayer(d_model=self.d_model, n_heads=4, k=2, window=9, shift=2)


def test_with_k_of_all_positions_it_is_softmax_attention():
    layer, x = _layer(k=40, shift=0), _inputs(40)
    q, k, v = _projections(layer, x)
    scale = layer.log_scale.exp().view(-1, 1, 1)
    y = F.scaled_dot_product_attention(q * scale, k, v, is_causal=True, scale=1.0)
    gate = layer.gate_proj(x).sigmoid().mT.unsqueeze(-1)
    expected = layer.out_proj((gate * y).transpose(1, 2).flatten(2))
    assert torch.allclose(layer(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("window", [None, 11])
def test_each_head_reads_the_k_most_like_of_what_it_sees(window):
    layer, x = _layer(k=4, window=window), _inputs(40)
    q, k, v = _projections(layer, x)
    scale = layer.log_scale.exp()
    expected = torch.zeros_like(q)
    for row, head, now in torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(40)).tolist():
        first = 1 if window is None else max(1, now - window + 1)
        scores = k[row, head, first : now + 1] @ q[row, head, now] * scale[head]
        best = sorted(range(len(scores)), key=lambda slot, scores=scores: -scores[slot])[:4]
        weights = scores[best].softmax(0)
        expected[row, head, now] = weights @ v[row, head, first : now + 1][best]
    gate = layer.gate_proj(x).sigmoid().mT.unsqueeze(-1)
    assert torch.allclose(layer(x), layer.out_proj((gate * expected).transpose(1, 2).flatten(2)), atol=1e-12)


def test_what_followed_a_token_is_found_where_the_token_comes_again():
    layer = _layer(k=1)
    x = _inputs(9)
    x[:, 8] = x[:, 2]
    _, _, v = _projections(layer, x)
    gate = layer.gate_proj(x).sigmoid().mT.unsqueeze(-1)
    expected = layer.out_proj((gate[:, :, 8:] * v[:, :, 3:4]).transpose(1, 2).flatten(2))
    assert torch.allclose(layer(x)[:, 8:], expected, atol=1e-12)


def test_gradients_are_those_of_finite_differences_in_both_ways_of_reading():
    layer, x = _layer(k=3), _inputs(14).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,), fast_mode=True)
    few = MemoryLayer(d_model=6, n_heads=3, k=2, shift=0).double()
    assert torch.autograd.gradcheck(few, (x,), fast_mode=True)


def test_chosen_slots_give_what_all_scores_give_gradients_too():
    layer = MemoryLayer(d_model=6, n_heads=3, k=2, shift=0).double()
    x = _inputs(30).requires_grad_()
    gathered = layer(x)
    gradient = torch.autograd.grad(gathered.square().sum(), [x, *layer.parameters()])
    with torch.no_grad():
        assert torch.allclose(gathered, layer(x), atol=1e-12)
    dense = MemoryLayer(d_model=6, n_heads=3, k=2, shift=0).double()
    dense.load_state_dict(layer.state_dict())
    q, k, v = _projections(dense, x)
    scores = (q @ k.mT) * dense.log_scale.exp().view(-1, 1, 1)
    scores = scores.masked_fill(torch.ones(30, 30).triu(1).bool(), -torch.inf)
    scores = scores.masked_fill(scores < scores.topk(2, dim=-1).values[..., 1:], -torch.inf)
    gate = dense.gate_proj(x).sigmoid().mT.unsqueeze(-1)
    y = dense.out_proj((gate * (scores.softmax(-1) @ v)).transpose(1, 2).flatten(2))
    expected = torch.autograd.grad(y.square().sum(), [x, *dense.parameters()])
    for one, other in zip(gradient, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-10)


@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("k", [2, 50])
def test_long_streams_in_chunks_are_as_in_the_whole(window, k):
    """Through `settled` and back, by chunks around the size at which slots move there."""
    layer, x = _layer(k=k, window=window), _inputs(4 * N_RECENT)
    state, outputs = layer.init_state(2), []
    for chunk in x.split([1, N_RECENT - 2, 1, N_RECENT + 3, 5, 2 * N_RECENT - 8], dim=1):
        y, state = layer.extend(chunk, state)
        outputs.append(y)
    assert torch.allclose(torch.cat(outputs, dim=1), layer(x), atol=1e-12)


def test_a_window_bounds_the_state():
    layer, x = _layer(window=20), _inputs(160)
    state, most = layer.init_state(2), 0
    for t in range(x.shape[1]):
        _, state = layer.step(x[:, t], state)
        most = max(most, state.settled.n_slots + state.recent.n_slots)
    assert most <= 20 + N_RECENT - 1
    _, after = layer.extend(x, layer.init_state(2))
    assert after.settled.n_slots + after.recent.n_slots <= 20 + N_RECENT - 1


def test_blocks_of_queries_change_nothing(monkeypatch):
    layer, x = _layer(k=5, window=30), _inputs(50)
    with torch.no_grad():
        whole = layer(x)
        monkeypatch.setattr(nearest, "_SCORES", 2 * 2 * 50 * 7)
        assert torch.allclose(layer(x), whole, atol=1e-12)


def test_rows_that_have_seen_unequally_much_can_be_joined():
    layer, x = _layer(k=3), _inputs(80)
    lengths = [70, 9]
    states = [layer.extend(x[row : row + 1, :n], layer.init_state(1))[1] for row, n in enumerate(lengths)]
    joined = type(states[0]).join_rows(states)
    together, _ = layer.extend(x[:, -10:], joined)
    for row, state in enumerate(states):
        alone, _ = layer.extend(x[row : row + 1, -10:], state)
        assert torch.allclose(together[row : row + 1], alone, atol=1e-12)


def test_queries_and_keys_start_equal_and_part_in_training():
    layer = _layer()
    assert layer.k_proj.weight.equal(layer.q_proj.weight)
    layer(_inputs(12)).square().sum().backward()
    assert not layer.k_proj.weight.grad.equal(layer.q_proj.weight.grad)


def test_a_state_of_another_dtype_stays_of_it():
    layer = MemoryLayer(d_model=6).to(torch.bfloat16)
    state = layer.init_state(2, dtype=torch.float32)
    y, state = layer.extend(_inputs(5).bfloat16(), state)
    assert y.dtype == torch.bfloat16
    assert {leaf.dtype for leaf in leaves(state) if leaf.is_floating_point()} == {torch.float32}


def test_a_long_stream_reads_by_a_graph_what_it_would_read_one_by_one():
    """Few enough for the graph to miss none; and a step reads what a chunk does."""
    exact, graph = _layer(k=4), _layer(k=4, approximate_above=100)
    graph.load_state_dict(exact.state_dict())
    x = _inputs(5 * N_RECENT + 3)
    with torch.no_grad():
        for lengths in ([N_RECENT] * 5 + [3], [5 * N_RECENT, 1, 1, 1]):
            state, outputs = graph.init_state(2), []
            for chunk in torch.split(x, lengths, dim=1):
                y, state = graph.extend(chunk, state)
                outputs.append(y)
            assert torch.allclose(torch.cat(outputs, dim=1), exact(x), atol=1e-6)


def test_a_graph_follows_from_the_state_alone():
    """Two continuations of one state, its rows in another order, and a copy of the layer read the same."""
    layer, x = _layer(k=4, approximate_above=10), _inputs(4 * N_RECENT)
    with torch.no_grad():
        state = layer.init_state(2)
        for chunk in torch.split(x, N_RECENT, dim=1):
            _, state = layer.extend(chunk, state)
        new = torch.flip(x, [1])[:, : N_RECENT + 1]
        first, after = layer.extend(new, state)
        second, _ = layer.extend(new, state)
        swapped, _ = layer.extend(new[[1, 0]], map_leaves(lambda leaf: leaf[[1, 0]], state))
        copied, _ = copy.deepcopy(layer).extend(new, state)
        further = [each.extend(new, after)[0] for each in (layer, copy.deepcopy(layer))]
    assert torch.allclose(second, first, atol=1e-12)
    assert torch.allclose(swapped[[1, 0]], first, atol=1e-12)
    assert torch.allclose(copied, first, atol=1e-12)
    assert torch.allclose(*further, atol=1e-12)


def test_graphs_end_with_the_states_that_they_are_of():
    layer, x = _layer(approximate_above=10), _inputs(N_RECENT)
    with torch.no_grad():
        _, state = layer.extend(x, layer.init_state(2))
        for _ in range(3):
            _, state = layer.extend(x, state)
    assert len(layer._index._graphs) == 1
    del state
    assert len(layer._index._graphs) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_heads": 4}, "n_heads is 4, allowed is a divisor of d_model=6; or give head_dim"),
        ({"k": 0}, "k is 0, allowed is >= 1"),
        ({"window": 0}, "window is 0, allowed is >= 1"),
        ({"window": 9, "approximate_above": 9}, "allowed is one"),
        ({"shift": -1}, "shift is -1, allowed is >= 0"),
    ],
)
def test_sizes_out_of_range_are_refused(options, says):
    with pytest.raises(ArgumentError, match=says):
        MemoryLayer(d_model=6, **options)


def test_wrong_inputs_and_states_are_refused():
    layer = _layer()
    with pytest.raises(ArgumentError, match=r"allowed is a floating \(B, L, d_model=6\)"):
        layer(_inputs(5)[..., :5])
    with pytest.raises(ArgumentError, match="state has 3 rows, allowed are 2"):
        layer.extend(_inputs(5), layer.init_state(3))


def test_a_language_model_trains_with_it_by_config():
    model = default_kernel().build(
        "layer",
        {
            "use": "language-model",
            "d_model": 16,
            "vocab_size": 11,
            "pattern": [{"use": "mamba"}, {"use": "memory-layer", "n_heads": 2, "k": 4}],
            "channel": {"use": "mlp"},
        },
    )
    ids = torch.randint(11, (2, 20), generator=torch.Generator().manual_seed(0))
    whole = model(ids)
    whole.square().sum().backward()
    y, state = model.extend(ids[:, :13], model.init_state(2))
    z, _ = model.extend(ids[:, 13:], state)
    assert torch.allclose(torch.cat([y, z], dim=1), whole, atol=1e-5)


def _layer(**options: int | None) -> MemoryLayer:
    torch.manual_seed(0)
    layer = MemoryLayer(**{"d_model": 6, "n_heads": 2, **options}).double()
    with torch.no_grad():  # apart, so that a layer that mixes queries and keys up is found out
        layer.log_scale.add_(torch.tensor([0.1, -0.5]))
    return layer


def _inputs(length: int) -> torch.Tensor:
    return torch.randn(2, length, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _projections(layer: MemoryLayer, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    before = F.pad(x, (0, 0, layer.shift, 0))[:, : x.shape[1]]

    def heads(y: torch.Tensor) -> torch.Tensor:
        return y.unflatten(-1, (layer.n_heads, layer.head_dim)).transpose(1, 2)

    q, k = (F.normalize(heads(y), dim=-1) for y in (layer.q_proj(x), layer.k_proj(before)))
    return q, k, heads(layer.v_proj(x))
