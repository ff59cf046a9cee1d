"""Pictures of any number of channels as grey, colours, or colours with alpha."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Channels = Literal[1, 3, 4]
_LUMA = (0.299, 0.587, 0.114)


def to_channels(x: Tensor, own_channels: Tensor, channels: Channels) -> Tensor:
    """Return pictures that have one number of channels.

    Args:
        x: (B, C, H, W) in 0 to 1, of which each row has its own number of channels: 1 grey, 2 grey and
            alpha, 3 colours, 4 colours and alpha.
        own_channels: That number (B,).
        channels: 1 for grey (luma of ITU-R BT.601, section 2.5.1), 3 for colours, 4 for colours and alpha,
            which is 1 where a picture has none. Without alpha, pictures stand on black.

    Returns:
        (B, channels, H, W).
    """
    n = own_channels.view(-1, 1, 1, 1)
    x = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, max(0, 4 - x.shape[1])))[:, :4]
    colours = torch.where(n <= 2, x[:, :1], x[:, :3])
    second, fourth = x[:, 1:2], x[:, 3:4]
    alpha = torch.where(n == 2, second, torch.where(n >= 4, fourth, torch.ones_like(second)))
    if channels == 4:
        return torch.cat([colours, alpha], 1)
    colours = colours * alpha
    return colours if channels == 3 else _luma(colours)


def from_channels(x: Tensor, own_channels: Tensor) -> Tensor:
    """Return pictures in channels of their own, the reverse of `to_channels` as far as there is one.

    Args:
        x: (B, 1, 3 or 4, H, W): grey, colours, or colours and alpha.
        own_channels: How many each row is to have (B,), 1 to 4; alpha that x does not tell is 1.

    Returns:
        (B, 4, H, W), of which a row's own channels are the first.
    """
    n = own_channels.view(-1, 1, 1, 1)
    alpha = x[:, 3:] if x.shape[1] == 4 else torch.ones_like(x[:, :1])
    colours = x[:, :1].expand(-1, 3, -1, -1) if x.shape[1] == 1 else x[:, :3]
    grey = x[:, :1] if x.shape[1] == 1 else _luma(colours)
    of_grey = torch.cat([grey, alpha, grey, grey], 1)
    return torch.where(n <= 2, of_grey, torch.cat([colours, alpha], 1))


def _luma(colours: Tensor) -> Tensor:
    return (colours * colours.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
