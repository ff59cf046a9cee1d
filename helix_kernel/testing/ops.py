"""The conformance suite of ops: what every implementation of a contract must do, whoever wrote it.

Subclass `OpSuite`, give it a contract, and pytest runs the rest on whichever backends are in force::

    class TestSelectiveScan(OpSuite):
        def make_contract(self):
            return selective_scan.contract
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from helix_kernel.ops import NAMESPACE, defined
from helix_kernel.targets import load_target
from helix_kernel.testing.suite import Suite

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor

    from helix_kernel.ops import Op, OpContract, Sample

_DTYPES = ("float32", "float64")


class OpSuite(Suite):
    """Pytest class of an op: forward and gradient against the float64 reference, and more.

    Attributes:
        device: Where the op runs.
        tolerance: Largest difference allowed in a result for each dtype, relative to the largest
            element of that result.
        grad_tolerance: The same for a gradient.
    """

    device = "cpu"
    tolerance: dict[str, float] = {"float32": 1e-5, "float64": 1e-10}  # noqa: RUF012 - subclasses assign it
    grad_tolerance: dict[str, float] = {"float32": 1e-4, "float64": 1e-10}  # noqa: RUF012 - as above

    def make_contract(self) -> OpContract:
        """Return the contract, which must be defined."""
        if self.component is None:
            raise NotImplementedError(f"{type(self).__name__} must override make_contract")
        contract: OpContract = load_target(self.component)
        return contract

    @pytest.fixture(name="op")
    def fixture_op(self) -> Op:
        """Return the op under test."""
        return defined()[self.make_contract().name]

    @pytest.fixture(name="samples")
    def fixture_samples(self, op: Op) -> list[Sample]:
        """Return the contract's samples."""
        return list(op.contract.samples())

    def test_samples_have_names_of_their_own(self, samples: list[Sample]) -> None:
        names = [sample.name for sample in samples]
        assert names, "the contract has no sample, so that nothing would be tested"
        assert len(set(names)) == len(names), f"samples share a name: {names}"

    @pytest.mark.parametrize("dtype", _DTYPES)
    def test_results_agree_with_the_reference(self, op: Op, samples: list[Sample], dtype: str) -> None:
        for sample in samples:
            expected = _results(_reference(op)(*sample.args))
            found = _results(op(*self._cast(sample.args, dtype)))
            _assert_close(sample.name, found, expected, self.tolerance[dtype])

    @pytest.mark.parametrize("dtype", _DTYPES)
    def test_gradients_agree_with_the_reference(self, op: Op, samples: list[Sample], dtype: str) -> None:
        for sample in samples:
            expected = _reference_gradients(op, sample.args)
            found = _gradients(op, op, self._cast(sample.args, dtype))
            _assert_close(sample.name, found, expected, self.grad_tolerance[dtype])

    def test_gradients_agree_with_finite_differences(self, op: Op, samples: list[Sample]) -> None:
        import torch

        saved = len(op.contract.saved)

        def differentiable(*values: Any) -> Any:
            results = _as_tuple(op(*values))
            return results[: len(results) - saved]

        for sample in _first_of_each_kind(samples):
            args = _require_grad(self._cast(sample.args, "float64"))
            assert torch.autograd.gradcheck(differentiable, args, fast_mode=True), sample.name

    def test_the_short_way_and_the_registered_op_agree(self, op: Op, samples: list[Sample]) -> None:
        for sample in samples:
            args = self._cast(sample.args, "float32")
            _assert_close(sample.name, _results(op(*args)), _results(op.forward(*args)), 0.0)
            _assert_close(sample.name, _gradients(op, op, args), _gradients(op, op.forward, args), 0.0)

    def test_results_have_the_shapes_that_the_fake_kernel_gives(self, op: Op, samples: list[Sample]) -> None:
        import torch

        for sample in samples:
            args = self._cast(sample.args, "float32")
            torch.library.opcheck(op.forward, args, test_utils=("test_schema", "test_faketensor"))

    def test_pytorch_can_trace_and_differentiate_it(self, op: Op, samples: list[Sample]) -> None:
        import torch

        fullest = max(samples, key=lambda sample: sum(arg is not None for arg in sample.args))
        for sample in (samples[0], fullest):
            torch.library.opcheck(op.forward, _require_grad(self._cast(sample.args, "float32")))

    def test_arguments_need_not_be_contiguous(self, op: Op, samples: list[Sample]) -> None:
        for sample in samples:
            args = self._cast(sample.args, "float64")
            strided = tuple(_spread(arg) for arg in args)
            _assert_close(sample.name, _results(op(*strided)), _results(op(*args)), self.tolerance["float64"])
            expected = _gradients(op, op, args)
            _assert_close(sample.name, _gradients(op, op, strided), expected, self.grad_tolerance["float64"])

    def test_memory_that_nobody_wrote_is_not_read(self, op: Op, samples: list[Sample]) -> None:
        with _poisoned_memory():
            for sample in samples:
                args = self._cast(sample.args, "float32")
                found = [*_results(op(*args)), *_gradients(op, op, args)]
                bad = [i for i, tensor in enumerate(found) if tensor is not None and tensor.isnan().any()]
                assert not bad, (
                    f"sample {sample.name!r}: results or gradients {bad} hold memory never written"
                )

    def test_the_number_of_threads_does_not_matter(self, op: Op, samples: list[Sample]) -> None:
        for sample in samples:
            args = self._cast(sample.args, "float32")
            with _threads(1):
                expected = [*_results(op(*args)), *_gradients(op, op, args)]
            with _threads(4):
                found = [*_results(op(*args)), *_gradients(op, op, args)]
            _assert_close(sample.name, found, expected, self.tolerance["float32"])

    def test_arguments_are_left_as_they_were(self, op: Op, samples: list[Sample]) -> None:
        import torch

        for sample in samples:
            args = self._cast(sample.args, "float64")
            copies = tuple(arg.clone() if isinstance(arg, torch.Tensor) else arg for arg in args)
            _gradients(op, op, args)
            tensors = [i for i, arg in enumerate(args) if isinstance(arg, torch.Tensor)]
            changed = [i for i in tensors if not torch.equal(args[i], copies[i])]
            assert not changed, f"sample {sample.name!r}: arguments {changed} were changed"

    def test_flops_are_counted(self, op: Op, samples: list[Sample]) -> None:
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        args = self._cast(samples[0].args, "float32")
        with FlopCounterMode(display=False) as counter:
            op(*args)
        assert counter.get_total_flops() == op.contract.flops(*(getattr(arg, "shape", arg) for arg in args))
        assert counter.get_total_flops() > 0
        with FlopCounterMode(display=False) as counter:
            _gradients(op, op, args)
        backward = getattr(getattr(torch.ops, NAMESPACE), op.contract.backward_name)
        assert counter.get_flop_counts()["Global"][backward] > 0

    def _cast(self, args: Sequence[Any], dtype: str) -> tuple[Any, ...]:
        import torch

        real: torch.dtype = getattr(torch, dtype)

        def cast(arg: Any) -> Any:
            if not isinstance(arg, torch.Tensor):
                return arg
            if not _is_inexact(arg):
                return arg.to(self.device)
            return arg.to(self.device, real.to_complex() if arg.is_complex() else real)

        return tuple(cast(arg) for arg in args)


def _is_inexact(arg: Any) -> bool:
    """Whether an argument is a tensor of floating or complex numbers, and so has a gradient."""
    import torch

    return isinstance(arg, torch.Tensor) and (arg.is_floating_point() or arg.is_complex())


def _first_of_each_kind(samples: Sequence[Sample]) -> list[Sample]:
    """Return the first sample of real numbers and the first with complex ones, where there are such."""
    kinds = {any(_is_inexact(arg) and arg.is_complex() for arg in s.args): s for s in reversed(samples)}
    return list(kinds.values())


def _as_tuple(results: Any) -> tuple[Any, ...]:
    return tuple(results) if isinstance(results, tuple | list) else (results,)


def _reference(op: Op) -> Any:
    return op.references[op.contract.name]


def _results(results: Any) -> tuple[Tensor | None, ...]:
    """Return every result, detached; the saved ones are part of the contract too."""
    return tuple(result.detach() for result in _as_tuple(results))


def _cotangents(results: Iterable[Tensor]) -> list[Tensor]:
    """Return a gradient for each result, drawn in double precision, so that every dtype gets the same."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def draw(result: Tensor) -> Tensor:
        dtype = torch.complex128 if result.is_complex() else torch.float64
        return torch.randn(result.shape, generator=generator, dtype=dtype).to(result)

    return [draw(result) for result in results]


def _require_grad(args: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(arg.detach().requires_grad_() if _is_inexact(arg) else arg for arg in args)


def _reference_gradients(op: Op, args: Sequence[Any]) -> list[Tensor | None]:
    """Return the contract's gradient of each argument, None for one that has none."""
    results = _as_tuple(_reference(op)(*args))
    n_grads = len(results) - len(op.contract.saved)
    backward = op.references[op.contract.backward_name]
    found = iter(_as_tuple(backward(*_cotangents(results[:n_grads]), *results[n_grads:], *args)))
    slots = [_is_slot(op, i) for i in range(len(args))]
    gradients = [next(found) if slot else None for slot in slots]
    return [None if arg is None else grad for arg, grad in zip(args, gradients, strict=True)]


def _is_slot(op: Op, i: int) -> bool:
    """Whether the backward op has a gradient for argument `i`, given or not."""
    argument = op.forward._schema.arguments[i]  # noqa: SLF001 - torch shows a parsed schema nowhere else
    return "Tensor" in str(argument.type) and argument.name not in op.contract.constants


def _gradients(op: Op, call: Any, args: Sequence[Any]) -> list[Tensor | None]:
    """Return autograd's gradient of each argument, None for one that has none."""
    import torch

    leaves = _require_grad(args)
    results = _as_tuple(call(*leaves))
    wanted = results[: len(results) - len(op.contract.saved)]
    pairs = [pair for pair in zip(wanted, _cotangents(wanted), strict=True) if pair[0].requires_grad]
    inputs = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    found = iter(
        torch.autograd.grad([result for result, _ in pairs], inputs, [cotangent for _, cotangent in pairs])
    )
    return [next(found) if isinstance(leaf, torch.Tensor) and leaf.requires_grad else None for leaf in leaves]


def _assert_close(
    name: str, found: Sequence[Tensor | None], expected: Sequence[Tensor | None], tolerance: float
) -> None:
    import torch

    assert len(found) == len(expected), f"sample {name!r}: {len(found)} tensors, expected {len(expected)}"
    for i, (left, right) in enumerate(zip(found, expected, strict=True)):
        assert (left is None) == (right is None), f"sample {name!r}: tensor {i} is {left}, expected {right}"
        if left is None or right is None or not right.numel():
            continue
        assert left.shape == right.shape, f"sample {name!r}: tensor {i} has shape {tuple(left.shape)}"
        assert left.is_complex() == right.is_complex(), f"sample {name!r}: tensor {i} is {left.dtype}"
        dtype = torch.complex128 if right.is_complex() else torch.float64
        difference = (left.to("cpu", dtype) - right.to("cpu", dtype)).abs().max().item()
        scale = right.to(dtype).abs().max().item()
        assert difference <= tolerance * max(scale, torch.finfo(torch.float32).tiny), (
            f"sample {name!r}: tensor {i} differs by {difference:.2e} where the largest element is"
            f" {scale:.2e}; allowed is {tolerance:g} of that"
        )


def _spread(arg: Any) -> Any:
    """Return the tensor with gaps in its memory, and its last two dimensions stored the other way round."""
    import torch

    if not _is_inexact(arg):
        return arg
    turned = arg.transpose(-1, -2).contiguous().transpose(-1, -2) if arg.dim() > 1 else arg
    return torch.stack([turned, torch.full_like(turned, float("nan"))], dim=-1)[..., 0]


@contextmanager
def _poisoned_memory() -> Iterator[None]:
    """Let PyTorch fill new memory with NaN, as its deterministic mode does."""
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    try:
        assert torch.empty(64).isnan().all(), (
            "PyTorch's fill_uninitialized_memory is off: nothing is poisoned"
        )
        yield
    finally:
        torch.use_deterministic_algorithms(mode=before)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
