"""The ways to keep a state that are compared: each saves durably, loads in place and loads by memory map."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Protocol

import safetensors
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp

from helix_kernel import checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

State = dict[str, torch.Tensor]


class Format(Protocol):
    """One way to keep a flat state of CPU tensors."""

    name: str

    def save(self, state: State, path: Path) -> None:
        """Write the state, and return when the disk has it."""

    def load_into(self, state: State, path: Path) -> None:
        """Read into tensors that exist."""

    def load(self, path: Path) -> Mapping[str, torch.Tensor]:
        """Return new tensors that own their memory."""

    def map(self, path: Path) -> Mapping[str, torch.Tensor] | None:
        """Return tensors that are read when touched; None where there is no such way."""


class Helix:
    """Checkpoints of Helix, checked against their digests whenever they are read but by a map."""

    name = "Helix"

    def save(self, state: State, path: Path) -> None:
        """See `Format`."""
        checkpoint.save(path, state)

    def load_into(self, state: State, path: Path) -> None:
        """See `Format`."""
        checkpoint.load_into(path, state)

    def load(self, path: Path) -> Mapping[str, torch.Tensor]:
        """See `Format`."""
        return checkpoint.load(path, as_torch=True)

    def map(self, path: Path) -> Mapping[str, torch.Tensor]:
        """See `Format`."""
        return checkpoint.load(path, as_torch=True, mmap=True, verify=False)


class Safetensors:
    """One safetensors file, brought to the disk with its directory."""

    name = "safetensors"

    def save(self, state: State, path: Path) -> None:
        """See `Format`."""
        path.mkdir()
        safetensors.torch.save_file(state, path / "model.safetensors")
        bring_to_disk(path)

    def load_into(self, state: State, path: Path) -> None:
        """See `Format`."""
        with safetensors.safe_open(path / "model.safetensors", "pt") as file:
            for name, tensor in state.items():
                tensor.copy_(file.get_tensor(name))

    def load(self, path: Path) -> Mapping[str, torch.Tensor]:
        """See `Format`; its maps are copied, so that the tensors own their memory."""
        return {name: tensor.clone() for name, tensor in self.map(path).items()}

    def map(self, path: Path) -> Mapping[str, torch.Tensor]:
        """See `Format`."""
        return safetensors.torch.load_file(path / "model.safetensors")


class TorchSave:
    """``torch.save`` into one file, brought to the disk with its directory."""

    name = "torch.save"

    def save(self, state: State, path: Path) -> None:
        """See `Format`."""
        path.mkdir()
        torch.save(state, path / "model.pt")
        bring_to_disk(path)

    def load_into(self, state: State, path: Path) -> None:
        """See `Format`."""
        loaded = self.map(path)
        for name, tensor in state.items():
            tensor.copy_(loaded[name])

    def load(self, path: Path) -> Mapping[str, torch.Tensor]:
        """See `Format`."""
        return torch.load(path / "model.pt", weights_only=True)

    def map(self, path: Path) -> Mapping[str, torch.Tensor]:
        """See `Format`."""
        return torch.load(path / "model.pt", weights_only=True, mmap=True)


class Distributed:
    """``torch.distributed.checkpoint`` in one process, which brings its files to the disk itself."""

    name = "DCP"

    def save(self, state: State, path: Path) -> None:
        """See `Format`."""
        writer = dcp.FileSystemWriter(path, sync_files=True)
        dcp.save(state, storage_writer=writer, no_dist=True)
        bring_to_disk(path)

    def load_into(self, state: State, path: Path) -> None:
        """See `Format`."""
        dcp.load(state, storage_reader=dcp.FileSystemReader(path), no_dist=True)

    def load(self, path: Path) -> Mapping[str, torch.Tensor]:
        """See `Format`; it needs the tensors' shapes, which the caller of the others need not know."""
        metadata = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
        state = {name: torch.empty(entry.size) for name, entry in metadata.items()}
        self.load_into(state, path)
        return state

    def map(self, path: Path) -> None:
        """See `Format`."""
        return


FORMATS: tuple[Format, ...] = (Helix(), Safetensors(), TorchSave(), Distributed())


def write_raw(state: State, path: Path) -> None:
    """Write the same bytes into one file by plain writes, and bring it to the disk: the bound."""
    path.mkdir()
    with (path / "raw").open("wb", buffering=0) as file:
        for tensor in state.values():
            content = memoryview(tensor.view(-1).view(torch.uint8).numpy())
            for start in range(0, len(content), 8 * 2**20):
                file.write(content[start : start + 8 * 2**20])
    bring_to_disk(path)


def bring_to_disk(path: Path) -> None:
    """Bring every file of a directory, the directory and its parent to the disk."""
    for entry in (*path.iterdir(), path, path.parent):
        descriptor = os.open(entry, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def forget(path: Path) -> None:
    """Drop a directory's files from the page cache."""
    for entry in path.rglob("*"):
        if entry.is_file():
            descriptor = os.open(entry, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a directory, if it is there."""
    shutil.rmtree(path, ignore_errors=True)
