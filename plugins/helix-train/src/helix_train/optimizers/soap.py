"""The optimizer `soap`: Adam in the eigenbasis of Shampoo's preconditioner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from helix_kernel.errors import ArgumentError
from helix_train.optimizers.base import (
    DenseOptimizer,
    Group,
    check_at_least_0,
    check_shares,
    gradients_of,
    real,
    refuse_shards,
)
from helix_train.optimizers.moments import adam_direction, normalized

if TYPE_CHECKING:
    from torch.optim.optimizer import ParamsT

# One matrix an axis of a weight; None for an axis that is left as it is.
Matrices = list[Tensor | None]


class SOAP(DenseOptimizer):
    """SOAP (Vyas et al. 2024, arXiv 2409.11321, algorithms 3 and 4).

    A step of a matrix W with gradient G, momentum M, and bases Q_L and Q_R is, in this order::

        M <- beta1 M + (1 - beta1) G
        V <- beta2 V + (1 - beta2) (Q_L' G Q_R)**2
        N <- Q_L' M Q_R / (sqrt(V) + eps)             both moments freed of their bias, as in Adam
        W <- (1 - lr weight_decay) W - lr Q_L N Q_R'
        L <- beta2 L + (1 - beta2) G G'               and R likewise of G' G
        Q_L, Q_R <- the Q factors of L Q_L and R Q_R  at every `precondition_every`-th step

    As in the authors' code, the first gradient only makes the first bases (by an eigendecomposition) and
    moves no such weight, and columns are put in the order of their eigenvalues before a factorisation, with
    V's entries. A weight of more axes has a basis for each. Vectors and scalars, complex weights and axes
    longer than `max_dim` have no basis; a weight with none at all is updated by AdamW, from the first step.
    Bases of 16-bit weights, and all of their state, are float32.

    Args:
        params: Weights, or groups of weights with options of their own.
        lr: Learning rate, at least 0.
        betas: Share of the momentum, and of the second moment, L and R, that a step keeps; 0 to below 1.
        eps: Added to the root of the second moment.
        weight_decay: Share of a weight that a step removes, times the learning rate; at least 0.
        precondition_every: Steps from one factorisation to the next, at least 1.
        max_dim: Longest axis that has a basis. A basis and L take as much memory as its square, each.
        foreach: Update many tensors in one kernel where elements are on their own; each weight has its own
            bases in either case. None does so on CUDA only.

    Raises:
        ArgumentError: An option is out of range, a gradient is sparse, or a weight is a DTensor.
    """

    name = "soap"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        precondition_every: int = 10,
        max_dim: int = 10_000,
        foreach: bool | None = None,
    ) -> None:
        options = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "precondition_every": precondition_every,
            "max_dim": max_dim,
            "foreach": foreach,
        }
        super().__init__(params, options)

    def check_options(self, group: Group) -> None:
        """Raise `ArgumentError` where an option of a group is out of range, or a weight is a DTensor."""
        check_at_least_0(group, "lr", "eps", "weight_decay")
        check_shares(group, "betas")
        for name in ("precondition_every", "max_dim"):
            if not group[name] >= 1:
                raise ArgumentError(f"{name} is {group[name]!r}, allowed is >= 1")
        for weight in group["params"]:
            refuse_shards(weight, self.name)

    def update(self, weights: list[Tensor], group: Group) -> None:
        """Update weights of one device and dtype that all have a gradient."""
        plain = [weight for weight in weights if not _has_basis(weight, group["max_dim"])]
        matrices = [weight for weight in weights if _has_basis(weight, group["max_dim"])]
        if plain:
            moments = self._full(plain, "exp_avg"), self._full(plain, "exp_avg_sq")
            gradients = [gradient.to(moments[0][0].dtype) for gradient in gradients_of(plain)]
            steps = self.count_step(plain)
            directions = adam_direction(gradients, *moments, steps, betas=group["betas"], eps=group["eps"])
            _move(plain, directions, group)
        old = [weight for weight in matrices if "bases" in self.state[weight]]
        for weight in matrices:
            if "bases" not in self.state[weight]:
                self._begin(weight, group)
        if old:
            self._update_rotated(old, group)

    def _begin(self, weight: Tensor, group: Group) -> None:
        """Make the bases of a weight from its first gradient."""
        state, (gradient,) = self.state[weight], _full_precision([weight])
        state["step"] = 0
        self._full([weight], "exp_avg")
        self._full([weight], "exp_avg_sq")
        covariances: Matrices = [
            gradient.new_zeros(n, n) if 1 < n <= group["max_dim"] else None for n in weight.shape
        ]
        _gather(covariances, gradient, group["betas"][1])
        state["covariances"] = covariances
        state["bases"] = [None if c is None else _eigenvectors(c) for c in covariances]

    def _update_rotated(self, weights: list[Tensor], group: Group) -> None:
        (beta1, beta2), steps = group["betas"], self.count_step(weights)
        first, second = self._full(weights, "exp_avg"), self._full(weights, "exp_avg_sq")
        gradients = _full_precision(weights)
        bases: list[Matrices] = [self.state[weight]["bases"] for weight in weights]
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        turned = [_turn(gradient, basis) for gradient, basis in zip(gradients, bases, strict=True)]
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, turned, turned, value=1 - beta2)
        momenta = [_turn(momentum, basis) for momentum, basis in zip(first, bases, strict=True)]
        directions = normalized(momenta, second, steps, betas=group["betas"], eps=group["eps"])
        back = [_turn(d, basis, back=True) for d, basis in zip(directions, bases, strict=True)]
        _move(weights, back, group)
        for weight, gradient, step in zip(weights, gradients, steps, strict=True):
            _gather(self.state[weight]["covariances"], gradient, beta2)
            if step % group["precondition_every"] == 0:
                self._turn_bases(weight)

    def _turn_bases(self, weight: Tensor) -> None:
        """Bring each basis nearer to the eigenvectors: one power iteration, made orthogonal (algorithm 4)."""
        state = self.state[weight]
        for axis, (covariance, basis) in enumerate(zip(state["covariances"], state["bases"], strict=True)):
            if basis is not None:
                product = covariance @ basis
                order = (basis * product).sum(0).argsort(descending=True, stable=True)
                state["exp_avg_sq"] = state["exp_avg_sq"].index_select(axis, order)
                state["bases"][axis] = _laid_out(torch.linalg.qr(product[:, order])[0])

    def _full(self, weights: list[Tensor], name: str) -> list[Tensor]:
        """Return a buffer of each weight in at least float32, zeros where it has none yet."""
        for weight in weights:
            if name not in self.state[weight]:
                dtype = torch.promote_types(weight.dtype, torch.float32)
                self.state[weight][name] = torch.zeros(weight.shape, dtype=dtype, device=weight.device)
        return self.slot(weights, name)


def _has_basis(weight: Tensor, max_dim: int) -> bool:
    return weight.dim() >= 2 and not weight.is_complex() and any(1 < n <= max_dim for n in weight.shape)


def _eigenvectors(covariance: Tensor) -> Tensor:
    """Return the eigenvectors as columns, that of the largest eigenvalue first."""
    return _laid_out(torch.linalg.eigh(covariance)[1].flip(-1))


def _laid_out(basis: Tensor) -> Tensor:
    """Return a basis as a checkpoint gives it back: products of other layouts are rounded otherwise."""
    return basis.contiguous()


def _full_precision(weights: list[Tensor]) -> list[Tensor]:
    """Return the gradients of weights, in at least float32."""
    return [g.to(torch.promote_types(g.dtype, torch.float32)) for g in gradients_of(weights)]


def _turn(tensor: Tensor, bases: Matrices, *, back: bool = False) -> Tensor:
    """Return a tensor in the coordinates of the bases, axis by axis, or back from there."""
    for basis in bases:
        # Each axis goes to the end when it has been turned, so that the next one is the first again.
        tensor = tensor.movedim(0, -1)
        if basis is not None:
            tensor = tensor @ (basis.mT if back else basis)
    return tensor


def _gather(covariances: Matrices, gradient: Tensor, beta: float) -> None:
    """Let a gradient into the running means of its products with itself along each axis."""
    for axis, covariance in enumerate(covariances):
        if covariance is not None:
            rows = gradient.movedim(axis, 0).flatten(1)
            covariance.lerp_(rows @ rows.mT, 1 - beta)


def _move(weights: list[Tensor], directions: list[Tensor], group: Group) -> None:
    values = real(weights)
    torch._foreach_mul_(values, 1 - group["lr"] * group["weight_decay"])
    torch._foreach_add_(values, [d.to(values[0].dtype) for d in directions], alpha=-group["lr"])
