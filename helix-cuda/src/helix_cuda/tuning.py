"""Kernels with a few configurations: which is fastest is measured once for a device and kept on disk."""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import triton

from helix_cuda.interpreter import interprets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

VARIABLE = "HELIX_CUDA_TUNE"
"""Environment variable: ``0`` takes each kernel's first configuration and measures nothing."""


def tuned(configs: Sequence[triton.Config], key: Sequence[str]) -> Callable[[Any], Tuned]:
    """Decorate a kernel, under ``@tuned(…)`` over ``@triton.jit``, with the configurations it is tried in.

    Args:
        configs: The configurations; the first serves where nothing is measured.
        key: Names of the arguments by whose values a measurement is kept; the tensors' dtypes count too.
            Give rounded sizes, so that not every length is measured anew.
    """
    return partial(Tuned, configs=configs, key=key)


class Tuned:
    """A kernel that is launched as Triton's are, ``kernel[grid](…)``, in the configuration that is fastest.

    The first one is taken, and nothing is measured, by the interpreter, where torch is told to use
    deterministic algorithms (another configuration may round differently), and with `VARIABLE` set to 0;
    inside `taking` another.
    """

    def __init__(self, kernel: Any, configs: Sequence[triton.Config], key: Sequence[str]) -> None:
        self.kernel = kernel
        self.configs = tuple(configs)
        self._tuner = (
            None
            if interprets()
            else triton.autotune(configs=list(configs), key=list(key), cache_results=True)(kernel)
        )

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        """Return what launches the kernel on a grid: a tuple, or a function of the meta-parameters."""
        choice = _CHOICE.get()
        if choice is not None:
            return partial(self.kernel[grid], **_for_this_mode(choice.of(self.configs)))
        if self._tuner is None or _takes_the_first():
            return partial(self.kernel[grid], **_for_this_mode(self.configs[0]))
        return self._tuner[grid]  # type: ignore[no-any-return]  # triton is untyped


class Choice:
    """One configuration of every kernel, by its index; of kernels with fewer, the first.

    Attributes:
        index: Which.
        exists: Whether any kernel launched so far has that many.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.exists = False

    def of(self, configs: Sequence[triton.Config]) -> triton.Config:
        """Return the configuration chosen of a kernel's."""
        has_it = self.index < len(configs)
        self.exists |= has_it
        return configs[self.index if has_it else 0]


@contextmanager
def taking(index: int) -> Iterator[Choice]:
    """Have every kernel that this thread launches take a given configuration, until the block ends."""
    choice = Choice(index)
    token = _CHOICE.set(choice)
    try:
        yield choice
    finally:
        _CHOICE.reset(token)


_CHOICE: ContextVar[Choice | None] = ContextVar("choice of configurations", default=None)


def _for_this_mode(config: triton.Config) -> dict[str, Any]:
    return dict(config.kwargs) if interprets() else config.all_kwargs()


def _takes_the_first() -> bool:
    return torch.are_deterministic_algorithms_enabled() or os.environ.get(VARIABLE) == "0"
