"""Triton's interpreter: whether it runs the kernels of this process, and what has to be mended in it."""

from __future__ import annotations

import os
import sys
from typing import Any


def interprets() -> bool:
    """Return whether kernels are interpreted on the CPU, which ``TRITON_INTERPRET=1`` asks for.

    Triton looks when it is imported, and so decides for the whole process.
    """
    triton = sys.modules.get("triton")
    if triton is None:
        return os.environ.get("TRITON_INTERPRET") == "1"
    return bool(triton.knobs.runtime.interpret)


def mend() -> None:
    """Let the interpreter of Triton 3.6 and before count with NumPy 2.4 and later; more than once is well.

    Its scalars are arrays of one element in one dimension, which NumPy no longer turns into an ``int``, so
    that a kernel's ``range`` over anything but a constant would fail.
    """
    from triton.runtime import interpreter

    original = interpreter._patch_lang_tensor  # noqa: SLF001 - there is no public way
    if getattr(original, "mended", False):
        return

    def patch(tensor: Any, scope: Any) -> None:
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    patch.mended = True  # type: ignore[attr-defined]
    interpreter._patch_lang_tensor = patch  # noqa: SLF001 - as above
