"""The linear-attention layers over several chunks of torch-chunked: whole, in pieces and backwards."""

from __future__ import annotations

import pytest
import torch

from helix_kernel.backends import BackendSelector
from helix_ssm.layers.gated_deltanet import GatedDeltaNet
from helix_ssm.layers.gla import GLA
from helix_ssm.layers.rwkv7 import RWKV7
from helix_ssm.ops.chunked import ChunkedBackend

LAYERS = (GatedDeltaNet, GLA, RWKV7)
SEQ_LEN = 150


@pytest.fixture(name="chunked")
def fixture_chunked():
    return BackendSelector({"torch-chunked": ChunkedBackend()})


def make(layer):
    torch.manual_seed(0)
    return layer(32), torch.randn(2, SEQ_LEN, 32)


def outputs_and_gradients(layer, x):
    layer.zero_grad()
    y = layer(x)
    y.square().mean().backward()
    return [y.detach(), *(parameter.grad for parameter in layer.parameters())]


def assert_close(actual, expected, tolerance):
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("layer", LAYERS)
def test_agrees_with_the_references_in_float64(layer, chunked):
    layer, x = make(layer)
    with chunked.using(["torch-chunked"]):
        found = outputs_and_gradients(layer, x)
    expected = outputs_and_gradients(layer.double(), x.double())
    for actual, wanted, tolerance in zip(found, expected, [1e-5] + [1e-4] * (len(found) - 1), strict=True):
        assert_close(actual, wanted, tolerance)


@pytest.mark.parametrize("layer", LAYERS)
def test_pieces_of_any_length_are_the_whole(layer, chunked):
    layer, x = make(layer)
    with chunked.using(["torch-chunked"]), torch.no_grad():
        whole, state, pieces = layer(x), layer.init_state(2), []
        for piece in x.split([1, 63, 0, 70, 16], dim=1):
            y, state = layer.extend(piece, state)
            pieces.append(y)
    assert_close(torch.cat(pieces, dim=1), whole, 1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_packed_rows_are_as_if_each_came_alone(layer, chunked):
    layer, x = make(layer)
    bounds = torch.tensor([0, 2, 2, 90, SEQ_LEN])
    with chunked.using(["torch-chunked"]), torch.no_grad():
        packed = layer(x[:1], cu_seqlens=bounds)
        alone = [layer(x[:1, start:end]) for start, end in ((0, 2), (2, 90), (90, SEQ_LEN))]
    assert_close(packed, torch.cat(alone, dim=1), 1e-5)
