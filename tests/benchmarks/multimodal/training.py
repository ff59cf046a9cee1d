"""Trains a model of several kinds of data and measures it on concepts that it has not seen."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch.nn import functional as F

from helix_kernel import default_kernel
from helix_kernel.randomness import batch_of


def trained(
    dataset: Any, table: dict[str, Any], *, steps: int, seed: int, lr: float = 1e-3
) -> tuple[torch.nn.Module, float]:
    """Return a model that was trained by cross-entropy on a dataset, and the seconds that it took."""
    torch.manual_seed(seed)
    kernel = default_kernel()
    kernel.use_backends(["auto"])
    model = kernel.build("layer", table).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    start = time.perf_counter()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / steps))
        batch = batch_of(dataset, seed=seed, step=step)
        loss = F.cross_entropy(model(batch.inputs).flatten(0, -2), batch.targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval(), time.perf_counter() - start


@torch.no_grad()
def measures(model: Any, dataset: Any) -> dict[str, float]:
    """Return what a retriever finds of what is held out."""
    return model.measures(batch.inputs for batch in dataset.evaluation_batches())


@torch.no_grad()
def accuracy(model: Any, dataset: Any) -> float:
    """Return how often a classifier is right about what is held out."""
    right = count = 0
    for batch in dataset.evaluation_batches():
        right += int((model(batch.inputs).argmax(-1) == batch.targets).sum())
        count += len(batch.targets)
    return right / count
