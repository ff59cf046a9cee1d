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
from helix_kernel.testing.suite import Suite, applies_when

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
        see = self._see("loss(prediction, target)")
        assert loss.shape == (), f"the loss has shape {tuple(loss.shape)}, expected a scalar{see}"
        assert loss.isfinite(), f"the loss of ordinary inputs is {loss.item()}{see}"

    def test_reductions_agree(self, pair: tuple[Tensor, Tensor]) -> None:
        mean, total, elements = (self.make_loss(reduction)(*pair) for reduction in _REDUCTIONS)
        assert elements.shape == pair[1].shape, (
            f"reduction='none' gives shape {tuple(elements.shape)}, the target has {tuple(pair[1].shape)}"
            + self._see("loss(prediction, target).shape", reduction="none")
        )
        see = self._see("loss(prediction, target)  # and by reduction='mean', 'sum'", reduction="none")
        _assert_close(total, elements.sum(), "the sum is not the sum of the elements", see)
        _assert_close(mean, elements.mean(), "the mean is not the mean of the elements", see)

    def test_mask_keeps_what_is_true(self, pair: tuple[Tensor, Tensor], mask: Tensor) -> None:
        elements = self.make_loss("none")(*pair)
        kept = elements[mask]
        for reduction, expected, wrong in (
            ("none", elements.masked_fill(~mask, 0), "masked elements are not 0, or others changed"),
            ("sum", kept.sum(), "the sum is not over the elements that are kept"),
            ("mean", kept.mean(), "the mean is not over the elements that are kept"),
        ):
            found = self.make_loss(reduction)(*pair, mask=mask)  # type: ignore[arg-type]  # mypy widens the str
            see = self._see("loss(prediction, target, mask=mask)", reduction=reduction)
            _assert_close(found, expected, f"{wrong} ({int(mask.sum())} of {mask.numel()})", see)

    def test_mask_is_broadcast(self, pair: tuple[Tensor, Tensor], mask: Tensor) -> None:
        loss = self.make_loss("mean")
        for part, small in (("[:1]", mask[:1]), ("[..., :1]", mask[..., :1]), ("[0]", mask[0])):
            call = "loss(prediction, target, mask=small"
            see = self._see(f"small = mask{part}", f"{call}) - {call}.expand(target.shape))")
            what = f"a mask of shape {tuple(small.shape)} is not broadcast"
            _assert_close(loss(*pair, mask=small), loss(*pair, mask=small.expand(self.shape)), what, see)

    def test_a_mask_of_ones_changes_nothing(self, pair: tuple[Tensor, Tensor]) -> None:
        import torch

        ones = torch.ones(self.shape, dtype=torch.bool)
        for reduction in _REDUCTIONS:
            loss = self.make_loss(reduction)
            see = self._see("loss(prediction, target, mask=mask | True)", reduction=reduction)
            what = f"a mask of ones changes reduction={reduction!r}"
            _assert_close(loss(*pair, mask=ones), loss(*pair), what, see)

    def test_a_mask_of_zeros_gives_zero(self, pair: tuple[Tensor, Tensor]) -> None:
        import torch

        prediction = pair[0].clone().requires_grad_()
        loss = self.make_loss("mean")(prediction, pair[1], mask=torch.zeros(self.shape, dtype=torch.bool))
        see = self._see("loss(prediction.requires_grad_(), target, mask=mask & False)")
        assert loss.item() == 0, f"the mean over no elements is {loss.item()}, expected 0{see}"
        (gradient,) = torch.autograd.grad(loss, prediction)
        n_moved = int((gradient != 0).sum())
        assert not n_moved, f"the mean over no elements has {n_moved} gradients that are not 0{see}"

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
        see = self._see(
            "prediction[~mask] = " + ("float('nan')" if poison == "nan" else "3 - 2 * prediction[~mask]"),
            "loss(prediction.requires_grad_(), target, mask=mask).backward()",
            "prediction.grad[~mask]",
        )
        what = f"masked elements ({poison}) change the loss"
        _assert_close(value, loss(prediction, target, mask=mask), what, see)
        (gradient,) = torch.autograd.grad(value, changed)
        n_moved = int((gradient[hidden] != 0).sum())
        assert not n_moved, f"{n_moved} masked predictions ({poison}) get a gradient{see}"
        n_bad = int((~gradient.isfinite()).sum())
        assert not n_bad, f"masked predictions ({poison}) spoil {n_bad} gradients of others{see}"

    def test_masked_targets_may_be_out_of_range(self, pair: tuple[Tensor, Tensor], mask: Tensor) -> None:
        prediction, target = pair
        loss = self.make_loss("mean")
        padded = target.masked_fill(~mask, -100)
        expected = loss(prediction, target, mask=mask)
        see = self._see("loss(prediction, target.masked_fill(~mask, -100), mask=mask)")
        what = "padding of -100 under the mask counts"
        _assert_close(loss(prediction, padded, mask=mask), expected, what, see)

    def test_gradient_is_that_of_the_formula(self, pair: tuple[Tensor, Tensor], mask: Tensor) -> None:
        import torch
        from torch.autograd.gradcheck import GradcheckError

        loss = self.make_loss("mean")
        prediction = pair[0].clone().requires_grad_()
        see = "torch.autograd.gradcheck(lambda x: loss(x, target, mask=mask), (prediction.requires_grad_(),))"
        try:
            torch.autograd.gradcheck(lambda x: loss(x, pair[1], mask=mask), (prediction,))
        except GradcheckError as error:
            raise AssertionError(
                f"backward is not the derivative of forward: {error}{self._see(see)}"
            ) from error

    def test_float64_is_computed_in_float64(self, pair: tuple[Tensor, Tensor]) -> None:
        """A second difference is of the step's square; what float32 rounds in between is of its epsilon."""
        import torch

        prediction, target = pair
        loss = self.make_loss("none")
        move = 1e-7 * torch.randn(
            prediction.shape, generator=torch.Generator().manual_seed(2), dtype=prediction.dtype
        )
        before, here, after = (loss(prediction + sign * move, target) for sign in (-1, 0, 1))
        see = self._see("elements = loss(prediction, target)", "elements.dtype", reduction="none")
        assert here.dtype == torch.float64, f"float64 predictions give a loss of {here.dtype}{see}"
        bend = ((before - here) + (after - here)).abs().max().item() / max(here.abs().max().item(), 1e-30)
        assert bend <= 1e-8, (
            f"moving predictions by 1e-7 to either side bends the loss by {bend:.1e} of the largest element, "
            "where a smooth loss's bends by 1e-13 or so: a float64 loss rounds to float32 somewhere inside"
            + self._see("(loss(prediction, target).float() - loss(prediction, target)).abs().max()  # 0?")
        )

    def test_elements_are_independent(self, pair: tuple[Tensor, Tensor]) -> None:
        loss = self.make_loss("none")
        elements = loss(*pair)
        for row in range(self.shape[0]):
            alone = loss(*(tensor[row : row + 1] for tensor in pair))
            part = f"[{row}:{row + 1}]"
            lines = f"loss(prediction{part}, target{part}) - loss(prediction, target){part}"
            see = self._see(lines, reduction="none")
            _assert_close(alone, elements[row : row + 1], f"row {row} alone and in a batch differ", see)

    def test_inputs_need_not_be_contiguous(self, pair: tuple[Tensor, Tensor]) -> None:
        strided = [tensor.transpose(0, 1).contiguous().transpose(0, 1) for tensor in pair]
        assert not strided[0].is_contiguous()
        for reduction in _REDUCTIONS:
            loss = self.make_loss(reduction)
            see = self._see(
                "strided = [t.transpose(0, 1).contiguous().transpose(0, 1) for t in (prediction, target)]",
                "loss(*strided) - loss(prediction, target)",
                reduction=reduction,
            )
            try:
                found = loss(*strided)
            except RuntimeError as error:
                raise AssertionError(f"strided inputs are refused, use .reshape: {error}{see}") from error
            _assert_close(found, loss(*pair), f"strided inputs change reduction={reduction!r}", see)

    def test_inputs_are_not_changed(self, pair: tuple[Tensor, Tensor], mask: Tensor) -> None:
        before = [tensor.clone() for tensor in (*pair, mask)]
        self.make_loss("mean")(*pair, mask=mask)
        for name, tensor, old in zip(("prediction", "target", "mask"), (*pair, mask), before, strict=True):
            see = self._see(
                f"before = {name}.clone()", "loss(prediction, target, mask=mask)", f"{name} == before"
            )
            n_changed = int((tensor != old).sum())
            assert not n_changed, f"the loss wrote into its {name}: {n_changed} of {old.numel()} changed{see}"

    def test_extreme_predictions_give_finite_losses(self) -> None:
        import torch

        prediction, target = self.inputs(dtype=torch.float32)
        for scale in (self.extreme, -self.extreme):
            huge = (scale * prediction).requires_grad_()
            loss = self.make_loss("mean")(huge, target)
            see = self._see(
                f"loss({scale:g} * prediction.requires_grad_(), target).backward()",
                "prediction.grad",
                dtype="float32",
            )
            assert loss.isfinite(), f"predictions of size {scale:g} give a loss of {loss.item()}{see}"
            (gradient,) = torch.autograd.grad(loss, huge)
            n_bad = int((~gradient.isfinite()).sum())
            assert not n_bad, (
                f"predictions of size {scale:g} give a gradient that is not finite in {n_bad} of "
                f"{gradient.numel()}{see}"
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
            + self._see("loss(prediction, target) - loss(prediction.double(), target)", dtype=dtype)
        )

    def test_a_wrong_shape_is_refused(self, pair: tuple[Tensor, Tensor]) -> None:
        prediction, target = pair
        for part, wrong in [(":1", target[:1]), (":, :1", target[:, :1]), ("0", target[0])]:
            what = f"a target of shape {tuple(wrong.shape)} beside a prediction of {tuple(prediction.shape)}"
            self._assert_refused((prediction, wrong), None, what, f"loss(prediction, target[{part}])")

    @applies_when("losses of classes", lambda suite: suite.takes_classes)
    def test_a_class_out_of_range_is_refused(self, pair: tuple[Tensor, Tensor]) -> None:
        """Not taken for another class, nor left out: -100 is no class either, a mask says what to leave."""
        prediction, target = pair
        for wrong in (-1, prediction.shape[-1], -100):
            beside = target.clone()
            beside[0, 0] = wrong
            what = f"the class {wrong} where allowed is 0 to {prediction.shape[-1] - 1}"
            lines = f"target[0, 0] = {wrong}", "loss(prediction, target)"
            self._assert_refused((prediction, beside), None, what, *lines)

    def test_a_wrong_mask_is_refused(self, pair: tuple[Tensor, Tensor], mask: Tensor) -> None:
        for what, code, wrong in [
            ("a mask of numbers", "mask.double()", mask.double()),
            (f"a mask of shape {tuple(mask[:, :-1].shape)}", "mask[:, :-1]", mask[:, :-1]),
        ]:
            self._assert_refused(pair, wrong, what, f"loss(prediction, target, mask={code})")

    def test_an_unknown_reduction_is_refused(self) -> None:
        told = "nothing"
        try:
            self.make_loss("avg")  # type: ignore[arg-type]  # wrong on purpose
        except ArgumentError as error:
            told = str(error)
        assert "reduction" in told, (
            f"reduction='avg', where allowed are {_REDUCTIONS}, must raise an ArgumentError that names it; "
            f"said was {told!r}" + self.see(self.how("make_loss('avg')", reduction="avg"))
        )

    def test_state_dict_round_trip(self, pair: tuple[Tensor, Tensor]) -> None:
        loss, other = self.make_loss("mean"), self.make_loss("mean")
        other.load_state_dict(loss.state_dict())
        what = "a loss with another's state gives another value"
        _assert_close(other(*pair), loss(*pair), what, self._see("loss.state_dict()"))

    def test_is_captured_as_one_graph(self, pair: tuple[Tensor, Tensor], mask: Tensor) -> None:
        """No look at a value, which would break the graph and wait for a GPU."""
        import torch

        loss = self.make_loss("mean")
        line = "torch.compile(loss, fullgraph=True, backend='eager')(prediction, target, mask=mask)"
        torch.compiler.reset()
        compiled = torch.compile(loss, fullgraph=True, backend="eager")
        try:
            found = compiled(*pair, mask=mask)
        except Exception as error:
            error.add_note("torch.compile does not get one graph of the loss" + self._see(line))
            raise
        _assert_close(found, loss(*pair, mask=mask), "the compiled loss differs", self._see(line))

    @property
    def takes_classes(self) -> bool:
        """Whether the targets are classes, and the prediction's last axis has a logit for each."""
        import torch

        prediction, target = self.inputs(dtype=torch.float64)
        return not target.is_floating_point() and prediction.shape[:-1] == target.shape

    def _assert_refused(
        self, pair: tuple[Tensor, Tensor], mask: Tensor | None, what: str, *lines: str
    ) -> None:
        """Fail unless the loss raises `ArgumentError` for wrong inputs."""
        see = self._see(*lines)
        try:
            value = self.make_loss("mean")(*pair, mask=mask)
        except ArgumentError:
            return
        except Exception as error:
            raise AssertionError(
                f"the loss refuses {what}, but by {type(error).__name__}: {error}; raise ArgumentError "
                f"that says what was given and what is allowed{see}"
            ) from error
        raise AssertionError(f"the loss takes {what} and gives {value.tolist()}; raise ArgumentError{see}")

    def _see(self, *lines: str, reduction: str = "mean", dtype: str = "float64") -> str:
        """Return a snippet that makes the loss, a prediction, a target and a mask, and runs the lines."""
        import torch

        prediction, target = self.inputs(dtype=getattr(torch, dtype))
        drawn = f"torch.randn({tuple(target.shape)}, dtype={target.dtype})"
        if not target.is_floating_point():
            drawn = f"torch.randint({prediction.shape[-1]}, {tuple(target.shape)})"
        elif ((target == 0) | (target == 1)).all():
            drawn = f"({drawn} > 0).to({target.dtype})"
        return self.see(
            f"loss = {self.how(f'make_loss({reduction!r})', reduction=reduction)}",
            f"prediction = torch.randn({tuple(prediction.shape)}, dtype=torch.{dtype})",
            f"target, mask = {drawn}, torch.rand({tuple(target.shape)}) < 0.5",
            *lines,
        )

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


def _assert_close(actual: Tensor, expected: Tensor, message: str, see: str) -> None:
    """Assert equality to 1e-10 of the largest value."""
    assert actual.shape == expected.shape, (
        f"{message}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}{see}"
    )
    bound = 1e-10 * max(1.0, expected.abs().max().item())
    difference = (actual - expected).abs().max().item()
    assert difference <= bound, f"{message}: they differ by {difference:.3g}, allowed {bound:.1e}{see}"
