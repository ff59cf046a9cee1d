from __future__ import annotations

import numpy as np
import pytest
import torch

from helix_ssm.layers import modes


def system(kind, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    rate, weight, B, state = -draw(3, 4).abs() / 20, draw(3, 4), draw(3, 4), draw(2, 3, 4)
    if kind == "complex":
        rate, weight = torch.complex(rate, draw(3, 4)), torch.complex(weight, draw(3, 4))
        state = torch.complex(state, draw(2, 3, 4))
    return rate, weight, B, state, draw


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("seq_len", [0, 1, 63, 64, 65, 200])
def test_all_three_are_the_recurrence(kind, seq_len):
    """h_t = exp(rate) h_{t-1} + B x_t, y_t = Re(w h_t), one time after another in numpy."""
    rate, weight, B, state, draw = system(kind)
    x = draw(2, seq_len, 3)
    h, free, impulse, after = state.numpy(), state.numpy(), np.ones((3, 4)), []
    expected_free, expected_impulse = [], []
    for t in range(seq_len):
        h = np.exp(rate.numpy()) * h + B.numpy() * x.numpy()[:, t, :, None]
        free = np.exp(rate.numpy()) * free
        expected_free.append((weight.numpy() * free).sum(-1).real)
        expected_impulse.append((weight.numpy() * impulse).sum(-1).real)
        impulse = np.exp(rate.numpy()) * impulse
    after = modes.final_state(rate, B, state, x)
    np.testing.assert_allclose(after.numpy(), h, rtol=1e-11, atol=1e-11)
    response = modes.free_response(rate, weight, state, seq_len)
    assert response.shape == (2, seq_len, 3)
    kernel = modes.impulse_response(rate, weight, seq_len)
    assert kernel.shape == (3, seq_len)
    if seq_len:
        np.testing.assert_allclose(response.numpy(), np.stack(expected_free, 1), rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(kernel.numpy(), np.stack(expected_impulse, 1), rtol=1e-11, atol=1e-11)


def test_autocast_leaves_the_sums_alone():
    rate, weight, B, state, draw = system("real")
    rate, weight, B, state, x = (v.float() for v in (rate, weight, B, state, draw(2, 70, 3)))
    calls = [
        lambda: modes.impulse_response(rate, weight, 70),
        lambda: modes.free_response(rate, weight, state, 70),
        lambda: modes.final_state(rate, B, state, x),
    ]
    for call in calls:
        expected = call()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert call().equal(expected)
