"""The command `config lock`."""

from __future__ import annotations

from pathlib import Path

from helix_kernel.cli.output import print_json
from helix_kernel.config import load_config
from helix_kernel.errors import InputError
from helix_kernel.lock import config_digest, lock_path, lock_text


def lock(file: str, *overrides: str, out: str | None = None, json: bool = False) -> None:
    """Record what a config and all that serves it are, so that ``--locked`` can hold to it.

    Components (nested ones, too) and the ops and backends that may serve them, each with its distribution,
    version and the digest of its source; and the config with every default filled in.

    Args:
        file: The TOML file.
        overrides: Assignments such as ``model.d_model=512``.
        out: Where to write it; ``config.lock.toml`` beside ``config.toml`` if left out.
        json: Print one JSON object.

    Raises:
        InputError: It cannot be written.
    """
    config = load_config(file, overrides)
    place = lock_path(file) if out is None else Path(out)
    try:
        place.write_text(lock_text(config), encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"the lock {str(place)!r} cannot be written: {error.strerror or error}") from error
    record = config.record
    if json:
        print_json({"lock": str(place), "config_digest": config_digest(config), **record.as_dict()})
    else:
        counts = f"{len(record.components)} components of {len(record.distributions)} distributions"
        print(f"{place}: {counts}; hold to it with --locked")
