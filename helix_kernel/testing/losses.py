"""The conformance suite of losses: what every loss must do, whoever wrote it.

Subclass `LossSuite`, give it a loss, and pytest runs the rest::

    class TestMSE(LossSuite):
        def make_loss(self, reduction):
            return MSE(reduction=reduction)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.suite import Suite

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor, nn

Reduction = Literal["mean", "sum", "none"]

_REDUCTIONS: tuple[Reduction, ...] = ("mean", "sum", "none")


class LossSuite(Suite):
    """Pytest class of the loss protocol (docs: "What each kind must be").

    A subclass overrides `make_loss`, and `inputs` where the loss takes none of the usual pairs.

    Attributes:
        shape: Shape of the target; at least two axes, none of them 1.
        n_classes: Length of the prediction's last axis where targets are classes.
        extreme: Size of predictions at which the loss must still be finite in float32.
    """

    shape: tuple[int, ...] = (4, 5)
    n_classes = 6
    extreme = 1e4

    def make_loss(self, reduction: Reduction) -> nn.Module:
        """Return a new loss."""
        loss: nn.Module = self.build(reduction=reduction)
        return loss

    def inputs(self, *, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return a prediction and a target of `shape` that depend on the arguments only.

        By default this is the first pair that the loss accepts: (..., V) logits and integer classes,
        logits and targets of 0 or 1, or two floating tensors.
        """
        loss, refusals = self.make_loss("mean"), []
        for prediction, target in self._usual_pairs(dtype, seed):
            try:
                loss(prediction.clone(), target.clone())
            except (TypeError, ValueError, RuntimeError) as error:
                refusals.append(str(error))
            else:
                return prediction, target
        raise AssertionError(
            "the loss refuses every usual pair of inputs; override inputs(). It said:\n" + "\n".join(refusals)
        )

    @pytest.fixture(name="pair")
    def fixture_pair(self) -> tuple[Tensor, Tensor]:
        """Return a prediction and a target in float64."""
        import torch

        return self.inputs(dtype=torch.float64)

    @pytest.fixture(name="mask")
    def fixture_mask(self) -> Tensor:
        """Return a mask of the target's shape that keeps some elements of every row."""
        import torch

        generator = torch.Generator().manual_seed(1)
        mask = torch.rand(self.shape, generator=generator) < 0.5
        mask[..., 0], mask[..., -1] = True, False
        return mask

    def test_is_a_finite_scalar_by_default(self, pair: tuple[Tensor, Tensor]) -> None:
        loss = self.make_loss("mean")(*pair)
        assert loss.shape == (), f"the loss has shape {tuple(loss.shape)}, expected a scalar"
        assert loss.isfinite(), f"the loss of ordinary inputs is {loss.item()}"

    def test_reductions_agree(self, pair: tuple[Tensor, Tensor]) -> None:
        mean, total, elements = (self.make_loss(reduction)(*pair) for reduction in _REDUCTIONS)
        assert elements.shape == pair[1].shape, (
            f"reduction='none' gives shape {tuple(elements.shape)}, the target has {tuple(pair[1].shape)}"
        )
        _assert_close(total, elements.sum(), "the sum is not the sum of the elements")
        _assert_close(mean, elements.mean(), "the mean is not the mean of the elements")

    def test_mask_keeps_what_is_true(self, pair: tuple[Tensor, Tensor], mask: Tensor) -> None:
        elements = self.make_loss("none")(*pair)
        masked = {reduction: self.make_loss(reduction)(*pair, mask=mask) for reduction in _REDUCTIONS}
        _assert_close(
            masked["none"], elements.masked_fill(~mask, 0), "masked elements are not 0, or others changed"
        )
        _assert_close(masked["sum"], elements[mask].sum(), "the sum is not over the elements that are kept")
        _assert_close(
            masked["mean"], elements[mask].mean(), "the mean is not over the elements that are kept"
        )

    def test_mask_is_broadcast(self, pair: tuple[Tensor, Tensor], mask: Tensor) -> None:
        loss = self.make_loss("mean")
        for small in (mask[:1], mask[..., :1], mask[0]):
            expected = loss(*pair, mask=small.expand(self.shape))
            _assert_close(
                loss(*pair, mask=small), expected, f"a mask of shape {tuple(small.shape)} is not broadcast"
            )

    def test_a_mask_of_ones_changes_nothing(self, pair: tuple[Tensor, Tensor]) -> None:
        import torch

        ones = torch.ones(self.shape, dtype=torch.bool)
        for reduction in _REDUCTIONS:
            loss = self.make_loss(reduction)
            _assert_close(
                loss(*pair, mask=ones), loss(*pair), f"a mask of ones changes reduction={reduction!r}"
            )

    def test_a_mask_of_zeros_gives_zero(self, pair: tuple[Tensor, Tensor]) -> None:
        import torch

        prediction = pair[0].clone().requires_grad_()
        loss = self.make_loss("mean")(prediction, pair[1], mask=torch.zeros(self.shape, dtype=torch.bool))
        assert loss.item() == 0, f"the mean over no elements is {loss.item()}, expected 0"
        (gradient,) = torch.autograd.grad(loss, prediction)
        assert (gradient == 0).all(), "the mean over no elements has a gradient"

    @pytest.mark.parametrize("poison", ["other", "nan"])
    def test_masked_elements_do_not_matter(
        self, pair: tuple[Tensor, Tensor], mask: Tensor, poison: str
    ) -> None:
        import torch

        prediction, target = pair
        hidden = _over(~mask, prediction)
        other = torch.full_like(prediction, float("nan")) if poison == "nan" else 3 - 2 * prediction
        changed = torch.where(hidden, other, prediction).requires_grad_()
        loss = self.make_loss("mean")
        value = loss(changed, torch.where(mask, target, target.flip(0)), mask=mask)
        _assert_close(
            value, loss(prediction, target, mask=mask), f"masked elements ({poison}) change the loss"
        )
        (gradient,) = torch.autograd.grad(value, changed)
        assert (gradient[hidden] == 0).all(), f"masked predictions ({poison}) get a gradient"
        assert gradient.isfinite().all(), f"masked predictions ({poison}) spoil the gradient of others"

    def test_masked_targets_may_be_out_of_range(self, pair: tuple[Tensor, Tensor], mask: Tensor) -> None:
        prediction, target = pair
        loss = self.make_loss("mean")
        padded = target.masked_fill(~mask, -100)
        expected = loss(prediction, target, mask=mask)
        _assert_close(loss(prediction, padded, mask=mask), expected, "padding of -100 under the mask counts")

    def test_gradient_is_that_of_the_formula(self, pair: tuple[Tensor, Tensor], mask: Tensor) -> None:
        import torch

        loss = self.make_loss("mean")
        prediction = pair[0].clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda x: loss(x, pair[1], mask=mask), (prediction,))

    def test_elements_are_independent(self, pair: tuple[Tensor, Tensor]) -> None:
        loss = self.make_loss("none")
        elements = loss(*pair)
        for row in range(self.shape[0]):
            alone = loss(*(tensor[row : row + 1] for tensor in pair))
            _assert_close(alone, elements[row : row + 1], f"row {row} alone and in a batch differ")

    def test_inputs_need_not_be_contiguous(self, pair: tuple[Tensor, Tensor]) -> None:
        strided = [tensor.transpose(0, 1).contiguous().transpose(0, 1) for tensor in pair]
        assert not strided[0].is_contiguous()
        for reduction in _REDUCTIONS:
            loss = self.make_loss(reduction)
            _assert_close(loss(*strided), loss(*pair), f"strided inputs change reduction={reduction!r}")

    def test_inputs_are_not_changed(self, pair: tuple[Tensor, Tensor], mask: Tensor) -> None:
        before = [tensor.clone() for tensor in (*pair, mask)]
        self.make_loss("mean")(*pair, mask=mask)
        for name, tensor, old in zip(("prediction", "target", "mask"), (*pair, mask), before, strict=True):
            assert tensor.equal(old), f"the loss wrote into its {name}"

    def test_extreme_predictions_give_finite_losses(self) -> None:
        import torch

        prediction, target = self.inputs(dtype=torch.float32)
        for scale in (self.extreme, -self.extreme):
            huge = (scale * prediction).requires_grad_()
            loss = self.make_loss("mean")(huge, target)
            assert loss.isfinite(), f"predictions of size {scale:g} give a loss of {loss.item()}"
            (gradient,) = torch.autograd.grad(loss, huge)
            assert gradient.isfinite().all(), (
                f"predictions of size {scale:g} give a gradient that is not finite"
            )

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision_is_reduced_in_full(self, dtype: str) -> None:
        """The mean of rounded predictions must not be rounded once more."""
        import torch

        prediction, target = self.inputs(dtype=getattr(torch, dtype))
        loss = self.make_loss("mean")(prediction, target)
        exact = self.make_loss("mean")(prediction.double(), target)
        difference = abs(loss.item() - exact.item())
        assert difference <= 1e-5 * max(1.0, abs(exact.item())), (
            f"the loss of {dtype} predictions is {loss.item()}, in float64 {exact.item()}; use float32"
        )

    def test_a_wrong_shape_is_refused(self, pair: tuple[Tensor, Tensor]) -> None:
        prediction, target = pair
        for what, wrong in [
            ("one row", target[:1]),
            ("one column", target[:, :1]),
            ("one axis less", target[0]),
        ]:
            with pytest.raises(ArgumentError):
                _call(self.make_loss("mean"), prediction, wrong, what)

    def test_a_wrong_mask_is_refused(self, pair: tuple[Tensor, Tensor], mask: Tensor) -> None:
        for what, wrong in [("of numbers", mask.double()), ("of another shape", mask[:, :-1])]:
            with pytest.raises(ArgumentError):
                _call(self.make_loss("mean"), *pair, f"a mask {what}", mask=wrong)

    def test_an_unknown_reduction_is_refused(self) -> None:
        with pytest.raises(ArgumentError, match="reduction"):
            self.make_loss("avg")  # type: ignore[arg-type]  # wrong on purpose

    def test_state_dict_round_trip(self, pair: tuple[Tensor, Tensor]) -> None:
        loss, other = self.make_loss("mean"), self.make_loss("mean")
        other.load_state_dict(loss.state_dict())
        _assert_close(other(*pair), loss(*pair), "a loss with another's state gives another value")

    def test_is_captured_as_one_graph(self, pair: tuple[Tensor, Tensor], mask: Tensor) -> None:
        """No look at a value, which would break the graph and wait for a GPU."""
        import torch

        loss = self.make_loss("mean")
        torch.compiler.reset()
        compiled = torch.compile(loss, fullgraph=True, backend="eager")
        _assert_close(compiled(*pair, mask=mask), loss(*pair, mask=mask), "the compiled loss differs")

    def _usual_pairs(self, dtype: torch.dtype, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        import torch

        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(*self.shape, self.n_classes, generator=generator, dtype=torch.float64).to(dtype)
        yield logits, torch.randint(self.n_classes, self.shape, generator=generator)
        values = torch.randn(2, *self.shape, generator=generator, dtype=torch.float64).to(dtype)
        yield values[0], (values[1] > 0).to(dtype)
        yield values[0], values[1]


def _over(mask: Tensor, prediction: Tensor) -> Tensor:
    """Return the mask in the prediction's shape."""
    extra = prediction.dim() - mask.dim()
    return mask.reshape(mask.shape + (1,) * extra).expand(prediction.shape)


def _call(
    loss: nn.Module, prediction: Tensor, target: Tensor, what: str, *, mask: Tensor | None = None
) -> None:
    """Call the loss with wrong inputs, and say what was wrong where it takes them."""
    value = loss(prediction, target, mask=mask)
    raise AssertionError(
        f"the loss takes {what} (prediction {tuple(prediction.shape)}, target {tuple(target.shape)}) "
        f"and gives {value.tolist()}; raise ArgumentError"
    )


def _assert_close(actual: Tensor, expected: Tensor, message: str) -> None:
    """Assert equality to 1e-10 of the largest value."""
    bound = 1e-10 * max(1.0, expected.abs().max().item())
    difference = (actual - expected).abs().max().item()
    assert difference <= bound, f"{message}: they differ by {difference:.3g}"
