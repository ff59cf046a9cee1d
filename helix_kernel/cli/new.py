"""The command `new`: a complete distribution for a component of one's own."""

from __future__ import annotations

from pathlib import Path

from helix_kernel.cli.output import print_json

TYPE_CHECKING = False  # see helix_kernel.cli
if TYPE_CHECKING:
    from typing import Any

    from helix_kernel.component import Kind
    from helix_kernel.registry import Registry


def new(
    kind: str | None = None,
    name: str | None = None,
    *,
    provider: str | None = None,
    package: str | None = None,
    out: str | None = None,
    kernel: str | None = None,
    json: bool = False,
) -> None:
    """Write a new distribution: a component that works, its tests, and all that shipping it takes.

    Args:
        kind: Kind of the component, such as ``layer``.
        name: What configs will call it, such as ``my-layer``.
        provider: Name of the distribution; ``helix-NAME`` if left out.
        package: Name that Python imports; the distribution's, with underscores, if left out.
        out: Directory to make; the distribution's name, here, if left out.
        kernel: How a backend's kernel is written: ``python``, ``native`` (C++) or ``triton``.
        json: Print one JSON object.

    Raises:
        InputError: Kind or name are left out, there is no such kind, a name is malformed or taken, or the
            directory is there already.
    """
    from helix_kernel.kernel import default_kernel
    from helix_kernel.new.distribution import Distribution, write
    from helix_kernel.new.names import check_free, names_of

    registry = default_kernel().registry
    kind, name = _required(kind, name, registry)
    found = registry.kind(kind)
    names = names_of(name, provider, package)
    check_free(names, found.name, registry)
    versions = {plugin.provider: plugin.version for plugin in registry.plugins}
    owner = {"owner_version": versions[found.provider]} if found.provider in versions else {}
    made = Distribution(kind=found, names=names, variant=kernel, **owner)
    directory = Path(out or names.provider)
    files = made.files()
    write(files, directory)
    report = {
        "kind": found.name,
        "name": names.name,
        "provider": names.provider,
        "package": names.package,
        "directory": str(directory),
        "files": sorted(files),
        "next": _next_steps(directory, names.provider),
    }
    if json:
        print_json(report)
    else:
        _print(report)


def kinds_help() -> str:
    """Return the kinds of which `new` makes components, as Markdown, for ``helix new --help``."""
    from helix_kernel.kernel import default_kernel
    from helix_kernel.new.template import variants_of

    def line(kind: Kind) -> str:
        variants = variants_of(kind)
        choice = f" (`--kernel` {', '.join(variants)})" if variants else ""
        return f"- **{kind.name}**: {kind.summary}{choice}"

    kinds = sorted(default_kernel().registry.kinds.values(), key=lambda kind: kind.name)
    return "\n".join(["Kinds:", "", *map(line, kinds)])


def _required(kind: str | None, name: str | None, registry: Registry) -> tuple[str, str]:
    from helix_kernel.errors import ArgumentError

    if kind is None:
        raise ArgumentError(
            "helix new needs a KIND and a NAME, such as: helix new layer my-layer\n"
            f"  Kinds: {', '.join(sorted(registry.kinds))} (helix new --help says what each is)"
        )
    if name is None:
        singular = registry.kind(kind).name
        example = f"helix new {singular} my-{singular.replace('_', '-')}"
        raise ArgumentError(f"helix new {kind} needs a NAME, too, such as: {example}")
    return kind, name


def _next_steps(directory: Path, provider: str) -> list[str]:
    return [
        f"cd {directory}",
        "pip install -e '.[test]'",
        "pytest",
        f"pytest --helix-provider {provider}",
    ]


def _print(report: dict[str, Any]) -> None:
    count = len(report["files"])
    print(f"{report['directory']}: the {report['kind']} {report['name']!r} in {count} files, of which")
    code = f"src/{report['package']}/{report['name'].replace('-', '_')}.py"
    print(f"  {code} is yours to change, and README.md says the rest. Next:\n")
    for step in report["next"]:
        print(f"  {step}")
