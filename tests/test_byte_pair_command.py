"""The command `helix tokenizer`, and the walk from files to generated text by what it trains."""

from __future__ import annotations

import json
import math

import pytest

TEXT = "the cat sat on the mat and the dög sat on the lög\n" * 200


@pytest.fixture
def corpus(tmp_path):
    """A folder with two texts, one of which holds bytes that are none."""
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/a.txt").write_text(TEXT)
    (tmp_path / "corpus/b.bin").write_bytes(b"the cat \xff\xfe\n" * 40)
    return tmp_path / "corpus"


@pytest.fixture
def trained(helix, corpus, tmp_path):
    """A tokenizer trained on the folder."""
    out = tmp_path / "new/tokenizer.json"
    options = ["--vocab-size", 275, "--special", "<|end|>", "--special", "<|more|>", "--json"]
    code, printed, err = helix("tokenizer", "train", out, corpus, *options)
    assert code == 0, err
    assert err == ""
    found = json.loads(printed)
    assert found["vocab_size"] == 275
    assert found["special_tokens"] == {"<|end|>": 0, "<|more|>": 1}
    assert found["bytes"] == len(TEXT.encode()) + 440
    return out


def test_a_tokenizer_is_shown_with_bytes_per_token(helix, trained, corpus):
    code, printed, err = helix("tokenizer", "show", trained, corpus / "a.txt", corpus / "b.bin", "--json")
    assert code == 0, err
    found = json.loads(printed)
    assert found["vocab_size"] == 275
    text, other, both = found["files"]
    assert text["bytes"] == len(TEXT.encode())
    assert text["bytes_per_token"] == text["bytes"] / text["tokens"] > 2
    assert other["tokens"] >= 3 * 40  # a byte that is no text is a token of its own
    assert (both["path"], both["tokens"]) == ("all", text["tokens"] + other["tokens"])
    _, shown, _ = helix("tokenizer", "show", trained, corpus)
    assert "<|end|> = 0, <|more|> = 1" in shown
    assert f"{both['bytes_per_token']:.3f}" in shown


def test_training_twice_gives_the_same_file(helix, trained, corpus, tmp_path):
    again = tmp_path / "again.json"
    options = ["--vocab-size", 275, "--special", "<|end|>", "--special", "<|more|>"]
    code, *_ = helix("tokenizer", "train", again, corpus / "*.txt", corpus / "b.bin", *options)
    assert code == 0
    assert again.read_bytes() == trained.read_bytes()


def test_a_file_is_overwritten_only_by_force(helix, trained, corpus):
    before = trained.read_bytes()
    code, _, err = helix("tokenizer", "train", trained, corpus, "--vocab-size", 270)
    assert (code, trained.read_bytes()) == (2, before)
    assert "exists; choose another path, or overwrite it with --force" in err
    code, *_ = helix("tokenizer", "train", trained, corpus, "--vocab-size", 270, "--force")
    assert code == 0
    assert trained.read_bytes() != before
    assert [file.name for file in trained.parent.iterdir()] == ["tokenizer.json"]


def test_a_text_with_few_pairs_gives_fewer_tokens_and_says_so(helix, tmp_path):
    (tmp_path / "text").write_text("ab ab\n")
    code, _, err = helix("tokenizer", "train", tmp_path / "out.json", tmp_path / "text", "--vocab-size", 999)
    assert code == 0
    assert err == "note: 257 tokens instead of 999: no other pair occurs 2 times\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "out.json", "text"], "--vocab-size is missing"),
        (["train", "out.json", "--vocab-size", 300], "no files are given"),
        (["train", "out.json", "text", "--vocab-size", 100], "vocab_size is 100, allowed is >= 256"),
        (["train", "out.json", "empty", "--vocab-size", 300], "is an empty file"),
        (["train", "out.json", "binary", "--vocab-size", 300], "hold no text in UTF-8"),
        (["train", "out.json", "gone", "--vocab-size", 300], "does not exist"),
        (["train", "text", "text", "--vocab-size", 300], "exists"),
        (["show", "gone.json"], "cannot be read"),
        (["show", "text"], "is not a tokenizer.json"),
        (
            ["show", "text", "--vocab-size", 300, "--force"],
            "--vocab-size, --force: for helix tokenizer train",
        ),
        (["shwo", "text"], 'Did you mean "show"'),
    ],
    ids=[
        "size",
        "paths",
        "small",
        "empty",
        "binary",
        "gone",
        "exists",
        "no-file",
        "none",
        "options",
        "action",
    ],
)
def test_bad_input_ends_with_exit_code_2_and_leaves_nothing(helix, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("some text\n")
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\xff\xfe" * 9)
    code, _, err = helix("tokenizer", *arguments)
    assert code == 2
    assert words in err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["binary", "empty", "text"]


def test_a_place_that_cannot_be_written_ends_with_exit_code_1(helix, corpus):
    code, _, err = helix("tokenizer", "train", corpus / "a.txt/out.json", corpus, "--vocab-size", 300)
    assert code == 1
    assert "cannot write" in err


def test_without_the_library_the_extra_is_named(helix, corpus, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    code, _, err = helix("tokenizer", "show", corpus / "a.txt")
    assert code == 2
    assert "pip install 'helix-data[tokenizers]'" in err


def test_a_model_over_its_tokens_trains_evaluates_and_generates(helix, trained, corpus, write, tmp_path):
    config = write(f"""
        [model]
        use = "language-model"
        d_model = 16
        n_layers = 1
        vocab_size = 275
        mixer.use = "min-gru"

        [data]
        use = "text-tokens"
        paths = ['{corpus}']
        tokenizer = {{ use = "byte-pair", path = '{trained}' }}
        seq_len = 32
        batch_size = 4

        [loss]
        use = "cross-entropy"

        [optimizer]
        use = "adamw"
        lr = 2e-2

        [schedule]
        use = "constant"

        [trainer]
        out = '{tmp_path}/run'
        steps = 30
        """)
    code, _, err = helix("train", config)
    assert code == 0, err
    assert "tokens of 275 ids" in err
    code, printed, err = helix("eval", tmp_path / "run", "--json")
    assert code == 0, err
    found = json.loads(printed)
    bits = found["loss_per_token"] * found["tokens"] / math.log(2)
    assert found["bits_per_byte"] == pytest.approx(bits / found["bytes"], rel=0.01)
    assert found["bits_per_byte"] < 8
    code, printed, err = helix("generate", tmp_path / "run", "--prompt", "the cat", "--n-bytes", 20)
    assert code == 0, err
    assert printed.startswith("the cat")
    assert len(printed.encode()) >= len("the cat") + 20
