"""The commands that mend a finding, quoted as a POSIX shell takes them."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path


def install(*requirements: str, options: tuple[str, ...] = ()) -> str:
    """Return the command that installs requirements into this environment."""
    return shlex.join([*_installer("install"), *options, *requirements])


def reinstall(provider: str, version: str = "") -> str:
    """Return the command that puts a distribution's own files back."""
    requirement = f"{provider}=={version}" if version else provider
    return install(requirement, options=("--force-reinstall", "--no-deps"))


def upgrade(*requirements: str) -> str:
    """Return the command that installs the newest versions."""
    return install(*requirements, options=("--upgrade",))


def uninstall(provider: str) -> str:
    """Return the command that removes a distribution."""
    confirmed = () if _uv() else ("--yes",)  # uv does not ask
    return shlex.join([*_installer("uninstall"), *confirmed, provider])


def remove(*paths: str) -> str:
    """Return the command that deletes folders and files."""
    return shlex.join(["rm", "-r", *paths])


def leave_out(name: str) -> str:
    """Return the command that leaves a plugin out, beside those that are left out already."""
    others = [other for other in os.environ.get("HELIX_PLUGINS_DISABLED", "").split(",") if other.strip()]
    return f"export HELIX_PLUGINS_DISABLED={shlex.quote(','.join([*others, name]))}"


def _installer(command: str) -> list[str]:
    uv = _uv()
    return [uv, "pip", command, "--python", sys.executable] if uv else [_python(), "-m", "pip", command]


def _uv() -> str:
    """Return uv's name where it, and not pip, installs into this environment; else nothing."""
    return "uv" if find_spec("pip") is None and shutil.which("uv") else ""


def _python() -> str:
    """Return ``python`` where that word means this interpreter, else its path."""
    found = shutil.which("python")
    # Its real path would not do: that of a virtual environment's is the interpreter that made it.
    same = found is not None and Path(found).parent.absolute() == Path(sys.executable).parent.absolute()
    return "python" if same else sys.executable
