from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.s4d import S4D, initial_modes

INITS = ("lin", "inv", "legs", "real")


class TestS4DLin(LayerSuite):
    def make_layer(self):
        return S4D(self.d_model, d_state=8)


class TestS4DInv(LayerSuite):
    def make_layer(self):
        return S4D(self.d_model, d_state=8, init="inv")


class TestS4DLegS(LayerSuite):
    def make_layer(self):
        return S4D(self.d_model, d_state=8, init="legs", discretization="bilinear")


class TestS4DReal(LayerSuite):
    def make_layer(self):
        return S4D(self.d_model, d_state=5, init="real")


def continuous_system(layer, channel):
    """Return scipy's (A, B, C, D) of one channel with all of its conjugate modes written out."""
    A = -layer.A_log[channel].exp()
    C = layer.C[channel]
    if layer.A_imag is not None:
        A = torch.complex(A, layer.A_imag[channel])
        C = torch.view_as_complex(C.contiguous())
        A, C = torch.cat([A, A.conj()]), torch.cat([C, C.conj()])
    A, C = A.detach().numpy(), C.detach().numpy()
    return np.diag(A), np.ones((len(A), 1)), C[None], np.array([[layer.D[channel].item()]])


class TestS4DRealBilinear(LayerSuite):
    def make_layer(self):
        return S4D(self.d_model, d_state=5, init="real", discretization="bilinear", dt_max=1.0)


def discrete_system(layer, channel, dt):
    """Return scipy's discrete (A, B), C and our D: scipy's bilinear rule moves half an input into y."""
    A, B, C, D = continuous_system(layer, channel)
    A, B, _, _, _ = scipy.signal.cont2discrete((A, B, C, D), dt, method=layer.discretization)
    return A, B, C, D[0, 0], dt


@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
@pytest.mark.parametrize("init", INITS)
def test_each_channel_is_scipys_discrete_system(init, discretization):
    torch.manual_seed(0)
    layer = S4D(3, d_state=6, init=init, discretization=discretization).double()
    x = torch.randn(1, 40, 3, dtype=torch.float64)
    y = layer._convolve(x)
    for channel in range(3):
        dt = layer.log_dt[channel].exp().item()
        A, B, C, D, _ = discrete_system(layer, channel, dt)
        h, expected = np.zeros(len(A)), []
        for u in x[0, :, channel].tolist():
            h = A @ h + B[:, 0] * u
            expected.append((C @ h)[0] + D * u)
        np.testing.assert_allclose(
            y[0, :, channel].detach().numpy(), np.real(expected), rtol=1e-9, atol=1e-10
        )


def test_kernel_is_scipys_impulse_response():
    torch.manual_seed(0)
    layer = S4D(1, d_state=4, init="real").double()
    A, B, C, _ = continuous_system(layer, 0)
    dt = layer.log_dt[0].exp().item()
    A, B, C, D, _ = scipy.signal.cont2discrete((A, B, C, np.zeros((1, 1))), dt, method="zoh")
    _, (response,) = scipy.signal.dimpulse((A, B, C, D, dt), n=21)
    # scipy reads out the state before the input enters it, so that its response comes one step later.
    np.testing.assert_allclose(layer.kernel(20)[0].detach().numpy(), response[1:, 0], rtol=1e-9)


@pytest.mark.parametrize("seq_len", [0, 1, 63, 64, 65, 200])
def test_kernel_is_the_papers_sum_at_every_length(seq_len):
    """Equation 4, mode by mode in plain numbers."""
    torch.manual_seed(0)
    layer = S4D(2, d_state=4).double()
    rate, B, C = (x.detach().numpy() for x in layer._system())
    expected = np.real(
        sum((C * B)[:, n, None] * np.exp(rate[:, n, None] * np.arange(seq_len)) for n in range(2))
    )
    np.testing.assert_allclose(layer.kernel(seq_len).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_initial_modes_are_the_papers():
    n = np.arange(4)
    np.testing.assert_allclose(initial_modes("lin", 8).numpy(), -0.5 + 1j * math.pi * n, rtol=1e-6)
    inverse_law = -0.5 + 1j * 8 / math.pi * (8 / (2 * n + 1) - 1)
    np.testing.assert_allclose(initial_modes("inv", 8).numpy(), inverse_law, rtol=1e-6)
    np.testing.assert_allclose(initial_modes("real", 4).numpy(), [-1, -2, -3, -4])


def test_legs_modes_are_the_eigenvalues_of_hippos_normal_part():
    n = np.arange(16)
    A = -np.sqrt(np.outer(2 * n + 1, 2 * n + 1))
    A = np.tril(A, -1) - np.diag(n + 1)
    P = np.sqrt(n + 0.5)
    modes = np.linalg.eigvals(A + np.outer(P, P))
    modes = sorted(modes[modes.imag > 0], key=lambda mode: mode.imag)
    np.testing.assert_allclose(initial_modes("legs", 16).numpy(), modes, rtol=1e-5)


def test_the_bilinear_rule_takes_a_real_mode_past_zero():
    """At dt A below -2 the discrete mode is negative, at -2 it is zero: both finite, gradients too."""
    layer = S4D(1, d_state=3, init="real", discretization="bilinear").double()
    with torch.no_grad():
        layer.log_dt.zero_()
        layer.A_log.copy_(torch.tensor([[0.5, 2.0, 8.0]]).log())
    mode = np.array([(1 - 0.25) / (1 + 0.25), 0, (1 - 4) / (1 + 4)])
    weight = layer.C[0].detach().numpy() / np.array([1.25, 2, 5])
    expected = [(weight * mode**k).sum() for k in range(9)]
    kernel = layer.kernel(9)[0]
    np.testing.assert_allclose(kernel.detach().numpy(), expected, atol=1e-6)
    kernel.sum().backward()
    assert layer.A_log.grad.isfinite().all()


def test_modes_stay_stable_however_they_are_trained():
    layer = S4D(2, d_state=4)
    torch.nn.init.normal_(layer.A_log, std=3)
    rate, _, _ = layer._system()
    assert (rate.exp().abs() < 1).all()


def test_autocast_keeps_the_kernel_in_float32():
    torch.manual_seed(0)
    for init in INITS:
        layer, x = S4D(16, d_state=8, init=init), torch.randn(2, 9, 16)
        expected = layer.kernel(9)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer.kernel(9).equal(expected)
            y = layer(x)
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), layer(x), rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"discretization": "bilinar"}, "allowed are 'zoh', 'bilinear'. Did you mean 'bilinear'"),
        ({"d_model": 0}, "d_model is 0"),
        ({"d_state": 0}, "d_state is 0"),
        ({"d_state": 5}, "d_state is 5, allowed is an even number"),
        (
            {"init": "linear"},
            "init is 'linear', allowed are 'lin', 'inv', 'legs', 'real'. Did you mean 'lin'",
        ),
        ({"dt_min": 1.0}, "allowed is 0 < dt_min <= dt_max"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ArgumentError, match=message):
        S4D(**{"d_model": 8, **wrong})
