"""On a GPU every layer computes what it computes on the CPU, in each of its three modes."""

import importlib

import pytest
import torch

from helix_ssm import plugin
from helix_ssm.layers.language_model import LanguageModel

D_MODEL = 16
MODELS = ("language-model", "span-infiller", "classifier")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def load(component):
    module, _, attribute = component.target.partition(":")
    return getattr(importlib.import_module(module), attribute)


LAYERS = {c.name: load(c) for c in plugin.helix_layers() if c.name not in MODELS}
STATEFUL = [name for name, layer in LAYERS.items() if hasattr(layer, "init_state")]


@pytest.fixture(name="device")
def fixture_device():
    return "cuda"


def assert_close(actual, expected):
    scale = max(expected.abs().max().item(), 1.0)
    torch.testing.assert_close(actual.cpu(), expected.cpu(), rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_gradients_equal_the_cpus(name, device):
    torch.manual_seed(0)
    layer, x = LAYERS[name](D_MODEL), torch.randn(2, 33, D_MODEL)
    results = []
    for place in ("cpu", device):
        layer.to(place).zero_grad()
        inputs = x.to(place, copy=True).requires_grad_()
        y = layer(inputs)
        y.square().mean().backward()
        results.append([y.detach(), inputs.grad, *(p.grad.clone() for p in layer.parameters())])
    for on_cpu, on_gpu in zip(*results, strict=True):
        assert_close(on_gpu, on_cpu)


@pytest.mark.parametrize("mixer", STATEFUL)
def test_a_language_model_streams_there(mixer, device):
    torch.manual_seed(0)
    model = LanguageModel(D_MODEL, n_layers=2, mixer=LAYERS[mixer]).to(device).eval()
    ids = torch.randint(0, 256, (2, 12), device=device)
    with torch.inference_mode():
        whole = model(ids)
        state = model.init_state(2, device=torch.device(device))
        chunk, state = model.extend(ids[:, :7], state)
        steps = []
        for t in range(7, 12):
            logits, state = model.step(ids[:, t], state)
            steps.append(logits)
    assert_close(torch.cat([chunk, torch.stack(steps, dim=1)], dim=1), whole)
