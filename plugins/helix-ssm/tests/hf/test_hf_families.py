"""The tables of names leave nothing out, and know what transformers takes where config.json is silent."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

import helix_kernel
from helix_kernel.config import resolve_document
from helix_kernel.config.schema import schema_of
from helix_kernel.errors import IncompatibleCheckpointError
from helix_ssm.hf.families import FAMILIES
from helix_ssm.hf.fit import shapes_of
from helix_ssm.hf.mamba_ssm import as_transformers
from helix_ssm.hf.read_config import to_model
from helix_ssm.hf.write_config import family_like, to_config

each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))


def test_the_readme_names_every_kind():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Weights that you already have")[2]
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", section, re.MULTILINE)
    assert rows == [(family.model_type, family.mixer) for family in FAMILIES.values()]


def resolved(table):
    return resolve_document({"model": table})["model"]


@each_family
def test_defaults_are_those_of_transformers(family):
    from transformers import AutoConfig

    theirs = AutoConfig.for_model(family.model_type)
    for field in family.fields:
        assert getattr(theirs, field.name) == field.default, field.name
    for fixed in family.fixed:
        default = getattr(theirs, fixed.name, fixed.allowed[0])
        assert default == fixed.allowed[0], fixed.name
    silent = to_model({"model_type": family.model_type}, "here")
    full = json.loads(theirs.to_json_string(use_diff=False))
    assert to_model(full | {"architectures": None}, "here") == silent


@each_family
def test_every_option_of_the_mixer_is_translated_or_known_not_to_be(family):
    kernel = helix_kernel.default_kernel()
    named = {field.option.removeprefix("mixer.") for field in family.fields if "mixer." in field.option}
    derived = {"d_model"} | ({"dt_rank"} if family.has_dt_rank else {"dt_limit"})
    options = schema_of(kernel.find("layer", family.mixer)).options
    assert named | derived | {*family.ours, *family.initial} == set(options)


@each_family
def test_a_config_goes_there_and_back(family):
    model = resolved(to_model({"model_type": family.model_type}, "here"))
    assert family_like(model, "here") is family
    config = to_config(model, family, shapes_of(model, helix_kernel.default_kernel()), "here")
    assert config["architectures"] == [family.architecture]
    assert resolved(to_model(json.loads(json.dumps(config)), "here")) == model


def test_the_inner_width_goes_before_expand_as_in_transformers():
    from transformers import AutoConfig

    config = {"model_type": "mamba", "hidden_size": 32, "expand": 16, "intermediate_size": 96}
    assert AutoConfig.for_model(**config).intermediate_size == 96
    assert to_model(config, "here")["mixer"]["expand"] == 3


def test_an_automatic_rank_is_a_sixteenth_rounded_up():
    assert to_model({"model_type": "mamba", "hidden_size": 40}, "here")["mixer"]["dt_rank"] == 3


def test_the_authors_own_words_mean_the_same():
    config = {
        "d_model": 768,
        "n_layer": 24,
        "vocab_size": 50277,
        "ssm_cfg": {},
        "rms_norm": True,
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 8,
    }
    model = to_model(as_transformers(config, "here"), "here")
    same = {"model_type": "mamba", "hidden_size": 768, "num_hidden_layers": 24, "vocab_size": 50280}
    assert model == to_model(same, "here")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"d_intermediate": 64}, "d_intermediate is 64; supported is 0"),
        ({"attn_layer_idx": [2]}, r"attn_layer_idx is \[2\]; supported is \[\]"),
        ({"rms_norm": False}, "rms_norm is False; supported is True"),
        ({"d_model": "wide"}, "d_model is 'wide'; supported is a whole number"),
        ({"ssm_cfg": {"layer": "Mamba9"}}, "ssm_cfg.layer is 'Mamba9'; supported is Mamba1 or Mamba2"),
        ({"ssm_cfg": {"headdim": 64}}, "ssm_cfg.headdim is 64"),
        ({"ssm_cfg": {"layer": "Mamba2", "norm_before_gate": True}}, "norm_before_gate is True"),
    ],
)
def test_the_authors_options_that_no_layer_has_are_refused(change, told):
    with pytest.raises(IncompatibleCheckpointError, match=f"^here: {told}"):
        to_model(as_transformers({"d_model": 64, "n_layer": 2} | change, "here"), "here")


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        ([0.0, math.inf], None),
        ([0.0, {"__float__": "Infinity"}], None),
        ([0.001, {"__float__": "Infinity"}], (0.001, math.inf)),
        ([0.01, 0.5], (0.01, 0.5)),
    ],
)
def test_a_limit_of_the_time_step(limit, found):
    assert to_model({"model_type": "mamba2", "time_step_limit": limit}, "here")["mixer"]["dt_limit"] == found


def test_the_authors_second_model_in_their_own_words():
    mixer = {"layer": "Mamba2", "headdim": 32, "dt_limit": [0.0, 0.3]}
    config = {"d_model": 64, "n_layer": 2, "vocab_size": 64, "ssm_cfg": mixer, "tie_embeddings": False}
    same = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 64, "num_heads": 4, "head_dim": 32}
    same |= {"model_type": "mamba2", "n_groups": 1, "time_step_limit": [0.0, 0.3]}
    assert to_model(as_transformers(config, "here"), "here") == to_model(same, "here")
