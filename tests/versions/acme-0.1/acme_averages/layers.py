"""The moving average itself."""

import torch


class Smoother(torch.nn.Module):
    def __init__(self, *, d_model, rate=0.9):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((d_model,), rate))

    def forward(self, x):  # (B, L, D)
        state, y = torch.zeros_like(x[:, 0]), []
        for x_t in x.unbind(1):
            state = self.weight * state + (1 - self.weight) * x_t
            y.append(state)
        return torch.stack(y, 1)
