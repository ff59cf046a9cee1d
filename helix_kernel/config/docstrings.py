"""Reads what a docstring in Google's style says of each argument."""

from __future__ import annotations

import re

_HEADING = re.compile(r"^(Args|Arguments|Parameters):\s*$", re.MULTILINE)
_ARGUMENT = re.compile(r"(\w+)(?:\s*\([^)]*\))?:\s*(.*)")


def argument_docs(doc: str) -> dict[str, str]:
    """Return the text of each argument, on one line.

    Args:
        doc: A docstring, its indentation taken away as `inspect.getdoc` does.
    """
    heading = _HEADING.search(doc)
    found: dict[str, str] = {}
    last, first = "", 0
    for line in doc[heading.end() :].strip("\n").splitlines() if heading else ():
        indent = len(line) - len(line.lstrip())
        if line.strip() and not indent:  # the next section
            break
        argument = _ARGUMENT.match(line.strip())
        if argument and (not found or indent <= first):
            first, last = indent, argument[1]
            found[last] = argument[2]
        elif last:
            found[last] = f"{found[last]} {line.strip()}".strip()
    return found
