"""The conformance suite of decoders: what every decoder must do, whoever wrote it.

Subclass `DecoderSuite`, give it a decoder, and pytest runs the rest::

    class TestSquares(DecoderSuite):
        def make_decoder(self):
            return Squares(d_model=self.d_model)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.suite import Suite, applies_when
from helix_multimodal.inputs import Padded, Tokens
from helix_multimodal.testing.batches import alike_batch, batch_of, beyond, other_batch, row_of, tokens_for

if TYPE_CHECKING:
    from torch import Tensor, nn


def _has_a_modality(suite: DecoderSuite) -> bool:
    return suite.seeded_decoder().modality is not None


_of_one_modality = applies_when("decoders of one modality", _has_a_modality)


class DecoderSuite(Suite):
    """Pytest class of the protocol of decoders (`helix_multimodal.protocols.Decoder`).

    A subclass overrides `make_decoder`, and `make_batch` and `make_pair` where the data that the suite makes
    up do not fit the decoder's options.

    Attributes:
        d_model: Width that the decoder is built in.
        tolerance: Largest difference of two outputs in float64 that counts as none.
        n_steps: Steps of Adam in which it learns two samples by heart.
        learning_rate: Of these steps.
        learnt: What is left of the loss after them, at most.
    """

    supplies = ("d_model",)
    d_model = 8
    tolerance = 1e-9
    n_steps = 160
    learning_rate = 0.02
    learnt = 0.75

    def make_decoder(self) -> nn.Module:
        """Return a new decoder, its weights drawn from torch's global generator."""
        decoder: nn.Module = self.build(d_model=self.d_model)
        return decoder

    def make_batch(self, modality: str | None) -> Padded:
        """Return samples of different sizes, at least one of them missing."""
        return batch_of(modality)

    def make_pair(self, modality: str | None) -> Padded:
        """Return two samples that differ, of one size."""
        return alike_batch(modality)

    def test_losses_are_one_for_each_row(self) -> None:
        decoder, tokens, batch = self._prepared(torch.float32)
        losses = self._losses(decoder, tokens, batch)
        assert losses.shape == batch.present.shape, (
            f"losses have shape {tuple(losses.shape)}, allowed is ({len(batch.present)},)" + self._see()
        )
        assert losses.dtype == torch.float32, f"in float32 losses are of {losses.dtype}" + self._see()
        assert losses.isfinite().all(), f"losses are {losses.tolist()}" + self._see()
        assert not losses[~batch.present].any(), (
            f"losses are {losses.tolist()}, where samples are {batch.present.tolist()}; one that is missing "
            "has the loss 0" + self._see()
        )
        assert losses[batch.present].all(), f"losses are {losses.tolist()}" + self._see()

    def test_a_row_is_as_alone(self) -> None:
        decoder, tokens, batch = self._prepared()
        losses = self._losses(decoder, tokens, batch)
        for row in range(len(losses)):
            alone = Tokens(tokens.values[row : row + 1], tokens.mask[row : row + 1])
            self._assert_same(
                self._losses(decoder, alone, row_of(batch, row)),
                losses[row : row + 1],
                f"row {row} of a batch has another loss than alone",
            )

    def test_what_lies_beyond_a_sample_changes_nothing(self) -> None:
        decoder, tokens, batch = self._prepared()
        more = beyond(batch)
        self._assert_same(
            self._losses(decoder, tokens, more),
            self._losses(decoder, tokens, batch),
            "more padding, with other values, changes the losses",
            "decoder.loss(decoder(tokens, beyond(batch)), beyond(batch))",
        )

    def test_hidden_tokens_change_nothing(self) -> None:
        decoder, tokens, batch = self._prepared()
        values = tokens.values.masked_fill(~tokens.mask.unsqueeze(-1), 1e3)
        hidden = Tokens(
            torch.cat([values, torch.full_like(values[:, :2], -1e3)], 1),
            torch.cat([tokens.mask, torch.zeros_like(tokens.mask[:, :2])], 1),
        )
        self._assert_same(
            self._losses(decoder, hidden, batch),
            self._losses(decoder, tokens, batch),
            "tokens that the mask hides change the losses",
        )

    def test_tokens_count(self) -> None:
        decoder, tokens, batch = self._prepared()
        other = Tokens(tokens.values.flip(-1) * -2, tokens.mask)
        one, two = (self._losses(decoder, each, batch) for each in (tokens, other))
        assert not torch.allclose(one, two), "other tokens give the same losses" + self._see()

    @_of_one_modality
    def test_values_of_the_batch_are_not_read(self) -> None:
        decoder, tokens, batch = self._prepared()
        blank = Padded(torch.zeros_like(batch.values), batch.sizes)
        with torch.no_grad():
            one, two = decoder(tokens, blank), decoder(tokens, batch)
        self._assert_same(one, two, "the prediction depends on the values of what it is to predict")

    def test_data_are_made_as_their_modality_has_them(self) -> None:
        decoder, tokens, batch = self._prepared()
        made = decoder.reconstruct(tokens, batch.sizes)
        see = self._see("decoder.reconstruct(tokens, batch.sizes)")
        assert made.sizes.equal(batch.sizes), f"sizes are {made.sizes.tolist()}" + see
        found, expected = tuple(made.values.shape), tuple(batch.values.shape)
        assert found == expected, f"values have shape {found}, allowed is {expected}" + see
        assert made.values.dtype == batch.values.dtype, (
            f"values are of {made.values.dtype}, allowed is {batch.values.dtype}" + see
        )
        assert not made.values.requires_grad, "values have a gradient" + see
        clean = beyond(made, amount=0).values
        differ = (clean != made.values) & (made.values != 0)
        assert not differ.any(), "beyond the sizes values are not zero" + see

    def test_data_are_made_the_same_twice_and_alone(self) -> None:
        decoder, tokens, batch = self._prepared()
        made, again = (decoder.reconstruct(tokens, batch.sizes).values for _ in range(2))
        assert made.equal(again), "the same tokens give other data the second time" + self._see()
        for row in range(len(made)):
            one = Tokens(tokens.values[row : row + 1], tokens.mask[row : row + 1])
            alone = decoder.reconstruct(one, batch.sizes[row : row + 1]).values[0]
            own = tuple(slice(size) for size in batch.sizes[row].tolist())
            self._assert_same(
                alone[own].double(), made[row][own].double(), f"row {row} is made otherwise than alone"
            )

    def test_gradients_reach_every_parameter(self) -> None:
        decoder, tokens, batch = self._prepared()
        self._total(decoder.train(), tokens, batch).backward()
        for name, parameter in decoder.named_parameters():
            grad = parameter.grad
            told = "none" if grad is None else "zero throughout"
            reached = grad is not None and bool(grad.any())
            assert reached, f"the gradient of {name} is {told}" + self._see()
            assert grad.isfinite().all(), f"the gradient of {name} is not finite" + self._see()

    def test_gradients_reach_the_tokens(self) -> None:
        decoder, tokens, batch = self._prepared()
        values = tokens.values.clone().requires_grad_()
        self._total(decoder.train(), Tokens(values, tokens.mask), batch).backward()
        grad = values.grad
        assert grad is not None, "no gradient reaches the tokens" + self._see()
        assert grad.any(), "the gradient of the tokens is zero throughout" + self._see()
        assert not grad[~tokens.mask].any(), "hidden tokens have a gradient" + self._see()

    def test_it_learns_two_samples_by_heart(self) -> None:
        decoder = self.seeded_decoder().train()
        batch = self.make_pair(decoder.modality)
        tokens = tokens_for(batch, self.d_model, missing=False)
        optimizer = torch.optim.Adam(decoder.parameters(), lr=self.learning_rate)
        first = float(self._losses(decoder.eval(), tokens, batch).mean())
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for _ in range(self.n_steps):
                optimizer.zero_grad()
                self._total(decoder.train(), tokens, batch).backward()
                optimizer.step()
        last = float(self._losses(decoder.eval(), tokens, batch).mean())
        assert last <= self.learnt * first, (
            f"{self.n_steps} steps of Adam on two samples lead from a loss of {first:.4f} to {last:.4f}, "
            f"allowed is {self.learnt} of it" + self._see()
        )

    def test_a_state_dict_is_all_there_is(self) -> None:
        decoder, tokens, batch = self._prepared()
        other = self.seeded_decoder(1).double().eval()
        other.load_state_dict(decoder.state_dict())
        self._assert_same(
            self._losses(other, tokens, batch),
            self._losses(decoder, tokens, batch),
            "a decoder with another's state dict has other losses",
        )

    @_of_one_modality
    def test_another_modality_is_refused(self) -> None:
        decoder, tokens, batch = self._prepared()
        prediction = decoder(tokens, batch)
        other = other_batch(decoder.modality)
        for what, call, given in (
            ("decoder(tokens, other)", decoder, tokens),
            ("decoder.loss(prediction, other)", decoder.loss, prediction),
        ):
            try:
                call(given, other)
            except ArgumentError:
                continue
            raise AssertionError(
                f"a decoder of {decoder.modality} takes another modality in {what}; raise ArgumentError"
                + self._see("other = other_batch(decoder.modality)", what)
            )

    def seeded_decoder(self, seed: int = 0) -> Any:
        """Return the decoder under test, the same in every run."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.make_decoder()

    def _prepared(self, dtype: torch.dtype = torch.float64) -> tuple[Any, Tokens, Padded]:
        decoder = self.seeded_decoder().to(dtype).eval()
        batch = self.make_batch(decoder.modality)
        return decoder, tokens_for(batch, self.d_model, dtype=dtype), batch

    def _losses(self, decoder: Any, tokens: Tokens, batch: Padded) -> Tensor:
        with torch.no_grad():
            losses: Tensor = decoder.loss(decoder(tokens, batch), batch)
        return losses

    def _total(self, decoder: Any, tokens: Tokens, batch: Padded) -> Any:
        loss = decoder.loss(decoder(tokens, batch), batch).mean()
        own = decoder.auxiliary_loss() if hasattr(decoder, "auxiliary_loss") else None
        return loss if own is None else loss + own

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
            "from helix_multimodal.testing.batches import batch_of, beyond, other_batch, row_of, tokens_for",
            f"decoder = {self.how('make_decoder()', d_model=self.d_model)}.double().eval()",
            "batch = batch_of(decoder.modality)",
            f"tokens = tokens_for(batch, {self.d_model})",
            *(lines or ("decoder.loss(decoder(tokens, batch), batch)",)),
        )
