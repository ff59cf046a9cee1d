"""A folder's tokenizer comes with the model, cuts text as transformers cuts it, and goes back with it."""

from __future__ import annotations

import shutil

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import helix_kernel
from helix_kernel import checkpoint, load_config
from helix_kernel.config import resolve_document
from helix_kernel.nesting import nest
from helix_ssm.hf import export_hf, import_hf

TEXT = "a state space model, a model of states"


@pytest.fixture
def spoken(folder):
    """The folder of a model with a tokenizer that begins every text by a token of its own."""
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "<unk>", *sorted(set(TEXT.replace(",", " ,").split()))]
    backend = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>").save_pretrained(folder)
    return folder


def test_it_is_in_the_config_and_cuts_text_as_transformers_does(spoken, tmp_path):
    from transformers import AutoTokenizer

    done = import_hf(spoken, tmp_path / "run")
    assert done.tokenizer == tmp_path / "run/hf/tokenizer.json"
    config = load_config(tmp_path / "run/config.toml")
    ours = config.kernel.build("tokenizer", config["tokenizer"])
    expected = AutoTokenizer.from_pretrained(spoken)(TEXT)["input_ids"]
    assert expected[0] == 0
    assert ours.encode(TEXT.encode()).tolist() == expected


def test_its_files_go_back_as_they_were(spoken, tmp_path):
    import_hf(spoken, tmp_path / "run")
    done = export_hf(tmp_path / "run", tmp_path / "back")
    assert {"tokenizer.json", "tokenizer_config.json"} <= set(done.beside)
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == sorted(
        path.name for path in spoken.iterdir()
    )
    for name in done.beside:
        assert (tmp_path / "back" / name).read_bytes() == (spoken / name).read_bytes()


def test_a_model_trained_on_its_tokens_takes_it_along(spoken, tmp_path):
    from transformers import AutoTokenizer

    file = spoken / "tokenizer.json"
    mixer = {"use": "mamba", "d_state": 2}
    config = resolve_document(
        {
            "model": {
                "use": "language-model", "d_model": 8, "n_layers": 1, "vocab_size": 16, "mixer": mixer
            },
            "tokenizer": {"use": "hf-tokenizer", "path": str(file)},
        }
    )  # fmt: skip
    model = config.kernel.build("layer", config["model"])
    attributes = {"config": config.to_dict(), "components": config.versions(), "step": 1}
    checkpoint.save(tmp_path / "step-00000001", {"model": nest(model.state_dict())}, attributes=attributes)
    done = export_hf(tmp_path / "step-00000001", tmp_path / "out")
    assert {"tokenizer.json", "tokenizer_config.json"} <= set(done.beside)
    assert "generation_config.json" not in done.beside
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs(TEXT) == AutoTokenizer.from_pretrained(spoken)(TEXT)
    file.unlink()
    assert export_hf(tmp_path / "step-00000001", tmp_path / "again").missing == (str(file),)


def test_without_helix_data_the_model_is_imported_all_the_same(spoken, tmp_path):
    kernel = helix_kernel.Kernel(plugins=["helix-ssm"])
    done = import_hf(spoken, tmp_path / "run", kernel=kernel)
    assert done.tokenizer.is_file()
    assert "tokenizer" not in checkpoint.Checkpoint.open(done.checkpoint).attributes["config"]
    ids = torch.arange(6).view(1, 6)
    shutil.rmtree(tmp_path / "run/hf")  # the weights do not need it
    assert helix_kernel.load_model(tmp_path / "run", kernel=kernel)(ids).shape == (1, 6, 101)


def test_generate_continues_text_as_transformers_does(spoken, make_theirs, variants, tmp_path, capsys):
    from transformers import AutoTokenizer

    from helix_kernel.cli import main

    theirs = make_theirs({**variants["mamba-untied"], "vocab_size": 9})
    theirs.save_pretrained(spoken)
    tokenizer = AutoTokenizer.from_pretrained(spoken)
    prompt = tokenizer("a model of", return_tensors="pt")["input_ids"]
    mask = torch.ones_like(prompt)
    done = theirs.generate(prompt, attention_mask=mask, max_new_tokens=40, do_sample=False)
    expected = tokenizer.decode(done[0, prompt.shape[1] :])
    import_hf(spoken, tmp_path / "run")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["generate", str(tmp_path / "run"), "--prompt=a model of", "--temperature=0", "--n-bytes=60"])
    assert ended.value.code == 0
    found = capsys.readouterr().out.removesuffix("\n")
    assert len(found) >= 70
    assert f"a model of {expected}".startswith(found)
