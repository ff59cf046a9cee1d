"""The full command line, by cyclopts: every command, its help and the errors of its usage."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cyclopts import App, CycloptsError

from helix_kernel import __version__
from helix_kernel.cli.direct import COMMANDS, GROUPS, exit_code
from helix_kernel.listing import listing

if TYPE_CHECKING:
    from collections.abc import Sequence


def make_app() -> App:
    """Return the application; commands are imported when they are called."""
    app = App(name="helix", version=__version__, help="Post-transformer machine learning from parts.")
    groups = {name: App(name=name, help=summary) for name, summary in GROUPS.items()}
    for group in groups.values():
        app.command(group)
    for words, (target, summary) in COMMANDS.items():
        holder = groups[words[0]] if len(words) > 1 else app
        holder.command(target, name=words[-1], help=summary)
    taken = {words[0] for words in COMMANDS} | set(GROUPS)
    for component in listing()["components"]:
        if component["kind"] == "command" and component["name"] not in taken:
            app.command(component["target"], name=component["name"], help=component["summary"])
            taken.add(component["name"])
    return app


def run(arguments: Sequence[str]) -> int:
    """Run a command line; return its exit code."""
    app = make_app()
    try:
        returned = app(
            arguments, exit_on_error=False, print_error=False, result_action="return_value"
        )
    except CycloptsError as error:
        print(f"error: {error}\n  (helix --help lists the commands)", file=sys.stderr)
        return 2
    return exit_code(returned)
