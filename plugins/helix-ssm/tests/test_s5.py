from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import scipy.stats
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.s5 import S5, hippo_n


class TestS5(LayerSuite):
    def make_layer(self):
        return S5(self.d_model)


class TestS5InBlocks(LayerSuite):
    def make_layer(self):
        return S5(self.d_model, d_state=12, n_blocks=3, dt_min=0.01, dt_max=0.5)


def hippo_normal(n):
    """The normal part of HiPPO-LegS, entry by entry (appendix B.1.1)."""
    i, k = np.indices((n, n)) + 0.5
    off = np.sqrt(i * k)
    return np.where(i > k, -off, np.where(i < k, off, -0.5))


@pytest.mark.parametrize(("d_state", "n_blocks"), [(2, 1), (16, 1), (16, 4), (64, 2)])
def test_A_begins_with_the_eigenvalues_of_the_papers_matrix(d_state, n_blocks):
    dense = scipy.linalg.block_diag(*[hippo_normal(d_state // n_blocks)] * n_blocks)
    modes, vectors = (x.numpy() for x in hippo_n(d_state, n_blocks))
    everything = np.concatenate([modes, modes.conj()])
    expected = np.linalg.eigvals(dense)
    np.testing.assert_allclose(np.sort(everything.imag), np.sort(expected.imag), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(everything.real, -0.5, rtol=1e-6)
    V = np.hstack([vectors, vectors.conj()])
    np.testing.assert_allclose(V @ np.diag(everything) @ V.conj().T, dense, rtol=1e-5, atol=2e-4)
    np.testing.assert_allclose(V.conj().T @ V, np.eye(d_state), atol=1e-6)


def dense_system(layer):
    """Return the real (A, B, C, D) that the layer's modes stand for, scaled by their step sizes.

    A mode's step size dt stretches its time, and so multiplies its eigenvalue and its row of B.
    """
    dt = torch.cat([layer.log_dt, layer.log_dt]).exp().detach().numpy()
    A = torch.complex(-layer.A_log.exp(), layer.A_imag)
    B, C = (torch.view_as_complex(x.detach().contiguous()) for x in (layer.B, layer.C))
    A = torch.cat([A, A.conj()]).detach().numpy()
    B = torch.cat([B, B.conj()]).numpy()
    C = torch.cat([C, C.conj()], dim=1).numpy()
    return np.diag(dt * A), dt[:, None] * B, C, np.diag(layer.D.detach().numpy())


def gated(layer, y):
    """The activation of section 3: GELU, gated by a sigmoid of itself."""
    g = torch.nn.functional.gelu(torch.from_numpy(y))
    return (g * torch.sigmoid(g @ layer.gate.weight.T + layer.gate.bias)).detach().numpy()


def test_the_layer_is_scipys_zero_order_hold_system():
    torch.manual_seed(0)
    layer = S5(3, d_state=8, n_blocks=2).double()
    x = torch.randn(1, 40, 3, dtype=torch.float64)
    A, B, C, D, _ = scipy.signal.cont2discrete(dense_system(layer), 1.0, method="zoh")
    h, ys = np.zeros(len(A)), []
    for u in x[0].numpy():
        h = A @ h + B @ u
        ys.append(np.real(C @ h) + D @ u)
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), gated(layer, np.array(ys)), rtol=1e-8, atol=1e-9)


def in_the_basis_of_hippo(layer):
    """Return (B, C) of the dense system, V undone."""
    _, B, C, _ = dense_system(layer)
    V = hippo_n(layer.d_state, 1)[1].numpy()
    V = np.hstack([V, V.conj()])
    return (V @ B).real, (C @ V.conj().T).real


def test_B_and_C_begin_independent_and_normal_in_the_basis_of_hippo():
    torch.manual_seed(0)
    B, C = in_the_basis_of_hippo(S5(4096, d_state=8, dt_min=1.0, dt_max=1.0))
    np.testing.assert_allclose(B @ B.T, np.eye(8), atol=0.1)
    np.testing.assert_allclose(C.T @ C / 4096, np.eye(8), atol=0.1)
    assert abs(scipy.stats.kurtosis(B, axis=None)) < 0.1


def test_the_layer_begins_as_a_system_with_the_matrix_of_hippo():
    """With one step size, the layer is a dense real system for scipy."""
    torch.manual_seed(0)
    layer = S5(3, d_state=8, dt_min=0.05, dt_max=0.05).double()
    B, C = in_the_basis_of_hippo(layer)
    system = (0.05 * hippo_normal(8), B, C, np.diag(layer.D.detach().numpy()))
    A, B, C, D, _ = scipy.signal.cont2discrete(system, 1.0, method="zoh")
    x = torch.randn(1, 30, 3, dtype=torch.float64)
    # scipy reads out the state before the input enters it: A and B move into the readout.
    _, ys, _ = scipy.signal.dlsim((A, B, C @ A, C @ B + D, 1.0), x[0].numpy())
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), gated(layer, ys), rtol=1e-4, atol=1e-5)


def test_step_sizes_begin_log_uniform_between_their_bounds():
    torch.manual_seed(0)
    dt = S5(4, d_state=512, dt_min=0.01, dt_max=0.2).log_dt.exp()
    assert 0.01 <= dt.min() < 0.012
    assert 0.17 < dt.max() <= 0.2
    assert abs(dt.log().mean() - np.log(0.01 * 0.2) / 2) < 0.2


def test_modes_stay_stable_however_they_are_trained():
    layer = S5(2, d_state=4)
    torch.nn.init.normal_(layer.A_log, std=3)
    assert (layer._system()[0].abs() < 1).all()


def test_autocast_keeps_the_recurrence_in_float32():
    torch.manual_seed(0)
    layer, x = S5(16, d_state=8), torch.randn(2, 9, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = layer.extend(x, layer.init_state(2))
    y.float().sum().backward()
    expected, exact = layer.extend(x, layer.init_state(2))
    assert torch.equal(state, exact)
    torch.testing.assert_close(y.float(), expected, rtol=0.1, atol=0.05)


def test_half_precision_states_keep_the_recurrence_in_float32():
    layer = S5(16, d_state=8).bfloat16()
    y, state = layer.extend(torch.randn(2, 9, 16).bfloat16(), layer.init_state(2))
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d_model": 0}, "d_model is 0"),
        ({"d_state": 0}, "d_state is 0"),
        ({"n_blocks": 0}, "n_blocks is 0"),
        ({"d_state": 12, "n_blocks": 4}, "d_state is 12, allowed is a multiple of 2 n_blocks = 8"),
        ({"dt_min": 1.0}, "allowed is 0 < dt_min <= dt_max"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ArgumentError, match=message):
        S5(**{"d_model": 8, **wrong})
