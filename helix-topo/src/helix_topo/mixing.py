"""How far each tier is trusted: its expectation is mixed into a model's, by classes of finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from helix_topo.host import HostModule

if TYPE_CHECKING:
    from helix_topo.prediction import Prediction

_STRENGTH = 4.0


class Mixing(HostModule):
    """Mixes p ← p + λ (p_tier - p), with one λ for each class of finds.

    A class is a tier's bucket together with how sure the model and the tier are, each by the probability of
    its likeliest symbol. The λ of a class is the running mean of how probably the tier, not the model, made
    the symbol that came, λ p_tier(y) / p(y): a step of expectation maximisation for the weights of a mixture
    (Dempster, Laird, Rubin 1977). So no optimizer and no learning rate has a say in it.

    Args:
        n_buckets: The tier's buckets; in bucket 0 it knows nothing.
        prior: λ of a class that has not been met, which counts as much as four places.
        n_levels: Levels of sureness of each side.
        memory: Places after which a class forgets old ones as fast as new ones come.
    """

    trust: Tensor
    taught: Tensor

    def __init__(
        self, n_buckets: int, *, prior: float = 0.03, n_levels: int = 6, memory: int = 20_000
    ) -> None:
        super().__init__()
        self.n_levels, self.memory = n_levels, memory
        n_classes = n_buckets * n_levels * n_levels
        self.register_buffer("trust", torch.full((n_classes,), prior))
        self.register_buffer("taught", torch.zeros(n_classes))

    def mixed(self, p: Tensor, prediction: Prediction) -> Tensor:
        """Return the mixture (N, V) of probabilities p (N, V) and a tier's; differentiable in p."""
        weight = self.weights(p, prediction)[:, None]
        return p + weight * (prediction.probabilities.to(p.device) - p)

    def weights(self, p: Tensor, prediction: Prediction) -> Tensor:
        """Return λ for each place (N,); 0 where the tier knows nothing."""
        known = prediction.bucket > 0
        return (self.trust[self._classes(p, prediction)] * known).to(p.device)

    @torch.no_grad()
    def learn(self, p: Tensor, prediction: Prediction, symbols: Tensor) -> None:
        """Learn from the symbols (N,) that came after places at which p (N, V) was expected; -1 is none."""
        known = (prediction.bucket > 0) & (symbols.cpu() >= 0)
        classes = self._classes(p, prediction)[known]
        theirs, ours = (
            x.cpu()[known].gather(1, symbols.cpu()[known, None])[:, 0].float()
            for x in (prediction.probabilities, p)
        )
        weight = self.trust[classes]
        responsible = weight * theirs / (weight * theirs + (1 - weight) * ours).clamp(min=1e-30)
        count = torch.zeros_like(self.taught).index_add_(0, classes, torch.ones_like(responsible))
        total = torch.zeros_like(self.trust).index_add_(0, classes, responsible)
        before = (self.taught + _STRENGTH).clamp(max=self.memory)
        self.trust.mul_(before).add_(total).div_(before + count)
        self.taught.add_(count)

    def _classes(self, p: Tensor, prediction: Prediction) -> Tensor:
        sides = (p.detach().cpu(), prediction.probabilities)
        model, tier = (self._level(side.amax(-1)) for side in sides)
        return (prediction.bucket * self.n_levels + model) * self.n_levels + tier

    def _level(self, sureness: Tensor) -> Tensor:
        """Return the level of a probability: the nearer to 1, the finer."""
        doubt = (1 - sureness).clamp(min=2.0 ** -(self.n_levels + 1), max=1)
        return (-doubt.log2()).long().clamp(max=self.n_levels - 1)
