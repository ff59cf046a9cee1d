"""A folder of `transformers` on disk: its config, the files beside it, and its tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.errors import CheckpointError, DependencyError, IncompatibleCheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

    from torch import Tensor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_GENERATION = "generation_config.json"
_TOKENIZERS = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)


@attrs.frozen
class Folder:
    """An open folder. Make one with `Folder.open`.

    Args:
        path: Where it is.
        config: What its config.json says.
        text: That file as it stands.
    """

    path: Path
    config: Mapping[str, Any]
    text: str

    @classmethod
    def open(cls, directory: str | Path) -> Folder:
        """Open a folder; reads its config, no tensor.

        Raises:
            CheckpointError: It is missing, or has no config.json that can be read.
        """
        path = Path(directory)
        if not path.is_dir():
            what = "is a file" if path.exists() else "does not exist"
            raise CheckpointError(
                f"{path} {what}; give a folder with {CONFIG} and {WEIGHTS}. Nothing is downloaded: a model's "
                "name on a hub is no folder"
            )
        text = _read(path, CONFIG)
        return cls(path, _parse(path / CONFIG, text), text)

    def companions(self) -> list[Path]:
        """Return the files that belong to the model and hold no weights: tokenizer and generation."""
        generation = self.path / _GENERATION
        return [*([generation] if generation.is_file() else []), *tokenizer_files(self.path)]

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor by its name.

        They are maps of the files: what is not looked at is not read, and what was read can be dropped
        by the system at any time, so that a folder larger than memory can be gone through.

        Raises:
            CheckpointError: A file is missing or damaged, or is not what the index says.
            IncompatibleCheckpointError: The weights are only there as a pickle.
            DependencyError: safetensors is not installed.
        """
        found: dict[str, Tensor] = {}
        places: dict[str, str] = {}
        index = self._index()
        for file in sorted(set(index.values())) if index else [WEIGHTS]:
            for name, tensor in self._read_file(file):
                found[name], places[name] = tensor, file
        for name, file in (index or {}).items():
            if places.get(name) != file:
                raise CheckpointError(
                    f"{self.path} is damaged: {file} lacks {name}, which {INDEX} places there"
                )
        return found

    def _index(self) -> dict[str, str] | None:
        """Return which file holds each tensor, or None where one file holds them all."""
        if (self.path / WEIGHTS).is_file():
            return None
        if not (self.path / INDEX).is_file():
            raise self._without_weights()
        weight_map = _parse(self.path / INDEX, _read(self.path, INDEX)).get("weight_map")
        if not isinstance(weight_map, dict) or not all(
            isinstance(file, str) and Path(file).name == file for file in weight_map.values()
        ):
            raise CheckpointError(
                f"{self.path} is damaged: {INDEX} has no weight_map from tensors to files of this folder"
            )
        return weight_map

    def _without_weights(self) -> CheckpointError:
        pickle = next((name for name in _PICKLES if (self.path / name).is_file()), None)
        if pickle:
            return IncompatibleCheckpointError(
                f"{self.path} has its weights in {pickle}, a pickle, which can run any code when it is "
                f"opened; supported is {WEIGHTS}. Where you trust it, write it anew: transformers' "
                "from_pretrained(…), then save_pretrained(…)"
            )
        return CheckpointError(f"{self.path} has no weights: neither {WEIGHTS} nor {INDEX}")

    def _read_file(self, file: str) -> Iterator[tuple[str, Tensor]]:
        safetensors = import_safetensors()
        if not (self.path / file).is_file():
            raise CheckpointError(f"{self.path} is damaged: {file}, named by {INDEX}, is missing")
        try:
            with safetensors.safe_open(self.path / file, framework="pt") as content:
                yield from [(name, content.get_tensor(name)) for name in content.keys()]  # noqa: SIM118 - no mapping
        except (safetensors.SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.path} is damaged: {file}: {error}") from error


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files of a folder that make up a tokenizer."""
    return [folder / name for name in _TOKENIZERS if (folder / name).is_file()]


def import_safetensors() -> ModuleType:
    """Return the package safetensors with its bridge to torch.

    Raises:
        DependencyError: It is not installed.
    """
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise DependencyError(
            "folders of transformers need the package safetensors: pip install 'helix-ssm[hf]'"
        ) from error
    return safetensors


def _read(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no {name}; it is not a folder that transformers wrote") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot read {folder / name}: {error}") from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} holds a {type(document).__name__}, allowed is an object")
    return document
