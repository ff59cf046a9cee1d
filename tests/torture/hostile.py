"""Checkpoints made to harm whoever opens them: sealed as they should be, and lying in every other way."""

import copy
import hashlib
import json
import os
import random
import resource
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np

from helix_kernel.checkpoint import Checkpoint, CheckpointManager, choosing, save
from helix_kernel.checkpoint.manifest import MANIFEST, seal
from helix_kernel.errors import CheckpointError, UnknownNameError
from torture.states import LostError

MOST_SECONDS = 5
_STRANGE = (
    *(None, True, False, -1, 0, 1, 1.5, "", "x", "..", "$array", [], {}, [[]], {"": None}, 2**31, 2**53),
    *(2**62, 2**63, 2**200, -(2**63), 10**400, float("nan"), float("inf"), "../../x", "/etc/passwd", "\0"),
    *({"$array": 1}, {"$dict": [[{"$dict": []}, 1]]}, {"$float": "zz"}, {"$int": "0x"}, {"$tuple": 1}),
    *({"$array": "model/w"}, {"$tuple": {"$array": "none"}}, {"$dict": 7}, {"$dict": [[[], 1]]}, "\ud800"),
)


def valid(path, *, compressed=False):
    """Save a small checkpoint, every array of it compressed or none, and return its manifest's document."""
    state = {"model": {"w": np.arange(30.0).reshape(5, 6), "b": np.ones(3)}, "step": (1, {2: 0.5})}
    with mock.patch.object(choosing, "WORTHWHILE", 99):
        compression = "bitshuffle-lz4" if compressed else None
        save(path, state, attributes={"step": 3, "nested": {"a": [1, 2]}}, compression=compression)
    document = json.loads((Path(path) / MANIFEST).read_bytes())
    del document["xxh3"]
    return document


def mutate(document, chance):
    """Return a copy with one to three changes of structure or value, also in the documents within it.

    Args:
        document: A manifest's.
        chance: A `random.Random`, such as Hypothesis makes, which can then simplify what it finds.
    """
    document = copy.deepcopy(document)
    for _ in range(chance.randint(1, 3)):
        texts = [key for key, value in document["refs"].items() if isinstance(value, str)]
        if chance.random() < 0.5 and texts:
            key = chance.choice(texts)
            try:
                within = json.loads(document["refs"][key])
            except ValueError:
                continue
            _change(within, chance)
            document["refs"][key] = _text(within)
        else:
            _change(document, chance)
        if not isinstance(document.get("refs"), dict):
            break
    return document


def mutate_first_form(path, chance):
    """Change the description in a checkpoint of the first form, with digests that are right.

    Args:
        path: The checkpoint, which is changed.
        chance: As for `mutate`.
    """
    manifest = json.loads((path / MANIFEST).read_bytes())
    root = json.loads((path / "zarr.json").read_bytes())
    for _ in range(chance.randint(1, 3)):
        _change(root, chance)
    content = _text(root).encode()
    (path / "zarr.json").write_bytes(content)
    manifest["files"]["zarr.json"] = [len(content), hashlib.sha256(content).hexdigest()]
    if chance.random() < 0.5:
        _change(manifest["files"], chance)
    del manifest["sha256"]
    digest = hashlib.sha256(_text(manifest).encode()).hexdigest()
    (path / MANIFEST).write_text(_text(manifest | {"sha256": digest}))


def write(path, document):
    """Write a manifest with a seal that is right; a document of bytes is taken as the JSON."""
    content = document if isinstance(document, bytes) else _text(document).encode("utf-8", "surrogatepass")
    (Path(path) / MANIFEST).write_bytes(seal(content))


def probe(path):
    """Do with a checkpoint all that its user may, and return the error that ended it, if one did.

    Raises:
        LostError: It took too long, or its error is no single line. What else it raises is a failure too.
    """
    begun = time.monotonic()
    error = _use(Path(path))
    seconds = time.monotonic() - begun
    if seconds > MOST_SECONDS:
        raise LostError(f"it took {seconds:.1f} s to end with {error!r}")
    if error is not None and "\n" in str(error):
        raise LostError(f"the error has several lines: {error}")
    return error


def run_rounds(rounds, seed):
    """Change a valid checkpoint's manifest at random and use it, so many times."""
    refused = 0
    limit_memory()
    with tempfile.TemporaryDirectory() as root:
        paths = [Path(root, name) for name in ("plain/step", "compressed/step")]
        documents = [valid(path, compressed=path is paths[1]) for path in paths]
        for index in range(rounds):
            path = paths[index % 2]
            changed = mutate(documents[index % 2], random.Random(f"{seed} {index}"))
            write(path, changed)
            try:
                refused += probe(path) is not None
            except Exception as error:
                raise LostError(f"seed {seed}, round {index}: {error!r} from {_text(changed)}") from error
    return f"{rounds} hostile manifests, {refused} refused, the others harmless"


def limit_memory(spare=2**29):
    """Let this process have only so many bytes of addresses more than now: what asks for more, shows."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + spare
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _use(path):
    manager = CheckpointManager(path.parent)
    try:
        with Checkpoint.open(path) as checkpoint:
            for name in [*checkpoint.arrays, *checkpoint.ties]:
                repr(checkpoint[name])
            checkpoint.verify()
            checkpoint.state()
            checkpoint.state(mmap=True, verify=False)
            for name in checkpoint.arrays:
                checkpoint[name][...]
                checkpoint.sha256(name)
            checkpoint.manifest.documents()
        manager.latest()
    except (CheckpointError, UnknownNameError) as error:
        str(error).encode("utf-8", "backslashreplace")
        return error
    return None


def _change(document, chance):
    """Change something somewhere within a document."""
    parent = document
    while True:
        keys = [*parent] if isinstance(parent, dict) else [*range(len(parent))]
        if not keys:
            return
        key = chance.choice(keys)
        if not isinstance(parent[key], dict | list) or chance.random() < 0.25:
            break
        parent = parent[key]
    _change_at(parent, key, keys, chance)


def _change_at(parent, key, keys, chance):
    kind = chance.choice(["replace", "remove", "copy", "rename", "deepen", "nudge"])
    value = parent[key]
    if kind == "nudge" and isinstance(value, int):
        parent[key] = value + chance.choice([-1, 1, 64, 2**40])
    elif kind == "remove":
        del parent[key]
    elif kind == "copy":
        parent[key] = copy.deepcopy(parent[chance.choice(keys)])
    elif kind == "rename" and isinstance(parent, dict):
        parent[chance.choice(["..", "a/../b", "", "x", "c/0/1", "$array", "zarr.json"])] = parent.pop(key)
    elif kind == "deepen":
        for _ in range(chance.choice([1, 90, 120, 250])):
            value = [value] if isinstance(parent, list) or chance.random() < 0.5 else {"a": value}
        parent[key] = value
    else:
        parent[key] = copy.deepcopy(chance.choice(_STRANGE))


def _text(document):
    return json.dumps(document, separators=(",", ":"))
