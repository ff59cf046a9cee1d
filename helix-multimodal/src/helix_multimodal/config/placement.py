"""Options of the scheduling policy."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class EarliestFinishConfig:
    """The most urgent task next, where it ends first."""
