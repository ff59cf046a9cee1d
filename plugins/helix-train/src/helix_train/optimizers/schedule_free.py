"""The optimizers `schedule-free-adamw` and `-sgd`: an average of the weights instead of a schedule."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch

from helix_kernel.errors import ArgumentError
from helix_train.optimizers.base import (
    DenseOptimizer,
    Group,
    check_at_least_0,
    check_shares,
    gradients_of,
    real,
)

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim.optimizer import ParamsT


class ScheduleFree(DenseOptimizer):
    """What both share: the sequences y, z and x of Defazio et al. 2024 (arXiv 2405.15682).

    Gradients are taken at y, steps are made at z, and x, the average of z, is the model to measure and to
    keep. With beta, the step u of z, and the learning rate lr_t of step t (equations 3 to 5, the weights of
    the average as in algorithm 1)::

        z <- z - lr_t u(gradient at y)
        x <- (1 - c) x + c z        where c = lr_t**2 / (lr_1**2 + ... + lr_t**2)
        y <- (1 - beta) z + beta x

    While training, the weights are y; z is kept beside them, and x follows from both. So the trainer has to
    switch: `eval` before the model is measured, sampled from or saved, `train` before the next step. Both
    may be called twice. An optimizer begins in training. `eval` keeps y, so that `train` brings it back to
    the bit, for one more copy of the weights meanwhile; a state saved in either mode goes on exactly. Batch
    norm's running averages belong to y: gather them anew in `eval`.

    The learning rate is best constant after a warm-up. The authors' own code weights the average by the
    largest rate so far instead of by the present one, which is the same as long as the rate does not fall.
    Weights should be float32: in 16 bits the average stands still once c is small.
    """

    def begin_step(self, group: Group) -> None:
        """Count the step and the weights of the average."""
        if not group["training"]:
            raise ArgumentError(
                f"{self.name} is asked for a step while the weights are the average; call "
                "optimizer.train() first"
            )
        group["steps"] += 1
        weight = group["lr"] ** 2
        group["weight_sum"] += weight
        group["share"] = weight / group["weight_sum"] if weight else 0.0

    @torch.no_grad()
    def eval(self) -> None:
        """Make the weights the average x, and keep y."""
        for group in self.param_groups:
            if group["training"]:
                for weight in self._stepped(group):
                    state = self.state[weight]
                    state["y"] = weight.clone()
                    weight.lerp_(state["z"], 1 - 1 / self.interpolation(group))
            group["training"] = False

    @torch.no_grad()
    def train(self) -> None:
        """Make the weights y again, at which gradients are taken."""
        for group in self.param_groups:
            if not group["training"]:
                for weight in self._stepped(group):
                    weight.copy_(self.state[weight].pop("y"))
            group["training"] = True

    @abstractmethod
    def interpolation(self, group: Group) -> float:
        """Return beta: the share of the average x in y."""

    def descend(self, weights: list[Tensor], directions: list[Tensor], group: Group) -> None:
        """Take the step u of z, and make the weights the new y."""
        for weight in weights:
            if "z" not in self.state[weight]:
                self.state[weight]["z"] = weight.clone(memory_format=torch.preserve_format)
        values, z = real(weights), self.slot(weights, "z")
        lr, share, beta = group["lr"], group["share"], self.interpolation(group)
        # The new y from the old one, without x: (1 - c) y + c z - lr (1 - beta (1 - c)) u.
        torch._foreach_lerp_(values, z, share)
        torch._foreach_add_(values, directions, alpha=-lr * (1 - beta * (1 - share)))
        torch._foreach_add_(z, directions, alpha=-lr)

    def _stepped(self, group: Group) -> list[Tensor]:
        return [weight for weight in group["params"] if "z" in self.state.get(weight, {})]


class ScheduleFreeAdamW(ScheduleFree):
    """Schedule-free AdamW (Defazio et al. 2024, arXiv 2405.15682, algorithm 1); see `ScheduleFree`.

    The step of z is u = g / (sqrt(v / (1 - beta2**t)) + eps) + weight_decay y, with the running mean v of
    g**2. Complex weights are treated as pairs.

    Args:
        params: Weights, or groups of weights with options of their own.
        lr: Learning rate, at least 0; 1 to 10 times AdamW's.
        betas: Share of the average in the weights that gradients are taken at, above 0, and share of the
            second moment that a step keeps; both below 1.
        eps: Added to the root of the second moment.
        weight_decay: Share of a weight that a step removes, times the learning rate; at least 0.
        foreach: Update many tensors in one kernel. None does so on CUDA only.

    Raises:
        ArgumentError: An option is out of range, a gradient is sparse, or a step is asked for in `eval`.
    """

    name = "schedule-free-adamw"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 2.5e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "foreach": foreach}
        super().__init__(params, options | _beginning())

    def check_options(self, group: Group) -> None:
        """Raise `ArgumentError` where an option of a group is out of range."""
        check_at_least_0(group, "lr", "eps", "weight_decay")
        check_shares(group, "betas")
        _check_interpolation("betas", group["betas"], group["betas"][0])

    def interpolation(self, group: Group) -> float:
        """Return beta: the share of the average x in y."""
        beta: float = group["betas"][0]
        return beta

    def update(self, weights: list[Tensor], group: Group) -> None:
        """Update weights of one device and dtype that all have a gradient."""
        beta2, gradients = group["betas"][1], gradients_of(weights)
        second = self.slot(weights, "exp_avg_sq")
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, value=1 - beta2)
        roots = torch._foreach_div(second, 1 - beta2 ** group["steps"])  # noqa: SLF001 - as above
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, group["eps"])
        directions = list(torch._foreach_div(gradients, roots))  # noqa: SLF001 - as above
        torch._foreach_add_(directions, real(weights), alpha=group["weight_decay"])
        self.descend(weights, directions, group)


class ScheduleFreeSGD(ScheduleFree):
    """Schedule-free gradient descent (Defazio et al. 2024, arXiv 2405.15682); see `ScheduleFree`.

    The step of z is u = g + weight_decay y. Complex weights are treated as pairs.

    Args:
        params: Weights, or groups of weights with options of their own.
        lr: Learning rate, at least 0; 10 to 50 times that of gradient descent with momentum 0.9.
        momentum: Share of the average in the weights that gradients are taken at, above 0 and below 1.
        weight_decay: Strength of the L2 penalty, added to the gradient; at least 0.
        foreach: Update many tensors in one kernel. None does so on CUDA only.

    Raises:
        ArgumentError: An option is out of range, a gradient is sparse, or a step is asked for in `eval`.
    """

    name = "schedule-free-sgd"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "foreach": foreach}
        super().__init__(params, options | _beginning())

    def check_options(self, group: Group) -> None:
        """Raise `ArgumentError` where an option of a group is out of range."""
        check_at_least_0(group, "lr", "weight_decay")
        _check_interpolation("momentum", group["momentum"], group["momentum"])

    def interpolation(self, group: Group) -> float:
        """Return beta: the share of the average x in y."""
        beta: float = group["momentum"]
        return beta

    def update(self, weights: list[Tensor], group: Group) -> None:
        """Update weights of one device and dtype that all have a gradient."""
        directions = list(
            torch._foreach_add(gradients_of(weights), real(weights), alpha=group["weight_decay"])  # noqa: SLF001 - torch has no public name
        )
        self.descend(weights, directions, group)


def _beginning() -> Group:
    return {"training": True, "steps": 0, "weight_sum": 0.0, "share": 0.0}


def _check_interpolation(name: str, given: object, beta: float) -> None:
    if not 0 < beta < 1:
        raise ArgumentError(
            f"{name} is {given!r}; the share of the average in the weights, {beta!r}, must be > 0 and < 1, "
            "since the average is found from them"
        )
