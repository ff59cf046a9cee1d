"""What a diagnosis finds: something wrong, or worth knowing, with the command that mends it."""

from __future__ import annotations

from typing import Literal

import attrs


@attrs.frozen(kw_only=True)
class Finding:
    """One thing that was found.

    Args:
        check: Which check found it, such as ``dead-target``.
        what: What is the matter.
        mend: The command that mends it, as a shell takes it; several are a line each.
        note: In words, what else would mend it, or what its author can do.
        level: ``wrong``, or ``note`` for what stops nothing else.
        provider: The distribution that it is about.
    """

    check: str
    what: str
    mend: str
    note: str = ""
    level: Literal["wrong", "note"] = "wrong"
    provider: str = ""
