"""Triton's interpreter: whether it runs the kernels of this process, and what has to be mended in it."""

from __future__ import annotations

import dataclasses
import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def interprets() -> bool:
    """Return whether kernels are interpreted on the CPU, which ``TRITON_INTERPRET=1`` asks for.

    Triton looks when it is imported, and so decides for the whole process.
    """
    triton = sys.modules.get("triton")
    if triton is None:
        return os.environ.get("TRITON_INTERPRET") == "1"
    return bool(triton.knobs.runtime.interpret)


def mend() -> None:
    """Mend Triton's interpreter; more than once is well.

    Its scalars are arrays of one element in one dimension, which NumPy from 2.4 on no longer turns into an
    ``int``, so that a kernel's ``range`` over anything but a constant would fail. It keeps bfloat16 in
    unsigned integers, which its product of matrices takes for numbers; and it cuts float32 off to bfloat16,
    where processors round. What takes most of its time is left out: the language patched anew whenever a
    function calls another, though it is already; a check of each sum of integers for overflow; and tables and
    types of shapes made anew for each operation.
    """
    from triton.runtime import interpreter

    original = interpreter._patch_lang_tensor  # noqa: SLF001 - there is no public way
    if getattr(original, "mended", False):
        return

    def patch(tensor: Any, *scope: Any) -> None:  # Triton 3.4 has no scope: it never takes back what it sets
        original(tensor, *scope)
        set_attr = scope[0].set_attr if scope else setattr
        set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    patch.mended = True  # type: ignore[attr-defined]
    interpreter._patch_lang_tensor = patch  # noqa: SLF001 - as above
    _mend_bfloat16(interpreter)
    _hasten(interpreter)


def _hasten(interpreter: Any) -> None:
    from triton.language import core

    builder = interpreter.interpreter_builder
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        # A kernel's launch has patched what its own functions see, but not the `core` of Triton's.
        if function.fn.__module__.startswith("triton.") and core.is_builtin(core.load):
            interpreter._patch_lang(function.fn)  # noqa: SLF001 - there is no public way
        return function.rewrite()(*args, **kwargs)

    interpreter.InterpretedFunction.__call__ = call
    if hasattr(core, "_type_for_tuple_values"):  # from Triton 3.5 on
        core._type_for_tuple_values = _types_kept(core)  # noqa: SLF001 - as above
    in_numpy = interpreter._get_np_dtype  # noqa: SLF001 - as above
    kept = cache(in_numpy)
    interpreter._get_np_dtype = lambda kind: (  # noqa: SLF001 - as above
        in_numpy(kind) if kind.scalar.is_ptr() else kept(kind.scalar)  # pointers have no hash
    )


def _types_kept(core: Any) -> Callable[..., Any]:
    """Return what finds the type of a tuple, and keeps those of shapes."""
    original = core._type_for_tuple_values  # noqa: SLF001 - there is no public way
    kept = cache(original)

    def find(values: Sequence[Any], fields: Any = None) -> Any:
        plain = [value.value if type(value) is core.constexpr else value for value in values]
        is_shape = fields is None and all(type(value) is int for value in plain)
        return kept(tuple(plain)) if is_shape else original(values, fields)

    return find


def _mend_bfloat16(interpreter: Any) -> None:
    import torch
    from triton import language

    convert, multiply = interpreter._convert_float, interpreter.InterpreterBuilder.create_dot  # noqa: SLF001 - as above

    def rounding(data: Any, given: Any, wanted: Any, mode: Any) -> Any:
        if given is language.bfloat16 and wanted is language.float32:
            return data.astype("uint32") << 16
        if given is language.float32 and wanted is language.bfloat16:
            return torch.tensor(data).to(torch.bfloat16).view(torch.int16).numpy().view("uint16")
        return convert(data, given, wanted, mode)

    def widened(matrix: Any) -> Any:
        if matrix.dtype.scalar is not language.bfloat16:
            return matrix
        return type(matrix)((matrix.data.astype("uint32") << 16).view("float32"), language.float32)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return multiply(self, widened(a), widened(b), *rest)

    interpreter._convert_float = rounding  # noqa: SLF001 - as above
    interpreter.InterpreterBuilder.create_dot = create_dot
