"""Reads a folder of `transformers` into a Helix checkpoint: weights are renamed, and nothing else."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch

import helix_ssm
from helix_kernel import checkpoint, default_kernel
from helix_kernel.checkpoint.durable import new_directory, write_file
from helix_kernel.config import resolve_document
from helix_kernel.errors import ArgumentError, IncompatibleCheckpointError, did_you_mean
from helix_kernel.hooks import API_VERSION
from helix_kernel.nesting import nest
from helix_ssm.hf.fit import check_fit, shapes_of
from helix_ssm.hf.folder import CONFIG, Folder
from helix_ssm.hf.mamba_ssm import as_transformers
from helix_ssm.hf.names import EMBEDDING, HEAD, current_name, hf_name
from helix_ssm.hf.read_config import to_model

if TYPE_CHECKING:
    from torch import Tensor

    from helix_kernel import Config, Kernel
    from helix_ssm.hf.fit import Shapes

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
BESIDE = "hf"
"""The folder of a run that keeps the files of the folder that it was imported from, weights apart."""
TOKENIZER = "tokenizer.json"


@attrs.frozen(kw_only=True)
class Imported:
    """What was imported.

    Args:
        checkpoint: The new checkpoint.
        model_type: Which kind of model it is, in the words of `transformers`.
        n_parameters: Its parameters, a tied head not counted.
        dtypes: The types of its weights.
        tokenizer: The copy of its tokenizer.json; None where it has none.
    """

    checkpoint: Path
    model_type: str
    n_parameters: int
    dtypes: tuple[str, ...]
    tokenizer: Path | None


def import_hf(
    directory: str | Path, out: str | Path, *, dtype: str | None = None, kernel: Kernel | None = None
) -> Imported:
    """Read a folder that `transformers` wrote into a new run's directory with one checkpoint.

    Args:
        directory: A folder with config.json and safetensors, of a model such as MambaForCausalLM.
        out: The directory to make: ``checkpoints/step-00000000``, ``config.toml``, and in ``hf`` a copy
            of config.json, the tokenizer's files and generation_config.json.
        dtype: "float32", "float16" or "bfloat16"; None to leave every weight as it is, to the bit.
        kernel: What is installed; all plugins if left out.

    Raises:
        ArgumentError: There is no such dtype.
        CheckpointError: The folder is missing or damaged, or `out` exists.
        IncompatibleCheckpointError: The folder holds another kind of model, or one with a property that
            Helix's layers have not.
        DependencyError: safetensors is not installed.
    """
    _check_dtype(dtype)
    kernel = kernel or default_kernel()
    folder, out = Folder.open(directory), Path(out)
    source = str(folder.path)
    theirs = as_transformers(folder.config, source)
    model = to_model(theirs, source)
    table = {"model": model, **_tokenizer(folder, out, kernel)}
    config = resolve_document(table, source=source, kernel=kernel)
    expected = shapes_of(config["model"], kernel)
    weights = _weights(folder, expected, tied=model["tie_embeddings"])
    if dtype is not None:
        weights = {name: tensor.to(DTYPES[dtype]) for name, tensor in weights.items()}
    step = Path("checkpoints", "step-00000000")
    with new_directory(out) as making:
        _write_beside(making, folder, config)
        state: dict[str | int, Any] = {"model": nest(weights), "step": 0}
        checkpoint.save(making / step, state, attributes=_attributes(folder, config, dtype))
    return Imported(
        checkpoint=out / step,
        model_type=theirs["model_type"],
        n_parameters=sum(tensor.numel() for tensor in weights.values()),
        dtypes=tuple(sorted({dtype_name(tensor.dtype) for tensor in weights.values()})),
        tokenizer=_tokenizer_copy(folder, out),
    )


def dtype_name(dtype: torch.dtype) -> str:
    """Return what config.json calls a type, such as ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def _weights(folder: Folder, expected: Shapes, *, tied: bool) -> dict[str, Tensor]:
    """Return the folder's tensors under Helix's names, after comparing them with the model's."""
    source = str(folder.path)
    stored = {current_name(name): tensor for name, tensor in folder.tensors().items()}
    if tied and HEAD in stored:
        _drop_tied_head(stored, source)
    for name, tensor in stored.items():
        if tensor.dtype not in DTYPES.values():
            raise IncompatibleCheckpointError(
                f"{source}: {name} is {dtype_name(tensor.dtype)}; supported is {', '.join(DTYPES)}"
            )
    names = {hf_name(name): name for name in expected}
    check_fit(
        {name: tuple(tensor.shape) for name, tensor in stored.items()},
        {theirs: expected[ours] for theirs, ours in names.items()},
        source,
    )
    return {ours: stored[theirs] for theirs, ours in names.items()}


def _drop_tied_head(stored: dict[str, Tensor], source: str) -> None:
    head = stored.pop(HEAD)
    if EMBEDDING in stored and not torch.equal(head, stored[EMBEDDING]):
        raise IncompatibleCheckpointError(
            f"{source}: tie_word_embeddings is true, but {HEAD} is another matrix than {EMBEDDING}; where "
            f"both are meant, set it to false in {CONFIG}"
        )


def _tokenizer(folder: Folder, out: Path, kernel: Kernel) -> dict[str, Any]:
    """Return the config's table of the tokenizer, where there is one and helix-data is installed."""
    copy = _tokenizer_copy(folder, out)
    if copy is None or "tokenizer" not in kernel.registry.sections:
        return {}
    # The tokens around a text are those that the model was trained with, and transformers adds them too.
    return {"tokenizer": {"use": "hf-tokenizer", "path": str(copy), "special_tokens": True}}


def _tokenizer_copy(folder: Folder, out: Path) -> Path | None:
    return out / BESIDE / TOKENIZER if (folder.path / TOKENIZER).is_file() else None


def _write_beside(making: Path, folder: Folder, config: Config) -> None:
    (making / BESIDE).mkdir()
    write_file(making / BESIDE / CONFIG, folder.text.encode())
    for file in folder.companions():
        write_file(making / BESIDE / file.name, file.read_bytes())
    write_file(making / "config.toml", config.to_toml().encode())


def _attributes(folder: Folder, config: Config, dtype: str | None) -> dict[str, Any]:
    return {
        "step": 0,
        "config": config.to_dict(),
        "components": config.versions(),
        "api": API_VERSION,
        "hf": {"config": folder.text, "dtype": dtype, "files": [file.name for file in folder.companions()]},
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "helix-ssm": helix_ssm.__version__,
        },
    }


def _check_dtype(dtype: str | None) -> None:
    if dtype is not None and dtype not in DTYPES:
        raise ArgumentError(
            f"dtype is {dtype!r}, allowed is one of {', '.join(DTYPES)}.{did_you_mean(dtype, DTYPES)}"
        )
