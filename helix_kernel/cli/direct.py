"""Answers the short commands without the command-line library, whose import takes longer than they do.

Only plain calls are taken: a command's name, positional words and ``--json``. Everything else,
wrong usage included, is left to `helix_kernel.cli.app`, which runs the same functions.
"""

from __future__ import annotations

import importlib
import sys

from helix_kernel import __version__

TYPE_CHECKING = False  # see helix_kernel.cli
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

CO_VARARGS = 4  # inspect.CO_VARARGS

COMMANDS = {
    ("plugins",): ("helix_kernel.cli.listings:plugins", "List the installed plugins and those that failed"),
    ("components",): ("helix_kernel.cli.listings:components", "List the installed components"),
    ("show",): ("helix_kernel.cli.listings:show", "Show a component: its options, defaults and ranges"),
    ("config", "check"): ("helix_kernel.cli.config:check", "Report everything that is wrong with a config"),
    ("config", "resolve"): ("helix_kernel.cli.config:resolve", "Print a config with every default filled in"),
    ("config", "lock"): (
        "helix_kernel.cli.config_lock:lock",
        "Record what a config and all that serves it are, for --locked",
    ),
    ("config", "init"): ("helix_kernel.cli.config_init:init", "Write a config to begin with, and its schema"),
    ("config", "schema"): ("helix_kernel.cli.config:schema", "Print the JSON Schema of configs, for editors"),
    ("doctor",): ("helix_kernel.cli.doctor:doctor", "Say what this machine has, and what is wrong with it"),
    ("new",): ("helix_kernel.cli.new:new", "Write a distribution for a component of your own"),
    ("checkpoint", "list"): (
        "helix_kernel.cli.checkpoint_steps:list_steps",
        "List a run's checkpoints, and which are good",
    ),
    ("checkpoint", "inspect"): (
        "helix_kernel.cli.checkpoint:inspect",
        "Show what a checkpoint holds and needs",
    ),
    ("checkpoint", "verify"): (
        "helix_kernel.cli.checkpoint_steps:verify",
        "Read every byte, and name what is damaged",
    ),
    ("checkpoint", "diff"): (
        "helix_kernel.cli.checkpoint_diff:diff",
        "Show what two checkpoints differ in, and by how much",
    ),
    ("checkpoint", "export"): (
        "helix_kernel.cli.checkpoint_forms:export",
        "Write a checkpoint as safetensors or plain Zarr",
    ),
    ("checkpoint", "convert"): (
        "helix_kernel.cli.checkpoint_forms:convert",
        "Make a checkpoint of an older one, safetensors or Zarr",
    ),
    ("checkpoint", "prune"): (
        "helix_kernel.cli.checkpoint_steps:prune",
        "Remove a run's checkpoints that no rule keeps",
    ),
}
GROUPS = {
    "config": "Check, resolve, lock and describe configs",
    "checkpoint": "List, check, compare, export, convert and prune checkpoints",
}


def run(arguments: list[str]) -> int | None:
    """Run a plain call; return its exit code, or None where this is not one."""
    if arguments in ([], ["--help"], ["-h"]):
        sys.stdout.write(help_text())
        return 0
    if arguments == ["--version"]:
        sys.stdout.write(f"helix {__version__}\n")
        return 0
    for words, (target, _) in COMMANDS.items():
        rest = arguments[len(words) :]
        if tuple(arguments[: len(words)]) == words and all(_plain(word) for word in rest):
            return _call(target, rest)
    return None


def help_text() -> str:
    """Return what ``helix --help`` prints."""
    from helix_kernel.listing import listing

    own = {words[0]: summary for words, (_, summary) in COMMANDS.items() if len(words) == 1} | GROUPS
    brought = {spelling(c): c["summary"] for c in listing()["components"] if c["kind"] == "command"}
    lines = ["Usage: helix COMMAND [ARGUMENTS]", "", "Commands:"]
    lines += [f"  {name:<12} {summary}" for name, summary in sorted({**brought, **own}.items())]
    lines += ["", "Every command takes --help, --json and --debug.", ""]
    return "\n".join(lines)


def spelling(component: Mapping[str, Any]) -> str:
    """Return how a plugin's command is called: by an alias of two words, if it has one, or by its name."""
    called: str = next((alias for alias in component["aliases"] if " " in alias), component["name"])
    return called


def load(target: str) -> Callable[..., Any]:
    """Import the function that a command names."""
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def exit_code(returned: object) -> int:
    """Return the exit code that a command's return value means."""
    return returned if isinstance(returned, int) else 0


def _plain(word: str) -> bool:
    return word == "--json" or not word.startswith("-")


def _call(target: str, words: list[str]) -> int | None:
    function = load(target)
    given = [word for word in words if word != "--json"]
    if not _takes(function, len(given)):
        return None
    options = {"json": True} if "--json" in words else {}
    return exit_code(function(*given, **options))


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function takes so many words; `inspect` would tell, but takes long to import."""
    code = function.__code__
    fewest = code.co_argcount - len(function.__defaults__ or ())
    has_varargs = bool(code.co_flags & CO_VARARGS)
    return fewest <= count and (has_varargs or count <= code.co_argcount)
