"""Makes docs/benchmarks/sequence.md from the results on file; see `run.py` and `bits.py`.

Usage: python tests/benchmarks/sequence/report.py [--write]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import bits
import run
from mixers import D_MODEL, MIXERS, N_LAYERS, TOLERANCE, count, model_table, state_size
from results import Result, read
from tasks import TASKS
from train import RATE, STEPS, TEST_TOKENS

sys.path.append(str(Path(__file__).parents[1]))  # what all benchmarks share
from heading import ROOT, heading

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND = (
    "python tests/benchmarks/sequence/run.py; python tests/benchmarks/sequence/bits.py; "
    "python tests/benchmarks/sequence/report.py --write"
)
TARGET = ROOT / "docs/benchmarks/sequence.md"
FULL_SEEDS = 3
CONTEXT = 1024


def main() -> None:
    """Print the document, and write it with --write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help=f"write {TARGET.relative_to(ROOT)} too")
    arguments = parser.parse_args()
    head = heading("Sequence layers", COMMAND, ("helix-ssm", "torch"))
    parts = [head, *task_sections(read(run.RESULTS)), *bits_sections(read(bits.RESULTS)), CHOICES]
    text = "\n".join(part.rstrip() + "\n" for part in parts)
    print(text)
    if arguments.write:
        TARGET.write_text(text, encoding="utf-8")


CHOICES = """
## How the settings came about

Trials came before the study, and a reader should know what they decided.

- One learning rate for all was chosen in trials with attention, mamba, s4d, hyena, lstm and gated-deltanet.
  The other mixers were never tried at another.
- The first study, at 120,000 parameters, gave attention a wide mlp as filler, and it failed at recall (63,
  40 and 39 % on seeds 0 to 2). So attention got heads of 32 and all models 90,000 parameters; that mended it
  on the very seeds that are shown. s4d, s5 and multi-hybrid have no option by which to grow and keep a wide
  mlp, so part of what they lack may be that.
- The tasks were made easier or harder in trials until they told layers apart within 200 steps: recall has
  four pairs and rows of mixed difficulty; the delay is 32 tokens, since nothing learnt 384. A passkey among
  256 letters was dropped, since no layer tried learnt it. So no task trains at long range; longer lengths
  are tested only.
- The bits per byte choose a learning rate on seed 0 by the held-out bytes and count that seed: the same rule
  for all, and a little optimistic. A rate of 1e-3 and wider heads made the transformer no better (one run
  each: 3.84 and 3.71).
- Selective copying from s4's second seed on, and the delay, ran on `cpu-simd`, all before on
  `torch-chunked`; the ops of both agree to the rounding of float32.
"""

TASKS_NOTE = f"""
## Tasks

Every mixer stands in a language model of {N_LAYERS} blocks of width {D_MODEL}, each a mixer and an mlp whose
width makes the number of parameters equal (within {TOLERANCE:.0%}; embedding and head, the same for all, are
not counted). All train alike: at most {STEPS} steps of 2,048 tokens, AdamW, one learning rate ({RATE:g}),
cosine; a run ends early once it is right eight batches in a row. So this shows what each layer learns
quickly at a small size, and how far that carries; what is not learnt here may be with more steps. Accuracy
in % on {TEST_TOKENS:,} test tokens: median over seeds, and the range. The state is what the whole model
carries from token to token for one sequence, in numbers."""


def task_sections(results: Sequence[Result]) -> list[str]:
    """Return the overview over tasks, then a section a task."""
    by_cell: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        by_cell[result["mixer"], result["task"]].append(result)
    tasks = [task for task in TASKS if any((mixer, task) in by_cell for mixer in MIXERS)]
    missing = [task for task in TASKS if task not in tasks]
    overview = [TASKS_NOTE, *([f"\nNot run yet: {', '.join(missing)}."] if missing else []), ""]
    overview += _header("mixer", [*tasks, "parameters", f"state after {CONTEXT:,} tokens"])
    for mixer in MIXERS:
        cells = [_at_trained_length(by_cell[mixer, task], task) for task in tasks]
        table = model_table(mixer, vocab_size=2)
        overview.append(_row(mixer, [*cells, f"{count(table):,}", f"{state_size(table, CONTEXT):,}"]))
    overview.append(_row("*a guess*", [*(f"{100 * TASKS[task].guess:.1f}" for task in tasks), "", ""]))
    return ["\n".join(overview), *(_task_section(task, by_cell) for task in tasks)]


def _task_section(name: str, by_cell: dict[tuple[str, str], list[Result]]) -> str:
    task = TASKS[name]
    lengths = [str(length) for length in task.lengths]
    title = f"{task.summary}. Trained at length {lengths[0]}; a guess is right {task.guess:.1%} of the time."
    columns = [*(f"length {length}" for length in lengths), "steps", "seeds"]
    lines = [f"\n### {name}\n", title, "", *_header("mixer", columns)]
    for mixer in MIXERS:
        own = by_cell[mixer, name]
        if own:
            accuracies = [_median_and_range([100 * r["accuracy"][n] for r in own], ".1f") for n in lengths]
            steps = f"{statistics.median(r['steps'] for r in own):.0f}"
            lines.append(_row(mixer, [*accuracies, steps, str(len(own))]))
    return "\n".join(lines)


BITS_NOTE = f"""
## Bits per byte

Language models over bytes, {bits.N_LAYERS} blocks of width {bits.D_MODEL}, of a transformer's number of
parameters (within {TOLERANCE:.0%}; the embedding, the same for all, is not counted) and of its training
FLOPs: the transformer takes {bits.TRANSFORMER_STEPS} steps of {bits.BATCH_SIZE} windows of {bits.SEQ_LEN}
bytes, the others as many as the same FLOPs allow. FLOPs: forward and backward by torch's flop counter, helix
ops by their contracts, causal attention as half a square. Each model has the learning rates
{" and ".join(f"{rate:g}" for rate in bits.RATES)} to choose from, by seed 0, and keeps the better. Bits per
byte on the first {bits.HELD_OUT:,} bytes of the held-out tenth: median over seeds, and the range. This is a
small budget: a model near the bits of bigrams has learnt little but those, and what the table then shows is
who learns faster, not who ends lower."""


def bits_sections(results: Sequence[Result]) -> list[str]:
    """Return the comparison with the transformer, a table a corpus."""
    sections = [BITS_NOTE]
    for corpus in bits.CORPORA:
        chosen = {model: _chosen(results, model, corpus) for model in bits.MODELS}
        if not any(chosen.values()):
            sections.append(f"\n### {corpus}\n\nNot run yet.")
            continue
        columns = [
            "parameters",
            "steps",
            "TFLOP",
            "learning rate",
            "bits per byte",
            "to the transformer",
            "seeds",
        ]
        lines = [f"\n### {corpus}\n", *_header("model", columns)]
        lines += [_bits_row(model, own, chosen[bits.TRANSFORMER]) for model, own in chosen.items() if own]
        lines.append(
            _row("*bigrams counted*", ["", "", "", "", f"{bits.bigram_bits_per_byte(corpus):.3f}", "", ""])
        )
        sections.append("\n".join(lines))
    return sections


def _chosen(results: Sequence[Result], model: str, corpus: str) -> list[Result]:
    """Return the runs at the learning rate that did best on seed 0."""
    own = [r for r in results if (r["model"], r["corpus"]) == (model, corpus)]
    first = [r for r in own if r["seed"] == 0]
    if not first:
        return []
    best = min(first, key=lambda r: r["bits_per_byte"])["lr"]
    return [r for r in own if r["lr"] == best]


def _bits_row(model: str, own: Sequence[Result], rivals: Sequence[Result]) -> str:
    found = [r["bits_per_byte"] for r in own]
    cells = [
        f"{own[0]['parameters']:,}",
        str(own[0]["steps"]),
        f"{own[0]['training_flops'] / 1e12:.3f}",
        f"{own[0]['lr']:g}",
        _median_and_range(found, ".3f"),
        f"{statistics.median(found) - statistics.median(r['bits_per_byte'] for r in rivals):+.3f}"
        if rivals
        else "",
        str(len(own)),
    ]
    return _row(model, cells)


def _difference(found: Sequence[float], rivals: Sequence[float]) -> str:
    return f"{statistics.median(found) - statistics.median(rivals):+.3f}" if rivals else ""


def _row(first: str, cells: Sequence[str]) -> str:
    return f"| {first} | {' | '.join(cells)} |"


def _header(first: str, columns: Sequence[str]) -> list[str]:
    return [_row(first, columns), "|---|" + "---:|" * len(columns)]


def _at_trained_length(own: Sequence[Result], task: str) -> str:
    if not own:
        return ""
    accuracy = statistics.median(100 * r["accuracy"][str(TASKS[task].lengths[0])] for r in own)
    return f"{accuracy:.1f}" + ("" if len(own) >= FULL_SEEDS else f" ({len(own)} of {FULL_SEEDS} seeds)")


def _median_and_range(values: Sequence[float], form: str) -> str:
    middle, low, high = (format(x, form) for x in (statistics.median(values), min(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


if __name__ == "__main__":
    main()
