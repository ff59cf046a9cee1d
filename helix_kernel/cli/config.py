"""The commands `config check`, `config resolve` and `config schema`. None imports torch."""

from __future__ import annotations

import sys

from helix_kernel.cli.output import print_json
from helix_kernel.config import load_config
from helix_kernel.errors import ConfigError, LockError


def check(
    file: str, *overrides: str, locked: bool = False, lock: str | None = None, json: bool = False
) -> int:
    """Report everything that is wrong with a config.

    Args:
        file: The TOML file.
        overrides: Assignments such as ``model.d_model=512``.
        locked: Refuse it, too, where it or what serves it is not as ``helix config lock`` recorded.
        lock: Hold to this lock instead of the one beside the config.
        json: Print one JSON object.

    Returns:
        0, or 2 where something is wrong.
    """
    try:
        if locked or lock is not None:
            from helix_kernel.lock import load_locked

            config = load_locked(file, overrides, lock=lock)
        else:
            config = load_config(file, overrides)
    except ConfigError as error:
        if not json:
            raise
        problems = [{"path": problem.path, "message": problem.message} for problem in error.problems]
        print_json({"file": file, "ok": False, "problems": problems})
        return error.exit_code
    except LockError as error:
        if not json:
            raise
        print_json({"file": file, "ok": False, "problems": [], "locked": str(error)})
        return error.exit_code
    if json:
        print_json({"file": file, "ok": True, "problems": []})
    else:
        used = ", ".join(f"{name} = {r.component.qualified}" for name, r in config.sections.items())
        print(f"{file}: ok ({used})")
    return 0


def resolve(file: str, *overrides: str, json: bool = False) -> None:
    """Print a config with every default filled in, and every component with provider and version.

    Args:
        file: The TOML file.
        overrides: Assignments such as ``model.d_model=512``.
        json: Print one JSON object instead of TOML.
    """
    config = load_config(file, overrides)
    if json:
        print_json(config.to_dict())
    else:
        sys.stdout.write(config.to_toml())


def schema(file: str | None = None, *, json: bool = False) -> None:
    """Print the JSON Schema of configs, for editors.

    Args:
        file: A config whose ``[kernel]`` table chooses the plugins; all installed ones if left out.
        json: Accepted for uniformity: the schema is JSON in any case.
    """
    from helix_kernel.config import read_settings
    from helix_kernel.config.json_schema import json_schema
    from helix_kernel.kernel import Kernel

    del json
    settings = read_settings(file) if file else None
    kernel = settings.kernel() if settings else Kernel()
    print_json(json_schema(kernel))
