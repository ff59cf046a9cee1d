"""How the step sizes of Mamba's family begin."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def initial_dt_bias(size: int, *, dt_min: float, dt_max: float, dt_floor: float = 1e-4) -> Tensor:
    """Return biases (size,) whose softplus is log-uniform in [dt_min, dt_max].

    Gu and Dao 2023, arXiv:2312.00752, section 3.6.

    Args:
        size: Number of biases.
        dt_min: Smallest step size.
        dt_max: Largest step size.
        dt_floor: What smaller step sizes are raised to.
    """
    dt = torch.empty(size).uniform_(math.log(dt_min), math.log(dt_max)).exp().clamp(min=dt_floor)
    return dt + torch.log(-torch.expm1(-dt))
