"""`helix data ingest`, `show` and `verify`, as the command line calls them."""

from __future__ import annotations

import inspect
import json

import attrs
import pytest
from ingesting import contents, json_lines

from helix_data import commands
from helix_data.ingestion.run import Tolerance
from helix_data.shards.index import IngestOptions
from helix_kernel import default_kernel
from helix_kernel.cli import main


@pytest.fixture
def helix(capsys):
    """Run a command in this process; gives its exit code, output and errors."""

    def run(*words):
        default_kernel.cache_clear()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("HELIX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus").mkdir()
    json_lines(tmp_path / "corpus/a.jsonl", ["one", "two", "one", ""])
    (tmp_path / "corpus/b.csv").write_text("text,n\nthree,1\nfour\n")
    return tmp_path


def test_ingest_makes_shards_and_says_what_it_left_out(helix, corpus):
    code, out, err = helix("data", "ingest", "out", "corpus", "--dedup", "--on-error", "skip", "--json")
    assert (code, json.loads(out)) == (
        0,
        {
            "path": "out",
            "files": 2,
            "train": {"documents": 3, "bytes": 11, "shards": 1},
            "validation": {"documents": 0, "bytes": 0, "shards": 0},
            "duplicates": 1,
            "empty": 1,
            "skipped": 1,
            "fingerprint": json.loads((corpus / "out/index.json").read_text())["fingerprint"],
        },
    )
    assert "skipped corpus/b.csv: line 3: has 1 fields where the first line has 2" in err


def test_show_reads_the_index_alone(helix, corpus):
    helix("data", "ingest", "out", "corpus/a.jsonl")
    for path in (corpus / "out").glob("train-*"):
        path.unlink()
    code, out, _ = helix("data", "show", "out")
    assert code == 0
    assert "train        3 documents, 9 bytes, 1 shard\n" in out
    assert "corpus/a.jsonl: 3 documents, 0 skipped, 1 empty" in out
    shown = json.loads(helix("data", "show", "out", "--json")[1])
    assert [file["name"] for file in shown["files"]] == ["corpus/a.jsonl"]
    assert shown["options"]["terminator"] == "none"


def test_one_document_of_one_byte_is_told_as_one(helix, corpus):
    (corpus / "one.txt").write_bytes(b"a")
    helix("data", "ingest", "out", "one.txt")
    out = helix("data", "show", "out")[1]
    assert "train        1 document, 1 byte, 1 shard\n" in out
    assert "validation   0 documents, 0 bytes, 0 shards\n" in out
    assert "one.txt: 1 document, 0 skipped, 0 empty\n" in out


def test_verify_names_what_is_damaged_and_ends_with_1(helix, corpus):
    helix("data", "ingest", "out", "corpus/a.jsonl")
    assert helix("data", "verify", "out")[:2] == (0, "out: its one shard is whole\n")
    path = corpus / "out/train-000000-000000.bytes"
    path.write_bytes(b"oneTwoone")
    code, out, _ = helix("data", "verify", "out")
    assert (code, out.split(":")[0]) == (1, path.name)
    path.with_suffix(".ends").unlink()
    code, out, _ = helix("data", "verify", "out", "--json")
    assert code == 1
    assert [said.split(": ")[1] for said in json.loads(out)["damage"]] == [
        json.loads(out)["damage"][0].split(": ")[1],
        "cannot be read",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ingest", "out"], "no files to read"),
        (
            ["ingest", "out", "corpus", "--validation-fraction", "1"],
            "--validation-fraction is 1.0, allowed is",
        ),
        (["ingest", "out", "corpus", "--workers", "0"], "--workers is 0, allowed is >= 1"),
        (["ingest", "out", "nothing.txt"], r"paths[0]='nothing.txt': does not exist"),
        (["ingest", "out", "corpus"], "corpus/b.csv: line 3: has 1 fields"),
        (["ingest", "out", "corpus", "--format", "pdf"], 'Choose from: "auto", "bytes"'),
        (
            ["show", "corpus"],
            "corpus: holds no index.json, and so no finished shards; make them with: helix data",
        ),
        (["shwo", "out"], 'Unknown command "shwo". Did you mean "show"?'),
    ],
)
def test_wrong_input_is_said_and_ends_with_2(helix, corpus, words, message):
    code, _, err = helix("data", *words)
    assert code == 2
    assert message in " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.update(version=2), "is of version 2, and this helix-data reads version 1"),
        (lambda table: table.update(form="x"), "is no index of shards"),
        (lambda table: table.pop("train"), "is damaged: 'train'"),
        (lambda table: table["train"][0].update(bytes="9"), "is damaged: "),
        (lambda table: table["train"][0].update(name="../../x"), "is damaged: "),
        (
            lambda table: table["train"][0].update(sha256="0" * 64),
            "its fingerprint is not that of its shards",
        ),
        (lambda table: table["train"][0].update(more=1), "is damaged: "),
    ],
    ids=["version", "form", "missing", "type", "name", "digest", "unknown"],
)
def test_an_index_that_is_damaged_is_said(helix, corpus, change, words):
    helix("data", "ingest", "out", "corpus/a.jsonl")
    path = corpus / "out/index.json"
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))
    code, _, err = helix("data", "show", "out")
    assert code == 2
    assert words in err


def test_a_killed_ingestion_is_no_dataset(helix, corpus):
    helix("data", "ingest", "out", "corpus")
    assert not any(name.endswith("index.json") for name in contents(corpus / "out"))
    assert helix("data", "verify", "out")[0] == 2


def test_the_command_takes_every_option_with_its_default():
    parameters = inspect.signature(commands.ingest).parameters
    for field in (*attrs.fields(IngestOptions), *attrs.fields(Tolerance)):
        assert parameters[field.name].default == field.default
