"""A dataset sent to another process makes the batches that it made here."""

from __future__ import annotations

import pickle

import pytest
import torch

from helix_kernel import default_kernel

TABLES = [
    {"use": "text-bytes", "seq_len": 16},
    {"use": "span-corruption", "seq_len": 16},
    {"use": "text-tokens", "seq_len": 16},
    {"use": "labelled-files", "seq_len": 16},
]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table["use"])
def test_a_dataset_sent_elsewhere_makes_the_same_batches_and_says_that_it_draws_nothing(tmp_path, table):
    for name in ("a/1", "a/2", "b/1", "b/2"):
        file = tmp_path / f"{name}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(range(256)) * 20 + name.encode())
    where = {"path": str(tmp_path)} if table["use"] == "labelled-files" else {"paths": [str(tmp_path)]}
    dataset = default_kernel().build("dataset", table | where | {"batch_size": 4})
    before = dataset.batch(seed=1, step=2)
    sent = pickle.loads(pickle.dumps(dataset))
    for left, right in zip(before, sent.batch(seed=1, step=2), strict=True):
        assert torch.equal(left, right)
    assert sent.draws is False
