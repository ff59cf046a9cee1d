"""What hands out batches of text windows: our loader and its peers, over the same file."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch
from torch.utils.data import DataLoader, RandomSampler

from helix_data.loading.prefetch import Prefetch
from helix_data.text_bytes import TextBytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

ENDLESS = 1 << 40
AHEAD = 4


@attrs.frozen
class WindowsByIndex:
    """The same windows for loaders that ask for one at a time: any of them by its number.

    Args:
        path: The file.
        seq_len: Bytes in a window.
    """

    path: Path
    seq_len: int

    def __len__(self) -> int:
        return (self.path.stat().st_size - 1) // self.seq_len

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        start = int(index) * self.seq_len
        window = _mapped(self.path)[start : start + self.seq_len + 1].astype(np.int64)
        return window[:-1], window[1:]


@lru_cache
def _mapped(path: Path) -> NDArray[np.uint8]:
    return np.memmap(path, dtype=np.uint8, mode="r")


def loaders(path: Path, *, seq_len: int, batch_size: int) -> dict[str, Callable[[], Iterator[Any]]]:
    """Return what begins to hand out shuffled batches without end, by name."""
    ours = TextBytes(paths=[str(path)], seq_len=seq_len, batch_size=batch_size, validation_fraction=0)
    windows = WindowsByIndex(path, seq_len)

    def prefetch(workers: int) -> Iterator[Any]:
        return Prefetch(dataset=ours, seed=1, workers=workers, prefetch=AHEAD).batches(0, ENDLESS)

    def torchs(workers: int) -> Iterator[Any]:
        loader: DataLoader[Any] = DataLoader(
            windows,  # type: ignore[arg-type]
            batch_size=batch_size,
            sampler=RandomSampler(windows, num_samples=ENDLESS, replacement=True),
            num_workers=workers,
            prefetch_factor=AHEAD if workers else None,
        )
        return iter(loader)

    found = {
        "helix, in the training process": lambda: prefetch(0),
        "helix, 1 worker": lambda: prefetch(1),
        "helix, 2 workers": lambda: prefetch(2),
        "DataLoader, in the training process": lambda: torchs(0),
        "DataLoader, 1 worker": lambda: torchs(1),
        "DataLoader, 2 workers": lambda: torchs(2),
    }
    if importlib.util.find_spec("grain"):
        found["Grain, in the training process"] = lambda: _grain(windows, batch_size, 0)
        found["Grain, 1 worker"] = lambda: _grain(windows, batch_size, 1)
    return found


def _grain(windows: WindowsByIndex, batch_size: int, workers: int) -> Iterator[Any]:
    import grain

    dataset = grain.MapDataset.source(windows).shuffle(seed=1).repeat().batch(batch_size)
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    batches = dataset.map(_as_tensors).to_iter_dataset(options)
    if workers:
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=AHEAD)
        batches = batches.mp_prefetch(options)
    return iter(batches)


def _as_tensors(batch: Any) -> Any:
    return tuple(torch.from_numpy(array) for array in batch)
