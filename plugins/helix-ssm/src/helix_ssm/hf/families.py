"""The models of `transformers` that fit: what each value of their config.json is called in Helix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping


@attrs.frozen
class Field:
    """A value that both sides have.

    Args:
        name: Its name in config.json.
        option: The option of the language model that it is, such as ``mixer.d_state``.
        default: What `transformers` takes where config.json leaves it out; its type is the value's.
    """

    name: str
    option: str
    default: float


@attrs.frozen
class Fixed:
    """A value of config.json that must be what it is, since Helix's layer does that one thing.

    Args:
        name: Its name in config.json.
        allowed: What it may be; what `transformers` takes where it is left out comes first.
    """

    name: str
    allowed: tuple[Any, ...]


@attrs.frozen(kw_only=True)
class Family:
    """One kind of model.

    Args:
        model_type: What config.json calls it.
        architecture: The class of `transformers` that it is.
        mixer: The Helix layer that its blocks hold.
        fields: The values that both sides have.
        fixed: The values that must be what they are.
        ours: Options of the mixer that config.json has no word for, with what they are in this kind
            of model.
        initial: Options of the mixer that only say how weights begin, and config.json has no word for.
        has_dt_rank: Whether delta has a rank, and config.json the width of the inner channels.
        has_heads: Whether inner channels form heads, and delta may be limited.
    """

    model_type: str
    architecture: str
    mixer: str
    fields: tuple[Field, ...]
    fixed: tuple[Fixed, ...]
    ours: Mapping[str, Any] = attrs.field(factory=dict)
    initial: tuple[str, ...] = ()
    has_dt_rank: bool = False
    has_heads: bool = False


def _trunk(*, vocab_size: int, hidden_size: int, n_layers: int, tied: bool) -> tuple[Field, ...]:
    return (
        Field("vocab_size", "vocab_size", vocab_size),
        Field("hidden_size", "d_model", hidden_size),
        Field("num_hidden_layers", "n_layers", n_layers),
        Field("tie_word_embeddings", "tie_embeddings", tied),
        Field("layer_norm_epsilon", "norm.eps", 1e-5),
    )


def _mixer(*, state_size: int) -> tuple[Field, ...]:
    return (
        Field("state_size", "mixer.d_state", state_size),
        Field("conv_kernel", "mixer.d_conv", 4),
        Field("expand", "mixer.expand", 2),
        Field("use_conv_bias", "mixer.conv_bias", default=True),
        Field("use_bias", "mixer.bias", default=False),
        Field("time_step_min", "mixer.dt_min", 1e-3),
        Field("time_step_max", "mixer.dt_max", 0.1),
    )


_SILU = Fixed("hidden_act", ("silu", "swish"))
_RMS_NORM = Fixed("rms_norm", (True,))

_MAMBA_FIELDS = (
    *_trunk(vocab_size=50280, hidden_size=768, n_layers=32, tied=True),
    *_mixer(state_size=16),
)

MAMBA = Family(
    model_type="mamba",
    architecture="MambaForCausalLM",
    mixer="mamba",
    fields=_MAMBA_FIELDS,
    fixed=(_SILU, _RMS_NORM),
    ours={"bcdt_rms_eps": None},
    has_dt_rank=True,
)

FALCON_MAMBA = Family(
    model_type="falcon_mamba",
    architecture="FalconMambaForCausalLM",
    mixer="mamba",
    fields=(*_MAMBA_FIELDS, Field("mixer_rms_eps", "mixer.bcdt_rms_eps", 1e-6)),
    fixed=(_SILU, _RMS_NORM),
    has_dt_rank=True,
)

# Some folders also say norm_before_gate = true. transformers reads it nowhere: it norms after the gate.
MAMBA2 = Family(
    model_type="mamba2",
    architecture="Mamba2ForCausalLM",
    mixer="mamba2",
    fields=(
        *_trunk(vocab_size=32768, hidden_size=4096, n_layers=64, tied=False),
        *_mixer(state_size=128),
        Field("head_dim", "mixer.head_dim", 64),
        Field("n_groups", "mixer.n_groups", 8),
        Field("time_step_floor", "mixer.dt_init_floor", 1e-4),
        Field("layer_norm_epsilon", "mixer.norm_eps", 1e-5),
    ),
    fixed=(_SILU, _RMS_NORM),
    initial=("A_init_range",),
    has_heads=True,
)

FAMILIES = {family.model_type: family for family in (MAMBA, FALCON_MAMBA, MAMBA2)}
