"""The optimizer `muon`: momentum made orthogonal for matrices, AdamW for all else."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from helix_kernel.errors import ArgumentError, did_you_mean
from helix_train.optimizers.base import (
    DenseOptimizer,
    Group,
    check_at_least_0,
    check_shares,
    gradients_of,
    real,
    refuse_shards,
)
from helix_train.optimizers.moments import adam_direction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.optim.optimizer import ParamsT

Scale = Literal["original", "match-rms-adamw"]
Precision = Literal["full", "bf16"]
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_EPS = 1e-7


class Muon(DenseOptimizer):
    """Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks").

    A step of a matrix W (rows x columns) with gradient G and momentum B is::

        B <- momentum B + (1 - momentum) G
        O <- newton_schulz(momentum B + (1 - momentum) G)       or of B, without nesterov
        W <- (1 - lr weight_decay) W - lr scale O

    where scale is sqrt(max(1, rows / columns)) for ``"original"``, and 0.2 sqrt(max(rows, columns)) for
    ``"match-rms-adamw"`` (Liu et al. 2025, arXiv 2502.16982, equation 4), with which learning rate and
    weight decay are those of AdamW. A weight of three axes or more is a matrix of its first axis and all
    others.

    Not matrices, and updated by AdamW at ``lr * adamw_lr_factor``, are: scalars and vectors; weights of one
    row or column, those of depthwise convolutions (second axis 1) among them; complex weights; weights
    marked ``_no_weight_decay`` (a state-space model's A); those that `mark_tables` has marked, which the
    trainer calls for embeddings and heads; and groups with ``use_muon=False``.

    Args:
        params: Weights, or groups of weights with options of their own.
        lr: Learning rate of matrices, at least 0.
        momentum: Share of the momentum that a step keeps, 0 to below 1.
        nesterov: Look ahead along the momentum.
        weight_decay: Share of a weight that a step removes, times its learning rate; at least 0.
        newton_schulz_steps: Iterations that make a matrix orthogonal, 1 to 99.
        scale: Which factor of the matrix's shape the learning rate has.
        precision: Newton-Schulz in the weight's own precision, at least float32, or as published in
            bfloat16, which GPUs are faster at.
        use_muon: False for AdamW throughout; of groups.
        adamw_lr_factor: Learning rate of AdamW as a multiple of `lr`, at least 0; 1 suits
            ``scale="match-rms-adamw"``.
        betas: AdamW's shares of the first and of the second moment that a step keeps; 0 to below 1.
        eps: AdamW's, added to the root of the second moment.
        foreach: Update matrices of one shape as one stack, and the rest in one kernel. None does so on CUDA
            only. Equal to the loop but for rounding.

    Raises:
        ArgumentError: An option is out of range, a gradient is sparse, or a weight is a DTensor.
    """

    name = "muon"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.02,
        momentum: float = 0.95,
        *,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        newton_schulz_steps: int = 5,
        scale: Scale = "original",
        precision: Precision = "full",
        use_muon: bool = True,
        adamw_lr_factor: float = 0.015,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-10,
        foreach: bool | None = None,
    ) -> None:
        options: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "newton_schulz_steps": newton_schulz_steps,
            "scale": scale,
            "precision": precision,
            "use_muon": use_muon,
            "adamw_lr_factor": adamw_lr_factor,
            "betas": betas,
            "eps": eps,
            "foreach": foreach,
        }
        super().__init__(params, options)

    def check_options(self, group: Group) -> None:
        """Raise `ArgumentError` where an option of a group is out of range, or a weight is a DTensor."""
        check_at_least_0(group, "lr", "weight_decay", "adamw_lr_factor", "eps")
        check_shares(group, "betas")
        if not 0 <= group["momentum"] < 1:
            raise ArgumentError(f"momentum is {group['momentum']!r}, allowed is >= 0 and < 1")
        if not 1 <= group["newton_schulz_steps"] < 100:
            given = group["newton_schulz_steps"]
            raise ArgumentError(f"newton_schulz_steps is {given!r}, allowed is >= 1 and < 100")
        _check_one_of("scale", group["scale"], get_args(Scale))
        _check_one_of("precision", group["precision"], get_args(Precision))
        for weight in group["params"]:
            refuse_shards(weight, self.name)

    def update(self, weights: list[Tensor], group: Group) -> None:
        """Update weights of one device and dtype that all have a gradient."""
        stacks: dict[tuple[int, int], list[Tensor]] = {}
        others = []
        for weight in weights:
            if group["use_muon"] and is_matrix(weight):
                stacks.setdefault((len(weight), weight[0].numel()), []).append(weight)
            else:
                others.append(weight)
        for shape, matrices in stacks.items():
            self._update_matrices(matrices, shape, group)
        if others:
            self._update_others(others, group)

    def _update_matrices(self, weights: list[Tensor], shape: tuple[int, int], group: Group) -> None:
        gradients, momenta = gradients_of(weights), self.slot(weights, "momentum_buffer")
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = momenta
        if group["nesterov"]:
            ahead = list(torch._foreach_lerp(gradients, momenta, group["momentum"]))  # noqa: SLF001 - as above
        directions = newton_schulz(
            torch.stack([direction.reshape(shape) for direction in ahead]),
            steps=group["newton_schulz_steps"],
            precision=group["precision"],
        ).to(weights[0].dtype)
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        rate = group["lr"] * _factor(group["scale"], *shape)
        for weight, direction in zip(weights, directions, strict=True):
            weight.add_(direction.view(weight.shape), alpha=-rate)

    def _update_others(self, weights: list[Tensor], group: Group) -> None:
        directions = adam_direction(
            gradients_of(weights),
            self.slot(weights, "exp_avg"),
            self.slot(weights, "exp_avg_sq"),
            self.count_step(weights),
            betas=group["betas"],
            eps=group["eps"],
        )
        values, rate = real(weights), group["lr"] * group["adamw_lr_factor"]
        torch._foreach_mul_(values, 1 - rate * group["weight_decay"])
        torch._foreach_add_(values, directions, alpha=-rate)


def newton_schulz(matrices: Tensor, *, steps: int = 5, precision: Precision = "full") -> Tensor:
    """Bring the singular values of matrices near 1, and keep their singular vectors.

    Five steps of the quintic iteration that the authors tuned bring singular values from 0.01 to 1, relative
    to the matrix's norm, to between 0.68 and 1.14; they do not converge to 1.

    Args:
        matrices: (n, rows, columns).
        steps: Iterations.
        precision: Compute in the input's dtype, at least float32, or in bfloat16.

    Returns:
        (n, rows, columns), in the dtype of the computation; 0 where a matrix is 0.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.promote_types(matrices.dtype, torch.float32)
    tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.to(dtype)
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + _EPS)
    a, b, c = _COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def is_matrix(weight: Tensor) -> bool:
    """Whether Muon's rule for matrices suits a weight; see `Muon`."""
    return (
        weight.dim() >= 2
        and min(len(weight), weight.shape[1]) > 1
        and not weight.is_complex()
        and not getattr(weight, "_no_weight_decay", False)
        and not getattr(weight, "_is_table", False)
    )


def mark_tables(model: nn.Module) -> None:
    """Mark the weights that have a row for each id or class, which Muon's authors leave to AdamW.

    These are the weights of embeddings, and of modules named ``head``.
    """
    for weight in _tables(model):
        weight._is_table = True  # type: ignore[attr-defined]  # noqa: SLF001 - a mark of ours, as _no_weight_decay


def _tables(model: nn.Module) -> Iterator[Tensor]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            yield module.weight
        elif name.rpartition(".")[-1] == "head":
            yield from module.parameters()


def _factor(scale: str, rows: int, columns: int) -> float:
    if scale == "original":
        return math.sqrt(max(1, rows / columns))
    return 0.2 * math.sqrt(max(rows, columns))


def _check_one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        hint = did_you_mean(str(value), allowed)
        raise ArgumentError(f"{name} is {value!r}, allowed is one of {allowed}.{hint}")
