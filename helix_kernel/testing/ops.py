"""The conformance suite of ops: what every implementation of a contract must do, whoever wrote it.

Subclass `OpSuite`, give it a contract, and pytest runs the rest on whichever backends are in force::

    class TestSelectiveScan(OpSuite):
        def make_contract(self):
            return selective_scan.contract
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from helix_kernel.ops import NAMESPACE, defined
from helix_kernel.targets import load_target
from helix_kernel.testing._op_surroundings import poisoned_memory, threads
from helix_kernel.testing.suite import Suite

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from helix_kernel.ops import Op, OpContract, Sample

DTYPES = ("float32", "float64")
_BACKWARD = (
    "y = op(*[a.requires_grad_() if torch.is_tensor(a) and a.is_floating_point() else a for a in args])",
    "(y if torch.is_tensor(y) else y[0]).sum().backward()",
)


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

    def test_samples_have_names_of_their_own(self, op: Op, samples: list[Sample]) -> None:
        names = [sample.name for sample in samples]
        see = self.see(*self.code_of(op), "[sample.name for sample in op.contract.samples()]")
        assert names, (
            f"the contract of {op.contract.name} has no sample, so that nothing would be tested{see}"
        )
        twice = sorted({name for name in names if names.count(name) > 1})
        assert not twice, f"samples of {op.contract.name} share a name, {twice} of {names}{see}"

    def test_every_tensor_matters(self, op: Op, samples: list[Sample]) -> None:
        """A reference that ignores an argument would make every implementation ignore it."""
        names = [argument.name for argument in op.forward._schema.arguments]  # noqa: SLF001 - as in _is_slot
        wanted = {i for i in range(len(names)) if _is_slot(op, i)}
        given = {i for sample in samples for i in wanted if sample.args[i] is not None}
        missing = [names[i] for i in sorted(wanted - given)]
        see = self._see(op, samples[0], "args")
        assert not missing, f"no sample gives {', '.join(missing)}, so that nothing tests what it does{see}"
        for sample in samples:
            gradients = gradients_of(op, op, self._cast(sample.args, "float64"))
            wanted -= {i for i in wanted if (found := gradients[i]) is not None and found.any()}
        ignored = [names[i] for i in sorted(wanted)]
        assert not ignored, (
            f"the gradient of {', '.join(ignored)} is 0 in each of {len(samples)} samples: is it ignored?"
            + self._see(op, samples[-1], "op(*args)  # with other values of it, too")
        )

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_results_agree_with_the_reference(self, op: Op, samples: list[Sample], dtype: str) -> None:
        for sample in samples:
            expected = _results(_reference(op)(*sample.args))
            found = _results(op(*self._cast(sample.args, dtype)))
            see = self._see(op, sample, "op(*args)", "op.references[op.contract.name](*args)", dtype=dtype)
            what = f"results in {dtype} against the float64 reference, "
            _assert_close(what + _of(sample), found, expected, self.tolerance[dtype], see)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_gradients_agree_with_the_reference(self, op: Op, samples: list[Sample], dtype: str) -> None:
        for sample in samples:
            expected = _reference_gradients(op, sample.args)
            found = gradients_of(op, op, self._cast(sample.args, dtype))
            what = f"gradients in {dtype} against the float64 reference, {_of(sample)}"
            see = self._see(op, sample, *_BACKWARD, dtype=dtype)
            _assert_close(what, found, expected, self.grad_tolerance[dtype], see)

    def test_gradients_agree_with_finite_differences(self, op: Op, samples: list[Sample]) -> None:
        import torch

        saved = len(op.contract.saved)

        def differentiable(*values: Any) -> Any:
            results = _as_tuple(op(*values))
            return results[: len(results) - saved]

        for sample in _first_of_each_kind(samples):
            args = _require_grad(self._cast(sample.args, "float64"))
            try:
                torch.autograd.gradcheck(differentiable, args, fast_mode=True)
            except RuntimeError as error:
                line = "torch.autograd.gradcheck(op, args, fast_mode=True)  # args that require grad"
                error.add_note(f"backward is not the derivative, {_of(sample)}" + self._see(op, sample, line))
                raise

    def test_a_given_formula_of_the_gradient_is_that_of_the_reference(
        self, op: Op, samples: list[Sample]
    ) -> None:
        """Of every sample, in float64; it holds of itself where the contract gives no formula."""
        differentiated = op.gradient_of(op.contract.reference)
        backward = op.contract.backward or differentiated
        for sample in samples:
            results = _as_tuple(_reference(op)(*sample.args))
            n_grads = len(results) - len(op.contract.saved)
            given = (*_cotangents(results[:n_grads]), *results[n_grads:], *sample.args)
            found, expected = _as_tuple(backward(*given)), _as_tuple(differentiated(*given))
            see = self._see(op, sample, "op.gradient_of(op.contract.reference), op.contract.backward")
            what = f"the contract's backward against the differentiated reference, {_of(sample)}"
            _assert_close(what, found, expected, self.grad_tolerance["float64"], see)

    def test_the_short_way_and_the_registered_op_agree(self, op: Op, samples: list[Sample]) -> None:
        for sample in samples:
            args = self._cast(sample.args, "float32")
            see = self._see(op, sample, "op(*args)", "op.forward(*args)", dtype="float32")
            what = f"the op and torch.ops.{NAMESPACE}.{op.contract.name}, {_of(sample)}"
            _assert_close(what, _results(op(*args)), _results(op.forward(*args)), 0.0, see)
            what = f"gradients of {what}"
            _assert_close(what, gradients_of(op, op, args), gradients_of(op, op.forward, args), 0.0, see)

    def test_results_have_the_shapes_that_the_fake_kernel_gives(self, op: Op, samples: list[Sample]) -> None:
        for sample in samples:
            args = self._cast(sample.args, "float32")
            self._opcheck(op, sample, args, test_utils=("test_schema", "test_faketensor"))

    def test_pytorch_can_trace_and_differentiate_it(self, op: Op, samples: list[Sample]) -> None:
        fullest = max(samples, key=lambda sample: sum(arg is not None for arg in sample.args))
        for sample in (samples[0], fullest):
            self._opcheck(op, sample, _require_grad(self._cast(sample.args, "float32")))

    def test_arguments_need_not_be_contiguous(self, op: Op, samples: list[Sample]) -> None:
        for sample in samples:
            args = self._cast(sample.args, "float64")
            strided = tuple(_spread(arg) for arg in args)
            expected, slopes = _results(op(*args)), gradients_of(op, op, args)
            gaps = "strided = [torch.stack([a, a], -1)[..., 0] if torch.is_tensor(a) else a for a in args]"
            see = self._see(op, sample, gaps, "op(*strided), op(*args)")
            try:
                found, moved = _results(op(*strided)), gradients_of(op, op, strided)
            except RuntimeError as error:
                error.add_note(f"arguments that are not contiguous are refused, {_of(sample)}{see}")
                raise
            what = f"of arguments that are not contiguous, {_of(sample)}"
            _assert_close(f"results {what}", found, expected, self.tolerance["float64"], see)
            _assert_close(f"gradients {what}", moved, slopes, self.grad_tolerance["float64"], see)

    def test_memory_that_nobody_wrote_is_not_read(self, op: Op, samples: list[Sample]) -> None:
        with poisoned_memory():
            for sample in samples:
                args = self._cast(sample.args, "float32")
                found = [*_results(op(*args)), *gradients_of(op, op, args)]
                bad = {
                    i: f"{int(tensor.isnan().sum())} of {tensor.numel()} elements"
                    for i, tensor in enumerate(found)
                    if tensor is not None and tensor.isnan().any()
                }
                poison = "torch.use_deterministic_algorithms(True, warn_only=True)  # fills new memory by NaN"
                assert not bad, f"{_of(sample)}: results or gradients {bad} hold memory never written" + (
                    self._see(op, sample, poison, "op(*args)", dtype="float32")
                )

    def test_the_number_of_threads_does_not_matter(self, op: Op, samples: list[Sample]) -> None:
        for sample in samples:
            args = self._cast(sample.args, "float32")
            with threads(1):
                expected = [*_results(op(*args)), *gradients_of(op, op, args)]
            with threads(4):
                found = [*_results(op(*args)), *gradients_of(op, op, args)]
            see = self._see(op, sample, "torch.set_numthreads(4)  # or 1", "op(*args)", dtype="float32")
            what = f"results and gradients by 4 threads against 1, {_of(sample)}"
            _assert_close(what, found, expected, self.tolerance["float32"], see)

    def test_arguments_are_left_as_they_were(self, op: Op, samples: list[Sample]) -> None:
        import torch

        for sample in samples:
            args = self._cast(sample.args, "float64")
            copies = tuple(arg.clone() if isinstance(arg, torch.Tensor) else arg for arg in args)
            gradients_of(op, op, args)
            tensors = [i for i, arg in enumerate(args) if isinstance(arg, torch.Tensor)]
            changed = [i for i in tensors if not torch.equal(args[i], copies[i])]
            assert not changed, f"{_of(sample)}: arguments {changed} were changed" + (
                self._see(op, sample, "before = [copy.copy(a) for a in args]", "op(*args)", "args")
            )

    def test_flops_are_counted(self, op: Op, samples: list[Sample]) -> None:
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        args = self._cast(samples[0].args, "float32")
        shapes = [getattr(arg, "shape", arg) for arg in args]
        see = self._see(op, samples[0], "op.contract.flops(*[getattr(arg, 'shape', arg) for arg in args])")
        try:
            expected = op.contract.flops(*shapes)
        except Exception as error:
            error.add_note(f"the contract's flops raises for arguments of {shapes}{see}")
            raise
        assert expected > 0, f"the contract's flops gives {expected} for arguments of {shapes}{see}"
        with FlopCounterMode(display=False) as counter:
            op(*args)
        counted = counter.get_total_flops()
        assert counted == expected, f"PyTorch counts {counted} FLOPs, the contract's flops {expected}{see}"
        with FlopCounterMode(display=False) as counter:
            gradients_of(op, op, args)
        backward = getattr(getattr(torch.ops, NAMESPACE), op.contract.backward_name)
        counted = counter.get_flop_counts()["Global"][backward]
        assert counted > 0, f"PyTorch counts {counted} FLOPs of {op.contract.backward_name}{see}"

    def code_of(self, op: Op) -> list[str]:
        """Return lines of Python that get the op, for messages."""
        lines = [f"op = helix_kernel.ops.defined()[{op.contract.name!r}]"]
        if self.component is not None and self.component.kind == "op":
            return [f"import {self.component.target.partition(':')[0]}", *lines]
        return lines

    def _see(self, op: Op, sample: Sample, *lines: str, dtype: str = "float64") -> str:
        """Return a snippet that gets the op and a sample's arguments, and runs the lines."""
        args = f"args = next(s.args for s in op.contract.samples() if s.name == {sample.name!r})"
        return self.see(*self.code_of(op), f"{args}  # here in {dtype}", *lines)

    def _opcheck(self, op: Op, sample: Sample, args: Sequence[Any], **which: Any) -> None:
        import torch

        try:
            torch.library.opcheck(op.forward, tuple(args), **which)
        except Exception as error:
            line = "torch.library.opcheck(op.forward, args)"
            error.add_note(f"{_of(sample)}: PyTorch's own check fails" + self._see(op, sample, line))
            raise

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


def gradients_of(op: Op, call: Any, args: Sequence[Any]) -> list[Tensor | None]:
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


def _of(sample: Sample) -> str:
    return f"sample {sample.name!r}"


def _assert_close(
    what: str, found: Sequence[Tensor | None], expected: Sequence[Tensor | None], tolerance: float, see: str
) -> None:
    import torch

    assert len(found) == len(expected), f"{what}: {len(found)} tensors, expected {len(expected)}{see}"
    for i, (left, right) in enumerate(zip(found, expected, strict=True)):
        assert (left is None) == (right is None), f"{what}: tensor {i} is {left}, expected {right}{see}"
        if left is None or right is None or not right.numel():
            continue
        shape, dtype = tuple(right.shape), torch.complex128 if right.is_complex() else torch.float64
        assert left.shape == right.shape, (
            f"{what}: tensor {i} has shape {tuple(left.shape)}, expected {shape}{see}"
        )
        assert left.is_complex() == right.is_complex(), f"{what}: tensor {i} is {left.dtype}{see}"
        difference = (left.to("cpu", dtype) - right.to("cpu", dtype)).abs().max().item()
        scale = right.to(dtype).abs().max().item()
        assert difference <= tolerance * max(scale, torch.finfo(torch.float32).tiny), (
            f"{what}: tensor {i} differs by {difference:.2e} where the largest element is {scale:.2e}; "
            f"allowed is {tolerance:g} of that{see}"
        )


def _spread(arg: Any) -> Any:
    """Return the tensor with gaps in its memory, and its last two dimensions stored the other way round."""
    import torch

    if not _is_inexact(arg):
        return arg
    turned = arg.transpose(-1, -2) if arg.dim() > 1 else arg
    spread = torch.stack([turned, torch.full_like(turned, float("nan"))], dim=-1)[..., 0]
    return spread.transpose(-1, -2) if arg.dim() > 1 else spread
