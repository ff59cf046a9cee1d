"""Every mixer in a model of the same number of parameters: what one has fewer, its mlp gets."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from helix_kernel import default_kernel

D_MODEL = 64
N_LAYERS = 2
PARAMETERS = 90_000
TOLERANCE = 0.03

_ATTENTION = {"use": "attention", "n_heads": 4, "head_dim": 32}
_MAMBA2 = {"use": "mamba2", "d_state": 64, "head_dim": 32}

# Options are the layers' own, but for heads that four fit into so small a width, and for inner widths of
# twice the model's where a layer has the choice: a mixer half as large would get a wide mlp to make up for
# it, and that slows learning. (Attention does not learn mqar in these steps with an mlp of 227 channels.)
MIXERS: dict[str, dict[str, Any]] = {
    "attention": {"mixer": _ATTENTION},
    "mamba": {"mixer": {"use": "mamba"}},
    "mamba2": {"mixer": _MAMBA2},
    "mamba3": {"mixer": {"use": "mamba3", "d_state": 64, "head_dim": 32}},
    "s4": {"mixer": {"use": "s4"}},
    "s4d": {"mixer": {"use": "s4d"}},
    "s5": {"mixer": {"use": "s5"}},
    "hyena": {"mixer": {"use": "hyena"}},
    "multi-hybrid": {
        "pattern": [
            {"use": "multi-hybrid", "operator": "short-explicit"},
            {"use": "multi-hybrid", "operator": "long-implicit"},
        ]
    },
    "min-gru": {"mixer": {"use": "min-gru"}},
    "rg-lru": {"mixer": {"use": "rg-lru", "d_rnn": 128}},
    "gla": {"mixer": {"use": "gla", "n_heads": 4, "expand_k": 1.0, "expand_v": 2.0}},
    "gated-deltanet": {"mixer": {"use": "gated-deltanet", "n_heads": 4}},
    "rwkv7": {"mixer": {"use": "rwkv7"}},
    "lstm": {"mixer": {"use": "rnn", "cell": "lstm"}},
    "mamba2, attention": {"pattern": [_MAMBA2, _ATTENTION]},
}


def model_table(name: str, vocab_size: int) -> dict[str, Any]:
    """Return the config table of the language model with a mixer.

    Args:
        name: A key of `MIXERS`.
        vocab_size: Ids.
    """
    base = {
        "use": "language-model",
        "d_model": D_MODEL,
        "n_layers": N_LAYERS,
        "vocab_size": vocab_size,
        "tie_embeddings": False,
        **MIXERS[name],
    }
    return with_mlp(base, PARAMETERS)


def with_mlp(base: dict[str, Any], parameters: int) -> dict[str, Any]:
    """Return the table with an mlp in each block, so wide that the number of parameters is as wanted.

    Args:
        base: Table of a language model without a channel layer.
        parameters: How many there are to be, but for those of embedding and head.

    Raises:
        SystemExit: No width comes near enough.
    """

    def table(width: int) -> dict[str, Any]:
        return {**base, "channel": {"use": "mlp", "d_hidden": width}}

    least, more = count(table(1)), count(table(2))
    width = 1 + max(0, math.ceil((parameters - least) / (more - least)))
    found = count(table(width))
    if abs(found / parameters - 1) > TOLERANCE:
        raise SystemExit(f"{base}: {found} parameters at the nearest, wanted are {parameters}")
    return table(width)


def count(table: dict[str, Any]) -> int:
    """Return a model's parameters without its embedding and head."""
    with FakeTensorMode():
        model = default_kernel().build("layer", table)
    return sum(
        p.numel() for name, p in model.named_parameters() if not name.startswith(("embedding", "head"))
    )


def state_size(table: dict[str, Any], context: int) -> int:
    """Return how many numbers a model carries on, for one sequence, after so many tokens; nothing is run."""
    with FakeTensorMode(), torch.no_grad():
        model = default_kernel().build("layer", table).eval()
        _, state = model.extend(torch.zeros(1, context, dtype=torch.int64), model.init_state(1))
        return sum(leaf.numel() for leaf in tree_leaves(state) if leaf.is_floating_point())
