"""A whole model through transformers: Mamba of 130 million parameters, with random weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from helix_cpu.bench.contest import Entry
from helix_cpu.bench.peers import require

_SIZES = {"hidden_size": 768, "num_hidden_layers": 24, "vocab_size": 50280, "state_size": 16}
"""Of state-spaces/mamba-130m."""


def prefill(seq_len: int) -> Entry:
    """Read a prompt in transformers as it is, up to the logits of the next token."""
    model, ids = _model(), _prompt(seq_len)
    return Entry(lambda: _read(model, ids), lambda logits: logits)


def patched_prefill(seq_len: int) -> Entry:
    """The same in transformers with our kernels in it."""
    from helix_cpu.transformers import patch_transformers

    model, ids = _model(), _prompt(seq_len)

    def run() -> Any:
        with patch_transformers():
            return _read(model, ids)

    return Entry(run, lambda logits: logits)


@cache
def _model() -> Any:
    transformers = require("transformers", "transformers")
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = transformers.MambaForCausalLM(transformers.MambaConfig(**_SIZES)).eval()
    torch.random.set_rng_state(state)
    return model


def _prompt(seq_len: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(_SIZES["vocab_size"], (1, seq_len), generator=generator)


def _read(model: Any, ids: torch.Tensor) -> Any:
    with torch.no_grad():
        return model(ids, logits_to_keep=1, use_cache=False).logits
