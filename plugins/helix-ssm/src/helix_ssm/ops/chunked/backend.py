"""What `torch-chunked` offers to the choice of backends."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from helix_kernel.backends import ANY_DEVICE, Memory, Probe
from helix_ssm.ops.chunked.add_rms_norm import add_rms_norm, add_rms_norm_backward
from helix_ssm.ops.chunked.causal_conv1d import causal_conv1d, causal_conv1d_backward
from helix_ssm.ops.chunked.diagonal_scan import diagonal_scan, diagonal_scan_backward
from helix_ssm.ops.chunked.gated_delta_rule import gated_delta_rule, gated_delta_rule_backward
from helix_ssm.ops.chunked.gla import gla, gla_backward
from helix_ssm.ops.chunked.grouped_linear import grouped_linear, grouped_linear_backward
from helix_ssm.ops.chunked.long_conv import long_conv, long_conv_backward
from helix_ssm.ops.chunked.rms_norm import rms_norm, rms_norm_backward
from helix_ssm.ops.chunked.rwkv7 import rwkv7, rwkv7_backward
from helix_ssm.ops.chunked.selective_scan import selective_scan, selective_scan_backward
from helix_ssm.ops.chunked.ssd_scan import ssd_scan, ssd_scan_backward

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
        "grouped_linear": grouped_linear,
        "grouped_linear_backward": grouped_linear_backward,
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


class ChunkedBackend:
    """Plain PyTorch on any device: the lowest priority, for whatever nothing else serves."""

    device_type = ANY_DEVICE
    priority = 0
    ops = _OPS

    def probe(self) -> Probe:
        """Always available: it needs PyTorch only."""
        import torch

        return Probe(available=True, reason=f"PyTorch {torch.__version__}", devices=("cpu",))

    def memory(self, index: int = 0) -> Memory | None:  # noqa: ARG002 - it has no device of its own
        """Return None: it has no device of its own."""
        return None
