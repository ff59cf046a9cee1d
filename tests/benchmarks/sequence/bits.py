"""Bits per byte of small language models, at equal parameters and equal FLOPs of training.

Usage: python tests/benchmarks/sequence/bits.py [--models …] [--corpora …] [--seeds N] [--shard I/N]

The transformer trains for a fixed number of steps; every other model for as many as its FLOPs, forward and
backward by the formulas, allow. Each has the same learning rates to choose from, by its bits on seed 0.
What the file has already is not run again. `report.py` makes the table.
"""

from __future__ import annotations

import argparse
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from counting import attention_flops
from mixers import count, with_mlp
from results import Result, once, share
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from torch.utils.flop_counter import FlopCounterMode

from helix_kernel import default_kernel
from helix_train.evaluation import evaluate
from helix_train.state import parameter_groups

RESULTS = Path(__file__).with_name("bits.jsonl")
D_MODEL, N_LAYERS = 64, 2
PARAMETERS = 12 * D_MODEL**2 * N_LAYERS  # a transformer's, with an mlp of 8 d_model ** 2
SEQ_LEN, BATCH_SIZE = 256, 8
TRANSFORMER_STEPS = 200
RATES = (2e-3, 5e-3)
WARMUP, WEIGHT_DECAY = 0.1, 0.1
HELD_OUT = 32_768
"""Bytes of the held-out part that are predicted, from its beginning."""

_ATTENTION = {"use": "attention", "n_heads": 4}
TRANSFORMER = "transformer"
MODELS: dict[str, dict[str, Any]] = {
    TRANSFORMER: {"mixer": _ATTENTION},
    "mamba": {"mixer": {"use": "mamba"}},
    "mamba2": {"mixer": {"use": "mamba2", "d_state": 64, "head_dim": 32}},
    "gated-deltanet": {"mixer": {"use": "gated-deltanet", "n_heads": 4}},
    "mamba2, attention": {
        "pattern": [{"use": "mamba2", "d_state": 64, "head_dim": 32}, _ATTENTION],
    },
}
CORPORA = ("python-docs", "python-stdlib")


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS)
    parser.add_argument("--corpora", nargs="*", default=CORPORA, choices=CORPORA)
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th model and corpus, from the i-th")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    jobs = [(model, corpus) for corpus in arguments.corpora for model in arguments.models]
    for model, corpus in share(jobs, arguments.shard):

        def result(seed: int, rate: float, model: str = model, corpus: str = corpus) -> Result:
            key = {"model": model, "corpus": corpus, "seed": seed, "lr": rate}
            return once(arguments.out, key, partial(run, **key))

        best = min(RATES, key=lambda rate: result(0, rate)["bits_per_byte"])
        for seed in range(1, arguments.seeds):
            result(seed, best)


def run(model: str, corpus: str, *, seed: int, lr: float) -> Result:
    """Return the result of one run.

    Args:
        model: A key of `MODELS`.
        corpus: One of `CORPORA`.
        seed: Of the weights and of the order of the data.
        lr: Highest learning rate.
    """
    kernel = default_kernel()
    kernel.use_backends(["auto"])
    dataset = open_corpus(corpus)
    torch.manual_seed(seed)
    table = model_table(model)
    built = kernel.build("layer", table)
    steps = n_steps(model)
    started = time.process_time()
    _train(built, dataset, seed=seed, lr=lr, steps=steps)
    held_out = dataset.held_out()[:HELD_OUT]
    evaluation = evaluate(built, held_out, seq_len=SEQ_LEN, batch_size=BATCH_SIZE)
    return {
        "parameters": count(table),
        "steps": steps,
        "training_flops": steps * training_flops(model),
        "bits_per_byte": evaluation.bits_per_byte,
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def open_corpus(name: str) -> Any:
    """Return the dataset of a corpus."""
    data = {"use": "text-bytes", "source": name, "seq_len": SEQ_LEN, "batch_size": BATCH_SIZE}
    return default_kernel().build("dataset", data)


def bigram_bits_per_byte(corpus: str) -> float:
    """Return the bits of a held-out byte by how often it follows the byte before it in the training part."""
    dataset = open_corpus(corpus)
    train = np.frombuffer(dataset.read("train"), dtype=np.uint8).astype(np.int64)
    counts = np.bincount(256 * train[:-1] + train[1:], minlength=256**2).reshape(256, 256) + 1 / 256
    held_out = dataset.held_out()[:HELD_OUT]
    return float(-np.log2((counts / counts.sum(1, keepdims=True))[held_out[:-1], held_out[1:]]).mean())


def model_table(name: str) -> dict[str, Any]:
    """Return the config table of a model; all have the same width and number of parameters."""
    base = {"use": "language-model", "d_model": D_MODEL, "n_layers": N_LAYERS, **MODELS[name]}
    return with_mlp(base, PARAMETERS)


def n_steps(name: str) -> int:
    """Return how many steps of a model take as many FLOPs as the transformer's training."""
    return round(TRANSFORMER_STEPS * training_flops(TRANSFORMER) / training_flops(name))


@cache
def training_flops(name: str) -> int:
    """Return the FLOPs of one training step, forward and backward; nothing is run."""
    with FakeTensorMode():
        model = default_kernel().build("layer", model_table(name))
        ids = torch.zeros(BATCH_SIZE, SEQ_LEN, dtype=torch.int64)
        with FlopCounterMode(display=False, custom_mapping=_ATTENTION_FORMULAS) as counter:
            model(ids).sum().backward()
    return counter.get_total_flops()


def _attention_backward_flops(_grad: Any, *args: Any, **kwargs: Any) -> int:
    """Return five matrix products' operations, where the forward pass has two; as torch counts on a GPU."""
    query, key, value, _output, _logsumexp, *options = args
    kwargs.pop("out_shape", None)
    return attention_flops(query, key, value, *options, **kwargs) * 5 // 2


_ATTENTION_FORMULAS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}


def _train(model: torch.nn.Module, dataset: Any, *, seed: int, lr: float, steps: int) -> None:
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=lr, weight_decay=WEIGHT_DECAY)
    cosine = {"use": "cosine", "warmup_steps": round(WARMUP * steps)}
    schedule = default_kernel().build("schedule", cosine, total_steps=steps)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * schedule(step)
        batch = dataset.batch(seed=seed, step=step)
        F.cross_entropy(model(batch.inputs).flatten(0, 1), batch.targets.flatten()).backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    main()
