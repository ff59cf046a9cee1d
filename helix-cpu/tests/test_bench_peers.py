"""Peers compute what we compute, on sizes small enough for a test; those not installed are skipped."""

from __future__ import annotations

import time

import pytest
import torch

from helix_cpu.bench import inputs, models, ours
from helix_cpu.bench.contest import AbsentError, distance, seconds
from helix_cpu.bench.memory import activations_of_gradients, peak_beyond_results
from helix_cpu.bench.peers import (
    fla_naive,
    ggml,
    jax_scan,
    mambapy_scan,
    require,
    torch_forms,
    transformers_slow,
)
from helix_cpu.bench.port_bound import port_bound
from helix_cpu.library import Kernel

SCAN, SSD = (2, 11, 12, 5), (2, 11, 4, 8, 16)
HEADS = (1, 11, 2, 64)  # ggml reads beyond narrower heads
CASES = {
    "selective_scan": (inputs.scan, SCAN, ours.selective_scan),
    "selective_scan_with_gradients": (inputs.scan, SCAN, ours.selective_scan_with_gradients),
    "ssd_scan": (inputs.ssd, SSD, ours.ssd_scan),
    "ssd_scan_with_gradients": (inputs.ssd, SSD, ours.ssd_scan_with_gradients),
    "causal_conv1d": (inputs.conv, (2, 11, 12, 4), ours.causal_conv1d),
    "long_conv": (inputs.long_conv, (2, 40, 6), ours.long_conv),
    "long_conv_in_blocks": (inputs.long_conv, (2, 40, 6), ours.long_conv),
    "gated_rms_norm": (inputs.norm, (2, 11, 12), ours.gated_rms_norm),
    "gla": (inputs.gated, HEADS, ours.gla),
    "gated_delta_rule": (inputs.delta_rule, HEADS, ours.gated_delta_rule),
    "rwkv7": (inputs.rwkv, HEADS, ours.rwkv7),
}
PEERS = (transformers_slow, mambapy_scan, jax_scan, ggml, fla_naive, torch_forms)
SIDES = [(peer, name) for peer in PEERS for name in CASES if hasattr(peer, name)]


@pytest.mark.parametrize(
    ("peer", "name"), SIDES, ids=[f"{peer.__name__.rpartition('.')[2]}-{name}" for peer, name in SIDES]
)
def test_it_computes_what_we_do(peer, name):
    draw, sizes, own = CASES[name]
    drawn = draw(*sizes)
    found, expected = result(theirs(peer, name, drawn)), result(own(drawn))
    assert found.shape == expected.shape
    assert distance(found, expected) < 2e-5


@pytest.mark.parametrize("peer", [transformers_slow, jax_scan], ids=["transformers", "jax"])
def test_a_decoding_step_is_ours(peer):
    drawn = inputs.scan(1, 1, 12, 5)
    state = torch.randn(1, 12, 5, generator=torch.Generator().manual_seed(1))
    try:
        entry = peer.selective_scan_step(drawn, state)
    except AbsentError as error:
        pytest.skip(str(error))
    assert distance(result(entry), result(ours.selective_scan_step(drawn, state))) < 1e-5


def test_a_module_that_is_not_there_names_the_command():
    with pytest.raises(AbsentError, match="absent: pip install no-such-thing"):
        require("no_such_thing", "no-such-thing")


def test_old_versions_of_ggml_are_refused(monkeypatch):
    ggml.libraries.cache_clear()
    monkeypatch.setattr(ggml, "installed", lambda _: "0.3.9")
    with pytest.raises(AbsentError, match=r"too old \(0\.3\.9\): pip install 'llama-cpp-python>=0\.3\.36'"):
        ggml.libraries()


def test_the_port_bound_does_every_instruction(isa):
    sink = torch.full((16,), -1.0)
    Kernel("port_bound", "2q")(sink.data_ptr(), 12_000)
    lanes = int((sink != -1).sum())
    # Each of 12 chains of x / 2 + 1 has come to its fixed point.
    assert sink[:lanes].tolist() == [24.0] * lanes
    few, many = (least_seconds(port_bound(n, 13).run) for n in (1_000_000, 8_000_000))
    assert 5 < many / few < 11, isa


@pytest.mark.parametrize(("on_the_way", "beyond_results"), [(0, 0), (200, 100)])
def test_memory_counts_what_is_held_on_the_way(on_the_way, beyond_results):
    megabyte = 1 << 18  # of float32

    def run():
        torch.ones(on_the_way, megabyte)  # and freed
        return (torch.ones(100, megabyte),)

    run()
    assert peak_beyond_results(run) / (1 << 20) == pytest.approx(beyond_results, abs=12)


@pytest.mark.slow
def test_gradients_of_the_scan_need_little_memory():
    assert 0 < activations_of_gradients(1, 512, 768, 16) <= 6


@pytest.mark.slow
def test_a_patched_model_reads_a_prompt_as_an_unpatched_one():
    found, expected = result(models.patched_prefill(16)), result(models.prefill(16))
    assert distance(found, expected) < 1e-4


def least_seconds(run):
    return min(seconds(run, 3, time.thread_time) for _ in range(5))


def theirs(peer, name, drawn):
    try:
        function = getattr(peer, name)
        return function(drawn, 1) if peer is ggml else function(drawn)
    except AbsentError as error:
        pytest.skip(str(error))


def result(entry):
    return entry.read(entry.run())
