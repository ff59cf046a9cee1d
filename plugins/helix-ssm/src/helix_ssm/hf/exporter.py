"""Writes a Helix checkpoint as a folder that `transformers` opens."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel import checkpoint as checkpoints
from helix_kernel.checkpoint.durable import new_directory, write_file
from helix_kernel.errors import ArgumentError
from helix_kernel.nesting import flatten
from helix_kernel.restore import open_run
from helix_ssm.hf.fit import check_fit, shapes_of
from helix_ssm.hf.folder import CONFIG, INDEX, WEIGHTS, import_safetensors, tokenizer_files
from helix_ssm.hf.importer import BESIDE, TOKENIZER
from helix_ssm.hf.mamba_ssm import is_mamba_ssm
from helix_ssm.hf.names import hf_name
from helix_ssm.hf.read_config import to_model
from helix_ssm.hf.write_config import family_like, to_config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from helix_kernel import Kernel
    from helix_kernel.checkpoint import ArrayInfo
    from helix_kernel.checkpoint.location import Place
    from helix_kernel.config import Resolved
    from helix_kernel.restore import SavedRun

SHARD_BYTES = 5 * 10**9
"""Size of the largest file of weights; one file's tensors are in memory at a time."""


@attrs.frozen(kw_only=True)
class Exported:
    """What was exported.

    Args:
        directory: The new folder.
        model_type: Which kind of model it is, in the words of `transformers`.
        weights: The files of weights.
        beside: The other files, config.json first.
        missing: Files that go with the model and are no longer where they were.
    """

    directory: Path
    model_type: str
    weights: tuple[str, ...]
    beside: tuple[str, ...]
    missing: tuple[str, ...]


def export_hf(
    checkpoint: str | Path,
    out: str | Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    kernel: Kernel | None = None,
) -> Exported:
    """Write a checkpoint's model as a folder for ``transformers.AutoModelForCausalLM.from_pretrained``.

    Every weight keeps its bits. A model that was imported gets back its config.json, tokenizer and
    generation_config.json as they were; one that was trained on tokens gets its tokenizer's files.

    Args:
        checkpoint: A checkpoint, or a run's directory (its newest good checkpoint).
        out: The folder to make.
        shard_bytes: Where the weights are larger, they are cut into files of about this size.
        kernel: What is installed; all plugins if left out.

    Raises:
        CheckpointError: The checkpoint is missing or damaged, or `out` exists.
        IncompatibleCheckpointError: No model of `transformers` is built like this one.
        DependencyError: safetensors is not installed.
    """
    run, out = open_run(checkpoint, sections=["model"], kernel=kernel), Path(out)
    config = run.config(["model"], kernel=kernel)
    model = config["model"]
    family = family_like(model, str(run.path))
    shapes = shapes_of(model, config.kernel)
    weights = _weights(run, shapes)
    written = to_config(model, family, shapes, str(run.path))
    text = _imported_config(run, model, config.kernel) or _text(written | {"dtype": _main_dtype(weights)})
    beside = _beside(run)
    present = {name: file for name, file in beside.items() if file.is_file()}
    with new_directory(out) as making:
        files = _write_weights(making, run.path, weights, shard_bytes)
        write_file(making / CONFIG, text.encode())
        for name, file in present.items():
            write_file(making / name, file.read_bytes())
    return Exported(
        directory=out,
        model_type=family.model_type,
        weights=tuple(files),
        beside=(CONFIG, *present),
        missing=tuple(str(file) for name, file in beside.items() if name not in present),
    )


def _weights(run: SavedRun, expected: Mapping[str, tuple[int, ...]]) -> dict[str, ArrayInfo]:
    """Return what is known of each of the model's arrays, by dotted name."""
    arrays = checkpoints.Checkpoint.open(run.path).arrays
    found = {
        path.removeprefix("model/").replace("/", "."): info
        for path, info in arrays.items()
        if path.startswith("model/")
    }
    check_fit({name: info.shape for name, info in found.items()}, dict(expected), str(run.path))
    return found


def _imported_config(run: SavedRun, model: Resolved, kernel: Kernel) -> str | None:
    """Return the config.json that the model was imported with, where it still describes it."""
    imported = run.attributes.get("hf")
    if imported is None:
        return None
    text: str = imported["config"]
    original = json.loads(text)
    if is_mamba_ssm(original) or kernel.resolver.resolve("layer", to_model(original, str(run.path))) != model:
        return None
    if imported["dtype"] is None:
        return text
    kept = {key: value for key, value in original.items() if key != "torch_dtype"}
    return _text(kept | {"dtype": imported["dtype"]})


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"


def _main_dtype(weights: Mapping[str, ArrayInfo]) -> str:
    sizes: Counter[str] = Counter()
    for info in weights.values():
        sizes[info.dtype] += info.nbytes
    return sizes.most_common(1)[0][0]


def _beside(run: SavedRun) -> dict[str, Path]:
    """Return the files that go with the model by name, whether they are still there or not."""
    imported = run.attributes.get("hf")
    if imported is None:
        return _tokenizer(run.attributes["config"])
    if not isinstance(run.path, Path):
        raise ArgumentError(
            f"{run.path} was imported together with {', '.join(imported['files'])}, which lie beside a run "
            "that is a directory; copy the run to one"
        )
    return {name: run.path.parent.parent / BESIDE / name for name in imported["files"]}


def _tokenizer(config: Mapping[str, Any]) -> dict[str, Path]:
    """Return the files of the tokenizer that a model was trained with, where it has one of `tokenizers`."""
    table = config.get("tokenizer") or config.get("data", {}).get("tokenizer") or {}
    if table.get("use") != "helix-data:hf-tokenizer":
        return {}
    file = Path(table["path"]).expanduser()
    others = tokenizer_files(file.parent) if file.name == TOKENIZER else []
    return {other.name: other for other in others} | {TOKENIZER: file}


def _write_weights(
    making: Path, path: Place, weights: Mapping[str, ArrayInfo], shard_bytes: int
) -> list[str]:
    """Write the weights, one file's at a time, and the index where there are several; return the files."""
    safetensors = import_safetensors()
    shards = _shards(weights, shard_bytes)
    files = [WEIGHTS]
    if len(shards) > 1:
        files = [f"model-{at:05d}-of-{len(shards):05d}.safetensors" for at in range(1, len(shards) + 1)]
        weight_map = {
            hf_name(name): file for file, shard in zip(files, shards, strict=True) for name in shard
        }
        total_size = sum(info.nbytes for info in weights.values())
        index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
        write_file(making / INDEX, _text(index).encode())
    for file, shard in zip(files, shards, strict=True):
        state = checkpoints.load(path, only=[weights[name].name for name in shard], as_torch=True)
        tensors = {hf_name(name): tensor for name, tensor in flatten(state["model"]).items()}
        safetensors.torch.save_file(tensors, making / file, metadata={"format": "pt"})
        _sync(making / file)
    return files


def _shards(weights: Mapping[str, ArrayInfo], shard_bytes: int) -> list[list[str]]:
    """Return the names, in order, in lists whose weights are at most so large, or one weight."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, info in weights.items():
        if shards[-1] and size + info.nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += info.nbytes
    return shards


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
