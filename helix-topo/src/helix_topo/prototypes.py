"""How rows of a table become prototypes of places in text: mean features, and what came next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize

from helix_topo.prediction import Prediction

if TYPE_CHECKING:
    from torch import Tensor

    from helix_topo.dense_rows import DenseRows

# A model's features drift while it learns: a row is the mean of about so many of its last places.
_MEMORY = 1024
_LIKENESS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
_WEIGHTS = (8, 64, 512)
N_BUCKETS = 1 + (len(_LIKENESS) + 1) * (len(_WEIGHTS) + 1)


def predict(rows: DenseRows, features: Tensor, *, n_read: int, sharpness: float) -> Prediction:
    """Predict symbols from the rows of motifs that are most like features (N, d_key) of unit length.

    As kNN-LM does (Khandelwal et al. 2020, arXiv:1911.00172, section 2), with a row for each motif where
    that has an entry for each place: the rows' distributions are weighed by a softmax over their cosines.

    Args:
        rows: Those with a label and a weight are read; their values are distributions of symbols.
        features: Of the places to predict from.
        n_read: How many rows are weighed.
        sharpness: Factor of the cosines in the softmax.

    Returns:
        For N places; buckets, below `N_BUCKETS`, are of the largest cosine and of that row's weight.
    """
    learned = ((rows.labels >= 0) & (rows.weights > 0)).nonzero().flatten()
    if not len(learned):
        empty = features.new_zeros(len(features), rows.values.shape[1])
        return Prediction(probabilities=empty, bucket=torch.zeros(len(features), dtype=torch.int64))
    likeness = features @ normalize(rows.keys[learned], dim=-1).T
    best, places = likeness.topk(min(n_read, len(learned)), dim=-1)
    shares = torch.zeros_like(likeness).scatter_(1, places, (sharpness * best).softmax(-1))
    weight = rows.weights[learned[places[:, 0]]]
    levels = torch.bucketize(best[:, 0].contiguous(), best.new_tensor(_LIKENESS)) * (len(_WEIGHTS) + 1)
    levels += torch.bucketize(weight, weight.new_tensor(_WEIGHTS))
    return Prediction(probabilities=shares @ rows.values[learned], bucket=1 + levels)


def learn(rows: DenseRows, features: Tensor, motif: Tensor, next_ids: Tensor) -> None:
    """Move the rows of motifs towards the features (N, d_key) and next symbols (N,) of their places.

    A row is the mean of all its places as long as they are few, and a mean of its latest ones afterwards.
    """
    row = _rows_of(rows.labels, motif)
    here = (row >= 0) & (next_ids >= 0) & (next_ids < rows.values.shape[1])
    row, features, next_ids = row[here], features[here], next_ids[here]
    changed, place, count = torch.unique(row, return_inverse=True, return_counts=True)
    n = count[:, None].float()
    mean = torch.zeros(len(changed), features.shape[1]).index_add_(0, place, features) / n
    share = torch.zeros(len(changed), rows.values.shape[1])
    share.index_put_((place, next_ids), torch.ones(len(place)), accumulate=True)
    old = rows.weights[changed].clamp(max=_MEMORY)[:, None].float()
    step = n / (old + n)
    rows.keys[changed] += step * (mean - rows.keys[changed])
    rows.values[changed] += step * (share / n - rows.values[changed])
    rows.weights[changed] += count


def _rows_of(labels: Tensor, motif: Tensor) -> Tensor:
    """Return the row with each motif as its label (N,); -1 for none."""
    ordered, order = labels.sort()
    places = torch.searchsorted(ordered, motif).clamp(max=len(labels) - 1)
    return torch.where((ordered[places] == motif) & (motif >= 0), order[places], -1)
