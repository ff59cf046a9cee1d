"""The ops that helix-cuda implements, one module each, and one for what each is made of in Triton."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from helix_cuda.interpreter import interprets, mend

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAMES = (
    "add_rms_norm",
    "causal_conv1d",
    "diagonal_scan",
    "gated_delta_rule",
    "gla",
    "long_conv",
    "rms_norm",
    "rwkv7",
    "selective_scan",
    "ssd_scan",
)
"""The ops; the module ``helix_cuda.ops.<name>`` holds the functions ``<name>`` and ``<name>_backward``."""


@cache
def implementations() -> Mapping[str, Callable[..., Any]]:
    """Return each op and its gradient by name. This imports Triton."""
    if interprets():
        mend()
    found = {}
    for name in NAMES:
        module = import_module(f"helix_cuda.ops.{name}")
        for each in (name, f"{name}_backward"):
            found[each] = getattr(module, each)
    return MappingProxyType(found)
