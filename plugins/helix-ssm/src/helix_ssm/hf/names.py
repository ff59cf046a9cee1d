"""What a parameter is called on either side: the trunk differs, and each mixer keeps its published names."""

from __future__ import annotations

import re

from helix_kernel.errors import ArgumentError

_PREFIXES = (
    (r"embedding\.", "backbone.embeddings."),
    (r"blocks\.(\d+)\.mixer_norm\.", r"backbone.layers.\1.norm."),
    (r"blocks\.(\d+)\.mixer\.", r"backbone.layers.\1.mixer."),
    (r"norm\.", "backbone.norm_f."),
    (r"head\.", "lm_head."),
)
HEAD = "lm_head.weight"
EMBEDDING = "backbone.embeddings.weight"


def hf_name(name: str) -> str:
    """Return the name that `transformers` gives to a parameter of a Helix language model.

    Args:
        name: Such as ``blocks.3.mixer.A_log``.

    Raises:
        ArgumentError: It is a parameter that the models of `transformers` have not.
    """
    for ours, theirs in _PREFIXES:
        if re.match(ours, name):
            return re.sub(f"^{ours}", theirs, name)
    raise ArgumentError(
        f"parameter {name!r} has no name in transformers; there are embedding, blocks and head"
    )


def current_name(name: str) -> str:
    """Return today's name of a stored tensor: the first Mamba models, and mamba_ssm, say ``embedding``."""
    return re.sub(r"^backbone\.embedding\.", "backbone.embeddings.", name)
