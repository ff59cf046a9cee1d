"""How often what belongs together is found: recall among the best k, in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from helix_multimodal.inputs import Padded, Tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

_KS = (1, 10)
_BLOCK = 64


class Sides(NamedTuple):
    """The tokens of both sides, by part; a target that is read as bytes has its data instead.

    Attributes:
        query: By part.
        target: By part.
    """

    query: Mapping[str, Tokens]
    target: Mapping[str, Any]


def recalls(model: Any, batches: Sequence[Sides]) -> dict[str, float]:
    """Return recall among the best 1 and 10, by which parts are asked with, and what a guess would have.

    A thing counts where both sides of it are there. A rank is one more than the number of others that score
    as high or higher, so that equal scores count as a miss.

    Args:
        model: Has ``score(sides)``, and ``query`` and ``target``, the names of parts.
        batches: The two sides of all things, encoded.
    """
    if not batches:
        return {}
    sides = Sides(
        {name: _join([batch.query[name] for batch in batches]) for name in batches[0].query},
        {name: _join([batch.target[name] for batch in batches]) for name in batches[0].target},
    )
    found: dict[str, float] = {}
    there = torch.stack([part.present for part in sides.target.values()]).any(0)
    answer = "_and_".join(model.target)
    for parts in _asked(model.query):
        asked = {name: _shown(sides.query[name], name in parts) for name in model.query}
        both = there & torch.stack([tokens.present for tokens in asked.values()]).any(0)
        scores = _scores(model, _rows(Sides(asked, sides.target), both.nonzero().squeeze(1)))
        question = "_and_".join(parts)
        for k in _KS:
            found[f"recall_at_{k}_{question}_to_{answer}"] = _recall(scores, k)
            found[f"recall_at_{k}_{answer}_to_{question}"] = _recall(scores.T, k)
            found[f"chance_at_{k}_{question}"] = min(1.0, k / max(1, len(scores)))
    return found


def _asked(parts: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield each part alone, and all of them where there are several."""
    for part in parts:
        yield (part,)
    if len(parts) > 1:
        yield tuple(parts)


def _scores(model: Any, sides: Sides) -> Tensor:
    n = len(next(iter(sides.query.values()))[0])
    device = next(iter(sides.query.values()))[0].device
    blocks = [torch.arange(first, min(first + _BLOCK, n), device=device) for first in range(0, n, _BLOCK)]
    rows: list[Tensor] = []
    for block in blocks:
        of_query = _rows(sides, block).query
        scores = [model.score(Sides(of_query, _rows(sides, other).target)) for other in blocks]
        rows.append(torch.cat(scores, 1))
    return torch.cat(rows) if rows else torch.zeros(0, 0, device=device)


def _recall(scores: Tensor, k: int) -> float:
    if not len(scores):
        return float("nan")
    own = scores.diagonal().unsqueeze(1)
    ranks = (scores >= own).sum(1)  # itself among them
    return float((ranks <= k).double().mean())


def _shown(tokens: Tokens, shown: bool) -> Tokens:  # noqa: FBT001 - says which of two
    return tokens if shown else Tokens(tokens.values, torch.zeros_like(tokens.mask))


def _rows(sides: Sides, rows: Tensor) -> Sides:
    def taken(part: Any) -> Any:
        return type(part)(*(tensor[rows] for tensor in part))

    return Sides(
        {name: taken(part) for name, part in sides.query.items()},
        {name: taken(part) for name, part in sides.target.items()},
    )


def _join(parts: Sequence[Any]) -> Any:
    kind: type[Tokens | Padded] = type(parts[0])
    return kind(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
