"""The conformance suite of optimizers: what every optimizer must do, whoever wrote it.

Subclass `OptimizerSuite`, give it an optimizer, and pytest runs the rest::

    class TestLion(OptimizerSuite):
        def make_optimizer(self, params):
            return Lion(params, lr=0.01)
"""

from __future__ import annotations

import copy
import io
from typing import TYPE_CHECKING, Any

import pytest

from helix_kernel.testing.suite import Suite, applies_when

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.optim import Optimizer

_SHAPES = ((4, 3), (5,), (), (2, 1, 3))
_STEP = "for w in weights: w.grad = torch.ones_like(w)\n    optimizer.step()"


class OptimizerSuite(Suite):
    """Pytest class of the optimizer protocol (docs: "What each kind must be").

    A subclass overrides `make_optimizer`. Its options should use every buffer that the optimizer has
    (momentum, weight decay), and a learning rate at which 100 steps lower a quadratic.

    Attributes:
        n_steps: Steps before and after an interruption.
        tolerance: Largest allowed difference of the foreach path from the loop, relative to the
            largest weight, for each dtype.
    """

    n_steps = 5
    tolerance: dict[str, float] = {"float32": 2e-6, "float64": 1e-14}  # noqa: RUF012 - subclasses assign it

    def make_optimizer(self, params: Sequence[Any]) -> Optimizer:
        """Return a new optimizer of weights or of groups of weights."""
        optimizer: Optimizer = self.build(params=params)
        return optimizer

    @property
    def has_foreach(self) -> bool:
        """Whether the optimizer has a path that updates all weights together, beside the loop over them."""
        return self.has_option("foreach")

    def has_option(self, name: str) -> bool:
        """Whether groups of weights have an option of that name."""
        return name in self.make_optimizer(_weights("float32")).defaults

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_lowers_a_quadratic(self, dtype: str) -> None:
        weights = _weights(dtype)
        optimizer = self.make_optimizer(weights)
        before = _quadratic(weights).item()
        for _ in range(100):
            optimizer.zero_grad()
            _quadratic(weights).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
        after = _quadratic(weights).item()
        assert after < before, (
            f"100 steps took a sum of squares from {before:.4g} to {after:.4g}, expected less"
            + self._see("for w in weights: w.grad = 2 * w.detach()", "optimizer.step()", dtype=dtype)
        )

    def test_resumes_to_the_bit(self) -> None:
        """Through `torch.save`, as a checkpoint would go, and into an optimizer of new weights."""
        whole, first = _weights("float32"), _weights("float32")
        self._run(self.make_optimizer(whole), whole, range(2 * self.n_steps))
        interrupted = self.make_optimizer(first)
        self._run(interrupted, first, range(self.n_steps))
        second = [weight.detach().clone().requires_grad_() for weight in first]
        resumed = self.make_optimizer(second)
        resumed.load_state_dict(_saved_and_loaded(interrupted.state_dict()))
        self._run(resumed, second, range(self.n_steps, 2 * self.n_steps))
        for index, (expected, weight) in enumerate(zip(whole, second, strict=True)):
            assert weight.equal(expected), (
                f"weight {index}: {self.n_steps} steps, state_dict, load_state_dict and {self.n_steps} more "
                f"differ from {2 * self.n_steps} without interruption by {_distance(weight, expected):.3g}; "
                "state_dict leaves out something that a step needs"
                + self._see(_STEP, "optimizer.state_dict()['state']")
            )

    def test_loading_a_state_does_not_share_it(self) -> None:
        weights = _weights("float32")
        optimizer = self.make_optimizer(weights)
        self._run(optimizer, weights, range(self.n_steps))
        saved = optimizer.state_dict()
        kept = copy.deepcopy(saved)
        others = _weights("float32")
        resumed = self.make_optimizer(others)
        resumed.load_state_dict(copy.deepcopy(saved))
        self._run(resumed, others, range(self.n_steps))
        changed = _changed(kept, optimizer.state_dict())
        assert not changed, (
            f"steps of a resumed optimizer changed the first one's {', '.join(changed)}: they share memory"
            + self._see(_STEP, "other = copy.deepcopy(optimizer)", "optimizer.state is not other.state")
        )

    def test_two_runs_are_equal_to_the_bit(self) -> None:
        runs = []
        for _ in range(2):
            weights = _weights("float32")
            self._run(self.make_optimizer(weights), weights, range(self.n_steps))
            runs.append(weights)
        apart = _apart(*runs)
        assert not apart, (
            f"two runs from one start differ after {self.n_steps} steps, by {apart}: is something random, or "
            "remembered outside the optimizer?" + self._see(_STEP, "weights[0]  # run it twice")
        )

    @applies_when("optimizers with an option foreach", lambda suite: suite.has_foreach)
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_foreach_and_loop_agree(self, dtype: str) -> None:
        runs = {}
        for foreach in (False, True):
            weights = _weights(dtype)
            optimizer = self.make_optimizer(weights)
            for group in optimizer.param_groups:
                group["foreach"] = foreach
            self._run(optimizer, weights, range(self.n_steps))
            runs[foreach] = weights
        for index, (loop, together) in enumerate(zip(runs[False], runs[True], strict=True)):
            bound = self.tolerance[dtype] * max(1.0, loop.abs().max().item())
            difference = _distance(together, loop)
            see = self._see("optimizer.param_groups[0]['foreach'] = True  # or False", _STEP, dtype=dtype)
            assert difference <= bound, (
                f"weight {index}: foreach differs from the loop by {difference:.3g}, allowed {bound:.1e}{see}"
            )

    def test_groups_keep_to_their_own_learning_rate(self) -> None:
        still, moving = _weights("float32"), _weights("float32")
        before = [weight.detach().clone() for weight in still]
        optimizer = self.make_optimizer([{"params": still, "lr": 0.0}, {"params": moving}])
        self._run(optimizer, [*still, *moving], range(self.n_steps))
        see = self._see(_STEP, params="[{'params': weights[:1], 'lr': 0.0}, {'params': weights[1:]}]")
        apart = _apart(still, before)
        assert not apart, f"a group with lr=0 moved, by {apart}{see}"
        stuck = [index for index, (a, b) in enumerate(zip(moving, before, strict=True)) if a.equal(b)]
        assert not stuck, f"weights {stuck} of the second group did not move in {self.n_steps} steps{see}"

    @applies_when("optimizers with an option weight_decay", lambda suite: suite.has_option("weight_decay"))
    def test_groups_keep_to_their_own_weight_decay(self) -> None:
        without, with_decay = _weights("float32"), _weights("float32")
        groups = [{"params": without, "weight_decay": 0.0}, {"params": with_decay, "weight_decay": 0.5}]
        self._run(self.make_optimizer(groups), [*without, *with_decay], range(self.n_steps))
        params = (
            "[{'params': weights[:1], 'weight_decay': 0.0}, {'params': weights[1:], 'weight_decay': 0.5}]"
        )
        assert _apart(without, with_decay), (
            f"equal weights in groups with weight_decay 0 and 0.5 are equal after {self.n_steps} steps: step "
            "must read the option from each group" + self._see(_STEP, params=params)
        )

    def test_a_changed_learning_rate_counts(self) -> None:
        weights = _weights("float32")
        optimizer = self.make_optimizer(weights)
        self._run(optimizer, weights, range(self.n_steps))
        before = [weight.detach().clone() for weight in weights]
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        self._run(optimizer, weights, range(self.n_steps))
        apart = _apart(weights, before)
        assert not apart, (
            f"weights move after a schedule set lr to 0, by {apart}: step must read param_groups each time"
            + self._see(_STEP, "optimizer.param_groups[0]['lr'] = 0.0", _STEP)
        )

    def test_a_group_may_be_added(self) -> None:
        first, added, together = _weights("float32"), _weights("float32"), _weights("float32")
        optimizer = self.make_optimizer(first)
        optimizer.add_param_group({"params": added})
        self._run(optimizer, [*first, *added], range(self.n_steps))
        self._run(self.make_optimizer(together), together, range(self.n_steps))
        see = self._see(
            "added = [w.detach().clone().requires_grad_() for w in weights]",
            "optimizer.add_param_group({'params': added})",
            "for w in [*weights, *added]: w.grad = torch.ones_like(w)",
            "optimizer.step()",
        )
        apart = _apart(first, together)
        assert not apart, f"adding a group changed another, by {apart}: do they share a state?{see}"
        assert _apart(added, _weights("float32")), (
            f"the added group did not move in {self.n_steps} steps: step must go through param_groups{see}"
        )

    def test_weights_without_gradient_stay(self) -> None:
        weights = _weights("float32")
        frozen = weights[0].detach().clone()
        optimizer = self.make_optimizer(weights)
        see = self._see("for w in weights[1:]: w.grad = torch.ones_like(w)", "optimizer.step()", "weights[0]")
        for _ in range(self.n_steps):
            for weight in weights[1:]:
                weight.grad = weight.detach().clone()
            try:
                optimizer.step()
            except Exception as error:
                raise AssertionError(
                    f"step raises {type(error).__name__} where a weight's grad is None: {error}{see}"
                ) from error
        assert weights[0].equal(frozen), (
            f"a weight whose grad is None moved, by {_distance(weights[0], frozen):.3g} (weight decay counts "
            f"too){see}"
        )

    def test_gradients_are_not_changed(self) -> None:
        weights = _weights("float32")
        optimizer = self.make_optimizer(weights)
        gradients = _set_gradients(weights, step=0)
        optimizer.step()
        see = self._see(_STEP, "[w.grad for w in weights]")
        for index, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
            assert weight.grad is not None, f"step removed the gradient of weight {index}{see}"
            assert weight.grad.equal(gradient), (
                f"step changed the gradient of weight {index} by {_distance(weight.grad, gradient):.3g}, "
                f"which clipping or logging may need{see}"
            )

    def test_memory_layout_does_not_matter(self) -> None:
        (plain, *_), (other, *_) = _weights("float64"), _weights("float64")
        strided = other.detach().t().contiguous().t().requires_grad_()
        assert not strided.is_contiguous()
        for weight in (plain, strided):
            self._run(self.make_optimizer([weight]), [weight], range(self.n_steps))
        difference = _distance(strided, plain)
        assert difference <= 1e-12, (
            f"a transposed weight is updated differently, by {difference:.3g}, allowed 1e-12"
            + self._see("weights[0].grad = torch.randn(3, 4).t()", "optimizer.step()")
        )

    def test_closure_is_called_with_gradients_on(self) -> None:
        import torch

        weights = _weights("float32")
        optimizer = self.make_optimizer(weights)
        see = self._see("optimizer.step(lambda: torch.is_grad_enabled())  # must be called, and return True")

        def closure() -> float:
            assert torch.is_grad_enabled(), f"the closure is called without gradients{see}"
            optimizer.zero_grad()
            loss = _quadratic(weights)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            return loss.item()

        expected = _quadratic(weights).item()
        found = optimizer.step(closure)
        assert found == expected, (
            f"step does not return what the closure returned: {found} instead of {expected}{see}"
        )

    def test_low_precision_weights_keep_their_dtype(self) -> None:
        import torch

        weights = _weights("bfloat16")
        optimizer = self.make_optimizer(weights)
        self._run(optimizer, weights, range(self.n_steps))
        see = self._see(_STEP, "[w.dtype for w in weights]", dtype="bfloat16")
        for index, weight in enumerate(weights):
            assert weight.dtype == torch.bfloat16, f"bfloat16 weight {index} became {weight.dtype}{see}"
            n_bad = int((~weight.isfinite()).sum())
            assert not n_bad, f"{n_bad} of {weight.numel()} elements of weight {index} are not finite{see}"

    def test_state_is_plain(self) -> None:
        """Tensors and JSON-able values only, so that any checkpoint can hold it."""
        weights = _weights("float32")
        optimizer = self.make_optimizer(weights)
        self._run(optimizer, weights, range(self.n_steps))
        state = optimizer.state_dict()
        see = self._see(_STEP, "optimizer.state_dict()")
        assert set(state) == {"state", "param_groups"}, (
            f"state_dict has the keys {sorted(state)}, expected state and param_groups{see}"
        )
        for path, value in _leaves(state, "state_dict"):
            assert _is_plain(value), f"{path} is of {type(value)}, which a checkpoint cannot hold{see}"

    def _run(self, optimizer: Optimizer, weights: Sequence[Tensor], steps: range) -> None:
        for step in steps:
            _set_gradients(weights, step=step)
            optimizer.step()

    def _see(self, *lines: str, dtype: str = "float32", params: str = "weights") -> str:
        """Return a snippet that makes weights and the optimizer of them, and runs the lines."""
        drawn = f"torch.randn(shape, dtype=torch.{dtype}, requires_grad=True)"
        return self.see(
            f"weights = [{drawn} for shape in {_SHAPES}]",
            f"optimizer = {self.how(f'make_optimizer({params})', params=_Code(params))}",
            *lines,
        )


class _Code(str):
    """An expression, to be shown as it is."""

    __slots__ = ()
    __repr__ = str.__str__


def _weights(dtype: str) -> list[Tensor]:
    """Return new weights of several shapes, always the same."""
    import torch

    generator = torch.Generator().manual_seed(0)
    drawn = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in _SHAPES)
    return [tensor.to(getattr(torch, dtype)).requires_grad_() for tensor in drawn]


def _set_gradients(weights: Sequence[Tensor], *, step: int) -> list[Tensor]:
    """Give each weight a gradient that depends on the step and its place only, and return copies."""
    import torch

    copies = []
    for index, weight in enumerate(weights):
        generator = torch.Generator().manual_seed(1000 * step + index % len(_SHAPES) + 1)
        noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        weight.grad = torch.empty_like(weight).copy_(noise)
        copies.append(weight.grad.clone())
    return copies


def _quadratic(weights: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.stack([weight.square().sum() for weight in weights]).sum()


def _saved_and_loaded(state: dict[str, Any]) -> Any:
    import torch

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def _distance(left: Tensor, right: Tensor) -> float:
    return (left.detach().double() - right.detach().double()).abs().max().item()


def _leaves(value: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in _leaves(item, f"{path}[{key!r}]")]
    if isinstance(value, list | tuple):
        return [leaf for index, item in enumerate(value) for leaf in _leaves(item, f"{path}[{index}]")]
    return [(path, value)]


def _is_plain(value: Any) -> bool:
    import torch

    return value is None or isinstance(value, bool | int | float | str | torch.Tensor)


def _changed(before: Any, after: Any) -> list[str]:
    """Return the paths of what differs between two states of one structure."""
    import torch

    pairs = zip(_leaves(before, "state_dict"), _leaves(after, "state_dict"), strict=True)
    same = ((path, a.equal(b) if isinstance(a, torch.Tensor) else a == b) for (path, a), (_, b) in pairs)
    return [path for path, is_same in same if not is_same]


def _apart(left: Sequence[Tensor], right: Sequence[Tensor]) -> str:
    """Say how far which weights are from each other; empty where all are equal to the bit."""
    pairs = enumerate(zip(left, right, strict=True))
    return ", ".join(f"{_distance(a, b):.3g} (weight {index})" for index, (a, b) in pairs if not a.equal(b))
