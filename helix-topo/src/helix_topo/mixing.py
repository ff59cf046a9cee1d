"""How far each tier is trusted: its expectation is mixed into a model's, by classes of finds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from helix_topo.host import HostModule

if TYPE_CHECKING:
    from helix_topo.prediction import Prediction

# What a share of trust counts before anything is learned, in places; and exponents, in squared nats.
_STRENGTH, _CURVATURE = 4.0, 64.0
# What a tier thinks impossible is left this share of what the model thinks.
_FLOOR = 1 / 64
_MOST_EXPONENT = 4.0


class Mixing(HostModule, ABC):
    """Mixes a tier's probabilities into a model's, with weights for each class of finds.

    A class is a tier's bucket together with how sure the model and the tier are, each by the probability of
    its likeliest symbol.

    Args:
        n_buckets: The tier's buckets; in bucket 0 it knows nothing, and the model is left alone.
        n_levels: Levels of sureness of each side.
        memory: Places after which a class forgets old ones as fast as new ones come.
    """

    taught: Tensor

    def __init__(self, n_buckets: int, *, n_levels: int, memory: int) -> None:
        super().__init__()
        self.n_levels, self.memory = n_levels, memory
        self.n_classes = n_buckets * n_levels * n_levels
        self.register_buffer("taught", torch.zeros(self.n_classes))

    @abstractmethod
    def mixed(self, p: Tensor, prediction: Prediction, symbols: Tensor | None = None) -> Tensor:
        """Return the mixture (N, V) of probabilities p (N, V) and a tier's; differentiable in p.

        Args:
            p: What is expected without the tier.
            prediction: What the tier expects.
            symbols: (N,) int64 that came after the places, -1 for none: what is learned from, once all
                places are mixed. Left out, nothing is learned.
        """

    def classes(self, p: Tensor, prediction: Prediction) -> Tensor:
        """Return the class (N,) int64 of each place."""
        sides = (p.detach().cpu(), prediction.probabilities)
        model, tier = (self._level(side.amax(-1)) for side in sides)
        return (prediction.bucket * self.n_levels + model) * self.n_levels + tier

    def _level(self, sureness: Tensor) -> Tensor:
        """Return the level of a probability: the nearer to 1, the finer."""
        doubt = (1 - sureness).clamp(min=2.0 ** -(self.n_levels + 1), max=1)
        return (-doubt.log2()).long().clamp(max=self.n_levels - 1)


class LinearMixing(Mixing):
    """Mixes p ← p + λ (p_tier - p), with one λ for each class of finds.

    The λ of a class is the running mean of how probably the tier, not the model, made the symbol that came,
    λ p_tier(y) / p(y): a step of expectation maximisation for the weights of a mixture (Dempster, Laird,
    Rubin 1977). So no optimizer and no learning rate has a say in it.

    Args:
        n_buckets: The tier's buckets.
        prior: λ of a class that has not been met, which counts as much as four places.
        n_levels: Levels of sureness of each side.
        memory: Places after which a class forgets old ones as fast as new ones come.
    """

    trust: Tensor

    def __init__(
        self, n_buckets: int, *, prior: float = 0.03, n_levels: int = 6, memory: int = 20_000
    ) -> None:
        super().__init__(n_buckets, n_levels=n_levels, memory=memory)
        self.register_buffer("trust", torch.full((self.n_classes,), prior))

    def mixed(self, p: Tensor, prediction: Prediction, symbols: Tensor | None = None) -> Tensor:
        """Return the mixture; see `Mixing.mixed`."""
        classes = self.classes(p, prediction)
        weight = (self.trust[classes] * (prediction.bucket > 0)).to(p.device)[:, None]
        mixed = p + weight * (prediction.probabilities.to(p.device) - p)
        if symbols is not None:
            self._learn(classes, p, prediction, symbols)
        return mixed

    @torch.no_grad()
    def _learn(self, classes: Tensor, p: Tensor, prediction: Prediction, symbols: Tensor) -> None:
        known = (prediction.bucket > 0) & (symbols.cpu() >= 0)
        classes, came = classes[known], symbols.cpu()[known, None]
        theirs, ours = (
            x.cpu()[known].gather(1, came)[:, 0].float() for x in (prediction.probabilities, p.detach())
        )
        weight = self.trust[classes]
        responsible = weight * theirs / (weight * theirs + (1 - weight) * ours).clamp(min=1e-30)
        count = torch.zeros_like(self.taught).index_add_(0, classes, torch.ones_like(responsible))
        total = torch.zeros_like(self.trust).index_add_(0, classes, responsible)
        before = (self.taught + _STRENGTH).clamp(max=self.memory)
        self.trust.mul_(before).add_(total).div_(before + count)
        self.taught.add_(count)


class GeometricMixing(Mixing):
    """Mixes p ← p^a p_tier^b / Z in the domain of logarithms, with a and b for each class of finds.

    It is the logistic mixing of PAQ (Mahoney, "Adaptive Weighing of Context Models for Lossless Data
    Compression", 2005) for an alphabet of V symbols, that is a product of experts (Hinton 2002) whose
    exponents are learned. They follow the gradient of the coding cost, E_mixed[log p_i] - log p_i(y), divided
    by the curvature summed so far in the class, Cov_mixed[log p_i, log p_j]: an online Newton step (Hazan,
    Agarwal, Kale 2007), which has no learning rate.

    Args:
        n_buckets: The tier's buckets.
        prior: b of a class that has not been met; a is then 1 - b.
        n_levels: Levels of sureness of each side.
        memory: Places after which a class forgets old ones as fast as new ones come.
    """

    exponents: Tensor
    curvature: Tensor

    def __init__(
        self, n_buckets: int, *, prior: float = 0.03, n_levels: int = 6, memory: int = 20_000
    ) -> None:
        super().__init__(n_buckets, n_levels=n_levels, memory=memory)
        self.register_buffer("exponents", torch.tensor([1 - prior, prior]).repeat(self.n_classes, 1))
        self.register_buffer("curvature", _CURVATURE * torch.eye(2).repeat(self.n_classes, 1, 1))

    def mixed(self, p: Tensor, prediction: Prediction, symbols: Tensor | None = None) -> Tensor:
        """Return the mixture; see `Mixing.mixed`."""
        classes, known = self.classes(p, prediction), prediction.bucket > 0
        floored = torch.lerp(prediction.probabilities.to(p), p, _FLOOR)
        experts = torch.stack([p, floored], 1).clamp(min=torch.finfo(p.dtype).tiny).log()  # (N, 2, V)
        mixed = (self.exponents[classes].to(p)[:, None] @ experts)[:, 0].softmax(-1)
        if symbols is not None:
            taught = known & (symbols.cpu() >= 0)
            self._learn(classes, experts.detach().cpu(), mixed.detach().cpu(), symbols.cpu(), taught)
        return torch.where(known.to(p.device)[:, None], mixed, p)

    @torch.no_grad()
    def _learn(
        self, classes: Tensor, experts: Tensor, mixed: Tensor, symbols: Tensor, taught: Tensor
    ) -> None:
        experts = experts - (experts @ mixed[..., None])  # from their mean under the mixture
        came = experts.gather(2, symbols.clamp(min=0)[:, None, None].expand(-1, 2, 1))[..., 0]
        curvature = (experts * mixed[:, None]) @ experts.mT  # (N, 2, 2)
        weight = taught.float()
        count = torch.zeros_like(self.taught).index_add_(0, classes, weight)
        gain = torch.zeros_like(self.exponents).index_add_(0, classes, came.float() * weight[:, None])
        self._forget(count)
        self.curvature.index_add_(0, classes, curvature.float() * weight[:, None, None])
        self.exponents.add_(torch.linalg.solve(self.curvature, gain)).clamp_(0, _MOST_EXPONENT)
        self.taught.add_(count)

    def _forget(self, count: Tensor) -> None:
        """Let each class (C,) forget as much of its curvature as so many new places take of its memory."""
        share = (count / self.memory).clamp(max=1)[:, None, None]
        self.curvature.lerp_(_CURVATURE * torch.eye(2), share)
