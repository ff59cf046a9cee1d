"""The conformance suite of metrics: what every metric must do, whoever wrote it.

Subclass `MetricSuite`, give it a metric, and pytest runs the rest::

    class TestAccuracy(MetricSuite):
        def make_metric(self):
            return Accuracy()
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import pytest

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.plain_state import copied, same, through_a_file
from helix_kernel.testing.suite import Suite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from helix_train.metrics.base import Metric

_SHAPE = (12, 5)


class MetricSuite(Suite):
    """Pytest class of the metric protocol (see `helix_train.metrics.base.Metric`).

    A subclass overrides `make_metric`, and `inputs` where the metric takes none of the usual pairs.

    Attributes:
        n_classes: Length of the prediction's last axis where targets are classes.
    """

    n_classes = 6

    def make_metric(self) -> Metric:
        """Return a new metric."""
        metric: Metric = self.build()
        return metric

    def inputs(self, *, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return predictions and targets (12, 5) that depend on the seed only.

        By default these are the first that the metric takes: logits and classes, or two floating tensors.
        """
        refusals = []
        for prediction, target in self._usual_pairs(seed):
            try:
                self.make_metric().update(prediction, target)
            except ArgumentError as error:
                refusals.append(str(error))
            else:
                return prediction, target
        raise AssertionError(
            "the metric refuses every usual pair of inputs; override inputs(). It said:\n"
            + "\n".join(refusals)
        )

    def test_a_value_is_a_number_under_a_name(self) -> None:
        metric = self.make_metric()
        metric.update(*self.inputs())
        assert isinstance(metric.name, str), f"name is {metric.name!r}, which is no string"
        assert metric.name, "name is empty"
        value = metric.compute()
        assert isinstance(value, float), f"compute() gives {type(value).__name__}; allowed is float"
        assert math.isfinite(value), f"compute() of ordinary predictions gives {value}" + self._see()
        assert metric.compute() == value, "compute() twice gives two values: it changes what was seen"

    @pytest.mark.parametrize("sizes", [(6, 6), (1, 11), (3, 4, 5)], ids=str)
    def test_parts_give_what_the_whole_gives(self, sizes: tuple[int, ...]) -> None:
        """Batches in one metric, in any order, and states of several metrics merged."""
        prediction, target = self.inputs()
        whole = self._value((prediction, target))
        ends = list(itertools.accumulate(sizes, initial=0))
        parts = [(prediction[a:b], target[a:b]) for a, b in itertools.pairwise(ends)]
        merged = self.make_metric()
        for part in parts:
            other = self.make_metric()
            other.update(*part)
            merged.merge(other.state())
        found = {
            "one after another": self._value(*parts),
            "in reverse order": self._value(*parts[::-1]),
            "merged from their states": merged.compute(),
        }
        for how, value in found.items():
            assert _close(value, whole), (
                f"batches of {sizes} rows {how} give {value}, all in one {whole}; keep sums, and divide in "
                "compute()" + self._see("metric.compute()", "# and once more with two halves")
            )

    def test_a_state_that_is_merged_is_not_kept(self) -> None:
        first, second = self.make_metric(), self.make_metric()
        first.update(*self.inputs())
        state = first.state()
        before = copied(state)
        second.merge(state)
        second.update(*self.inputs(seed=1))
        first.update(*self.inputs(seed=2))
        assert same(state, before), "what a metric sees later changes a state that it gave or merged" + (
            self._see("state = metric.state()", "metric.update(prediction, target)", "state")
        )

    def test_a_state_is_of_plain_sums(self) -> None:
        """It crosses processes, and of one that saw nothing it changes nothing."""
        import torch

        metric, other = self.make_metric(), self.make_metric()
        metric.update(*self.inputs())
        state = metric.state()
        for name, value in state.items():
            assert isinstance(value, torch.Tensor), f"state()[{name!r}] is {type(value).__name__}, no tensor"
            assert value.device.type == "cpu", f"state()[{name!r}] is on {value.device}; allowed is the CPU"
            assert value.dtype in (torch.int64, torch.float64), (
                f"state()[{name!r}] is of {value.dtype}; allowed are int64 and float64, which sum up exactly"
            )
        other.merge(self.make_metric().state())
        other.merge(through_a_file(state))
        assert _close(other.compute(), metric.compute()), (
            f"merging an empty state and one from a file gives {other.compute()}, not {metric.compute()}"
            + self._see("metric.state()")
        )

    def test_reset_forgets_all(self) -> None:
        metric = self.make_metric()
        metric.update(*self.inputs(seed=1))
        metric.reset()
        metric.update(*self.inputs())
        expected = self._value(self.inputs())
        assert _close(metric.compute(), expected), (
            f"after reset() the metric gives {metric.compute()}, a new one {expected}"
            + self._see("metric.reset()", "metric.state()  # should be empty")
        )

    def test_nothing_seen_is_nan(self) -> None:
        import torch

        prediction, target = self.inputs()
        unseen = {
            "nothing": self.make_metric(),
            "no row": self.make_metric(),
            "no element": self.make_metric(),
        }
        unseen["no row"].update(prediction[:0], target[:0])
        unseen["no element"].update(prediction, target, mask=torch.zeros(_SHAPE, dtype=torch.bool))
        for what, metric in unseen.items():
            value = metric.compute()
            assert math.isnan(value), f"a metric that has seen {what} gives {value}; allowed is nan"

    @pytest.mark.parametrize("hidden", ["other", "nan", "out of range"])
    def test_masked_elements_do_not_count(self, hidden: str) -> None:
        import torch

        (prediction, target), mask = self.inputs(), self._mask()
        expected = self._value((prediction[mask].unsqueeze(0), target[mask].unsqueeze(0)))
        over = mask.reshape(_SHAPE + (1,) * (prediction.dim() - 2)).expand(prediction.shape)
        other = torch.full_like(prediction, float("nan")) if hidden == "nan" else 3 - 2 * prediction
        wrong = target.new_full(_SHAPE, -100) if hidden == "out of range" else target.flip(0)
        metric = self.make_metric()
        metric.update(torch.where(over, prediction, other), torch.where(mask, target, wrong), mask=mask)
        assert _close(metric.compute(), expected), (
            f"with masked elements ({hidden}) the metric gives {metric.compute()}; of the others alone "
            f"{expected}" + self._see("metric.update(prediction, target, mask=mask)")
        )

    def test_a_mask_is_broadcast(self) -> None:
        pair, mask = self.inputs(), self._mask()
        for small in (mask[:1], mask[:, :1]):
            narrow, wide = self.make_metric(), self.make_metric()
            narrow.update(*pair, mask=small)
            wide.update(*pair, mask=small.expand(_SHAPE))
            assert _close(narrow.compute(), wide.compute()), (
                f"a mask of shape {tuple(small.shape)} is not broadcast to the targets' {_SHAPE}"
            )

    def test_inputs_are_not_changed(self) -> None:
        given = [*self.inputs(), self._mask()]
        before = [tensor.clone() for tensor in given]
        metric = self.make_metric()
        metric.update(given[0], given[1], mask=given[2])
        for name, tensor, old in zip(("prediction", "target", "mask"), given, before, strict=True):
            assert tensor.equal(old), f"update() wrote into its {name}"

    def test_gradients_are_not_kept(self) -> None:
        prediction, target = self.inputs()
        metric = self.make_metric()
        metric.update(prediction.clone().requires_grad_(), target)
        kept = [name for name, value in metric.state().items() if value.requires_grad]
        assert not kept, f"state() holds {kept} with their graph: memory would grow with every batch"

    @pytest.mark.parametrize("what", ["one row", "one axis less"])
    def test_a_wrong_shape_is_refused(self, what: str) -> None:
        prediction, target = self.inputs()
        wrong = target[:1] if what == "one row" else target[0]
        try:
            self.make_metric().update(prediction, wrong)
        except ArgumentError:
            return
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}; raise ArgumentError") from error
        raise AssertionError(
            f"the metric takes {what} (prediction {tuple(prediction.shape)}, target {tuple(wrong.shape)}); "
            "raise ArgumentError: nothing is broadcast"
        )

    def _value(self, *batches: tuple[Tensor, Tensor]) -> float:
        metric = self.make_metric()
        for prediction, target in batches:
            metric.update(prediction, target)
        return metric.compute()

    def _mask(self) -> Any:
        import torch

        return torch.rand(_SHAPE, generator=torch.Generator().manual_seed(9)) < 0.5

    def _usual_pairs(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        import torch

        draw = torch.Generator().manual_seed(seed)
        logits = torch.randn(*_SHAPE, self.n_classes, generator=draw)
        yield logits, torch.randint(self.n_classes, _SHAPE, generator=draw)
        values = torch.randn(2, *_SHAPE, generator=draw)
        yield values[0], values[1]
        yield values[0], (values[1] > 0).to(values.dtype)

    def _see(self, *lines: str) -> str:
        return self.see(
            "import helix_kernel",
            "import torch",
            f"metric = {self.how('make_metric()')}",
            f"prediction = torch.randn(12, 5, {self.n_classes})  # or (12, 5), as the metric takes it",
            f"target = torch.randint({self.n_classes}, (12, 5))  # or torch.randn(12, 5)",
            "mask = torch.rand(12, 5) < 0.5",
            "metric.update(prediction, target)",
            *(lines or ("metric.compute()",)),
        )


def _close(first: float, second: float) -> bool:
    return (math.isnan(first) and math.isnan(second)) or math.isclose(
        first, second, rel_tol=1e-6, abs_tol=1e-9
    )
