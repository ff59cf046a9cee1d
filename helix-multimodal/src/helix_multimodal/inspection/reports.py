"""Decodes what a walk finds, each file by its modality, and says what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel import default_kernel
from helix_kernel.errors import HelixError
from helix_multimodal.detection.walking import Limits, walk
from helix_multimodal.inspection.previews import preview

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from helix_kernel import Component
    from helix_kernel.modality import Modality, Sample
    from helix_multimodal.detection.walking import Member

_OWN = "helix-multimodal"
_MOST_FRAMES = 100


@attrs.frozen(kw_only=True)
class Report:
    """What is said of one file.

    Attributes:
        path: Where it is; ``a.zip!b.png`` within an archive.
        size: Its bytes.
        kind: See `Finding`, as for ``format``, ``score`` and ``reason``.
        arrays: Shape and dtype of each array that it holds, by name.
        rate: Elements of the time axis in a second.
        metadata: What else the file says.
        preview: Some lines that show what is in it.
        error: Why it could not be decoded, in one line; empty where it could.
    """

    path: str
    size: int
    kind: str
    format: str
    score: float
    reason: str
    arrays: Mapping[str, str] = attrs.field(factory=dict)
    rate: float | None = None
    metadata: Mapping[str, str | int | float | bool] = attrs.field(factory=dict)
    preview: str = ""
    error: str = ""


def reports(path: str, *, limit: int | None, max_bytes: int) -> Iterator[Report]:
    """Yield a report of each file at a path, those in archives among them.

    Args:
        path: A folder or a file.
        limit: Files at most.
        max_bytes: Bytes that a file may take when it is decoded or unpacked.

    Raises:
        DataError: There is no such path.
    """
    modalities, missing = _modalities(max_bytes)
    limits = Limits(max_bytes=max_bytes)
    for number, member in enumerate(walk(path, limits=limits, modalities=modalities)):
        if number == limit:
            return
        yield _report(member, modalities, missing)


def _modalities(max_bytes: int) -> tuple[dict[str, Modality], dict[str, str]]:
    """Return every modality that can be built, by its name, and why others cannot."""
    kernel = default_kernel()
    built: dict[str, Modality] = {}
    missing = {}
    for component in kernel.components("modality"):
        try:
            built[component.name] = kernel.build("modality", _table(component, max_bytes))
        except HelixError as error:
            missing[component.name] = _one_line(error)
    return built, missing


def _table(component: Component, max_bytes: int) -> dict[str, Any]:
    table: dict[str, Any] = {"use": f"{component.provider}:{component.name}"}
    if component.provider == _OWN:
        table["max_bytes"] = max_bytes
        if component.name == "video":
            table["max_frames"] = _MOST_FRAMES
    return table


def _report(member: Member, modalities: Mapping[str, Modality], missing: Mapping[str, str]) -> Report:
    found = member.finding
    report = Report(path=member.path, size=member.size, **attrs.asdict(found))
    if found.kind in missing:
        return attrs.evolve(report, error=missing[found.kind])
    if found.kind not in modalities or member.source is None:
        return report
    try:
        sample = modalities[found.kind].load(member.source)
        return _loaded(report, sample)
    except HelixError as error:
        return attrs.evolve(report, error=_one_line(error))
    except Exception as error:  # noqa: BLE001 - one file, or a modality of others, does not end the list
        return attrs.evolve(report, error=f"{type(error).__name__}: {_one_line(error)}")


def _loaded(report: Report, sample: Sample) -> Report:
    cut = len(sample.arrays.get("frames", ())) == _MOST_FRAMES
    return attrs.evolve(
        report,
        arrays={name: f"{array.shape} {array.dtype}" for name, array in sample.arrays.items()},
        rate=sample.rate,
        metadata=dict(sample.metadata),
        preview=("the first " if cut else "") + preview(sample),
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
