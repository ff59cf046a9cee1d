"""Keeps decoded tensors by the content that they were decoded from, in memory and perhaps in a folder."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_MOST = 1 << 30


class ContentCache:
    """Tensors by a key of what they are made from: the same bytes, read in the same way, are decoded once.

    A file of the folder that is missing, cut short or damaged is as if it were not there. Several processes
    may share a folder: files appear whole.

    Args:
        folder: Where they are kept for other runs; None for memory alone.
        max_bytes: Of memory; those used longest ago give way.
    """

    def __init__(self, folder: str | None = None, *, max_bytes: int = _MOST) -> None:
        self._folder = None if folder is None else Path(folder)
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._n_bytes = 0

    def __getstate__(self) -> dict[str, object]:
        # What is kept is decoded again in another process rather than sent there.
        return {**self.__dict__, "_kept": OrderedDict(), "_n_bytes": 0}

    def get(self, key: str, make: Callable[[], Tensor]) -> Tensor:
        """Return the tensor of a key, made where it is not kept; not to be written into.

        Args:
            key: As `key_of` makes them.
            make: Decodes it.
        """
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        tensor = self._load(key)
        if tensor is None:
            tensor = make()
            self._save(key, tensor)
        self._keep(key, tensor)
        return tensor

    def _keep(self, key: str, tensor: Tensor) -> None:
        self._kept[key] = tensor
        self._n_bytes += tensor.nbytes
        while self._n_bytes > self._max_bytes and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._n_bytes -= oldest.nbytes

    def _load(self, key: str) -> Tensor | None:
        if self._folder is None:
            return None
        try:
            return torch.from_numpy(np.load(self._path(self._folder, key), allow_pickle=False))
        except (OSError, ValueError, EOFError, TypeError):
            return None

    def _save(self, key: str, tensor: Tensor) -> None:
        if self._folder is None:
            return
        path = self._path(self._folder, key)
        partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                np.save(file, tensor.numpy(), allow_pickle=False)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.npy"


def key_of(data: bytes, how: str) -> str:
    """Return the key of some bytes, read in a way that is described by a text: SHA-256, in hexadecimal."""
    described = how.encode()
    return hashlib.sha256(len(described).to_bytes(8, "little") + described + data).hexdigest()
