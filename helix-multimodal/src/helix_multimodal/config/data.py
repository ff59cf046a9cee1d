"""Options of the datasets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import attrs

from helix_kernel import ComponentOf, option
from helix_kernel.errors import ArgumentError, did_you_mean

Task = Literal["retrieval", "classification", "captioning", "reconstruction"]
Labels = Literal["folder", "name"]


@attrs.frozen(kw_only=True)
class FileGroupsConfig:
    """Files whose names tell that they belong together, each part of a kind of its own."""

    path: str = option(help="the folder that holds the files, at any depth")
    files: dict[str, str] = option(
        help='for each part, how its files are called below the folder, such as "{name}.png"; what {name} '
        "stands for is the same in all files of a group"
    )
    tables: dict[str, str] = option(
        {}, help='parts whose data are lines "name: text" of a file, perhaps gzipped, instead of files'
    )
    modalities: dict[str, Annotated[Any, ComponentOf("modality")]] = option(
        help="for each part, what its files are read by: [data.modalities.PART]"
    )
    shapes: dict[str, tuple[int, ...]] = option(
        help="for each part, the shape that its tensors are filled up to with zeros, and cut at"
    )
    optional: tuple[str, ...] = option((), help="parts that a group may lack; it must have all others")
    concept: str | None = option(
        None, help="the part whose data tell which groups are about the same; left out: each its own"
    )
    task: Task = option("retrieval", help="what is to be predicted")
    target: str | None = option(None, help="the part that captioning predicts")
    labels: Labels = option(
        "folder", help="what classification predicts: a group's folder, or its name up to the last - or _"
    )
    batch_size: int = option(16, help="groups in a batch, on each rank", ge=1)
    validation_fraction: float = option(
        0.1, help="share of the concepts that is held out, with all their groups", ge=0, lt=1
    )
    cache: str | None = option(
        None, help="folder that keeps decoded data by their content, for other runs; left out: in memory"
    )

    def __attrs_post_init__(self) -> None:
        """Check what single options cannot tell.

        Raises:
            ArgumentError: A part is named in one option and lacks another, or the task lacks its target.
        """
        parts = [*self.files, *self.tables]
        if both := sorted(set(self.files) & set(self.tables)):
            raise ArgumentError(f"tables.{both[0]}: files.{both[0]} is given too; leave one of them out")
        if not parts:
            raise ArgumentError('files is empty; name one part at least, such as picture = "{name}.png"')
        for role, pattern in self.files.items():
            if pattern.count("{name}") != 1:
                raise ArgumentError(f"files.{role} is {pattern!r}, allowed is a pattern with one {{name}}")
        for name, given in (("modalities", self.modalities), ("shapes", self.shapes)):
            _check_parts(name, list(given), parts, complete=True)
        _check_parts("optional", list(self.optional), parts)
        for name, one in (("concept", self.concept), ("target", self.target)):
            _check_parts(name, [] if one is None else [one], parts)
        if self.task == "captioning" and self.target is None:
            raise ArgumentError(
                f"target is missing, which task='captioning' predicts; allowed is one of {parts}"
            )
        if self.concept in self.optional:
            raise ArgumentError(
                f"concept is {self.concept!r}, which optional names; every group must have it"
            )


def _check_parts(option_: str, given: list[str], parts: list[str], *, complete: bool = False) -> None:
    for name in given:
        if name not in parts:
            raise ArgumentError(
                f"{option_} names {name!r}, allowed is one of {parts}.{did_you_mean(name, parts)}"
            )
    missing = [part for part in parts if part not in given]
    if complete and missing:
        raise ArgumentError(f"{option_} lacks {missing[0]!r}; it needs each of {parts}")
