from __future__ import annotations

import numpy as np
import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.hyena import Hyena
from helix_ssm.layers.hyena_filter import HyenaFilter


class TestHyena(LayerSuite):
    def make_layer(self):
        return Hyena(self.d_model)


class TestHyenaOfOrderThree(LayerSuite):
    def make_layer(self):
        return Hyena(
            self.d_model, order=3, d_conv=2, time_scale=16.0, n_frequencies=2, d_filter=8, n_filter_layers=1
        )


class TestHyenaOfModalFilters(LayerSuite):
    def make_layer(self):
        return Hyena(self.d_model, filter="modal", d_state=6, time_scale=16.0)


def make_filter(**changed):
    options = {
        "n_filters": 2,
        "time_scale": 64.0,
        "n_frequencies": 3,
        "width": 8,
        "n_layers": 2,
        "frequency": 5.0,
    }
    return HyenaFilter(4, **{**options, **changed})


def test_agrees_with_the_papers_recurrence_by_numpys_convolution():
    """Definition 3.1 of arXiv:2302.10866, one channel at a time."""
    torch.manual_seed(0)
    layer = Hyena(4).double()
    x = torch.randn(1, 30, 4, dtype=torch.float64)
    w = {name: tensor.numpy() for name, tensor in layer.state_dict().items()}
    u = x[0].numpy() @ w["in_proj.weight"].T + w["in_proj.bias"]
    taps = w["conv1d.weight"][:, 0, ::-1]
    u = np.stack([np.convolve(u[:, c], taps[c])[:30] for c in range(12)], 1) + w["conv1d.bias"]
    *gates, v = np.split(u, 3, axis=1)
    h = layer.filter(30).detach().numpy()
    for n, gate in enumerate(gates):
        convolved = np.stack([np.convolve(h[n, c], v[:, c])[:30] for c in range(4)], 1)
        v = gate * (convolved + w["D"][n] * v)
    expected = v @ w["out_proj.weight"].T + w["out_proj.bias"]
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), expected, rtol=1e-9, atol=1e-10)


def test_a_filter_is_the_same_for_every_length():
    filters = make_filter()
    torch.testing.assert_close(filters(300)[..., :7], filters(7))
    assert filters(0).shape == (2, 4, 0)


def test_windows_have_unit_energy_and_die_away_on_the_scale_of_time():
    for time_scale in (16.0, 128.0):
        filters = make_filter(time_scale=time_scale)
        t = torch.arange(8 * time_scale, dtype=torch.float64) / time_scale
        window = filters._window(t)
        torch.testing.assert_close(window.square().sum(0), torch.ones(4, dtype=torch.float64))
        after = window[int(1.5 * time_scale)] / window[0]
        torch.testing.assert_close(after[0].item(), 0.01)
        assert (after <= 0.01 + 1e-9).all()


def test_one_unit_of_time_is_time_scale_tokens():
    slow, fast = make_filter(time_scale=64.0), make_filter(time_scale=32.0)
    fast.load_state_dict(slow.state_dict())
    ratio = slow(64)[..., ::2] / fast(32)
    # The same function of time but for the constant that gives each window unit energy.
    torch.testing.assert_close(ratio, ratio[..., :1].expand_as(ratio), rtol=1e-3, atol=1e-4)


def test_a_token_costs_no_pass_over_the_past(monkeypatch):
    """Of 256 steps, each evaluates 10 lags of the filters on average, not 128."""
    layer, points = Hyena(4), []
    evaluate = layer.filter.forward
    monkeypatch.setattr(layer.filter, "forward", lambda n: points.append(n) or evaluate(n))
    state = layer.init_state(2)
    for _ in range(256):
        _, state = layer.step(torch.randn(2, 4), state)
    assert len(points) == 256
    assert sum(points) == 256 * 10
    assert [past.n_tokens for past in state.long] == [256, 256]


def test_a_long_stream_is_forward():
    torch.manual_seed(0)
    layer, x = Hyena(4, time_scale=32.0).eval(), torch.randn(2, 200, 4)
    expected, state, outputs = layer(x), layer.init_state(2), []
    for chunk in torch.split(x, [100, *[1] * 40, 60], dim=1):
        y, state = layer.extend(chunk, state)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, dim=1), expected, rtol=1e-5, atol=1e-5)


def test_modal_filters_are_the_sum_of_their_modes():
    torch.manual_seed(0)
    layer = Hyena(3, filter="modal", d_state=4).double()
    weights = {name: tensor.numpy() for name, tensor in layer.filter.state_dict().items()}
    pole = np.exp(-np.exp(weights["A_log"]) + 1j * weights["A_imag"])
    R = weights["R"][..., 0] + 1j * weights["R"][..., 1]
    t = np.arange(50)
    expected = (R[..., None] * pole[..., None] ** t).sum(-2).real
    np.testing.assert_allclose(layer.filter(50).detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_modal_filters_begin_with_unit_energy_whatever_the_scale_of_time():
    torch.manual_seed(0)
    for time_scale in (64.0, 512.0):
        filters = Hyena(64, filter="modal", time_scale=time_scale).filter(int(4 * time_scale))
        assert 0.8 < filters.square().sum(-1).mean() < 1.2


@pytest.mark.parametrize("kind", ["implicit", "modal"])
def test_autocast_keeps_the_filter_in_float32(kind):
    torch.manual_seed(0)
    layer, x = Hyena(16, filter=kind), torch.randn(2, 9, 16)
    expected = layer.filter(9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.filter(9).equal(expected)
        y = layer(x)
        y_0, _ = layer.step(x[:, 0], layer.init_state(2))
    assert y.dtype == y_0.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        "d_model",
        "order",
        "d_conv",
        "n_frequencies",
        "d_filter",
        "n_filter_layers",
        "time_scale",
        "filter_frequency",
    ],
)
def test_a_wrong_argument_is_named(wrong):
    with pytest.raises(ArgumentError, match=f"hyena: {wrong} is 0, allowed is >"):
        Hyena(**{"d_model": 8, wrong: 0})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"filter": "modall"}, "filter is 'modall', allowed are 'implicit', 'modal'. Did you mean 'modal'"),
        ({"filter": "modal", "d_state": 3}, "d_state is 3, allowed is an even number"),
        ({"filter": "modal", "d_state": 0}, "d_state is 0, allowed is >= 2"),
        ({"filter": "modal", "time_scale": 0.0}, "time_scale is 0.0, allowed is > 0"),
    ],
)
def test_a_wrong_option_of_modal_filters_is_named(wrong, message):
    with pytest.raises(ArgumentError, match=f"hyena: {message}"):
        Hyena(**{"d_model": 8, **wrong})
