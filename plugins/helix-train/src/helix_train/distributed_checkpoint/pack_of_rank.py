"""The pack of one rank: the shards that it holds, one behind the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from helix_kernel.checkpoint.pack import PackWriter
from helix_kernel.checkpoint.parts import Part, packed_bytes, write_parts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from helix_kernel.checkpoint.manifest import Extent


@attrs.frozen
class NamedPart:
    """A part, and the name of the tensor that it is of."""

    name: str
    part: Part


@attrs.frozen
class Written:
    """What one rank has written.

    Args:
        pack: The pack's name; there is no file where its size is 0.
        nbytes: Its size.
        extents: Name of a tensor and key of a shard → where the shard lies.
    """

    pack: str
    nbytes: int
    extents: dict[tuple[str, str], Extent]


def write_pack(path: Path, parts: Sequence[NamedPart]) -> Written:
    """Write a pack, and return when it is on the disk.

    Raises:
        OSError: The system refuses.
    """
    if not parts:
        return Written(path.name, 0, {})
    bare = [named.part for named in parts]
    with PackWriter(path, packed_bytes(bare)) as pack:
        extents = write_parts(pack, path.name, bare)
        nbytes = pack.position
    keys = [(named.name, named.part.shard.key) for named in parts]
    return Written(path.name, nbytes, dict(zip(keys, extents, strict=True)))
