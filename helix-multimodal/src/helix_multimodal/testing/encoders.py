"""The conformance suite of encoders: what every encoder must do, whoever wrote it.

Subclass `EncoderSuite`, give it an encoder, and pytest runs the rest::

    class TestSquares(EncoderSuite):
        def make_encoder(self):
            return Squares(d_model=self.d_model)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.suite import Suite, applies_when
from helix_multimodal.inputs import Padded, Tokens
from helix_multimodal.testing.batches import batch_of, beyond, other_batch, row_of

if TYPE_CHECKING:
    from torch import Tensor, nn


def _has_a_modality(suite: EncoderSuite) -> bool:
    return suite.seeded_encoder().modality is not None


_of_one_modality = applies_when("encoders of one modality", _has_a_modality)


class EncoderSuite(Suite):
    """Pytest class of the protocol of encoders (`helix_multimodal.protocols.Encoder`).

    A subclass overrides `make_encoder`, and `make_batch` where the data that the suite makes up do not fit
    the encoder's options.

    Attributes:
        d_model: Width that the encoder is built in.
        tolerance: Largest difference of two outputs in float64 that counts as none.
    """

    supplies = ("d_model",)
    d_model = 8
    tolerance = 1e-9

    def make_encoder(self) -> nn.Module:
        """Return a new encoder, its weights drawn from torch's global generator."""
        encoder: nn.Module = self.build(d_model=self.d_model)
        return encoder

    def make_batch(self, modality: str | None) -> Padded:
        """Return samples of different sizes, at least one of them missing."""
        return batch_of(modality)

    def test_tokens_are_as_declared(self) -> None:
        encoder, batch = self._prepared(torch.float32)
        tokens = self._encoded(encoder, batch)
        shape, mask = tuple(tokens.values.shape), tokens.mask
        assert len(shape) == 3, f"tokens have shape {shape}, allowed is (B, N, {self.d_model})" + self._see()
        assert (shape[0], shape[2]) == (len(batch.values), self.d_model), (
            f"tokens have shape {shape}, allowed is ({len(batch.values)}, N, {self.d_model})" + self._see()
        )
        assert tuple(mask.shape) == shape[:2], (
            f"the mask has shape {tuple(mask.shape)}, the tokens {shape}" + self._see()
        )
        assert mask.dtype == torch.bool, f"the mask is of {mask.dtype}, allowed is bool" + self._see()
        assert tokens.values.dtype == torch.float32, (
            f"an encoder in float32 gives tokens of {tokens.values.dtype}" + self._see()
        )
        assert tokens.values.isfinite().all(), "tokens are not finite" + self._see()

    def test_samples_have_tokens_and_missing_ones_none(self) -> None:
        encoder, batch = self._prepared()
        present = self._encoded(encoder, batch).mask.any(-1)
        assert present.equal(batch.present), (
            f"rows with any token are {present.tolist()}, rows with a sample {batch.present.tolist()}"
            + self._see("encoder(batch).mask")
        )

    def test_a_batch_of_missing_samples_has_no_tokens(self) -> None:
        encoder, batch = self._prepared()
        none = Padded(torch.zeros_like(batch.values), torch.zeros_like(batch.sizes))
        tokens = self._encoded(encoder, none)
        see = self._see("encoder(Padded(batch.values * 0, batch.sizes * 0))")
        assert not tokens.mask.any(), "where all samples are missing there are tokens" + see
        assert tokens.values.isfinite().all(), "where all samples are missing tokens are not finite" + see

    def test_a_row_is_as_alone(self) -> None:
        encoder, batch = self._prepared()
        whole = self._encoded(encoder, batch)
        for row in batch.present.nonzero().flatten().tolist():
            alone = self._encoded(encoder, row_of(batch, row))
            self._assert_same(
                _visible(whole, row),
                _visible(alone, 0),
                f"row {row} of a batch has other tokens than alone",
                f"encoder(row_of(batch, {row}))",
            )

    def test_what_lies_beyond_a_sample_changes_nothing(self) -> None:
        encoder, batch = self._prepared()
        plain, poisoned = (self._encoded(encoder, each) for each in (batch, beyond(batch)))
        for row in batch.present.nonzero().flatten().tolist():
            self._assert_same(
                _visible(poisoned, row),
                _visible(plain, row),
                f"more padding, with other values, changes the tokens of row {row}",
                "encoder(beyond(batch))",
            )
        assert poisoned.values.isfinite().all(), "values beyond a sample reach the tokens" + self._see(
            "encoder(beyond(batch)).values.isfinite().all()"
        )

    def test_tokens_tell_samples_apart(self) -> None:
        """Two samples of one size, which differ in all values, have different tokens."""
        encoder, batch = self._prepared()
        other = Padded(self._reflected(batch), batch.sizes)
        one, two = self._encoded(encoder, batch), self._encoded(encoder, other)
        row = int(batch.present.nonzero()[0])
        first, second = _visible(one, row), _visible(two, row)
        differ = first.shape != second.shape or not torch.allclose(first, second, atol=1e-6)
        assert differ, f"row {row} has the same tokens when its values are turned round" + self._see()

    def test_float64_stays_float64(self) -> None:
        encoder, batch = self._prepared()
        tokens = self._encoded(encoder, batch)
        assert tokens.values.dtype == torch.float64, (
            f"an encoder in float64 gives tokens of {tokens.values.dtype}" + self._see()
        )

    def test_tokens_are_the_same_twice(self) -> None:
        encoder, batch = self._prepared()
        first, again = (self._encoded(encoder, batch) for _ in range(2))
        assert first.values.equal(again.values), "one batch has other tokens the second time" + self._see()

    def test_a_batch_is_not_changed(self) -> None:
        encoder, batch = self._prepared()
        values, sizes = batch.values.clone(), batch.sizes.clone()
        self._encoded(encoder, batch)
        same = values.equal(batch.values) and sizes.equal(batch.sizes)
        assert same, "the encoder changed the batch" + self._see()

    def test_gradients_reach_every_parameter(self) -> None:
        encoder, batch = self._prepared()
        tokens = encoder.train()(batch)
        weights = torch.linspace(-1, 2, tokens.values.numel(), dtype=torch.float64).view_as(tokens.values)
        kept = torch.where(tokens.mask.unsqueeze(-1), tokens.values, 0)
        torch.autograd.backward((weights * kept).sum() + kept.square().sum())
        for name, parameter in encoder.named_parameters():
            grad = parameter.grad
            told = "none" if grad is None else "zero throughout"
            reached = grad is not None and bool(grad.any())
            assert reached, f"the gradient of {name} is {told}" + self._see()
            assert grad.isfinite().all(), f"the gradient of {name} is not finite" + self._see()

    def test_a_state_dict_is_all_there_is(self) -> None:
        encoder, batch = self._prepared()
        other = self.seeded_encoder(1).double().eval()
        other.load_state_dict(encoder.state_dict())
        self._assert_same(
            self._encoded(other, batch).values,
            self._encoded(encoder, batch).values,
            "an encoder with another's state dict gives other tokens",
        )

    @_of_one_modality
    def test_another_modality_is_refused(self) -> None:
        encoder, _ = self._prepared()
        assert encoder.modality is not None
        try:
            encoder(other_batch(encoder.modality))
        except ArgumentError:
            return
        raise AssertionError(
            f"an encoder of {encoder.modality} takes a batch of another modality; raise ArgumentError"
            + self._see("encoder(other_batch(encoder.modality))")
        )

    def test_compiles(self) -> None:
        encoder, batch = self._prepared()
        torch.compiler.reset()
        found = self._encoded(torch.compile(encoder, fullgraph=True, backend="eager"), batch)
        see = "torch.compile(encoder, fullgraph=True, backend='eager')(batch)"
        self._assert_same(
            found.values, self._encoded(encoder, batch).values, "compiled, it gives other tokens", see
        )

    def seeded_encoder(self, seed: int = 0) -> Any:
        """Return the encoder under test, the same in every run."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.make_encoder()

    def _prepared(self, dtype: torch.dtype = torch.float64) -> tuple[Any, Padded]:
        encoder = self.seeded_encoder().to(dtype).eval()
        return encoder, self.make_batch(encoder.modality)

    def _encoded(self, encoder: Any, batch: Padded) -> Tokens:
        with torch.no_grad():
            tokens: Tokens = encoder(batch)
        return tokens

    def _reflected(self, batch: Padded) -> Tensor:
        """Return the values turned round in their range, within the samples and beyond."""
        if batch.values.is_floating_point():
            return batch.values.flip(1) * -0.5
        return 255 - batch.values

    def _assert_same(self, found: Tensor, expected: Tensor, message: str, *lines: str) -> None:
        shapes = f"{message}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
        assert found.shape == expected.shape, shapes + self._see(*lines)
        if not expected.numel():
            return
        error = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
        # A comparison with NaN is false, so a NaN fails too.
        assert error <= self.tolerance, (
            f"{message}: by {error:.1e} of the largest, allowed {self.tolerance:.0e}" + self._see(*lines)
        )

    def _see(self, *lines: str) -> str:
        return self.see(
            "from helix_multimodal.testing.batches import batch_of, beyond, other_batch, row_of",
            f"encoder = {self.how('make_encoder()', d_model=self.d_model)}.double().eval()",
            "batch = batch_of(encoder.modality)",
            *(lines or ("encoder(batch)",)),
        )


def _visible(tokens: Tokens, row: int) -> Tensor:
    return tokens.values[row][tokens.mask[row]]
