"""What ``HELIX_CPU_PATCH_TRANSFORMERS`` does when Python starts: a .pth file comes here where it is set."""

from __future__ import annotations

import os

VARIABLE = "HELIX_CPU_PATCH_TRANSFORMERS"


def start() -> None:
    """Patch transformers for this process where the variable is 1.

    Raises:
        ArgumentError: It is neither 0 nor 1; Python prints this as it starts, and goes on.
    """
    value = os.environ.get(VARIABLE, "")
    if value == "1":
        from helix_cpu.transformers.patch import bind_when_imported

        bind_when_imported()
    elif value not in ("", "0"):
        from helix_kernel.errors import ArgumentError

        raise ArgumentError(f"{VARIABLE} is {value!r}, allowed is 0 or 1")
