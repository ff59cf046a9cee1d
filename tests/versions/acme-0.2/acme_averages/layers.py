"""The moving average itself."""

import torch


class EMA(torch.nn.Module):
    def __init__(self, *, d_model, decay=0.9):
        super().__init__()
        self.decay = torch.nn.Parameter(torch.full((d_model,), decay))

    def forward(self, x):  # (B, L, D)
        state, y = torch.zeros_like(x[:, 0]), []
        for x_t in x.unbind(1):
            state = self.decay * state + (1 - self.decay) * x_t
            y.append(state)
        return torch.stack(y, 1)
