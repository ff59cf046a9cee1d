from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.rms_norm import RMSNorm


class TestRMSNorm(LayerSuite):
    def make_layer(self):
        return RMSNorm(self.d_model)


def test_agrees_with_torch():
    layer, x = RMSNorm(6, eps=1e-3), torch.randn(2, 5, 6)
    torch.nn.init.normal_(layer.weight)
    torch.testing.assert_close(layer(x), F.rms_norm(x, (6,), layer.weight, eps=1e-3))


def test_a_token_of_zeros_stays_zero():
    assert not RMSNorm(6)(torch.zeros(1, 2, 6)).any()


def test_print_shows_width_and_eps():
    assert repr(RMSNorm(6)) == "RMSNorm(6, eps=1e-05)"


def test_a_wrong_width_is_refused():
    with pytest.raises(ArgumentError, match="d_model=6"):
        RMSNorm(6)(torch.zeros(1, 2, 5))
