"""What is found out about a file: its kind, its format, how sure that is, and why."""

from __future__ import annotations

import attrs

HEAD = 8192
"""First bytes of a file that are looked at."""


@attrs.frozen
class Finding:
    """What a file is.

    Attributes:
        kind: Name of a modality (``text``, ``image``, ``audio``, ``video``, ``point-cloud``, or one that
            another plugin brings), ``archive``, ``other`` for a format that holds none of these, ``empty``,
            or ``unknown``.
        format: Name of the format, such as ``png`` or ``python``; of an unknown file an empty string.
        score: How likely that is, 0 to 1.
        reason: What tells it; also what speaks against it, such as an extension of another format.
    """

    kind: str
    format: str
    score: float
    reason: str
