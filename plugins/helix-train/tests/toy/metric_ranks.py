"""What each of several processes does in the tests of metrics: measures its share of the same batches."""

import torch
from torch import distributed

from helix_train.metrics.classes import F1, Accuracy
from helix_train.metrics.likelihood import Perplexity
from helix_train.metrics.several import Metrics


def batches():
    """Five batches: no number of ranks above 1 divides them."""
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(7, 4, generator=generator), torch.randint(4, (7,), generator=generator))
        for _ in range(5)
    ]


def measure(rank, world):
    metrics = Metrics([Accuracy(), F1(), F1(average="micro"), Perplexity()])
    metrics.begin(None)
    for prediction, target in batches()[rank::world]:
        metrics.update(prediction, target)
    return metrics


def measured():
    """Return what each rank says of all, without and with twice the sum."""
    metrics = measure(distributed.get_rank(), distributed.get_world_size())
    alone = metrics.compute()
    metrics.sum_over_ranks()
    return alone, metrics.compute()
