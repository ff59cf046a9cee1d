"""A config's lock: a file beside it that records what serves it, and the check that this still does."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from helix_kernel import __version__
from helix_kernel.config import load_config, read_settings
from helix_kernel.config.schema import schema_of
from helix_kernel.diagnosis.mending import install
from helix_kernel.errors import ConfigError, LockError
from helix_kernel.lock_differences import (
    config_differences,
    source_differences,
    unlocked_backends,
    version_differences,
)
from helix_kernel.lock_record import KERNEL, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helix_kernel.config import Config
    from helix_kernel.lock_differences import Difference

FORMAT = 1
_HEAD = "# Written by `helix config lock`; `--locked` holds to it. Change the config, and lock it anew.\n"


def lock_path(config: str | Path) -> Path:
    """Return where a config's lock lies: ``config.lock.toml`` beside ``config.toml``."""
    return Path(config).with_suffix(".lock.toml")


def lock_text(config: Config) -> str:
    """Return the lock of a config, as TOML. The same config and source give the same text anywhere."""
    table = {"format": FORMAT, "config_digest": config_digest(config), **config.record.as_dict()}
    return _HEAD + tomli_w.dumps({**table, "config": _options(config)})


def config_digest(config: Config) -> str:
    """Return the digest of a config with every default filled in; what serves it does not count."""
    text = json.dumps(_options(config), sort_keys=True, default=str)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def load_locked(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    lock: str | Path | None = None,
) -> Config:
    """Load a config as `helix_kernel.load_config` does, if it and what serves it are as locked.

    Options that are declared with ``option(locked=False)`` may differ.

    Args:
        path: A TOML file.
        overrides: Assignments such as ``"model.d_model=512"``.
        lock: The lock; the one beside the config if left out.

    Raises:
        InputError: The config is missing.
        ConfigError: It is wrong, though all versions are the locked ones.
        LockError: The lock is missing or damaged, or something differs: names each thing, what is locked,
            what is there instead, and the command that mends it.
    """
    place = lock_path(path) if lock is None else Path(lock)
    locked, options = _read(place, path)
    versions = version_differences(locked, _versions(path))
    try:
        config = load_config(path, overrides)
    except ConfigError as error:
        if not versions:
            raise
        raise LockError(_refusal(path, place, [*map(str, versions), str(error)], versions)) from error
    found = [
        *versions,
        *source_differences(locked, config.record),
        *unlocked_backends(locked, config.record),
        *config_differences(options, _options(config), free=_free(config)),
    ]
    if found:
        raise LockError(_refusal(path, place, list(map(str, found)), found))
    return config


def _options(config: Config) -> dict[str, Any]:
    """Return the frozen table without the versions, which have a place of their own."""
    table = config.to_dict()
    table["kernel"] = {name: value for name, value in table["kernel"].items() if name != "components"}
    return table


def _free(config: Config) -> list[str]:
    """Return the options of sections that each call chooses."""
    return [
        f"{name}.{option.name}"
        for name, resolved in config.sections.items()
        for option in schema_of(resolved.component).options.values()
        if not option.locked
    ]


def _read(place: Path, config: str | Path) -> tuple[Record, dict[str, Any]]:
    again = f"make it by: helix config lock {config}"
    try:
        table = tomllib.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LockError(f"there is no lock {str(place)!r}; {again}") from error
    except (OSError, ValueError) as error:
        raise LockError(f"the lock {str(place)!r} cannot be read: {error}; {again}") from error
    if table.get("format") != FORMAT or not isinstance(table.get("config"), dict):
        raise LockError(f"{str(place)!r} is no lock of format {FORMAT}, the one this version reads; {again}")
    try:
        return Record.from_dict(table), table["config"]
    except LockError as error:
        raise LockError(f"the lock {str(place)!r} is damaged: {error}; {again}") from error


def _versions(path: str | Path) -> dict[str, str]:
    plugins = read_settings(path).kernel().plugins
    return {KERNEL: __version__, **{plugin.provider: plugin.version for plugin in plugins}}


def _refusal(config: str | Path, place: Path, lines: list[str], found: Sequence[Difference]) -> str:
    requirements = list(dict.fromkeys(d.requirement for d in found if d.requirement))
    if len(requirements) > 1:
        lines.append(f"all at once: {install(*requirements)}")
    lines.append(f"or, where this is meant, lock anew: helix config lock {config}")
    return "\n  ".join([f"{config} is not what {str(place)!r} locks:", *lines])
