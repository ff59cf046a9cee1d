"""The `helix` command: runs what the command line names, and prints every error in one style."""

from __future__ import annotations

import sys
import warnings

TYPE_CHECKING = False  # importing typing would cost `helix --help` a tenth of its time
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 the work failed, 2 the input was wrong.

    Args:
        argv: Arguments without the program's name; the process's own if left out.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    shown = warnings.formatwarning
    if not debug:
        warnings.formatwarning = _plainly
    try:
        code = _run(arguments)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the reader of our output, such as head, has left
        sys.stderr.close()
        code = 0
    except Exception as error:
        if debug:
            raise
        code = _report(error)
    finally:
        warnings.formatwarning = shown
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    from helix_kernel.cli import direct

    handled = direct.run(arguments)
    if handled is not None:
        return handled
    from helix_kernel.cli.app import run

    return run(arguments)


def _plainly(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Format a warning for those who run commands: what it says, and not the line of code that says it."""
    del category, filename, lineno, line
    return f"warning: {message}\n"


def _report(error: Exception) -> int:
    from helix_kernel.errors import HelixError

    if isinstance(error, HelixError):
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
        print(f"error: {error}{notes}", file=sys.stderr)
        return error.exit_code
    print(f"error: {type(error).__name__}: {error}\n  (--debug shows the traceback)", file=sys.stderr)
    return 1
