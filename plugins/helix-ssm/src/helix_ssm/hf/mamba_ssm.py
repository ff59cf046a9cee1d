"""The config.json of the models' authors' own package, mamba_ssm, in the words of `transformers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_ssm.hf.refusal import unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

_TRUNK = {
    "d_model": "hidden_size",
    "n_layer": "num_hidden_layers",
    "tie_embeddings": "tie_word_embeddings",
    "rms_norm": "rms_norm",
}
_MIXER = {
    "d_state": "state_size",
    "d_conv": "conv_kernel",
    "expand": "expand",
    "conv_bias": "use_conv_bias",
    "bias": "use_bias",
    "dt_min": "time_step_min",
    "dt_max": "time_step_max",
}
_MIXERS: dict[str, dict[str, str]] = {
    "Mamba1": {**_MIXER, "dt_rank": "time_step_rank"},
    "Mamba2": {**_MIXER, "headdim": "head_dim", "ngroups": "n_groups", "dt_limit": "time_step_limit"},
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "Mamba1": {"model_type": "mamba"},
    "Mamba2": {"model_type": "mamba2", "state_size": 128, "head_dim": 64, "n_groups": 1},
}
_REQUIRED: dict[str, Any] = {
    "d_intermediate": 0,
    "attn_layer_idx": [],
    "D_has_hdim": False,
    "rmsnorm": True,
    "norm_before_gate": False,
    "d_ssm": None,
}
# How weights began, and how fast kernels run: the package stores these too.
_HARMLESS = (
    "layer",
    "dt_init",
    "dt_scale",
    "dt_init_floor",
    "A_init_range",
    "conv_init",
    "chunk_size",
    "use_fast_path",
    "use_mem_eff_path",
)
_WHOLE = ("d_model", "vocab_size", "pad_vocab_size_multiple", "expand", "headdim")


def is_mamba_ssm(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is one of mamba_ssm: `transformers` always names the model_type."""
    return "model_type" not in config and {"d_model", "n_layer"} <= config.keys()


def as_transformers(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return a config.json of mamba_ssm as `transformers` would have it, any other one as it is.

    Args:
        config: The parsed config.json.
        source: Where it comes from, for messages.

    Raises:
        IncompatibleCheckpointError: It has an option that no model of `transformers` has.
    """
    if not is_mamba_ssm(config):
        return dict(config)
    mixer = config.get("ssm_cfg") or {}
    layer = mixer.get("layer", "Mamba1")
    if layer not in _MIXERS:
        raise unsupported(source, "ssm_cfg.layer", layer, " or ".join(_MIXERS))
    _check(config, mixer, layer, source)
    written = {
        **_DEFAULTS[layer],
        "tie_word_embeddings": True,
        "vocab_size": _padded(config),
        **{theirs: config[name] for name, theirs in _TRUNK.items() if name in config},
        **{theirs: mixer[name] for name, theirs in _MIXERS[layer].items() if name in mixer},
    }
    if layer == "Mamba2":
        written["num_heads"] = written.get("expand", 2) * written["hidden_size"] // written["head_dim"]
    return written


def _check(config: Mapping[str, Any], mixer: Mapping[str, Any], layer: str, source: str) -> None:
    for name, value in (*mixer.items(), *config.items()):
        if name in _REQUIRED and value != _REQUIRED[name]:
            raise unsupported(source, name, value, repr(_REQUIRED[name]))
        if name in _WHOLE and not (type(value) is int and value >= 1):
            raise unsupported(source, name, value, "a whole number >= 1")
    unknown = [name for name in mixer if name not in {*_MIXERS[layer], *_REQUIRED, *_HARMLESS}]
    if unknown:
        raise unsupported(source, f"ssm_cfg.{unknown[0]}", mixer[unknown[0]], "leaving it out")


def _padded(config: Mapping[str, Any]) -> int:
    """Return the rows of the embedding: the vocabulary, rounded up to a multiple."""
    multiple: int = config.get("pad_vocab_size_multiple", 8)
    vocab_size: int = config.get("vocab_size", 50277)
    return -(-vocab_size // multiple) * multiple
