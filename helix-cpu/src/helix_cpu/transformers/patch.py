"""`patch_transformers`: puts Helix's functions where transformers' models look for theirs, and back again.

A modeling file of transformers binds each function of mamba-ssm, causal-conv1d or fla to a name of its own
module, and falls back to one in plain PyTorch. Models look the name up whenever they run, so exchanging it
serves models that exist already and models yet to be built.
"""

from __future__ import annotations

import sys
from collections import Counter
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from helix_cpu.transformers.loading import ModelingFinder, imported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

_OLDEST = "5.15"
"""The first transformers in which every model reaches these functions by names of its modeling file."""

_FUNCTIONS = MappingProxyType(
    {
        "causal_conv1d_fn": "convolution:causal_conv1d_fn",
        "causal_conv1d_update": "convolution:causal_conv1d_update",
        "chunk_kimi_delta_attention": "delta:chunk_kda",
        "mamba2_chunk_scan": "scan:mamba_chunk_scan_combined",
        "mamba2_selective_state_update": "step:selective_state_update",
        "mamba2_split_conv1d_scan_combined": "scan:fused",
        "mamba_inner_fn": "scan:fused",
        "mamba_selective_scan": "scan:selective_scan_fn",
        "mamba_selective_state_update": "step:selective_state_update",
        "recurrent_kimi_delta_attention": "delta:fused_recurrent_kda",
        "torch_chunk_gated_delta_rule": "delta:chunk_gated_delta_rule",
        "torch_recurrent_gated_delta_rule": "delta:fused_recurrent_gated_delta_rule",
    }
)
"""Names in modeling files, and what of this package stands for them."""


def patch_transformers() -> TransformersPatch:
    """Let transformers' models run on Helix's kernels wherever their tensors lie on the CPU.

    It serves models built before or after, and may itself be called before or after transformers is
    imported; calls of it nest, and transformers is as it was when each has been undone. Calls on other
    devices, in float64, of tensor subclasses, and those that a compiler, a tracer or a function transform
    follows go where they went before. Beyond its reach is what was taken out of a modeling file earlier: a
    function imported from it by name, a model that is compiled or exported.

    Returns:
        The patch: ``undo()`` ends it, as does the end of a ``with`` block over it.

    Raises:
        DependencyError: transformers is not installed, or too old.
        helix_cpu.library.LibraryError: The kernels' library is missing, or does not fit this machine.
        helix_kernel.errors.ArgumentError: ``HELIX_CPU_ISA`` names no instruction set.
    """
    _check_version()
    _check_library()
    return TransformersPatch()


class TransformersPatch:
    """Helix's functions at work in transformers, until `undo` or the end of a ``with`` block."""

    def __init__(self) -> None:
        self._ended = False
        _PROCESS.enter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.undo()

    def __repr__(self) -> str:
        return f"TransformersPatch({'undone' if self._ended else dict(self.calls)})"

    @property
    def calls(self) -> Mapping[str, int]:
        """How often each function was served by Helix in this process, by its name in transformers."""
        return MappingProxyType(_PROCESS.calls)

    def undo(self) -> None:
        """Take this patch back; once is enough, and more does nothing."""
        if not self._ended:
            self._ended = True
            _PROCESS.leave()


def bind_when_imported() -> None:
    """Patch transformers for the life of the process; what that needs is looked for with the first model.

    For start-up files: it imports nothing that is large.
    """
    _PROCESS.enter()


class _Process:
    """What is in force: a process has one set of modeling files.

    Attributes:
        calls: Calls served so far, by the function's name in transformers.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._depth = 0
        self._bindings: list[tuple[ModuleType, str, Any, Any]] = []
        self._finder = ModelingFinder(self._bind)

    @property
    def active(self) -> bool:
        """Whether any patch is in force; a function that outlives its patch asks this."""
        return self._depth > 0

    def enter(self) -> None:
        self._depth += 1
        if self._depth == 1:
            sys.meta_path.insert(0, self._finder)
            try:
                for module in imported():
                    self._bind(module)
            except BaseException:
                self.leave()
                raise

    def leave(self) -> None:
        self._depth -= 1
        if self._depth == 0:
            sys.meta_path.remove(self._finder)
            for module, name, before, ours in self._bindings:
                if module.__dict__.get(name) is ours:  # else somebody bound it anew
                    setattr(module, name, before)
            self._bindings.clear()

    def _bind(self, module: ModuleType) -> None:
        names = [name for name in _FUNCTIONS if callable(module.__dict__.get(name))]
        if not names:
            return
        _check_version()
        _check_library()
        from helix_cpu.transformers.dispatch import dispatch

        # Where the scan of a model takes no bounds of packed sequences, its convolution must not honour them.
        packs = "mamba_selective_scan" not in names
        for name in names:
            before = module.__dict__[name]
            ours = dispatch(name, before, _resolve(_FUNCTIONS[name]), self, packs=packs)
            setattr(module, name, ours)
            self._bindings.append((module, name, before, ours))


_PROCESS = _Process()


def _resolve(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    return getattr(import_module(f"helix_cpu.transformers.{module}"), name)  # type: ignore[no-any-return]  # by name


def _check_version() -> None:
    from importlib.metadata import PackageNotFoundError, version

    from packaging.version import Version

    from helix_kernel.errors import DependencyError

    try:
        installed = version("transformers")
    except PackageNotFoundError:
        raise DependencyError(
            "patch_transformers() needs transformers, which is not installed: pip install transformers"
        ) from None
    if Version(installed) < Version(_OLDEST):
        raise DependencyError(
            f"patch_transformers() serves transformers {_OLDEST} and newer, but {installed} is installed:"
            " pip install --upgrade transformers"
        )


def _check_library() -> None:
    from helix_cpu.library import library

    library()
