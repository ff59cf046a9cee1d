"""One chunk of the recurrence h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T, y_t = h_t C_t, by matrix products.

Dao and Gu 2024, section 6: within a chunk the outputs are a masked matrix, C B^T times the decays
between two tokens, times the inputs; what came before the chunk enters through the state. Decays
are exponentials of differences of running sums of dt A, and of nothing that the recurrence has not.
The sums are in float64: in float32 the rounding of a sum that one strong decay made large would
spoil the weak decays after it.

Shapes: T tokens, G groups of K heads of P channels, N states; what belongs to a head has its tokens
after its heads, (B, G, K, T, ...), and what belongs to a group is (B, G, T, N).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_LOG_FLOOR, _FLOOR = -60.0, 1e-26  # exp(-60) is 0.9e-26


class Gradients(NamedTuple):
    """Gradients of a chunk's inputs and of the state before it."""

    u: Tensor  # (B, G, K, T, P)
    log_decay: Tensor  # (B, G, K, T)
    B: Tensor  # (B, G, T, N)
    C: Tensor  # (B, G, T, N)
    state: Tensor  # (B, G, K, P, N)


class Chunk(NamedTuple):
    """A chunk laid out for its products, in one dtype."""

    u: Tensor  # (B, G, K, T, P), dt x
    B: Tensor  # (B, G, T, N)
    C: Tensor  # (B, G, T, N)
    sums: Tensor  # (B, G, K, T), running sums of dt A, float64

    @classmethod
    def cut(cls, x: Tensor, dt: Tensor, log_decay: Tensor, B: Tensor, C: Tensor) -> Chunk:
        """Lay out x (B, T, G, K, P), dt and dt A (B, T, G, K), B and C (B, T, G, N)."""
        x, dt = by_head(x), by_head(dt)
        u = torch.mul(x, dt.unsqueeze(-1), out=dt.new_empty(x.shape))
        sums = by_head(log_decay).cumsum(-1, dtype=torch.float64)
        return cls(u, B.transpose(1, 2).contiguous(), C.transpose(1, 2).contiguous(), sums)

    def outputs(self, state: Tensor) -> Tensor:
        """Return y (B, G, K, T, P), given the state before the chunk (B, G, K, P, N)."""
        masked = self._decays().mul_(self._scores())
        through_state = _spread(self.C @ state.flatten(2, 3).mT, state)
        return (masked @ self.u).addcmul_(through_state, self._from_start())

    def advance(self, state: Tensor) -> Tensor:
        """Return the state after the chunk (B, G, K, P, N), given that before it."""
        return _add_products(state * self._over_all(), self._to_end(), self.u, self.B)

    def backward(self, grad_y: Tensor, grad_state: Tensor, state: Tensor) -> Gradients:
        """Differentiate `outputs` and `advance`.

        With R the product of the masked matrix and its gradient, dt_t A has as its gradient the sum of
        R over the pairs of tokens that t lies between: row sums less column sums of R, summed from t on.

        Args:
            grad_y: Gradient of the outputs (B, G, K, T, P), contiguous.
            grad_state: Gradient of the state after the chunk (B, G, K, P, N).
            state: State before the chunk (B, G, K, P, N).
        """
        masked, scores = self._decays(), self._scores()
        grad_masked = (grad_y @ self.u.mT).mul_(masked)
        grad_scores = grad_masked.sum(2)
        through_masked = grad_masked.mul_(scores)
        # A token's own product passes no decay; left in, its rounding would outweigh strong decays.
        through_masked.diagonal(dim1=-2, dim2=-1).zero_()
        masked = masked.mul_(scores)

        into_state = (self.u @ grad_state).mul_(self._to_end())  # (B, G, K, T, N)
        from_state = (grad_y @ state).mul_(self._from_start())
        at_end = torch.linalg.vecdot(into_state, self.B.unsqueeze(2))
        grad_sums = through_masked.sum(-1) - through_masked.sum(-2) - at_end
        grad_sums += torch.linalg.vecdot(from_state, self.C.unsqueeze(2))
        kept = grad_state * self._over_all()
        grad_sums[..., -1] += at_end.sum(-1) + (kept * state).sum((-1, -2))

        through_state = _spread(self.B @ grad_state.flatten(2, 3).mT, state)
        return Gradients(
            u=(masked.mT @ grad_y).addcmul_(through_state, self._to_end()),
            log_decay=grad_sums.flip(-1).cumsum(-1).flip(-1),
            B=grad_scores.mT @ self.C + into_state.sum(2),
            C=grad_scores @ self.B + from_state.sum(2),
            state=_add_products(kept, self._from_start(), grad_y, self.C),
        )

    def _scores(self) -> Tensor:
        """Return C B^T (B, G, 1, T, T)."""
        return (self.C @ self.B.mT).unsqueeze(2)

    def _decays(self) -> Tensor:
        """Return the decay from each token to each one not before it (B, G, K, T, T); else zero."""
        between = (self.sums.unsqueeze(-1) - self.sums.unsqueeze(-2)).to(self.u.dtype)
        return _exp_(between.add_(between.new_full(between.shape[-2:], -torch.inf).triu_(1)))

    def _from_start(self) -> Tensor:
        """Return the decay from before the chunk to each token (B, G, K, T, 1)."""
        return _exp_(self.sums.to(self.u.dtype, copy=True)).unsqueeze(-1)

    def _to_end(self) -> Tensor:
        """Return the decay from each token to the chunk's last (B, G, K, T, 1)."""
        return _exp_((self.sums[..., -1:] - self.sums).to(self.u.dtype)).unsqueeze(-1)

    def _over_all(self) -> Tensor:
        """Return the decay over the whole chunk (B, G, K, 1, 1)."""
        return self._from_start()[..., -1:, :]


def by_head(tensor: Tensor) -> Tensor:
    """View (B, T, G, K, ...) as (B, G, K, T, ...)."""
    return tensor.movedim(1, 3)


def by_token(tensor: Tensor) -> Tensor:
    """View (B, G, K, T, ...) as (B, T, G, K, ...)."""
    return tensor.movedim(3, 1)


def _exp_(log: Tensor) -> Tensor:
    """Take the exponential in place, and zero for what lies below 1e-26.

    Such a decay counts for nothing beside the others, yet exponentials and products near the smallest
    numbers of float32 take processors a hundred times as long.
    """
    return torch.threshold_(log.clamp_(min=_LOG_FLOOR).exp_(), _FLOOR, 0.0)


def _spread(channels: Tensor, state: Tensor) -> Tensor:
    """View (B, G, T, K P) as (B, G, K, T, P), with K and P those of the state."""
    return torch.unflatten(channels, -1, state.shape[2:4]).transpose(2, 3)


def _add_products(state: Tensor, weights: Tensor, values: Tensor, projection: Tensor) -> Tensor:
    """Add the sum over t of weights_t values_t projection_t^T to a state (B, G, K, P, N).

    A group's heads share the projection, so that theirs is one product.
    """
    weighted = values.new_empty(values.transpose(2, 3).shape)  # (B, G, T, K, P)
    torch.mul(values.transpose(2, 3), weights.transpose(2, 3), out=weighted)
    products = torch.baddbmm(
        state.flatten(2, 3).flatten(0, 1), weighted.flatten(3).flatten(0, 1).mT, projection.flatten(0, 1)
    )
    return products.view(state.shape)
