"""What the tests of helix-ray share: a tiny config and its text."""

from __future__ import annotations

import pytest

CONFIG = """
[model]
use = "language-model"
d_model = 8
n_layers = 1
mixer = { use = "min-gru" }
[data]
use = "text-bytes"
paths = ["text.txt"]
seq_len = 16
batch_size = 2
[loss]
use = "cross-entropy"
[optimizer]
use = "adamw"
lr = 0.01
[schedule]
use = "constant"
[trainer]
steps = 8
log_every = 1
checkpoint_every = 2
measure_speed = false
samples = 0
out = "run"
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder with ``config.toml`` and its text."""
    folder = tmp_path_factory.mktemp("ray")
    (folder / "config.toml").write_text(CONFIG)
    (folder / "text.txt").write_bytes(bytes(range(97, 123)) * 200)
    return folder
