"""The ops of helix-ssm: Python entries that check their arguments and end in ``torch.ops.helix``.

Each module holds one op: its entry, its contract (``contract``) with the reference, and samples.
"""

from helix_ssm.ops.add_rms_norm import add_rms_norm
from helix_ssm.ops.causal_conv1d import causal_conv1d
from helix_ssm.ops.diagonal_scan import diagonal_scan
from helix_ssm.ops.gated_delta_rule import gated_delta_rule
from helix_ssm.ops.gla import gla
from helix_ssm.ops.grouped_linear import grouped_linear
from helix_ssm.ops.long_conv import long_conv
from helix_ssm.ops.rms_norm import rms_norm
from helix_ssm.ops.rwkv7 import rwkv7
from helix_ssm.ops.selective_scan import selective_scan
from helix_ssm.ops.ssd_scan import ssd_scan

__all__ = [
    "add_rms_norm",
    "causal_conv1d",
    "diagonal_scan",
    "gated_delta_rule",
    "gla",
    "grouped_linear",
    "long_conv",
    "rms_norm",
    "rwkv7",
    "selective_scan",
    "ssd_scan",
]
