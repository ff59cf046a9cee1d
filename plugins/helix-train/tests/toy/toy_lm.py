"""A plugin of its own: a language model and a dataset, small enough to train in milliseconds."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import torch

import helix_kernel
from helix_kernel import Component, ComponentOf, Kind
from helix_train.callbacks.base import Callback, Verdict


class Model(torch.nn.Module):
    """Running sums of embeddings, which stream exactly; dropout draws from torch's generator."""

    def __init__(self, d_model: int = 8, dropout: float = 0.0, vocab_size: int = 256, dtype: str = "float32"):
        super().__init__()
        self.embedding = torch.nn.Embedding(vocab_size, d_model)
        self.dropout = torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(d_model, vocab_size)
        self.to(getattr(torch, dtype))

    def forward(self, ids):
        return self.extend(ids, self.init_state(len(ids), device=ids.device))[0]

    def init_state(self, batch_size, *, device=None, dtype=None):
        dtype = self.embedding.weight.dtype if dtype is None else dtype
        return torch.zeros(batch_size, self.embedding.embedding_dim, device=device, dtype=dtype)

    def extend(self, ids, state):
        sums = state[:, None] + self.embedding(ids).cumsum(dim=1)
        return self.head(self.dropout(torch.tanh(sums))), sums[:, -1]

    def step(self, ids, state):
        logits, state = self.extend(ids[:, None], state)
        return logits[:, 0], state


class Noisy(Model):
    """Draws in evaluation too."""

    def forward(self, ids):
        torch.rand(1), random.random(), np.random.rand()
        return super().forward(ids)


class Tied(Model):
    """Its head uses the embedding's weight, which so has two names in its state."""

    def __init__(self):
        super().__init__()
        self.head.weight = self.embedding.weight


class Stateless(torch.nn.Module):
    """Looks at one byte at a time, and so keeps nothing."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(256, 256)

    def forward(self, ids):
        return self.embedding(ids)


class Data:
    """Random bytes of few values; `draws` adds what the global generators give."""

    def __init__(
        self,
        *,
        seq_len: int = 6,
        batch_size: int = 4,
        n_held_out: int = 40,
        draws: bool = False,
        fingerprint: str = "f",
        tokenizer: Annotated[Any, ComponentOf("tokenizer")] = None,
    ):
        self.seq_len, self.batch_size, self.draws = seq_len, batch_size, draws
        self.fingerprint = fingerprint
        self._held_out = np.random.default_rng(0).integers(0, 5, n_held_out).astype(np.uint8)
        self.steps = []

    def describe(self):
        return "toy data"

    def held_out(self):
        return self._held_out

    def batch(self, *, seed, step, rank=0, world_size=1):
        self.steps.append(step)
        first = (step * world_size + rank) * self.batch_size
        rows = [self._row(seed, first + row) for row in range(self.batch_size)]
        text = torch.from_numpy(np.stack(rows))
        if self.draws:
            drawn = int(torch.randint(5, ())) + random.randrange(5) + np.random.randint(5)
            text = (text + drawn) % 256
        return SimpleNamespace(inputs=text[:, :-1], targets=text[:, 1:])

    def _row(self, seed, number):
        return np.random.default_rng([seed, number]).integers(0, 5, self.seq_len + 1)

    def compressed_bits_per_byte(self):
        return {"gzip": 1.5}


class Letters:
    """A tokenizer whose ids are counted from `first`, so that nobody takes them for bytes."""

    def __init__(self, first: int = 97):
        self.first = first

    def encode(self, data):
        return [byte - self.first for byte in data]

    def decode(self, ids):
        return bytes((value + self.first) % 256 for value in ids)


class OfFile(Letters):
    """What a path to a tokenizer.json builds here: the first letter is all that the file holds."""

    def __init__(self, path: str):
        super().__init__(Path(path).read_bytes()[0])


class Diary(Callback):
    """Writes down what it hears, has one step left out, and ends the run at another."""

    name = "diary"

    def __init__(self, skip: int = -1, stop: int = -1):
        self.skip, self.stop = skip, stop
        self.heard = []
        self.pages = 0

    def begin(self, run):
        self.heard.append((run.step, "begin"))

    def judge(self, run, gradients):
        self._hear(run.step + 1, "judge")
        return Verdict.SKIP if gradients.step == self.skip else Verdict.PROCEED

    def stepped(self, run):
        self._hear(run.step, "stepped")
        run.log({"pages": self.pages})
        if run.step == self.stop:
            run.stop("the diary is full")

    def validated(self, run, evaluation):
        self.heard.append((run.step, "validated"))

    def end(self, run):
        self.heard.append((run.step, "end"))

    def state_dict(self):
        return {"pages": self.pages}

    def load_state_dict(self, state):
        self.pages = state["pages"]

    def _hear(self, step, what):
        self.pages += 1
        self.heard.append((step, what))


@helix_kernel.hookimpl
def helix_kinds():
    return [
        Kind(name="dataset", plural="datasets", section="data"),
        Kind(name="tokenizer", plural="tokenizers", section="tokenizer"),
    ]


@helix_kernel.hookimpl
def helix_tokenizers():
    return [
        Component(name="letters", target=f"{__name__}:Letters"),
        Component(name="hf-tokenizer", target=f"{__name__}:OfFile"),
    ]


@helix_kernel.hookimpl
def helix_layers():
    return [
        Component(name="toy", target=f"{__name__}:Model"),
        Component(name="noisy", target=f"{__name__}:Noisy"),
        Component(name="tied", target=f"{__name__}:Tied"),
        Component(name="stateless", target=f"{__name__}:Stateless"),
        Component(name="linear", target="torch.nn:Linear"),
    ]


@helix_kernel.hookimpl
def helix_datasets():
    return [Component(name="toy-data", target=f"{__name__}:Data")]


@helix_kernel.hookimpl
def helix_callbacks():
    return [Component(name="diary", target=f"{__name__}:Diary")]
