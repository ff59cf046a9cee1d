"""Checkpoints that lie in one particular way each."""

import json
import os
from pathlib import Path

from helix_kernel.checkpoint.manifest import MANIFEST
from torture.hostile import valid, write

_PACK = "data-00000.bin"


def documents():
    """Return name → what is done to the document of a valid manifest; what is returned replaces it."""
    deep = b'{"version":1,"refs":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001
    return {
        "an array's path leaves the checkpoint": lambda doc: _rename(doc, "model/w", "../../w"),
        "an array's path is absolute": lambda doc: _rename(doc, "model/w", "/etc/passwd"),
        "a pack's name leaves the checkpoint": lambda doc: _rename_pack(doc, "../../../etc/passwd.bin"),
        "a pack is a device": lambda doc: _rename_pack(doc, "/dev/zero"),
        "a pack's name holds a zero byte": lambda doc: _rename_pack(doc, "a\0.bin"),
        "two arrays share bytes": lambda doc: _refs(doc, "model/b/c/0", [_PACK, 0, 28]),
        "an array begins before its pack": lambda doc: _refs(doc, "model/b/c/0", [_PACK, -64, 28]),
        "an array ends behind its pack": lambda doc: _refs(doc, "model/b/c/0", [_PACK, 2**40, 28]),
        "an array is longer than its shape": lambda doc: _refs(doc, "model/b/c/0", [_PACK, 256, 29]),
        "an array is in no pack": lambda doc: _refs(doc, "model/b/c/0", ["other.bin", 256, 28]),
        "a pack's size is negative": lambda doc: _packs(doc, {_PACK: -1}),
        "a pack's size is no number": lambda doc: _packs(doc, {_PACK: "284"}),
        "there are 100,000 packs": lambda doc: _packs(doc, {f"{i}.bin": 0 for i in range(100_000)}),
        "a length is negative": lambda doc: _shape(doc, [-5, 6]),
        "a shape is huge": lambda doc: _shape(doc, [2**62, 2**62]),
        "a shape is beyond 64 bits": lambda doc: _shape(doc, [2**70, 1]),
        "a shape has 1,000 axes": lambda doc: _shape(doc, [1] * 1000),
        "an empty array has 2**40 shards": lambda doc: _shape(doc, [0, 2**40], [1, 1], empty=True),
        "a shard is huge and its array is not": lambda doc: _shape(doc, [1], [2**40], size=2**43 + 4),
        "a chunk is huge": lambda doc: _shape(doc, [2**40], size=2**43 + 4),
        "a chunk is larger than the memory": lambda doc: _shape(doc, [2**32], size=2**35 + 4),
        "a shard is larger than the memory": lambda doc: _shape(doc, [1], [2**32], size=2**35 + 4),
        "a pack has exabytes": lambda doc: _shape(doc, [2**59], size=2**62 + 4),
        "a chunk has no digest": lambda doc: _digests(doc, []),
        "a chunk has two digests": lambda doc: _digests(doc, ["0" * 32] * 2),
        "a digest is no text": lambda doc: _digests(doc, [["0"]]),
        "a digest is another": lambda doc: _digests(doc, ["0" * 32]),
        "JSON is 100,000 deep": lambda _: deep,
        "the state is 100,000 deep": lambda doc: _state_text(doc, "[" * 100_000 + "]" * 100_000),
        "the state is 900 deep": lambda doc: _state(doc, _deep(900)),
        "the state is 101 deep": lambda doc: _state(doc, _deep(101)),
        "the state is a list": lambda doc: _state(doc, []),
        "the state names an array that is not there": lambda doc: _state(doc, {"x": {"$array": "none"}}),
        "the state names an array by a list": lambda doc: _state(doc, {"x": {"$array": ["model/w"]}}),
        "a mapping has a mapping as its key": lambda doc: _state(doc, {"$dict": [[{"$dict": []}, 1]]}),
        "a tuple is a number": lambda doc: _state(doc, {"x": {"$tuple": 3}}),
        "a float is no bytes": lambda doc: _state(doc, {"x": {"$float": "zz"}}),
        "a float has nine bytes": lambda doc: _state(doc, {"x": {"$float": "00" * 9}}),
        "attributes are no mapping": lambda doc: _root(doc, "attributes", [1]),
        "an attribute cannot be read": lambda doc: _root(doc, "attributes", {"x": {"$float": 3}}),
        "an attribute is an array": lambda doc: _root(doc, "attributes", {"x": {"$array": "model/w"}}),
        "an attribute is 900 deep": lambda doc: _root(doc, "attributes", _deep(900)),
        "an attribute is NaN, which is no JSON": lambda doc: _root(doc, "attributes", {"x": float("nan")}),
        "a tie leads nowhere": lambda doc: _root(doc, "ties", {"x": "none"}),
        "ties lead in a circle": lambda doc: _root(doc, "ties", {"x": "y", "y": "x"}),
        "ties are a list": lambda doc: _root(doc, "ties", ["x"]),
        "a tie leaves the checkpoint": lambda doc: _root(doc, "ties", {"../../x": "model/w"}),
        "the version is a text": lambda doc: _own(doc, "version", "2"),
        "the version is below any": lambda doc: _own(doc, "version", -1),
        "the manifest is a list": lambda _: b"[1]",
        "the manifest is a number": lambda _: b"1",
        "the manifest is empty": lambda _: b"{}",
    } | _compressed_documents()


def _compressed_documents():
    """Return the same of a manifest whose arrays are compressed."""
    return {
        "a compressed chunk has no length": lambda doc: _lengths(doc, []),
        "a compressed chunk has two lengths": lambda doc: _lengths(doc, [44, 44]),
        "a compressed chunk has a negative length": lambda doc: _lengths(doc, [-28]),
        "a compressed chunk has another length": lambda doc: _lengths(doc, [43]),
        "a compressed array has no lengths": lambda doc: _own(doc, "lengths", {}),
        "a compressed checkpoint has lengths of nothing": lambda doc: doc["helix"]["lengths"].update(x=[1]),
        "a compressed checkpoint has the version of a plain one": lambda doc: _own(doc, "version", 2),
        "a compressed array has another codec": lambda doc: _replace(doc, "lz4", "zstd"),
        "a compressed array is said to be plain": _plain,
        "a compressed array has another type": lambda doc: _replace(doc, "float64", "int16"),
        "a compressed chunk has other data": _swap,
        "a compressed chunk unfolds to a thousand times its size": lambda doc: _unfold(doc, [2**21], 2**14),
        "a compressed chunk unfolds to a terabyte": lambda doc: _unfold(doc, [2**37], 2**33),
        "a compressed chunk unfolds to more than the memory": lambda doc: _unfold(doc, [2**27], 2**23),
    }


def files():
    """Return name → what is done to a checkpoint's directory."""
    return {
        "a pack is a pipe": lambda path: _pipe(path / _PACK),
        "a pack is a directory": lambda path: _folder(path / _PACK),
        "a pack is a link to itself": lambda path: _link(path / _PACK, _PACK),
        "a pack is a link to a device": lambda path: _link(path / _PACK, "/dev/zero"),
        "a pack is a link to another file": lambda path: _link(path / _PACK, os.__file__),
        "a manifest is a pipe": lambda path: _pipe(path / MANIFEST),
        "a manifest is a directory": lambda path: _folder(path / MANIFEST),
        "a manifest is a link to a device": lambda path: _link(path / MANIFEST, "/dev/zero"),
        "a manifest has a terabyte": lambda path: os.truncate(path / MANIFEST, 2**40),
    }


def attack(path, name):
    """Save a checkpoint that lies as it is named; returns False where this disk cannot hold it."""
    document = valid(path, compressed="compressed" in name)
    if name in files():
        files()[name](Path(path))
        return True
    changed = documents()[name](document)
    write(path, document if changed is None else changed)
    try:
        size = document["helix"]["packs"].get(_PACK)
        if isinstance(size, int) and size >= 0:
            os.truncate(Path(path) / _PACK, size)
    except OSError:
        return False
    return True


def _rename(document, old, new):
    _edit_root(document, lambda root: root["digests"].update({new: root["digests"].pop(old)}))
    for group in (document["refs"], document["helix"]["chunks"]):
        for key in [key for key in group if key.startswith(f"{old}/")]:
            group[key.replace(old, new)] = group.pop(key)


def _rename_pack(document, name):
    document["helix"]["packs"] = {name: document["helix"]["packs"][_PACK]}
    for place in document["refs"].values():
        if isinstance(place, list):
            place[0] = name


def _refs(document, key, place):
    assert key in document["refs"]
    document["refs"][key] = place


def _packs(document, packs):
    document["helix"]["packs"] = packs | {
        name: size for name, size in document["helix"]["packs"].items() if name not in packs
    }


def _shape(document, shape, shard=None, *, size=None, empty=False):
    """Give the array model/w another shape and shards, and the pack the size for it."""
    text = json.loads(document["refs"]["model/w/zarr.json"])
    text["shape"] = shape
    text["chunk_grid"]["configuration"]["chunk_shape"] = shard or [max(1, n) for n in shape]
    document["refs"]["model/w/zarr.json"] = _text(text)
    if empty or size:
        for group in (document["refs"], document["helix"]["chunks"]):
            del group["model/w/c/0/0"]
    if size is not None:
        start = 4096
        document["refs"]["model/w/c/0"] = [_PACK, start, size]
        document["helix"]["chunks"]["model/w/c/0"] = ["0" * 32]
        document["helix"]["packs"][_PACK] = start + size
        _edit_root(document, lambda root: root["digests"].update({"model/w": "0" * 32}))
        for group in (document["refs"], document["helix"]["chunks"]):  # the order in which a writer writes
            for key in [key for key in group if key.startswith("model/b/")]:
                group[key] = group.pop(key)
    if empty:
        _edit_root(document, lambda root: root["digests"].update({"model/w": _EMPTY}))


_EMPTY = "99aa06d3014798d86001c324468d497f"
"""The XXH3-128 of nothing."""


def _digests(document, digests):
    document["helix"]["chunks"]["model/b/c/0"] = digests


def _lengths(document, lengths):
    document["helix"]["lengths"]["model/b/c/0"] = lengths
    document["refs"]["model/b/c/0"][2] = sum(lengths)


def _unfold(document, shape, length):
    """Give the array model/w a huge shape, and as many bytes of zeros to unfold it from."""
    document["helix"]["lengths"] = {"model/w/c/0": [length]} | document["helix"]["lengths"]
    del document["helix"]["lengths"]["model/w/c/0/0"]
    _shape(document, shape, size=length)


def _replace(document, old, new):
    text = document["refs"]["model/w/zarr.json"]
    assert old in text
    document["refs"]["model/w/zarr.json"] = text.replace(old, new)


def _plain(document):
    codecs = json.loads(document["refs"]["model/w/zarr.json"])["codecs"]
    _replace(document, _text(codecs[1]) + ",", "")


def _swap(document):
    """Let each of two arrays lie where the other does."""
    one, other = (document["refs"][key] for key in ("model/w/c/0/0", "model/b/c/0"))
    one[1:], other[1:] = other[1:], one[1:]
    lengths = document["helix"]["lengths"]
    lengths["model/w/c/0/0"], lengths["model/b/c/0"] = lengths["model/b/c/0"], lengths["model/w/c/0/0"]


def _own(document, key, value):
    document["helix"][key] = value


def _state(document, state):
    _root(document, "state", state)


def _state_text(document, text):
    _root(document, "state", "@")
    document["refs"]["zarr.json"] = document["refs"]["zarr.json"].replace('"@"', text)


def _root(document, key, value):
    _edit_root(document, lambda root: root.update({key: value}))


def _edit_root(document, edit):
    root = json.loads(document["refs"]["zarr.json"])
    edit(root["attributes"]["helix"])
    document["refs"]["zarr.json"] = _text(root)


def _deep(depth):
    value = {"a": 1}
    for _ in range(depth):
        value = {"a": value}
    return value


def _text(document):
    return json.dumps(document, separators=(",", ":"))


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _folder(path):
    path.unlink()
    path.mkdir()


def _link(path, target):
    path.unlink()
    path.symlink_to(target)
