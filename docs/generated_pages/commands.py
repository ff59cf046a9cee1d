"""The reference of the command line, from the commands' own help."""

from __future__ import annotations

import re

from helix_kernel.cli.app import commands, make_app
from helix_kernel.listing import listing

INTRODUCTION = """# Commands

Every command takes `--help`, `--json` (results as one JSON object on standard output) and `--debug`
(the traceback of an error). Exit codes: 0 done, 1 the work failed, 2 the input was wrong. Errors go to
standard error.

"""


def page() -> str:
    """Return the page of all commands that are installed."""
    offered = [component for component in listing()["components"] if component["kind"] == "command"]
    text = make_app(commands(offered)).generate_docs(output_format="markdown", max_heading_level=3)
    body = text[text.index("\n## helix ") + 1 :]  # before it stand two lists of what follows
    return INTRODUCTION + re.sub(r"``([^`]+)``", r"`\1`", body).replace("**Parameters**", "**Options**")
