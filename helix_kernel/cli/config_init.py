"""The command `config init`. It imports no torch."""

from __future__ import annotations

import json as _json
from pathlib import Path

from helix_kernel.cli.output import print_json
from helix_kernel.errors import InputError

TYPE_CHECKING = False  # see helix_kernel.cli
if TYPE_CHECKING:
    from typing import Any


def init(
    *choices: str, out: str = "config.toml", schema: str = "helix.schema.json", json: bool = False
) -> None:
    """Write a config that runs, every further option in it as a comment, and the schema for editors.

    Args:
        choices: Components, such as ``model=language-model mixer=mamba optimizer=lion``.
        out: The config to write; one that exists is never written over.
        schema: The JSON Schema to write for it, relative to its folder.
        json: Print one JSON object.

    Raises:
        InputError: A file exists already, or a choice is not of the form section=component.
    """
    from helix_kernel.config.json_schema import json_schema
    from helix_kernel.config.starter import as_toml, starter
    from helix_kernel.kernel import default_kernel

    kernel, path = default_kernel(), Path(out)
    schema_path = path.parent / schema
    table = starter(kernel, _parsed(choices))
    text = as_toml(kernel, table, schema if Path(schema).is_absolute() else f"./{schema}")
    _refuse_what_is_not_ours(schema_path)
    _write_new(path, text)
    schema_path.write_text(_json.dumps(json_schema(kernel), indent=1) + "\n", encoding="utf-8")
    used = {name: section["use"] for name, section in table.items()}
    if json:
        print_json({"file": out, "schema": str(schema_path), "components": used})
    else:
        print(f"{out}: {', '.join(f'{name} = {use}' for name, use in used.items())}")
        print(f"next: helix config check {out}, then helix train {out}")


def _parsed(choices: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for choice in choices:
        name, sign, use = choice.partition("=")
        if not (sign and name and use):
            hint = f"; to name the file, write --out {choice}" if choice.endswith(".toml") else ""
            raise InputError(
                f"choice {choice!r} is not of the form section=component, as model=language-model is{hint}"
            )
        found[name.strip().removeprefix("model.")] = use.strip()
    return found


def _refuse_what_is_not_ours(path: Path) -> None:
    """Let a schema that this command wrote be written anew, since it is made of what is installed."""
    from helix_kernel.config.json_schema import ID

    if not path.exists():
        return
    try:
        found: Any = _json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not (isinstance(found, dict) and found.get("$id") == ID):
        raise InputError(f"{str(path)!r} exists and is no schema of Helix; choose another file by --schema")


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{str(path)!r} exists already; choose another file by --out") from None
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written: {error.strerror}") from error
