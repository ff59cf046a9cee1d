"""The backend `cpu-simd`: its kernels, what this processor has, and how much memory is free."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from helix_cpu.library import LibraryError, library
from helix_cpu.ops.add_rms_norm import add_rms_norm, add_rms_norm_backward
from helix_cpu.ops.causal_conv1d import causal_conv1d, causal_conv1d_backward
from helix_cpu.ops.diagonal_scan import diagonal_scan, diagonal_scan_backward
from helix_cpu.ops.gated_delta_rule import gated_delta_rule, gated_delta_rule_backward
from helix_cpu.ops.gla import gla, gla_backward
from helix_cpu.ops.long_conv import long_conv, long_conv_backward
from helix_cpu.ops.rms_norm import rms_norm, rms_norm_backward
from helix_cpu.ops.rwkv7 import rwkv7, rwkv7_backward
from helix_cpu.ops.selective_scan import selective_scan, selective_scan_backward
from helix_cpu.ops.ssd_scan import ssd_scan, ssd_scan_backward
from helix_kernel.backends import Memory, Probe
from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MEMINFO = Path("/proc/meminfo")
_OPS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "add_rms_norm": add_rms_norm,
        "add_rms_norm_backward": add_rms_norm_backward,
        "causal_conv1d": causal_conv1d,
        "causal_conv1d_backward": causal_conv1d_backward,
        "diagonal_scan": diagonal_scan,
        "diagonal_scan_backward": diagonal_scan_backward,
        "gated_delta_rule": gated_delta_rule,
        "gated_delta_rule_backward": gated_delta_rule_backward,
        "gla": gla,
        "gla_backward": gla_backward,
        "long_conv": long_conv,
        "long_conv_backward": long_conv_backward,
        "rms_norm": rms_norm,
        "rms_norm_backward": rms_norm_backward,
        "rwkv7": rwkv7,
        "rwkv7_backward": rwkv7_backward,
        "selective_scan": selective_scan,
        "selective_scan_backward": selective_scan_backward,
        "ssd_scan": ssd_scan,
        "ssd_scan_backward": ssd_scan_backward,
    }
)


class CPUBackend:
    """The CPU, by its own instructions."""

    device_type = "cpu"
    priority = 10
    ops = _OPS

    def probe(self) -> Probe:
        """Say which instruction set serves here, and on how many threads; or why none does."""
        machine = platform.machine()
        try:
            used = library()
        except (LibraryError, ArgumentError) as error:
            return Probe(available=False, reason=str(error))
        threads = torch.get_num_threads() if used.threaded else 1
        return Probe(
            available=True,
            reason=f"{machine} with {used.isa}, {threads} threads",
            devices=(f"{machine} {used.isa}",),
        )

    def memory(self, index: int = 0) -> Memory | None:  # noqa: ARG002 - there is one CPU
        """Return the machine's memory, or None on a system that does not tell it."""
        if _MEMINFO.exists():
            return read_meminfo(_MEMINFO.read_text())
        return _from_sysconf()


def read_meminfo(text: str) -> Memory:
    """Read the text of Linux's ``/proc/meminfo``, which counts in KiB."""
    kib = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines() if ":" in line}
    return Memory(total=kib["MemTotal"] * 1024, available=kib["MemAvailable"] * 1024)


def _from_sysconf() -> Memory | None:
    """Ask POSIX; the pages that are free are a lower bound of what an allocation could get."""
    names = ("SC_PAGE_SIZE", "SC_PHYS_PAGES", "SC_AVPHYS_PAGES")
    if any(name not in os.sysconf_names for name in names):
        return None
    page, total, free = (os.sysconf(name) for name in names)
    return Memory(total=page * total, available=page * free)
