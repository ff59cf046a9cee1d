"""What this machine has: Python, torch, threads, SIMD level, accelerators."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any

from helix_kernel import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

SELECTING = ("HELIX_PLUGINS", "HELIX_PLUGINS_DISABLED")


def environment() -> dict[str, Any]:
    """Return plain values by name; ``torch`` is None where it cannot be imported."""
    found: dict[str, Any] = {
        "helix-kernel": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "torch": None,
        **{name: os.environ[name] for name in SELECTING if name in os.environ},
    }
    try:
        import torch
    except ImportError:
        return found
    found["torch"] = torch.__version__
    found["threads"] = torch.get_num_threads()
    found["simd"] = torch.backends.cpu.get_cpu_capability()
    found["accelerators"] = list(_accelerators())
    return found


def _accelerators() -> Iterator[dict[str, Any]]:
    """Yield device, name and bytes of memory of each; what a type of device does not tell is None."""
    import torch

    if not torch.accelerator.is_available():
        return
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    module = torch.get_device_module(kind.type)
    for index in range(torch.accelerator.device_count()):
        properties = getattr(module, "get_device_properties", lambda _: None)(index)
        yield {
            "device": f"{kind.type}:{index}",
            "name": getattr(properties, "name", None),
            "memory": getattr(properties, "total_memory", None),
        }
