"""The kernels that transformers' functions come down to, with gradients."""

from __future__ import annotations

from helix_cpu.autograd import Differentiable
from helix_cpu.ops.causal_conv1d import causal_conv1d, causal_conv1d_backward
from helix_cpu.ops.gated_delta_rule import gated_delta_rule, gated_delta_rule_backward
from helix_cpu.ops.rwkv7 import rwkv7, rwkv7_backward
from helix_cpu.ops.selective_scan import selective_scan, selective_scan_backward
from helix_cpu.ops.ssd_scan import ssd_scan, ssd_scan_backward

CONVOLUTION = Differentiable("causal_conv1d", causal_conv1d, causal_conv1d_backward, leaves=(0, 1, 2, 4))
SELECTIVE = Differentiable(
    "selective_scan", selective_scan, selective_scan_backward, leaves=(0, 1, 2, 3, 4, 5, 6, 7, 9), n_saved=1
)
SSD = Differentiable("ssd_scan", ssd_scan, ssd_scan_backward, leaves=(0, 1, 2, 3, 4, 5, 6, 9))
GATED_DELTA = Differentiable(
    "gated_delta_rule", gated_delta_rule, gated_delta_rule_backward, leaves=(0, 1, 2, 3, 4, 6)
)
RWKV7 = Differentiable("rwkv7", rwkv7, rwkv7_backward, leaves=(0, 1, 2, 3, 4, 5, 6))
