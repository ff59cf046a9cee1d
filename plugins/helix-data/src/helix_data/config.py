"""Options of the datasets, and the checks that need no data. Imports no torch and no numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import attrs

from helix_kernel import ComponentOf, option
from helix_kernel.errors import ArgumentError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Source = Literal["python-docs", "python-stdlib"]
Packing = Literal["stream", "packed", "documents"]


@attrs.frozen(kw_only=True)
class TextBytesConfig:
    """A corpus of raw bytes, cut into shuffled windows; its last part is held out."""

    source: Source | None = option(
        None,
        help="a corpus that every Python carries: python-docs (the language reference) or "
        "python-stdlib (the standard library's sources); give this or paths",
    )
    paths: tuple[str, ...] = option(
        (), help="files, folders and globs (** too), relative to the working directory; give this or source"
    )
    seq_len: int = option(256, ge=1, help="bytes in a window")
    batch_size: int = option(16, ge=1, help="windows in a batch, on each rank")
    validation_fraction: float = option(
        0.1, ge=0, lt=1, help="share of the corpus that is held out, cut from its end"
    )

    def __attrs_post_init__(self) -> None:
        check_origin(self.source, self.paths)


@attrs.frozen(kw_only=True)
class SpanCorruptionConfig(TextBytesConfig):
    """A corpus of raw bytes with spans blanked out, to be filled in where they stand."""

    seq_len: int = option(256, ge=2, help="bytes in a window")
    corruption_rate: float = option(0.15, gt=0, lt=1, help="share of a window's bytes that are corrupted")
    mean_span_length: float = option(3.0, ge=1, help="bytes in a corrupted span, on average")


@attrs.frozen(kw_only=True)
class TextTokensConfig(TextBytesConfig):
    """A corpus as tokens, cut into shuffled windows; its last part is held out."""

    tokenizer: Annotated[Any, ComponentOf("tokenizer")] = option(
        {"use": "bytes"}, help="turns text into ids and back"
    )
    seq_len: int = option(256, ge=1, help="tokens in a window")


@attrs.frozen(kw_only=True)
class LabelledFilesConfig:
    """Whole files, each of the class whose folder it lies in; a share of each class is held out."""

    path: str = option(help="the folder that holds a folder for each class")
    seq_len: int = option(1024, ge=1, help="bytes of a file that are read, from its beginning")
    batch_size: int = option(16, ge=1, help="files in a batch, on each rank")
    validation_fraction: float = option(
        0.1, ge=0, lt=1, help="share of each class's files that is held out, rounded down"
    )


@attrs.frozen(kw_only=True)
class ByteShardsConfig:
    """A folder of shards that ``helix data ingest`` made."""

    path: str = option(help="the folder")
    seq_len: int = option(256, ge=1, help="bytes in a window")
    batch_size: int = option(16, ge=1, help="windows in a batch, on each rank")
    packing: Packing = option(
        "stream",
        help="stream: documents end to end; packed: the same, but a document's first byte is no target; "
        "documents: each window in one document, padded",
    )


@attrs.frozen(kw_only=True)
class MixtureConfig:
    """Rows of several datasets, each as often as its weight says."""

    parts: dict[str, Annotated[Any, ComponentOf("dataset")]] = option(
        help="the datasets, by names of their own: [data.parts.NAME]; of one seq_len and vocab_size"
    )
    weights: dict[str, float] = option(help="how often each is drawn, by the same names, in any unit")
    batch_size: int = option(16, ge=1, help="rows in a batch, on each rank")

    def __attrs_post_init__(self) -> None:
        check_mixture(self.parts, self.weights)


@attrs.frozen(kw_only=True)
class ByteTokenizerConfig:
    """Every byte is a token."""


@attrs.frozen(kw_only=True)
class HFTokenizerConfig:
    """The tokenizer of a tokenizer.json, as Hugging Face models have beside their weights."""

    path: str = option(help="the file tokenizer.json")
    special_tokens: bool = option(
        False, help="add the tokens that the file puts around a text, such as one for its beginning"
    )


def check_origin(source: str | None, paths: Sequence[str]) -> None:
    """Check that a corpus is named, and only once.

    Args:
        source: Name of a corpus that Python carries, or None.
        paths: Files, folders and globs, or nothing.

    Raises:
        ArgumentError: Neither or both are given, `paths` is not a list of strings, or there is no
            such source.
    """
    known = get_args(Source)
    if isinstance(paths, str | bytes) or not all(isinstance(path, str) for path in paths):
        raise ArgumentError(f"paths is {paths!r}, allowed is a list of strings, such as ['corpus/**/*.txt']")
    if source is not None and paths:
        raise ArgumentError(f"both source={source!r} and paths={list(paths)!r} are given: remove one of them")
    if source is None and not paths:
        raise ArgumentError(f"neither source nor paths is given: name files by paths, or a source of {known}")
    if source is not None and source not in known:
        raise ArgumentError(
            f"source is {source!r}, allowed is one of {known}.{did_you_mean(str(source), known)}"
        )


def check_mixture(parts: Mapping[str, object], weights: Mapping[str, float]) -> None:
    """Check that the parts of a mixture and their weights have the same names, at least one.

    Raises:
        ArgumentError: They have not.
    """
    if not parts:
        raise ArgumentError("parts is empty; name at least one dataset: [data.parts.NAME]")
    for name in parts:
        if name not in weights:
            raise ArgumentError(f"weights has none for the part {name!r}.{did_you_mean(name, weights)}")
    for name in weights:
        if name not in parts:
            raise ArgumentError(f"weights.{name}: no part has that name.{did_you_mean(name, parts)}")


def check_sizes(*, seq_len: int, batch_size: int, validation_fraction: float) -> None:
    """Check the sizes that every dataset of text has.

    Raises:
        ArgumentError: One is out of range.
    """
    check_at_least("seq_len", seq_len, 1)
    check_at_least("batch_size", batch_size, 1)
    if not 0 <= validation_fraction < 1:
        raise ArgumentError(f"validation_fraction is {validation_fraction!r}, allowed is >= 0 and < 1")


def check_at_least(name: str, value: int, least: int) -> None:
    """Raise `ArgumentError` where an argument is below its least value."""
    if value < least:
        raise ArgumentError(f"{name} is {value!r}, allowed is >= {least}")
