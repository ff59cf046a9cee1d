from __future__ import annotations

import numpy as np
import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.conv import Conv


class TestConv(LayerSuite):
    def make_layer(self):
        return Conv(self.d_model)


class TestDepthwiseDilatedConv(LayerSuite):
    def make_layer(self):
        return Conv(self.d_model, kernel_size=3, dilation=2, depthwise=True, bias=False)


class TestConvOfOneTap(LayerSuite):
    def make_layer(self):
        return Conv(self.d_model, kernel_size=1)


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("dilation", [1, 3])
def test_it_is_the_sum_over_taps(depthwise, dilation):
    torch.manual_seed(0)
    layer = Conv(4, kernel_size=3, dilation=dilation, depthwise=depthwise).double()
    x = torch.randn(2, 10, 4, dtype=torch.float64)
    W, bias = (layer.conv.state_dict()[name].numpy() for name in ("weight", "bias"))
    expected = np.zeros((2, 10, 4)) + bias
    for t in range(10):
        for k in range(3):
            past = t - (2 - k) * dilation
            if past >= 0:
                x_past = x[:, past].numpy()
                expected[:, t] += x_past * W[:, 0, k] if depthwise else x_past @ W[:, :, k].T
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_weights_are_those_of_torchs_conv1d():
    layer, torchs = Conv(4, depthwise=True), torch.nn.Conv1d(4, 4, 4, groups=4)
    torchs.load_state_dict(layer.conv.state_dict())
    x = torch.randn(2, 9, 4)
    torch.testing.assert_close(layer(x)[:, 3:], torchs(x.mT).mT)


@pytest.mark.parametrize("wrong", ["d_model", "kernel_size", "dilation"])
def test_a_wrong_argument_is_named(wrong):
    with pytest.raises(ArgumentError, match=f"conv: {wrong} is 0, allowed is >= 1"):
        Conv(**{"d_model": 8, wrong: 0})
