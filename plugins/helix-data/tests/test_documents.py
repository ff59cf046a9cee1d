"""Documents out of files: what each format yields, where it can be entered, and what it says of damage."""

from __future__ import annotations

import csv
import gzip
import io
import json
import subprocess
import sys
import tarfile

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_data.documents.document import START, Corrupt, Document
from helix_data.documents.formats import FormatOptions, format_of
from helix_kernel.errors import DependencyError

TEXTS = ["first", "zwei\nlines", 'with "quotes", and commas', "日本語", "last"]


def read(path, start=START, **options):
    return list(FormatOptions(**options).of(path.name).read(path, start))


def texts(records):
    return [record.data.decode() if isinstance(record, Document) else None for record in records]


def damage(records):
    return [(record.place, record.reason) for record in records if isinstance(record, Corrupt)]


def tar_of(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def written(folder, name, documents):
    """Write documents in the format that a file's name stands for, with the libraries that write it."""
    path = folder / name
    kind = format_of(name)
    if kind == "parquet":
        pl.DataFrame({"n": range(len(documents)), "text": documents}).write_parquet(path, row_group_size=2)
        return path
    if kind == "jsonl":
        data = "".join(json.dumps({"n": 1, "text": text}) + "\n" for text in documents).encode()
    elif kind in ("csv", "tsv"):
        lines = io.StringIO()
        rows = [["n", "text"], *([n, text] for n, text in enumerate(documents))]
        csv.writer(lines, delimiter="\t" if kind == "tsv" else ",").writerows(rows)
        data = lines.getvalue().encode()
    else:
        data = tar_of({f"a.b/{number}.txt": text.encode() for number, text in enumerate(documents)})
    path.write_bytes(gzip.compress(data) if name.endswith((".gz", ".tgz")) else data)
    return path


NAMES = ["a.jsonl", "a.ndjson.gz", "a.csv", "a.csv.gz", "a.tsv", "a.parquet", "a.tar", "a.tar.gz", "a.tgz"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_yields_its_documents_in_order(tmp_path, name):
    assert texts(read(written(tmp_path, name, TEXTS))) == TEXTS


@pytest.mark.parametrize("name", NAMES)
def test_a_file_can_be_entered_after_any_record(tmp_path, name):
    path = written(tmp_path, name, TEXTS)
    records = read(path)
    for number, record in enumerate(records, start=1):
        assert read(path, record.after) == records[number:]


@given(documents=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.tar"])
def test_any_text_comes_back_and_any_record_can_be_entered_after(tmp_path_factory, name, documents):
    path = written(tmp_path_factory.mktemp("any"), name, documents)
    records = read(path)
    assert texts(records) == documents
    middle = records[len(records) // 2]
    assert read(path, middle.after) == records[len(records) // 2 + 1 :]


def test_a_file_of_text_or_bytes_is_one_document(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"a\n\xff\n")
    assert [record.data for record in read(path)] == [b"a\n\xff\n"]
    assert damage(read(path, format="text")) == [
        ("the file", "is not UTF-8: byte 2 is 0xff (invalid start byte)")
    ]


def test_lines_are_documents_but_blank_ones(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\r\n\n  \n two \nb\xff\nlast")
    records = read(path, format="lines")
    assert texts(records) == ["one", " two ", None, "last"]
    assert [record.place for record in records] == ["line 1", "line 4", "line 5", "line 6"]
    assert read(path, records[1].after, format="lines") == records[2:]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a"', "is not JSON: Expecting ',' delimiter at character 12"),
        (b"[1]", "is a list, not an object"),
        (b"null", "is null, not an object"),
        (b'{"txet": "a"}', "has no field 'text'; it has 'txet'. Did you mean 'txet'?"),
        (b"{}", "has no field 'text'; it has none."),
        (b'{"text": 5}', "'text' is a number, not text"),
        (b'{"text": "\\ud800"}', "'text' has half a surrogate pair"),
        (b'{"text": "\xff"}', "'utf-8' codec can't decode byte 0xff in position 10: invalid start byte"),
        (b"[" * 100_000, "is nested too deep"),
        (b'{"n": ' + b"1" * 5000 + b"}", None),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value and value[:20],
)
def test_a_corrupt_line_of_json_is_named_and_the_rest_is_read(tmp_path, line, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "before"}\n' + line + b'\n\n{"text": "after"}')
    records = read(path)
    assert texts(records) == ["before", None, "after"]
    assert records[1].place == "line 2"
    assert records[1].reason == reason or (reason is None and "4300 digits" in records[1].reason)


@pytest.mark.parametrize(
    ("row", "place", "reason"),
    [
        (b"1\n", "line 3", "has 1 fields where the first line has 2"),
        (b"1,b,c\n", "line 3", "has 3 fields where the first line has 2"),
        (b"1,\xff\n", "line 3", "is not UTF-8: invalid start byte"),
        (b'1,"b"c\n', "line 3", "is not CSV: ',' expected after '\"'"),
    ],
)
def test_a_corrupt_row_is_named_and_the_rest_is_read(tmp_path, row, place, reason):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbftext,n\nbefore,1\n" + row + b"after,2\n")
    records = read(path)
    assert texts(records) == ["before", None, "after"]
    assert damage(records) == [(place, reason)]


def test_a_quote_that_is_never_closed_is_named_where_it_opens(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'text\nbefore\n"open\nand\nmore\n')
    records = read(path)
    assert texts(records) == ["before", None]
    assert damage(records) == [("line 3", "is not CSV: unexpected end of data")]


def test_a_field_of_csv_may_be_large(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text\n" + "x" * 1_000_000 + "\n")
    assert [len(record.data) for record in read(path)] == [1_000_000]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_column_that_is_missing_is_said_with_those_there_are(tmp_path, name):
    records = read(written(tmp_path, name, TEXTS), field="txt")
    assert texts(records) == [None]
    assert "has no column 'txt'; it has 'n', 'text'. Did you mean 'text'?" in records[0].reason


def test_parquet_holds_text_or_bytes(tmp_path):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"text": [b"\xff", None, b"b"], "n": [1, 2, 3]}).write_parquet(path)
    records = read(path)
    assert [getattr(record, "data", None) for record in records] == [b"\xff", None, b"b"]
    assert damage(records) == [("row 2", "is null")]
    assert (
        "column 'n' holds Int64, not text (String) or bytes (Binary)" in damage(read(path, field="n"))[0][1]
    )


@pytest.mark.parametrize("kept", [0, 10, 1500, -1], ids=["none", "a-head", "some-rows", "all-but-a-byte"])
def test_parquet_that_is_cut_off_is_corrupt(tmp_path, kept):
    path = written(tmp_path, "a.parquet", [text * 50 for text in TEXTS])
    path.write_bytes(path.read_bytes()[:kept])
    records = read(path)
    assert texts(records) == [None]
    assert records[0].reason.startswith("the file is damaged, and the rest of it is lost: ")


def test_parquet_that_is_damaged_inside_yields_what_stands_before(tmp_path):
    rows = 20_000
    path = tmp_path / "a.parquet"
    pl.DataFrame({"text": [f"row {n} " + "x" * n for n in range(1, 1001)] * 20}).write_parquet(
        path, row_group_size=1000, compression="snappy"
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20_000] = bytes(20_000)
    path.write_bytes(data)
    records = read(path)
    assert isinstance(records[-1], Corrupt)
    assert 0 < len(records) < rows
    assert all(isinstance(record, Document) for record in records[:-1])
    assert records[-1].place == f"after row {len(records) - 1}"


def test_without_polars_parquet_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(DependencyError, match=r"pip install 'helix-data\[polars\]'"):
        read(tmp_path / "a.parquet")


def test_a_large_parquet_file_is_read_in_bounded_memory(tmp_path):
    """250 row groups, 250 MB: read in a process of its own, which tells its peak."""
    path = tmp_path / "a.parquet"
    group = pl.DataFrame({"text": [f"{number:06}" + "x" * 994 for number in range(1000)]}).lazy()
    pl.concat([group] * 250).sink_parquet(path, row_group_size=1000, compression="uncompressed")
    assert path.stat().st_size > 250_000_000
    code = (
        "import resource, polars; from pathlib import Path\n"
        "from helix_data.documents.formats import FormatOptions\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"found = FormatOptions().of('a.parquet').read(Path({str(path)!r}))\n"
        "print(sum(len(record.data) for record in found), "
        "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    total, grown = map(int, done.stdout.split())
    assert total == 250_000_000
    assert grown < 150_000, f"{grown} KiB more than before"


def test_members_of_a_suffix_are_documents_and_a_sample_without_one_is_corrupt(tmp_path):
    path = tmp_path / "a.tar"
    members = {"x/1.png": b"?", "x/1.txt": b"one", "x/2.png": b"?", "x/3.seg.txt": b"no", "x/3.txt": b"three"}
    path.write_bytes(tar_of(members))
    records = read(path, member="txt")
    assert texts(records) == ["one", None, "three"]
    assert damage(records) == [("sample x/2", "has no member 'x/2.txt'; it has x/2.png")]
    assert read(path, records[0].after, member="txt") == records[1:]
    assert len(read(path)) == 5


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_tar_that_is_cut_off_yields_what_stands_before_and_says_so(tmp_path, name, share):
    documents = [f"{number} " * 2000 for number in range(20)]
    path = written(tmp_path, name, documents)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    records = read(path)
    assert isinstance(records[-1], Corrupt)
    assert texts(records[:-1]) == documents[: len(records) - 1]
    assert records[-1].place == f"after member {len(records) - 1}"
    assert "the rest of it is lost" in records[-1].reason


def test_a_damaged_header_is_not_taken_for_the_end_of_an_archive(tmp_path):
    path = written(tmp_path, "a.tar", ["one", "two", "three"])
    data = bytearray(path.read_bytes())
    data[1024:1100] = b"\xff" * 76
    path.write_bytes(data)
    records = read(path)
    assert texts(records) == ["one", None]
    assert "no header and no end mark at byte 1024" in records[1].reason


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz", "a.txt.gz"])
def test_a_compressed_file_that_is_cut_off_says_so(tmp_path, name):
    lines = [json.dumps({"text": str(number) * 50}) for number in range(3000)]
    path = tmp_path / name
    path.write_bytes(
        gzip.compress(("text\n" if "csv" in name else "").encode() + "\n".join(lines).encode())[:-400]
    )
    records = read(path)
    assert isinstance(records[-1], Corrupt)
    assert "the rest of it is lost: Compressed file ended" in records[-1].reason


@given(data=st.binary(max_size=2000))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("name", [*NAMES, "a.txt"])
def test_any_bytes_are_read_without_an_error(tmp_path_factory, name, data):
    path = tmp_path_factory.mktemp("hostile") / name
    path.write_bytes(data)
    for record in read(path):
        assert isinstance(record, Document | Corrupt)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("name", NAMES)
def test_a_file_with_a_byte_changed_is_read_without_an_error(tmp_path_factory, name, data):
    path = written(tmp_path_factory.mktemp("changed"), name, TEXTS)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    for record in read(path):
        assert isinstance(record, Document | Corrupt)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("A.JSONL", "jsonl"), ("a.tar.gz", "tar"), ("a.csv.gz", "csv"), ("a", "bytes"), ("a.gz", "bytes")],
)
def test_the_name_of_a_file_tells_its_format(name, kind):
    assert format_of(name) == kind
