"""Trains one mixer on one task from one seed, and measures it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from mixers import count, model_table
from tasks import TASKS, Task
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from helix_kernel import default_kernel
from helix_train.state import parameter_groups

if TYPE_CHECKING:
    from torch import nn

STEPS = 200
RATE = 5e-3
WARMUP = 0.1
WEIGHT_DECAY = 0.01
ENOUGH = 8
"""A run ends early once so many batches in a row are answered without a mistake."""
TEST_TOKENS = 16_384


def run(mixer: str, task_name: str, *, seed: int) -> dict[str, Any]:
    """Return the result of one run.

    Args:
        mixer: A key of `mixers.MIXERS`.
        task_name: A key of `tasks.TASKS`.
        seed: Of the weights and of the data.
    """
    task, kernel = TASKS[task_name], default_kernel()
    kernel.use_backends(["auto"])
    torch.manual_seed(seed)
    table = model_table(mixer, task.vocab_size)
    model = kernel.build("layer", table)
    torch.nn.init.normal_(model.embedding.weight)  # few ids, each seen often: 0.02 would only delay learning
    started = time.process_time()
    steps = _train(model, task, seed)
    return {
        "parameters": count(table),
        "steps": steps,
        "accuracy": {str(length): _accuracy(model, task, seed, length) for length in task.lengths},
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def _train(model: nn.Module, task: Task, seed: int) -> int:
    """Train, and return the steps that it took."""
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=RATE, weight_decay=WEIGHT_DECAY)
    warmup = {"use": "cosine", "warmup_steps": round(WARMUP * STEPS)}
    schedule = default_kernel().build("schedule", warmup, total_steps=STEPS)
    in_a_row = 0
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * schedule(step)
        batch = task.batch(seed=seed, step=step)
        answers, wanted = model(batch.inputs)[batch.mask], batch.targets[batch.mask]
        in_a_row = in_a_row + 1 if bool((answers.argmax(-1) == wanted).all()) else 0
        if in_a_row == ENOUGH:
            return step
        F.cross_entropy(answers, wanted).backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return STEPS


@torch.inference_mode()
def _accuracy(model: nn.Module, task: Task, seed: int, length: int) -> float:
    batch = task.test(seed=seed, rows=TEST_TOKENS // length, length=length)
    model.eval()
    right = model(batch.inputs).argmax(-1) == batch.targets
    return round(float(right[batch.mask].float().mean()), 4)
