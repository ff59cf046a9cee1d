"""The full command line, by cyclopts: every command, its help and the errors of its usage."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from cyclopts import App, CycloptsError

from helix_kernel import __version__, catalogue
from helix_kernel.cli.direct import COMMANDS, GROUPS, exit_code, load, spelling
from helix_kernel.errors import AmbiguousNameError, UnknownNameError, did_you_mean
from helix_kernel.listing import listing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OWN = frozenset(words[0] for words in COMMANDS)


def run(arguments: Sequence[str]) -> int:
    """Run a command line; return its exit code.

    Raises:
        UnknownNameError: No command has the first word's name; names the distribution that
            brings it, if it is a first-party one.
        AmbiguousNameError: Several plugins bring a command of that name.
    """
    offered = [component for component in listing()["components"] if component["kind"] == "command"]
    brought = commands(offered)
    if arguments and not arguments[0].startswith("-"):
        _require(arguments, brought, offered)
    app = make_app(brought)
    if arguments[:1] == ["new"]:
        app["new"].help_epilogue = load("helix_kernel.cli.new:kinds_help")()
    try:
        returned = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        print(f"error: {error}\n  (helix --help lists the commands)", file=sys.stderr)
        return 2
    return exit_code(returned)


def commands(offered: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return plugins' commands by the word that calls each.

    A name that several plugins or the kernel claim is given to none of them: each is then called
    by ``provider:name``. An alias of two words, such as ``data show``, stands in a group.

    Args:
        offered: Tables of components of kind ``command``, as a listing holds them.
    """
    claims = Counter(name for component in offered for name in (component["name"], *component["aliases"]))
    found: dict[str, Mapping[str, Any]] = {}
    for component in offered:
        found[_qualified(component)] = component
        for name in (component["name"], *component["aliases"]):
            if claims[name] == 1 and name.partition(" ")[0] not in OWN:
                found[name] = component
    return found


def make_app(brought: Mapping[str, Mapping[str, Any]]) -> App:
    """Return the application; commands are imported when they are called."""
    app = App(name="helix", version=__version__, help="Post-transformer machine learning from parts.")
    groups = {name: App(name=name, help=summary) for name, summary in GROUPS.items()}
    for group in groups.values():
        app.command(group)
    for words, (target, summary) in COMMANDS.items():
        holder = groups[words[0]] if len(words) > 1 else app
        holder.command(target, name=words[-1], help=summary)
    for word, component in brought.items():
        name, _, verb = word.rpartition(" ")
        if name in brought:  # a command of one word is no group; the other is called by its own name
            continue
        if name and name not in groups:
            groups[name] = App(name=name, help=_group_summary(name, brought))
            app.command(groups[name])
        holder = groups[name] if name else app
        # A command that stands in a group is listed there, and not under its own name too.
        shown = ":" not in word and bool(name or " " not in spelling(component))
        holder.command(component["target"], name=verb, help=component["summary"], show=shown)
    return app


def _group_summary(group: str, brought: Mapping[str, Mapping[str, Any]]) -> str:
    verbs = [word.partition(" ")[2] for word in brought if word.startswith(f"{group} ")]
    return f"Commands: {', '.join(sorted(verbs))}"


def _require(
    arguments: Sequence[str], brought: Mapping[str, Mapping[str, Any]], offered: Sequence[Mapping[str, Any]]
) -> None:
    word = arguments[0]
    if word in OWN or any(word in (name, name.partition(" ")[0]) for name in brought):
        return
    claimants = [_qualified(c) for c in offered if word in (c["name"], *c["aliases"])]
    if claimants:
        raise AmbiguousNameError(f"several plugins bring the command {word!r}: call {' or '.join(claimants)}")
    from helix_kernel.kernel import default_kernel

    # A command in a group has the name that its words make: data-show is called as `data show`.
    owner = next(
        filter(None, (catalogue.distribution_of("command", "-".join(arguments[:n])) for n in (1, 2))), None
    )
    known = sorted(OWN | {spelling(brought[name]) for name in brought if ":" not in name})
    hint = "" if owner else did_you_mean(word, known)
    raise UnknownNameError(
        f"no command is called {word!r}.{hint} Commands: {', '.join(known)}."
        f"{default_kernel().registry.remedy(owner)}"
    )


def _qualified(component: Mapping[str, Any]) -> str:
    return f"{component['provider']}:{component['name']}"
