"""The model `retriever`: finds, of many, what belongs to a thing, such as the text of a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from helix_kernel.errors import ArgumentError
from helix_multimodal.alignment.info_nce import InfoNCE
from helix_multimodal.config.models import check_parts
from helix_multimodal.inputs import Padded, Tokens, join
from helix_multimodal.models.parts import EncoderFactory, Parts, hide_some
from helix_multimodal.models.recall import Sides, recalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


class Retriever(nn.Module):
    """Scores of every query with every target; the cross-entropy of its partner is InfoNCE.

    The contrastive loss is that of van den Oord et al. 2018, eq. 4, in both directions as in CLIP (Radford et
    al. 2021, figure 3). An alignment that compares vectors is given those that the fusion makes of each
    side's parts; one that compares tokens those of all parts in a row; one that reads bytes the target as it
    is.

    Args:
        d_model: Width of tokens and vectors.
        encoders: Build the encoders, by part.
        query: Parts of the one side.
        target: Parts of the other.
        fusion: Builds the fusion of a side; None where the alignment compares no vectors.
        alignment: Builds the alignment.
        drop: How often training hides a part of a side.

    Raises:
        ArgumentError: A part has no encoder, or fusion and alignment do not go together.
    """

    causal = False

    def __init__(
        self,
        d_model: int,
        *,
        encoders: Mapping[str, EncoderFactory],
        query: Sequence[str],
        target: Sequence[str],
        fusion: Callable[..., nn.Module] | None = None,
        alignment: Callable[..., nn.Module] = InfoNCE,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.query, self.target, self.drop = tuple(query), tuple(target), drop
        self.alignment: Any = alignment(d_model=d_model)
        self.reads = self.alignment.reads
        encoded = (*self.query, *(() if self.reads == "bytes" else self.target))
        check_parts("query and target", encoded, tuple(encoders))
        check_parts("encoders", tuple(encoders), encoded)
        self._check(fusion)
        self.parts = Parts(d_model, encoders)
        if fusion is not None:
            sides = {"query": self.query, "target": self.target}
            self.fusions = nn.ModuleDict(
                {side: fusion(d_model=d_model, d_out=d_model, parts=parts) for side, parts in sides.items()}
            )

    def forward(self, inputs: Mapping[str, Padded]) -> Tensor:
        """Map data by part to scores (B, 2, B): of each query with all targets, and the other way round.

        Raises:
            ArgumentError: A part is missing from the data, or of another kind than its encoder takes.
        """
        sides = self.encode(inputs)
        if self.training:
            drop = self.drop
            shown = hide_some(sides.target, drop) if self.reads != "bytes" else sides.target
            sides = Sides(hide_some(sides.query, drop), shown)
        scores = self.score(sides)
        return torch.stack([scores, scores.T], 1)

    def encode(self, inputs: Mapping[str, Padded]) -> Sides:
        """Return the tokens of each side's parts; of a target that is read as bytes, the data."""
        query = self.parts(inputs, self.query)
        if self.reads == "bytes":
            return Sides(query, {name: inputs[name] for name in self.target})
        return Sides(query, self.parts(inputs, self.target))

    def score(self, sides: Sides) -> Tensor:
        """Return how well each query goes with each target, (B of queries, B of targets)."""
        scores: Tensor = self.alignment(
            self._side("query", sides.query),
            next(iter(sides.target.values()))
            if self.reads == "bytes"
            else self._side("target", sides.target),
        )
        return scores

    def measures(self, batches: Iterable[Mapping[str, Padded]]) -> dict[str, float]:
        """Return how often a partner is among the best, of all that batches hold, in both directions.

        Queries are also made of each of their parts alone. See `helix_multimodal.models.recall`.
        """
        return recalls(self, [self.encode(inputs) for inputs in batches])

    def example_inputs(self, batch_size: int, *, seed: int) -> dict[str, Padded]:
        """Return small random data."""
        found = self.parts.example(batch_size, seed=seed)
        if self.reads == "bytes":
            generator = torch.Generator().manual_seed(seed + 1)
            text = torch.randint(97, 123, (batch_size, 3), generator=generator, dtype=torch.uint8)
            found[self.target[0]] = Padded(text, torch.full((batch_size, 1), 3))
        return found

    def _side(self, side: str, parts: Mapping[str, Any]) -> Tokens:
        if self.reads != "vectors":
            return join(list(parts.values()))
        present = torch.stack([tokens.present for tokens in parts.values()]).any(0)
        vectors: Tensor = self.fusions[side](parts)
        return Tokens(vectors.unsqueeze(1), present.unsqueeze(1))

    def _check(self, fusion: Callable[..., nn.Module] | None) -> None:
        kind = type(self.alignment).__name__
        if self.reads == "vectors" and fusion is None:
            raise ArgumentError(f"fusion is missing: the alignment {kind} compares vectors; name a fusion")
        if self.reads != "vectors" and fusion is not None:
            raise ArgumentError(f"fusion is given, but the alignment {kind} reads {self.reads}; leave it out")
        if self.reads == "bytes" and len(self.target) != 1:
            raise ArgumentError(f"target is {self.target}; the alignment {kind} reads the bytes of one part")
