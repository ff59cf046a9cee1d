"""A plugin whose model has what several ranks must mind, and callbacks that act on one rank only."""

from __future__ import annotations

import os
import signal

import torch
from torch import distributed

import helix_kernel
from helix_kernel import Component
from helix_kernel.errors import HelixError
from helix_train.callbacks.base import Callback, Verdict


class Block(torch.nn.Module):
    """A map with a residual, weights that no decay may touch, a count of what it saw, and its own loss."""

    def __init__(self, d_model: int, dropout: float):
        super().__init__()
        self.inner = torch.nn.Linear(d_model, d_model, bias=False)
        self.shift = torch.nn.Parameter(torch.randn(3, d_model))
        self.shift._no_weight_decay = True
        self.dropout = torch.nn.Dropout(dropout)
        self.register_buffer("seen", torch.zeros(()))
        self.auxiliary = None

    def forward(self, x):
        if self.training:
            self.seen += x.detach().abs().mean()
        inner = torch.tanh(self.inner(x) + self.shift.mean(0))
        self.auxiliary = inner.square().mean()
        return x + self.dropout(inner)


class Blocks(torch.nn.Module):
    """Blocks over running sums of embeddings, which begin at a learned state."""

    def __init__(self, d_model: int = 6, dropout: float = 0.0, dtype: str = "float64"):
        super().__init__()
        self.embedding = torch.nn.Embedding(256, d_model)
        self.start = torch.nn.Parameter(torch.randn(d_model))
        self.blocks = torch.nn.ModuleList(Block(d_model, dropout) for _ in range(2))
        self.head = torch.nn.Linear(d_model, 256)
        self.to(getattr(torch, dtype))

    def forward(self, ids):
        return self.extend(ids, self.init_state(len(ids)))[0]

    def init_state(self, batch_size, *, device=None, dtype=None):
        return self.start.expand(batch_size, -1)

    def extend(self, ids, state):
        sums = state[:, None] + self.embedding(ids).cumsum(dim=1)
        x = torch.tanh(sums)
        for block in self.blocks:
            x = block(x)
        return self.head(x), sums[:, -1]

    def auxiliary_loss(self):
        return sum(block.auxiliary for block in self.blocks) * 0.1


class Unused(Blocks):
    """Has a weight that no loss depends on."""

    def __init__(self):
        super().__init__()
        self.idle = torch.nn.Parameter(torch.zeros(2))


class OwnWeights(Blocks):
    """Begins otherwise on each rank."""

    def __init__(self):
        super().__init__()
        torch.nn.init.constant_(self.head.bias, distributed.get_rank())


class OnOneRank(Callback):
    """Does something on one rank at one step, the first time it comes there."""

    name = "on-one-rank"

    def __init__(self, *, act: str, step: int = 2, rank: int = 1):
        self._act, self._step = act, step
        self._awake = distributed.get_rank() == rank
        self.norms = []

    def judge(self, run, gradients):
        self.norms.append((gradients.loss, gradients.norm))
        if run.step != self._step or not self._awake:
            return Verdict.PROCEED
        if self._act in ("skip", "roll-back"):
            self._awake = False
            return Verdict.SKIP if self._act == "skip" else Verdict.ROLL_BACK
        if self._act == "raise":
            raise HelixError("this rank has had enough")
        if self._act == "terminate":
            os.kill(os.getpid(), signal.SIGTERM)
        if self._act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return Verdict.PROCEED

    def stepped(self, run):
        if self._awake and self._act == "stop-stepped" and run.step == self._step:
            run.stop("enough")

    def validated(self, run, evaluation):
        if self._awake and self._act == "stop-validated" and run.step == self._step:
            run.stop("enough")


@helix_kernel.hookimpl
def helix_layers():
    classes = {"blocks": "Blocks", "unused": "Unused", "own-weights": "OwnWeights"}
    return [Component(name=name, target=f"{__name__}:{of}") for name, of in classes.items()]


@helix_kernel.hookimpl
def helix_callbacks():
    return [Component(name="on-one-rank", target=f"{__name__}:OnOneRank")]
