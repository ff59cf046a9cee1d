"""Rates of a run: operations as PyTorch's own counter has them, a peak that products do reach."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from helix_kernel import default_kernel
from helix_train import speed
from helix_train.speed import Speed, count_flops, peak_flops

CPU = torch.device("cpu")
MIXERS = ["attention", "gated-deltanet", "gla", "hyena", "mamba", "mamba2", "rg-lru", "rwkv7", "s4d", "s5"]


def language_model(mixer):
    torch.manual_seed(0)
    return default_kernel().build(
        "layer",
        {"use": "language-model", "d_model": 16, "n_layers": 1, "vocab_size": 256, "mixer": {"use": mixer}},
    )


def step(model, ids):
    model(ids).square().mean().backward()


class TestRates:
    def test_they_are_of_what_happened_since_the_last_call(self):
        measured = Speed(flops_per_step=600, peak=1000.0)
        first = measured.rates(steps=10, seconds=8.0, waited=2.0)
        assert first == {"data_wait": 0.25, "flops_per_second": 750.0, "mfu": 0.75}
        second = measured.rates(steps=5, seconds=10.0, waited=3.0)
        assert second == {"data_wait": 0.1, "flops_per_second": 300.0, "mfu": 0.3}

    def test_what_is_not_known_is_left_out(self):
        assert Speed().rates(steps=1, seconds=1.0, waited=0.5) == {"data_wait": 0.5}
        assert Speed(flops_per_step=7).rates(steps=2, seconds=2.0, waited=0.0) == {
            "data_wait": 0.0,
            "flops_per_second": 7.0,
        }

    @pytest.mark.parametrize(("seconds", "waited", "share"), [(0.0, 0.0, 0.0), (1.0, 1.5, 1.0)])
    def test_the_share_of_waiting_lies_between_none_and_all(self, seconds, waited, share):
        assert Speed().rates(steps=1, seconds=seconds, waited=waited)["data_wait"] == share


class TestCounting:
    def test_a_linear_layer_takes_three_products(self):
        layer = torch.nn.Linear(5, 7)
        x = torch.ones(3, 5, requires_grad=True)
        assert count_flops(lambda: layer(x).sum().backward(), layer) == 3 * (2 * 3 * 5 * 7)

    @pytest.mark.parametrize("mixer", MIXERS)
    def test_every_op_is_seen_by_whatever_backend_serves_it(self, mixer):
        model, ids = language_model(mixer), torch.arange(80).reshape(2, 40)
        with default_kernel().backends(["reference"]), FlopCounterMode(display=False) as counter:
            step(model, ids)
        with default_kernel().backends(["auto"]):
            step(model, ids)  # a call that is like this one takes the shortcut where nobody listens
            assert count_flops(lambda: step(model, ids), model) == counter.get_total_flops() > 1e6

    def test_a_backward_pass_that_differentiates_within_itself_is_counted(self):
        model, ids = language_model("reversible"), torch.arange(40).reshape(1, 40)
        assert count_flops(lambda: step(model, ids), model) > 1e5

    def test_nothing_of_the_training_is_changed(self):
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5))
        model(torch.randn(8, 4)).sum().backward()
        model[0].bias.grad = None

        def everything():
            generators = torch.get_rng_state(), random.getstate()[1], np.random.get_state()[1]
            gradients = {name: p.grad for name, p in model.named_parameters()}
            copies = {
                name: None if grad is None else (grad, grad.clone()) for name, grad in gradients.items()
            }
            return generators, copies, {name: b.clone() for name, b in model.named_buffers()}

        def run():
            torch.rand(1), random.random(), np.random.rand()
            model(torch.randn(8, 4)).sum().backward()

        generators, gradients, buffers = everything()
        assert count_flops(run, model) > 0
        assert torch.equal(torch.get_rng_state(), generators[0])
        assert random.getstate()[1] == generators[1]
        assert (np.random.get_state()[1] == generators[2]).all()
        assert all(torch.equal(b, buffers[name]) for name, b in model.named_buffers())
        for name, parameter in model.named_parameters():
            assert (parameter.grad is None) == (gradients[name] is None)
            if parameter.grad is not None:
                assert parameter.grad is gradients[name][0]
                assert torch.equal(parameter.grad, gradients[name][1])

    def test_a_pass_that_fails_changes_nothing_either(self):
        model = torch.nn.BatchNorm1d(2)

        def run():
            model(torch.randn(3, 2)).sum().backward()
            raise RuntimeError("out of memory")

        with pytest.raises(RuntimeError, match="out of memory"):
            count_flops(run, model)
        assert int(model.num_batches_tracked) == 0
        assert model.weight.grad is None


class TestPeak:
    @pytest.fixture(autouse=True)
    def measured_anew(self, monkeypatch):
        monkeypatch.setattr(speed, "_BUDGET_S", 0.05)
        speed._measured_peak.cache_clear()
        yield
        speed._measured_peak.cache_clear()

    def test_no_product_is_much_faster(self):
        peak = peak_flops(CPU)
        left = torch.ones(512, 512)
        seconds = []
        for _ in range(10):
            begun = time.perf_counter()
            left @ left
            seconds.append(time.perf_counter() - begun)
        reached = 2 * 512**3 / min(seconds)
        assert 0.2 * peak < reached < 5 * peak

    def test_it_is_measured_once_for_each_device_dtype_and_number_of_threads(self, monkeypatch):
        taken = []
        monkeypatch.setattr(speed, "_rate", lambda size, *rest: taken.append(size) or float(size))
        assert peak_flops(CPU) == peak_flops(CPU) == 1024.0
        assert taken == [256, 512, 1024]
        peak_flops(CPU, torch.bfloat16)
        assert len(taken) == 6
        monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
        peak_flops(CPU)
        assert len(taken) == 9

    def test_the_best_time_of_a_size_counts(self, monkeypatch):
        times = iter([0.0, 10.0, 12.0, 20.0, 21.0, 30.0, 99.0])
        monkeypatch.setattr(speed.time, "perf_counter", lambda: next(times))
        assert speed._rate(10, CPU, torch.float32, 50.0) == 2 * 10**3 / 1.0

    @pytest.mark.gpu
    def test_an_accelerator_is_waited_for(self):
        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
        peak = peak_flops(torch.device("cuda"), torch.bfloat16)
        assert 1e12 < peak < 1e16
