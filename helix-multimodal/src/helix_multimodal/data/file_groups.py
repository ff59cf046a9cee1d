"""The dataset `file-groups`: files that belong together by name, as batches of several kinds of data."""

from __future__ import annotations

import hashlib
import io
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from helix_kernel.errors import ArgumentError, DataError
from helix_multimodal.config.data import FileGroupsConfig
from helix_multimodal.data.cache import ContentCache, key_of
from helix_multimodal.data.groups import Group, find_groups
from helix_multimodal.data.tasks import labels_of, targets_of
from helix_multimodal.inputs import Padded, pad

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from helix_multimodal.config.data import Labels, Task


class MultimodalBatch(NamedTuple):
    """Several kinds of data about B things.

    Attributes:
        inputs: By part, its tensors, all of the shape that the dataset was told.
        targets: What is to be predicted, as the task has it: see `helix_multimodal.data.tasks`.
        mask: Which targets count, bool in their shape; None for all.
    """

    inputs: Mapping[str, Padded]
    targets: Tensor
    mask: Tensor | None


class FileGroups:
    """Groups of files, of which every batch is a pure function of (seed, step, rank).

    A concept is what groups are about: those of one concept are held out together or not at all, and no batch
    holds two of them, so that whatever stands beside a thing is about another. An epoch takes one group of
    every concept, in an order of its own, and leaves out what does not fill a batch.

    Args:
        path: The folder that holds the files, at any depth.
        files: By part, how its files are called below the folder, such as ``{name}.png``.
        modalities: By part, what its files are read by.
        shapes: By part, the shape that its tensors are filled up to with zeros, and cut at.
        tables: By part, a file whose lines ``name: text`` hold its data instead.
        optional: Parts that a group may lack.
        concept: The part whose data tell which groups are about the same; None: each its own.
        task: What is to be predicted: retrieval, classification, captioning or reconstruction.
        target: The part that captioning predicts.
        labels: What classification predicts: a group's folder, or the beginning of its name.
        batch_size: Groups in a batch, on each rank.
        validation_fraction: Share of the concepts that is held out.
        cache: Folder that keeps decoded data by their content; None: memory.

    Raises:
        ArgumentError: What options say of parts does not fit together.
        DataError: No group is whole, or a batch needs more concepts than there are.
    """

    draws = False
    vocab_size = None

    def __init__(
        self,
        *,
        path: str,
        files: Mapping[str, str],
        modalities: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        tables: Mapping[str, str] = MappingProxyType({}),
        optional: Sequence[str] = (),
        concept: str | None = None,
        task: Task = "retrieval",
        target: str | None = None,
        labels: Labels = "folder",
        batch_size: int = 16,
        validation_fraction: float = 0.1,
        cache: str | None = None,
    ) -> None:
        self.options = FileGroupsConfig(
            path=path,
            files=dict(files),
            tables=dict(tables),
            modalities=dict(modalities),
            shapes={part: tuple(shape) for part, shape in shapes.items()},
            optional=tuple(optional),
            concept=concept,
            task=task,
            target=target,
            labels=labels,
            batch_size=batch_size,
            validation_fraction=validation_fraction,
            cache=cache,
        )
        self.batch_size = self.options.batch_size
        self.parts = (*self.options.files, *self.options.tables)
        self._cache = ContentCache(self.options.cache)
        groups = find_groups(
            self.options.path, self.options.files, self.options.tables, optional=self.options.optional
        )
        self.classes = labels_of(groups, self.options) if self.options.task == "classification" else ()
        concepts = _by_concept(groups, self.options.concept)
        n_held_out = int(len(concepts) * self.options.validation_fraction)
        order = sorted(concepts, key=lambda concept: hashlib.sha256(concept).digest())
        self._held_out = [concepts[concept] for concept in sorted(order[:n_held_out])]
        self._train = [concepts[concept] for concept in sorted(order[n_held_out:])]
        if len(self._train) < self.batch_size:
            raise DataError(
                f"{self.options.path}: a batch of {self.batch_size} concepts cannot be made of the "
                f"{len(self._train)} that are trained on; lower data.batch_size or data.validation_fraction"
            )

    @property
    def seq_len(self) -> int:
        """Elements of a group's tensors, by which speed is told."""
        return sum(int(np.prod(shape)) for shape in self.options.shapes.values())

    @property
    def tokens_per_byte(self) -> float | None:
        """1 where bytes are predicted, None where something else is."""
        return 1.0 if self.options.task == "captioning" else None

    @property
    def n_classes(self) -> int:
        """Number of classes, where there are any."""
        return len(self.classes)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the names and contents of all groups, in hexadecimal; reads them all once."""
        digest = hashlib.sha256()
        for group in (group for concept in (*self._train, *self._held_out) for group in concept):
            for part in sorted(group.parts):
                data = group.read(part)
                digest.update(f"{group.name} {part} {len(data)} ".encode("utf-8", "surrogateescape") + data)
        return digest.hexdigest()

    def describe(self) -> str:
        """Return one line for people: origin, sizes and fingerprint."""
        n_groups = sum(len(concept) for concept in (*self._train, *self._held_out))
        return (
            f"file-groups path={self.options.path!r}: {n_groups:,} groups of {', '.join(self.parts)}; "
            f"{len(self._train):,} concepts to train on and {len(self._held_out):,} held out, "
            f"sha256 {self.fingerprint}"
        )

    def batch(self, *, seed: int, step: int, rank: int = 0, world_size: int = 1) -> MultimodalBatch:
        """Return a rank's share of the training batch of a step: new tensors on the CPU.

        Args:
            seed: Decides the order of the concepts, 0 to 2**64 - 1.
            step: Number of the batch from 0.
            rank: Which of the ranks, 0 to `world_size` - 1.
            world_size: Ranks that share a global batch.

        Raises:
            ArgumentError: An argument is out of range.
            DataError: A file is damaged, has gone, or is of another kind.
        """
        if step < 0 or world_size < 1 or not 0 <= rank < world_size:
            raise ArgumentError(
                f"step={step}, rank={rank}, world_size={world_size}: allowed is step >= 0 and 0 <= rank < "
                "world_size"
            )
        per_epoch = len(self._train) // self.batch_size
        epoch, place = divmod(step * world_size + rank, per_epoch)
        order, picks = _order(len(self._train), seed, epoch)
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
        return self._read([self._train[c][int(picks[c] % len(self._train[c]))] for c in chosen])

    def evaluation_batches(self) -> Iterator[MultimodalBatch]:
        """Yield the first group of each held-out concept, in the same batches every time."""
        for first in range(0, len(self._held_out), self.batch_size):
            yield self._read([concept[0] for concept in self._held_out[first : first + self.batch_size]])

    def _read(self, groups: Sequence[Group]) -> MultimodalBatch:
        inputs = {part: self._padded(part, groups) for part in self.parts}
        targets, mask = targets_of(self.options, inputs, groups, self.classes)
        return MultimodalBatch(inputs, targets, mask)

    def _padded(self, part: str, groups: Sequence[Group]) -> Padded:
        shape = self.options.shapes[part]
        full = torch.zeros(shape, dtype=getattr(torch, self.options.modalities[part].dtype))
        tensors = [self._tensor(part, group) if part in group.parts else None for group in groups]
        cut = [None if t is None else t[tuple(slice(size) for size in shape)] for t in tensors]
        padded = pad([*cut, full])  # what is full brings the others to its shape
        return Padded(padded.values[:-1].clone(), padded.sizes[:-1].clone())

    def _tensor(self, part: str, group: Group) -> Tensor:
        data, modality = group.read(part), self.options.modalities[part]

        def decoded() -> Tensor:
            try:
                tensor: Tensor = modality.encode(modality.load(io.BytesIO(data)))
            except DataError as error:
                raise DataError(f"{group.name}, {part}: {error}") from error
            if tensor.dim() != len(self.options.shapes[part]):
                raise ArgumentError(
                    f"shapes.{part} is {self.options.shapes[part]}, and that of {group.name} is "
                    f"{tuple(tensor.shape)}: their numbers of axes differ"
                )
            return tensor

        return self._cache.get(key_of(data, _told(modality)), decoded)


def _told(modality: Any) -> str:
    """Return what of a modality decides about its tensors: its class and options."""
    kind = type(modality)
    return f"{kind.__module__}.{kind.__qualname__} {sorted(vars(modality).items())!r}"


def _by_concept(groups: Sequence[Group], part: str | None) -> dict[bytes, list[Group]]:
    concepts: dict[bytes, list[Group]] = {}
    for group in groups:
        data = group.name.encode("utf-8", "surrogateescape") if part is None else group.read(part)
        concepts.setdefault(b" ".join(data.split(b"\n", 1)[0].lower().split()), []).append(group)
    return concepts


@lru_cache(maxsize=16)
def _order(n_concepts: int, seed: int, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return the order of an epoch's concepts, and for each a number that picks one of its groups.

    NumPy promises that the raw words of Philox stay the same in every version, as of no permutation.
    """
    if not 0 <= seed < 1 << 64:
        raise ArgumentError(f"seed is {seed!r}, allowed is >= 0 and < 2**64")
    words = np.random.Philox(
        key=np.array([seed, 0], np.uint64), counter=np.array([0, epoch, 0, 0], np.uint64)
    ).random_raw(2 * n_concepts)
    return np.argsort(words[:n_concepts], kind="stable"), words[n_concepts:]
