"""What the cases of layers share: the layer, its inputs, and how outputs are compared."""

from __future__ import annotations

import inspect
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from helix_kernel.testing.suite import Suite, applies_when

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import EllipsisType

    import torch
    from torch import Tensor, nn

DTYPES = ("float32", "float64")
if_causal = applies_when("layers that do not look ahead", lambda suite: suite.traits.is_causal)
if_it_keeps_a_state = applies_when("layers that keep a state", lambda suite: suite.traits.keeps_state)
if_it_keeps_none = applies_when("layers without state", lambda suite: not suite.traits.keeps_state)
EXAMPLES = "test_of_examples_"
if_it_makes_inputs = applies_when(
    "layers that make inputs of their own", lambda suite: suite.traits.makes_inputs
)
if_it_packs = applies_when("layers that take cu_seqlens", lambda suite: suite.traits.packs)


@attrs.frozen
class Traits:
    """What a layer says of itself, by which cases apply to it.

    Args:
        is_causal: Whether its outputs depend on no later input: it has no attribute ``causal`` that is False.
        keeps_state: Whether it is causal and has the method ``init_state``.
        packs: Whether its `forward` takes ``cu_seqlens``.
        vocab_size: Its attribute of that name, the number of ids that it takes; None for one that takes
            vectors.
        makes_inputs: Whether it has a method ``example_inputs``, since it takes neither vectors nor ids.
    """

    is_causal: bool
    keeps_state: bool
    packs: bool
    vocab_size: int | None
    makes_inputs: bool = False

    @classmethod
    def of(cls, layer: nn.Module) -> Traits:
        """Return what a layer says of itself."""
        is_causal = bool(getattr(layer, "causal", True))
        return cls(
            is_causal=is_causal,
            keeps_state=is_causal and hasattr(layer, "init_state"),
            packs="cu_seqlens" in inspect.signature(type(layer).forward).parameters,
            vocab_size=getattr(layer, "vocab_size", None),
            makes_inputs=hasattr(layer, "example_inputs"),
        )


class LayerBasis(Suite):
    """The layer under test; see `LayerSuite`."""

    supplies = ("d_model",)
    d_model = 8
    batch_size = 3
    seq_len = 13
    tolerance: dict[str, float] = {"float32": 1e-5, "float64": 1e-10}  # noqa: RUF012 - mypy wants no ClassVar here: subclasses assign it

    @cached_property
    def traits(self) -> Traits:
        """What the layer says of itself."""
        return Traits.of(self._seeded_layer(0))

    def left_out(self, case: str) -> str | None:
        """Return what a case is for where this layer is something else, or None where it applies."""
        if self.traits.makes_inputs and not case.startswith(EXAMPLES):
            return "layers that take one tensor"
        return super().left_out(case)

    def make_layer(self) -> nn.Module:
        """Return a new layer in float32, its weights drawn from torch's global generator."""
        layer: nn.Module = self.build(d_model=self.d_model)
        return layer

    @pytest.fixture
    def layer(self) -> nn.Module:
        """Return the layer under test, the same in every run."""
        return self._seeded_layer(0)

    def inputs(self, batch_size: int, seq_len: int, *, dtype: torch.dtype, seed: int = 0) -> Tensor:
        """Return inputs (B, L, ...) that depend on the arguments only."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        if self.traits.vocab_size is not None:
            return torch.randint(self.traits.vocab_size, (batch_size, seq_len), generator=generator)
        return torch.randn(batch_size, seq_len, self.d_model, generator=generator, dtype=dtype)

    def output_shape(self, x: Tensor) -> tuple[int | EllipsisType | None, ...]:
        """Return the shape that the output for x must have; None is a dimension of any length.

        A model that reads ids and looks ahead may give one answer (B, …) for a row.
        """
        if x.is_floating_point():
            return tuple(x.shape)
        return (*x.shape, None) if self.traits.is_causal else (len(x), ...)

    def see_layer(self, *lines: str, dtype: str = "float64") -> str:
        """Return a snippet that makes the layer and inputs x, and runs the lines."""
        cast = ".double()" if dtype == "float64" else ""
        return self.see(
            f"layer = {self.how('make_layer()', d_model=self.d_model)}{cast}.eval()",
            f"x = {self._inputs_as_code(dtype)}",
            *lines,
        )

    def assert_close(
        self, actual: Tensor, expected: Tensor, message: str, *lines: str, dtype: str = ""
    ) -> None:
        """Fail where two outputs differ by more than the tolerance.

        Args:
            actual: What a layer gave.
            expected: What it should have given.
            message: What differs from what, for the person who reads it.
            lines: The snippet by which the difference is seen, given `layer` and `x`.
            dtype: Whose tolerance counts, where it is not that of `expected`.
        """
        dtype = dtype or str(expected.dtype).removeprefix("torch.")
        assert actual.shape == expected.shape, (
            f"{message}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
            + self.see_layer(*lines, dtype=dtype)
        )
        if not expected.numel():
            return
        scale = max(expected.abs().max().item(), 1e-30)
        errors = (actual - expected).abs() / scale
        error, allowed = errors.max().item(), self.tolerance[dtype]
        # A comparison with NaN is false, so a NaN fails too.
        assert error <= allowed, (
            f"{message}{_first_position(errors, allowed)}: by {error:.1e} of the largest output, "
            f"allowed {allowed:.0e}" + self.see_layer(*lines, dtype=dtype)
        )

    def run(self, layer: nn.Module, x: Tensor, **packing: Tensor) -> Tensor:
        """Return the layer's outputs; an error that it raises says for which inputs."""
        try:
            y: Tensor = layer(x, **packing)
        except Exception as error:
            given = f"{tuple(x.shape)} {x.dtype}, contiguous: {x.is_contiguous()}"
            error.add_note(f"while running forward on inputs {given}{self.see_layer('layer(x)')}")
            raise
        return y

    def _seeded_layer(self, seed: int) -> nn.Module:
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.make_layer()

    def _prepare(
        self,
        layer: nn.Module,
        dtype: str = "float64",
        *,
        batch_size: int | None = None,
        seq_len: int | None = None,
    ) -> tuple[Any, Tensor]:
        """Return the layer in eval mode and the dtype, and inputs for it."""
        import torch

        kind: torch.dtype = getattr(torch, dtype)
        x = self.inputs(batch_size or self.batch_size, seq_len or self.seq_len, dtype=kind)
        return layer.to(kind).eval(), x

    def _inputs_as_code(self, dtype: str) -> str:
        shape = f"{self.batch_size}, {self.seq_len}"
        if self.traits.vocab_size is not None:
            return f"torch.randint({self.traits.vocab_size}, ({shape}))"
        return f"torch.randn({shape}, {self.d_model}, dtype=torch.{dtype})"


def is_of(shape: Sequence[int], promised: Sequence[int | EllipsisType | None]) -> bool:
    """Whether a shape is the promised one, in which None stands for any length and … for any further ones."""
    if promised[-1:] == (...,):
        return is_of(shape[: len(promised) - 1], promised[:-1])
    return len(shape) == len(promised) and all(
        want in (None, have) for have, want in zip(shape, promised, strict=True)
    )


def weighed(y: Tensor) -> Tensor:
    """Return a scalar that weighs every output differently, so that no gradient cancels by symmetry."""
    import torch

    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype, device=y.device).view_as(y)
    return (weights * y).sum() + y.square().mean()


def _first_position(errors: Tensor, allowed: float) -> str:
    """Say from which position on outputs (B, L, …) differ."""
    if errors.dim() < 3:
        return ""
    wrong = ~(errors <= allowed).flatten(2).all(-1).all(0)
    return f" from position {int(wrong.nonzero()[0])} on" if wrong.any() else ""
