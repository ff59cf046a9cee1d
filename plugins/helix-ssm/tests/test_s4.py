from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.hippo import legs
from helix_ssm.layers.s4 import S4


class TestS4(LayerSuite):
    def make_layer(self):
        return S4(self.d_model, d_state=8)


class TestS4OfTwoStates(LayerSuite):
    def make_layer(self):
        return S4(self.d_model, d_state=2, dt_min=0.1, dt_max=2.0)


def dense_system(layer, channel):
    """Return scipy's discrete (A, B, C) of one channel from its parameters, dense."""

    def both(x):
        x = torch.view_as_complex(x[channel].double().contiguous()).detach().numpy()
        return np.concatenate([x, x.conj()])

    Lambda = both(torch.stack([-layer.A_log.exp(), layer.A_imag], dim=-1))
    P, B, C = both(layer.P), both(layer.B), both(layer.C)
    A = np.diag(Lambda) - np.outer(P, P.conj())
    dt = layer.log_dt[channel].double().exp().item()
    A, B, *_ = scipy.signal.cont2discrete((A, B[:, None], C[None], [[0.0]]), dt, method="bilinear")
    return A, B[:, 0], C


def power_iteration(layer, seq_len):
    """Return C A^k B for k < seq_len, (D, seq_len), by dense products in float64."""
    rows = []
    for channel in range(layer.d_model):
        A, h, C = dense_system(layer, channel)
        row = []
        for _ in range(seq_len):
            row.append((C @ h).real)
            h = A @ h
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("seq_len", [1, 2, 7, 300])
@pytest.mark.parametrize("d_state", [2, 64])
def test_kernel_is_the_dense_power_iteration(d_state, seq_len):
    torch.manual_seed(0)
    layer = S4(4, d_state=d_state, dt_min=1e-4, dt_max=1.0).double()
    expected = power_iteration(layer, seq_len)
    np.testing.assert_allclose(
        layer.kernel(seq_len).detach().numpy(), expected, atol=1e-10 * np.abs(expected).max()
    )


def test_kernel_of_a_long_sequence_is_exact_in_float32():
    """The slowest channel still rings at the end of it: nothing may wrap around."""
    torch.manual_seed(0)
    layer = S4(2, d_state=16, dt_min=1e-4, dt_max=1e-3)
    expected = power_iteration(layer, 4096)
    assert np.abs(expected[:, -1]).max() > 1e-2 * np.abs(expected).max()
    np.testing.assert_allclose(
        layer.kernel(4096).detach().numpy(), expected, atol=1e-6 * np.abs(expected).max()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernel_does_not_depend_on_the_length(dtype):
    torch.manual_seed(0)
    layer = S4(3, d_state=32, dt_min=1e-4).to(dtype)
    long = layer.kernel(1000)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-11
    for seq_len in (0, 1, 31, 512, 999):
        difference = (layer.kernel(seq_len) - long[:, :seq_len]).abs()
        assert difference.numel() == 0 or difference.max() <= tolerance * long.abs().max()


def test_it_begins_as_hippo_legs():
    """The kernel for a C that reads one Legendre coefficient is that of the dense HiPPO system."""
    torch.manual_seed(0)
    layer = S4(1, d_state=16).double()
    A, B = (x.numpy() for x in legs(16))
    dt = layer.log_dt[0].exp().item()
    A, B, *_ = scipy.signal.cont2discrete((A, B[:, None], B[None], [[0.0]]), dt, method="bilinear")
    expected, h = [], B[:, 0]
    for _ in range(40):
        expected.append(legs(16)[1].numpy() @ h)
        h = A @ h
    with torch.no_grad():  # C = B^T is B's conjugate in the diagonal basis
        layer.C.copy_(layer.B * torch.tensor([1.0, -1.0]))
    # Its parameters were drawn in float32.
    np.testing.assert_allclose(layer.kernel(40)[0].detach().numpy(), expected, rtol=1e-4)


def test_state_after_a_chunk_is_the_dense_recurrences():
    torch.manual_seed(0)
    layer = S4(2, d_state=8).double()
    x = torch.randn(1, 50, 2, dtype=torch.float64)
    state = torch.randn(1, 2, 4, 2, dtype=torch.float64)
    y, after = layer._system().run(
        torch.cat([torch.view_as_complex(state), torch.view_as_complex(state).conj()], -1), x
    )
    for channel in range(2):
        A, B, C = dense_system(layer, channel)
        h = torch.view_as_complex(state)[0, channel].numpy()
        h = np.concatenate([h, h.conj()])
        expected = []
        for u in x[0, :, channel].tolist():
            h = A @ h + B * u
            expected.append((C @ h).real)
        np.testing.assert_allclose(y[0, :, channel].detach().numpy(), expected, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(after[0, channel].detach().numpy(), h, rtol=1e-9, atol=1e-10)


def test_it_stays_stable_however_it_is_trained():
    torch.manual_seed(0)
    layer = S4(3, d_state=8).double()
    for parameter in (layer.A_log, layer.A_imag, layer.P, layer.log_dt):
        torch.nn.init.normal_(parameter, std=3)
    for channel in range(3):
        A, _, _ = dense_system(layer, channel)
        assert (np.abs(np.linalg.eigvals(A)) < 1).all()


def test_what_describes_the_system_does_not_decay():
    layer = S4(4, d_state=4)
    marked = {
        name for name, parameter in layer.named_parameters() if getattr(parameter, "_no_weight_decay", False)
    }
    assert marked == {"log_dt", "A_log", "A_imag", "P", "B"}


def test_autocast_keeps_the_kernel_exact():
    torch.manual_seed(0)
    layer, x = S4(16, d_state=8), torch.randn(2, 9, 16)
    expected = layer.kernel(9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.kernel(9).equal(expected)
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d_model": 0}, "s4: d_model is 0"),
        ({"d_state": 0}, "s4: d_state is 0"),
        ({"d_state": 5}, "s4: d_state is 5, allowed is an even number"),
        ({"dt_min": 1.0}, "s4: dt_min is 1.0 and dt_max 0.1, allowed is 0 < dt_min <= dt_max"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ArgumentError, match=message):
        S4(**{"d_model": 8, **wrong})
