"""Quantizers on two ranks: their codebooks move together, as those of one process with both batches would."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from helix_data.quantizers.codebook import RVQ

pytestmark = pytest.mark.slow

PROGRAM = """
import sys, torch
from helix_data.quantizers.codebook import RVQ
from helix_kernel.errors import HelixError

rank, folder, options = int(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
early = RVQ(8, n_codes=8, kmeans_init=False).train()
torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
try:
    early(torch.randn(2, 8, 8))
except HelixError as error:
    assert "built before its process joined the others" in str(error)
else:
    raise AssertionError("a layer that was built too early learns on its own")
torch.manual_seed(0)
layer = RVQ(8, **options).train()
torch.manual_seed(rank)
batches = torch.load(f"{folder}/batches.pt")
for batch in batches:
    layer(batch[rank::2])
torch.save((layer.state_dict(), layer.measurements()), f"{folder}/{rank}.pt")
torch.distributed.destroy_process_group()
"""


def on_two_ranks(folder, **options):
    """Train a layer on 2 ranks, each on every other row; returns what each rank ends with."""
    torch.manual_seed(0)
    batches = torch.randn(6, 4, 20, 8)
    torch.save(batches, folder / "batches.pt")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(rank), str(folder), repr(options)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank in ranks:
        _, err = rank.communicate(timeout=200)
        assert rank.returncode == 0, err
    return batches, [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_k_means_and_moved_codes_are_the_same_on_both_ranks(tmp_path):
    options = {"n_codes": 16, "n_quantizers": 2, "decay": 0.5, "replace_after": 1}
    _, ((first, measured), (second, other)) = on_two_ranks(tmp_path, **options)
    for name, value in first.items():
        assert value.equal(second[name]), name
    assert measured == other


def test_two_ranks_learn_what_one_process_does_from_both_batches(tmp_path):
    options = {"n_codes": 16, "n_quantizers": 2, "kmeans_init": False, "replace_after": 0}
    batches, ((found, measured), _) = on_two_ranks(tmp_path, **options)
    torch.manual_seed(0)
    layer = RVQ(8, **options).train()
    for batch in batches:
        layer(batch)
    for name, value in layer.state_dict().items():
        torch.testing.assert_close(found[name], value, msg=name)
    assert measured == pytest.approx(layer.measurements())
