from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import helix_kernel
from helix_kernel.errors import ArgumentError
from helix_kernel.memory import Report
from helix_topo.phases import StateFeed, own_clock, phase, synchrony


def test_gaps_that_differ_by_powers_of_two_have_one_phase():
    gaps = np.array([3.0, 6.0, 96.0, 0.75])
    np.testing.assert_allclose(phase(gaps), phase(gaps[:1]).repeat(4), atol=1e-9)
    np.testing.assert_allclose(phase(np.array([1.0, math.sqrt(2), 2**0.25])), [0, math.pi, math.pi / 2])
    np.testing.assert_allclose(phase(np.array([40.0]), unit=10.0), 0, atol=1e-12)


def test_equal_phases_are_in_step_and_even_ones_cancel():
    even = np.arange(5) * 2 * math.pi / 5
    found = synchrony(np.repeat([0, 1, 2], 5), np.concatenate([np.full(5, 1.3), even, [0, 0, 0, 0, 9.0]]), 4)
    np.testing.assert_allclose(found.order[:2], [1, 0], atol=1e-12)
    assert found.order[3] == 0
    np.testing.assert_allclose(found.mean[0], 1.3)


@pytest.mark.parametrize("width", [0.5, 1.0, 2.5])
def test_phases_spread_evenly_over_an_arc_have_the_order_of_the_closed_form(width):
    """|∫ e^{iφ} dφ| over [-w, w], by 2w, is sin(w) / w."""
    n = 20_000
    phases = 0.4 + width * (2 * (np.arange(n) + 0.5) / n - 1)
    found = synchrony(np.zeros(n, np.int64), phases, 1)
    np.testing.assert_allclose(found.order, math.sin(width) / width, rtol=1e-6)
    np.testing.assert_allclose(found.mean, 0.4, atol=1e-9)


def test_two_groups_have_the_order_of_the_closed_form():
    """n and m members that are δ apart: √(n² + m² + 2nm cos δ) / (n + m)."""
    n, m, delta = 3, 5, 2.0
    found = synchrony(np.zeros(n + m, np.int64), np.repeat([0.7, 0.7 + delta], [n, m]), 1)
    expected = math.sqrt(n * n + m * m + 2 * n * m * math.cos(delta)) / (n + m)
    np.testing.assert_allclose(found.order, expected)


def test_nodes_of_no_component_count_nowhere():
    found = synchrony(np.array([-1, 0, -1, 0]), np.array([3.0, 1.0, 2.0, 1.0]), 1)
    np.testing.assert_allclose([found.order[0], found.mean[0]], [1, 1])


def test_the_gate_lets_through_what_is_in_step_and_stops_what_is_opposite():
    in_step = synchrony(np.zeros(4, np.int64), np.full(4, 2.0), 1)
    phases = 2.0 + np.array([0, math.pi / 2, math.pi])
    np.testing.assert_allclose(in_step.gate(np.zeros(3, np.int64), phases), [1, 0.5, 0], atol=1e-12)
    even = synchrony(np.zeros(4, np.int64), np.arange(4) * math.pi / 2, 1)
    np.testing.assert_allclose(even.gate(np.zeros(3, np.int64), phases), 1)
    np.testing.assert_allclose(in_step.gate(np.full(3, -1), phases), 1)
    nothing = synchrony(np.empty(0, np.int64), np.empty(0), 0)
    np.testing.assert_allclose(nothing.gate(np.full(3, -1), phases), 1)


@pytest.mark.parametrize("constant", [3.0, 7.5, 40.0])
def test_a_state_ticks_once_in_each_of_its_time_constants(constant):
    decay = torch.full((2, 200), math.exp(-1 / constant), dtype=torch.float64)
    ticks, elapsed = own_clock(decay, torch.tensor([1e-9, 0.5]))
    times = [(torch.arange(200)[row] + 1).tolist() for row in ticks]
    n = int(200 / constant)
    assert times[0] == [math.ceil(i * constant - 1e-6) for i in range(1, n + 1)]
    assert len(times[1]) == int(200 / constant + 0.5)
    torch.testing.assert_close(elapsed[0].item(), 200 / constant - n, rtol=0, atol=1e-6)


def test_ticks_of_parts_are_those_of_the_whole():
    decay = torch.rand(3, 90, generator=torch.Generator().manual_seed(0)).clamp(min=0.3)
    whole, end = own_clock(decay, torch.zeros(3))
    elapsed, parts = torch.zeros(3), []
    for part in decay.split([1, 0, 40, 49], 1):
        ticks, elapsed = own_clock(part, elapsed)
        parts.append(ticks)
    assert torch.cat(parts, 1).equal(whole)
    torch.testing.assert_close(elapsed, end, rtol=0, atol=1e-9)
    assert 0 < whole.sum() < whole.numel()


def test_a_decay_that_is_no_share_is_refused():
    with pytest.raises(ArgumentError, match=r"\(0, 1\]"):
        own_clock(torch.tensor([[1.2]]), torch.zeros(1))


class Notes:
    """What a tier is given."""

    def __init__(self):
        self.written = []

    def write(self, keys, values, *, time):
        self.written.append((keys, values, time))
        return torch.arange(len(keys))

    def consolidate(self):
        return Report()


def test_a_layer_feeds_a_memory_at_its_own_time_scale():
    torch.manual_seed(0)
    layer, tier = helix_kernel.default_kernel().build("layer", {"use": "s4d", "d_model": 4}), Notes()
    feed = StateFeed(layer, tier, decay=lambda x: torch.full(x.shape[:2], math.exp(-1 / 8)))
    x = torch.randn(2, 33, 4)
    y = layer(x)
    layer(x)
    feed.remove()
    layer(x)
    assert [time for *_, time in tier.written] == [0.0, 33.0]
    keys, values, _ = tier.written[0]
    at = [7, 15, 23, 31]
    torch.testing.assert_close(values, x[:, at].flatten(0, 1))
    torch.testing.assert_close(keys, torch.nn.functional.normalize(y[:, at].flatten(0, 1), dim=-1))
    assert not keys.requires_grad
