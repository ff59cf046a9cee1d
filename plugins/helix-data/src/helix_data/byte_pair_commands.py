"""The command `helix tokenizer`."""

from __future__ import annotations

import importlib.util
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from helix_data.sources import open_paths
from helix_data.text_pieces import pieces_of_lines
from helix_kernel.cli.output import print_json, print_table
from helix_kernel.errors import DependencyError, HelixError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from helix_data.byte_pair import BytePair

# What is encoded at a time: the library takes some hundred bytes a token meanwhile.
_PIECE = 1 << 20


def tokenizer(
    action: Literal["train", "show"],
    file: str,
    /,
    *paths: str,
    vocab_size: int | None = None,
    min_frequency: int | None = None,
    special: list[str] | None = None,
    force: bool = False,
    json: bool = False,
) -> None:
    """Train a byte-pair tokenizer on files, or show one and what it makes of files.

    A config then names it: tokenizer = { use = "byte-pair", path = "tokenizer.json" }.

    Args:
        action: train: learn from files, and write a tokenizer.json. show: what a tokenizer.json has,
            and how many bytes a token of each file has.
        file: The tokenizer.json to write or to show.
        paths: Files, folders and globs (quote them): what to learn from, or to encode.
        vocab_size: train: tokens at most, the 256 bytes and special ones counted.
        min_frequency: train: how often a pair must occur to become a token; 2 if left out.
        special: train: name of a token that no text becomes, such as one between documents; may be
            given several times.
        force: train: overwrite the file if it exists.
        json: Print one JSON object.
    """
    _require_library()
    if action == "show":
        training = {"--vocab-size": vocab_size, "--min-frequency": min_frequency, "--special": special}
        given = [name for name, value in {**training, "--force": force or None}.items() if value is not None]
        if given:
            raise InputError(f"{', '.join(given)}: for helix tokenizer train only")
        _show(file, paths, as_json=json)
        return
    if vocab_size is None:
        raise InputError("--vocab-size is missing: give the most tokens to learn, such as 4096")
    if not paths:
        raise InputError("no files are given to learn from: helix tokenizer train OUT PATHS… --vocab-size N")
    options = {
        "vocab_size": vocab_size,
        "min_frequency": 2 if min_frequency is None else min_frequency,
        "special_tokens": special or (),
    }
    _train(Path(file), paths, options, force=force, as_json=json)


def _train(out: Path, paths: Sequence[str], options: Any, *, force: bool, as_json: bool) -> None:
    from helix_data.byte_pair import BytePair
    from helix_data.byte_pair_training import check_training, train_byte_pair

    check_training(**options)
    if out.exists() and not force:
        raise InputError(f"{out} exists; choose another path, or overwrite it with --force")
    stream = open_paths(paths)
    _write(out, train_byte_pair(stream, **options))
    made = BytePair(path=str(out))
    if made.vocab_size < options["vocab_size"]:
        fewer = f"{made.vocab_size} tokens instead of {options['vocab_size']}"
        print(f"note: {fewer}: no other pair occurs {options['min_frequency']} times", file=sys.stderr)
    _print({"tokenizer": str(out), "bytes": len(stream), **_described(made)}, as_json=as_json)


def _show(file: str, paths: Sequence[str], *, as_json: bool) -> None:
    from helix_data.byte_pair import BytePair

    shown = BytePair(path=file)
    results = {"tokenizer": file, **_described(shown)}
    files = [_measured(shown, path) for path in paths]
    if len(files) > 1:
        files.append(_row("all", *(sum(found[key] for found in files) for key in ("bytes", "tokens"))))
    _print({**results, "files": files} if as_json else results, as_json=as_json)
    if files and not as_json:
        print_table(("path", "bytes", "tokens", "bytes per token"), [_cells(found) for found in files])


def _measured(tokenizer: BytePair, path: str) -> dict[str, Any]:
    """Return how many tokens the files of a path have, encoded piece by piece."""
    stream = open_paths([path])
    pieces = pieces_of_lines(stream, 0, len(stream), size=_PIECE)
    return _row(path, len(stream), sum(len(tokenizer.encode(piece.tobytes())) for piece in pieces))


def _row(path: str, n_bytes: int, n_tokens: int) -> dict[str, Any]:
    return {"path": path, "bytes": n_bytes, "tokens": n_tokens, "bytes_per_token": n_bytes / n_tokens}


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return row["path"], f"{row['bytes']:,}", f"{row['tokens']:,}", f"{row['bytes_per_token']:.3f}"


def _described(tokenizer: BytePair) -> dict[str, Any]:
    return {
        "vocab_size": tokenizer.vocab_size,
        "special_tokens": tokenizer.special_ids,
        "fingerprint": tokenizer.fingerprint,
    }


def _write(out: Path, content: str) -> None:
    """Write a file that appears whole or not at all."""
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(content, encoding="utf-8")
        unfinished.replace(out)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise HelixError(f"cannot write {out}: {error.strerror}") from error


def _print(results: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(dict(results))
        return
    rows = [(name.replace("_", " "), _text(value)) for name, value in results.items()]
    print_table(("what", "result"), rows)


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} = {number}" for name, number in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _require_library() -> None:
    if importlib.util.find_spec("tokenizers") is None:
        raise DependencyError(
            "helix tokenizer needs the library tokenizers, which is not installed: "
            "pip install 'helix-data[tokenizers]'"
        )
