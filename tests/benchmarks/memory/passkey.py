"""A number that is said once, somewhere in a long text, and asked for at its end (Mohtashami, Jaggi 2023).

The text is read once, in chunks, by a small byte model that was trained on other text, alone and with a
memory that reads along. Then the model is asked, and continues with the likeliest bytes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import time
from pathlib import Path

import torch
from corpora import corpus
from torch.nn import functional as F

from helix_kernel import default_kernel

CHUNK, N_DIGITS = 4096, 6
MODEL = {"use": "language-model", "d_model": 128, "n_layers": 2, "mixer": {"use": "mamba"}}
SAID, ASKED = "\nThe pass key is {}. Remember it.\n", "\nWhat is the pass key? The pass key is "
MEMORY = {"use": "hierarchy", "d_model": 128, "reading": "stream"}


def text_with(key: str, n_bytes: int, *, seed: int) -> torch.Tensor:
    """Return text of so many bytes that says the key at a random place and ends with the question."""
    said, asked = SAID.format(key).encode(), ASKED.encode()
    filler = corpus("prose", seed=seed, n_bytes=n_bytes - len(said) - len(asked))
    place = random.Random(seed).randrange(len(filler) * 9 // 10)
    whole = filler[:place] + said + filler[place:] + asked
    return torch.frombuffer(bytearray(whole), dtype=torch.uint8).long()[None]


def trained(n_steps: int) -> torch.nn.Module:
    """Return a model that has read other prose than any text holds to which it is put."""
    torch.manual_seed(0)
    kernel = default_kernel()
    kernel.use_backends(["auto"])
    model = kernel.build("layer", MODEL)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    data = torch.frombuffer(bytearray(corpus("prose", seed=999, n_bytes=1 << 20)), dtype=torch.uint8).long()
    for _ in range(n_steps):
        starts = torch.randint(len(data) - 257, (16,)).tolist()
        rows = torch.stack([data[start : start + 257] for start in starts])
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def answer(model: torch.nn.Module, ids: torch.Tensor, memory: torch.nn.Module | None) -> tuple[str, float]:
    """Return what the model says after reading the ids, and the microseconds of a read of the memory."""
    state = model.init_state(1)
    held = None if memory is None else memory.train().init_state(1)
    for chunk in ids.split(CHUNK, dim=1):
        logits, state, held = advance(model, memory, chunk, state, held)
    said, costs = [], []
    if memory is not None:
        memory.eval()
    for _ in range(N_DIGITS):
        said.append(int(logits[0, -1].argmax()))
        logits, state, held = advance(model, memory, torch.tensor([[said[-1]]]), state, held, costs)
    return bytes(said).decode(errors="replace"), 1e6 * statistics.median(costs) if costs else 0.0


def advance(model, memory, chunk, state, held, costs=None):
    """Read a chunk; return logits, with the memory's say where there is one, and the states after it."""
    x, state = model.blocks.extend(model.embedding(chunk), state)
    logits = model.logits(x)
    if memory is None:
        return logits, state, held
    start = time.process_time()
    logits, held = memory.mix(logits, chunk, x, held)
    if costs is not None:
        costs.append(time.process_time() - start)
    return logits, state, held


def main() -> None:
    """Measure each length, and add a line of JSON for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", nargs="+", type=int, default=[1 << 12, 1 << 16, 1 << 18, 1 << 20])
    parser.add_argument("--budgets", nargs="+", type=int, default=[64, 256], help="of the motifs, in MiB")
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--train-steps", type=int, default=150)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    model = trained(options.train_steps)
    for n_bytes, budget in itertools.product(options.bytes, options.budgets):
        right, alone, costs = 0, 0, []
        for trial in range(options.trials):
            key = f"{random.Random(1000 + trial).randrange(10**N_DIGITS):0{N_DIGITS}d}"
            ids = text_with(key, n_bytes, seed=trial)
            motifs = {"use": "motifs", "budget": budget << 20}
            memory = default_kernel().build("memory_tier", MEMORY | {"motifs": motifs})
            said, cost = answer(model, ids, memory)
            right += said == key
            costs.append(cost)
            alone += answer(model, ids, None)[0] == key if n_bytes <= 1 << 16 else 0
        line = {
            "bytes": n_bytes,
            "budget": budget,
            "trials": options.trials,
            "with memory": right / options.trials,
            "model alone": alone / options.trials if n_bytes <= 1 << 16 else None,
            "microseconds a read": round(statistics.median(costs), 1),
        }
        print(line, flush=True)
        with options.out.open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
