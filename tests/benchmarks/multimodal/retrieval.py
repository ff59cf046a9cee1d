"""Text found by picture, by spoken word and by both, and transcripts by sound, by each fusion and alignment.

Stamps of Tux Paint (package tuxpaint-stamps-default): a picture, its French spoken name where there is one,
and its English text. Prompts of Asterisk (packages asterisk-core-sounds-en-wav, asterisk-core-sounds-en): a
sound and what is said. What is held out are concepts: groups of one text go together.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from training import measures, trained

from helix_kernel import default_kernel

sys.path.insert(0, str(Path(__file__).parents[1]))

from heading import ROOT, heading

MAMBA = {"use": "mamba"}
SPEECH = {"use": "log-mel", "rate": 8000, "n_fft": 200, "hop": 80, "stack": 8, "layers": [MAMBA]}
PICTURE = {"use": "image-patches", "patch": 16, "jitter": 0.5, "layers": [MAMBA]}
TEXT = {"use": "byte-embedding", "patch": 4, "layers": [MAMBA]}
STAMPS = {
    "use": "file-groups",
    "path": "/usr/share/tuxpaint/stamps",
    "concept": "text",
    "optional": ["speech"],
    "batch_size": 32,
    "validation_fraction": 0.3,
    "files": {"picture": "{name}.png", "text": "{name}.txt", "speech": "{name}_desc_fr.ogg"},
    "modalities": {
        "picture": {"use": "image", "channels": "rgb", "size": [64, 64]},
        "text": {"use": "text", "lines": 1},
        "speech": {"use": "audio", "rate": 8000, "channels": 1, "seconds": 2.0},
    },
    "shapes": {"picture": [3, 64, 64], "text": [96], "speech": [1, 16000]},
}
PROMPTS = {
    "use": "file-groups",
    "path": "/usr/share/asterisk/sounds/en_US_f_Allison",
    "concept": "text",
    "batch_size": 32,
    "validation_fraction": 0.3,
    "files": {"speech": "{name}.wav"},
    "tables": {"text": "/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"},
    "modalities": {
        "text": {"use": "text", "max_len": 96},
        "speech": {"use": "audio", "rate": 8000, "channels": 1, "seconds": 4.0},
    },
    "shapes": {"text": [96], "speech": [1, 32000]},
}
DATA = {"stamps": STAMPS, "prompts": PROMPTS}
MODELS: dict[str, dict[str, Any]] = {
    "stamps": {
        "use": "retriever",
        "d_model": 128,
        "encoders": {"picture": PICTURE, "speech": SPEECH, "text": TEXT},
        "query": ["picture", "speech"],
        "target": ["text"],
        "drop": 0.3,
    },
    "prompts": {
        "use": "retriever",
        "d_model": 128,
        "encoders": {"speech": SPEECH, "text": TEXT},
        "query": ["speech"],
        "target": ["text"],
    },
}
FUSIONS = ("early-concat", "late-logits", "gated", "cross-attention", "interleaved-scan", "low-rank-bilinear")
ALIGNMENTS = ("soft-dtw", "sinkhorn")


def ways() -> list[tuple[str, str, dict[str, Any]]]:
    """Return what is compared: the data, its name, and the model."""
    found: list[tuple[str, str, dict[str, Any]]] = [
        *(("stamps", name, {"fusion": {"use": name}}) for name in FUSIONS),
        *(("stamps", name, {"alignment": {"use": name}}) for name in ALIGNMENTS),
        ("stamps", "gated, nothing hidden", {"fusion": {"use": "gated"}, "drop": 0.0}),
        ("stamps", "gated, pictures as they are", {"fusion": {"use": "gated"}, "plain": True}),
        ("stamps", "gated, squares of 8", {"fusion": {"use": "gated"}, "fine": True}),
        ("prompts", "gated", {"fusion": {"use": "gated"}}),
        *(("prompts", name, {"alignment": {"use": name}}) for name in ALIGNMENTS),
        ("prompts", "ctc", {"alignment": {"use": "ctc", "upsample": 4}}),
    ]
    return [(data, name, model_of(data, changes)) for data, name, changes in found]


def model_of(data: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Return a model's table; what reads the bytes of a text has no encoder of it."""
    table = copy.deepcopy(MODELS[data]) | changes
    if table.pop("plain", False):
        table["encoders"]["picture"]["jitter"] = 0.0
    if table.pop("fine", False):
        table["encoders"]["picture"]["patch"] = 8
    if changes.get("alignment", {}).get("use") == "ctc":
        del table["encoders"]["text"]
    return table


def main() -> None:
    """Measure, adding a line of JSON for each way and seed; with --write, make the page of all lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--only", nargs="+", help="names of ways")
    parser.add_argument("--data", nargs="+", default=list(DATA))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kernel = default_kernel()
    known = {(line["data"], line["way"], line["seed"], line["steps"]) for line in findings(options.out)}
    datasets = {name: kernel.build("dataset", DATA[name]) for name in options.data}
    for seed in options.seeds:
        for data, way, table in ways():
            if data not in datasets or (options.only and way not in options.only):
                continue
            if (data, way, seed, options.steps) in known:
                continue
            model, seconds = trained(datasets[data], table, steps=options.steps, seed=seed)
            line = {"data": data, "way": way, "seed": seed, "steps": options.steps, "seconds": round(seconds)}
            line |= measures(model, datasets[data])
            print(line, flush=True)
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
    if options.write:
        (ROOT / "docs/benchmarks/multimodal-retrieval.md").write_text(page(findings(options.out)))


def findings(path: Path) -> list[dict[str, Any]]:
    """Return what was measured so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def page(lines: list[dict[str, Any]]) -> str:
    """Return the tables, one for each kind of data."""
    command = "python tests/benchmarks/multimodal/retrieval.py --write"
    parts = [heading("Retrieval across kinds of data", command, ["helix-multimodal", "helix-ssm", "torch"])]
    parts.append(
        "Recall among the best 10 on concepts that were not trained on, in percent, the mean over "
        "seeds with its range, after so many steps of 32. `chance` is what a guess would have. "
        "Fusions are trained with the alignment `info-nce`; the other alignments compare tokens, "
        "without a fusion. Pictures are squares of 16 pixels, sounds frames of 80 ms, texts four "
        "bytes a token, so that alignments of tokens stay quick.\n"
    )
    for data in DATA:
        own = [line for line in lines if line["data"] == data]
        if own:
            parts.append(table(data, own))
    return "\n".join(parts)


def table(data: str, lines: list[dict[str, Any]]) -> str:
    """Return the table of one kind of data, a row for each way."""
    columns = [name for name in lines[0] if name.startswith("recall_at_10")]
    chance = max(value for name, value in lines[0].items() if name.startswith("chance_at_10"))
    titles = [name.removeprefix("recall_at_10_").replace("_", " ") for name in columns]
    rows = [f"| | {' | '.join(titles)} | steps | seeds |", "|---" * (len(titles) + 3) + "|"]
    for way, steps in dict.fromkeys((line["way"], line["steps"]) for line in lines):
        own = [line for line in lines if (line["way"], line["steps"]) == (way, steps)]
        cells = [_cell([line[column] for line in own]) for column in columns]
        rows.append(f"| {way} | {' | '.join(cells)} | {steps} | {len(own)} |")
    return f"## {data}: chance is {100 * chance:.1f}\n\n" + "\n".join(rows) + "\n"


def _cell(values: list[float]) -> str:
    mean = f"{100 * statistics.mean(values):.1f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({100 * min(values):.1f} to {100 * max(values):.1f})"


if __name__ == "__main__":
    main()
