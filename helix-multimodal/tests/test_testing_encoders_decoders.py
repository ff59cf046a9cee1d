"""The suites of encoders and decoders pass correct ones and catch each of these faults."""

import pytest
import torch

from helix_kernel.testing.faults import caught_by
from helix_multimodal.decoders.pixels import Pixels
from helix_multimodal.encoders.byte_embedding import ByteEmbedding
from helix_multimodal.encoders.log_mel import LogMel
from helix_multimodal.inputs import Padded, Tokens
from helix_multimodal.testing.batches import batch_of
from helix_multimodal.testing.decoders import DecoderSuite
from helix_multimodal.testing.encoders import EncoderSuite


class GivesHalfTheWidth(ByteEmbedding):
    def forward(self, batch):
        values, mask = super().forward(batch)
        return Tokens(values[..., ::2], mask)


class MakesTokensOfMissingSamples(ByteEmbedding):
    def forward(self, batch):
        values, mask = super().forward(batch)
        return Tokens(values, torch.ones_like(mask))


class LeavesOutOneToken(ByteEmbedding):
    def forward(self, batch):
        values, mask = super().forward(batch)
        return Tokens(values[:, 1:], mask[:, 1:])


class LooksAtItsNeighbours(ByteEmbedding):
    def forward(self, batch):
        values, mask = super().forward(batch)
        return Tokens(values + values.mean(0), mask)


class ReadsPadding(LogMel):
    def forward(self, batch):
        values, mask = super().forward(batch)
        return Tokens(values + batch.values.sum(), mask)


class CountsPadding(ByteEmbedding):
    def forward(self, batch):
        values, mask = super().forward(batch)
        return Tokens(values + batch.values.shape[1], mask)


class IsDeaf(ByteEmbedding):
    def forward(self, batch):
        return super().forward(Padded(batch.values * 0, batch.sizes))


class FallsToFloat32(ByteEmbedding):
    def forward(self, batch):
        values, mask = super().forward(batch)
        return Tokens(values.float(), mask)


class ThrowsDice(ByteEmbedding):
    def forward(self, batch):
        values, mask = super().forward(batch)
        return Tokens(values + torch.rand(()), mask)


class ChangesItsBatch(ByteEmbedding):
    def forward(self, batch):
        tokens = super().forward(batch)
        batch.values[0, 0] += 1
        return tokens


class HasAnIdleWeight(ByteEmbedding):
    def __init__(self, d_model):
        super().__init__(d_model)
        self.idle = torch.nn.Parameter(torch.ones(3))


class HidesAWeight(ByteEmbedding):
    def __init__(self, d_model):
        super().__init__(d_model)
        self.hidden = [torch.randn(d_model)]

    def forward(self, batch):
        values, mask = super().forward(batch)
        return Tokens(values + self.hidden[0], mask)


class TakesAnything(ByteEmbedding):
    def forward(self, batch):
        if batch.values.dim() != 2:
            batch = batch_of("text")
        return super().forward(batch)


class BreaksTheGraph(ByteEmbedding):
    def forward(self, batch):
        values, mask = super().forward(batch)
        return Tokens(values * 2 if values.sum() > 0 else values, mask)


@pytest.mark.parametrize(
    ("fault", "case", "says"),
    [
        (GivesHalfTheWidth, "tokens_are_as_declared", "allowed is .4, N, 8."),
        (MakesTokensOfMissingSamples, "samples_have_tokens_and_missing_ones_none", "rows with any token"),
        (MakesTokensOfMissingSamples, "a_batch_of_missing_samples_has_no_tokens", "there are tokens"),
        (LeavesOutOneToken, "samples_have_tokens_and_missing_ones_none", "rows with any token"),
        (LooksAtItsNeighbours, "a_row_is_as_alone", "row 0 of a batch has other tokens"),
        (CountsPadding, "a_row_is_as_alone", "row 1 of a batch has other tokens"),
        (CountsPadding, "what_lies_beyond_a_sample_changes_nothing", "changes the tokens of row 0"),
        (ReadsPadding, "what_lies_beyond_a_sample_changes_nothing", "by nan of the largest"),
        (IsDeaf, "tokens_tell_samples_apart", "same tokens"),
        (FallsToFloat32, "float64_stays_float64", "tokens of torch.float32"),
        (ThrowsDice, "tokens_are_the_same_twice", "other tokens the second time"),
        (ChangesItsBatch, "a_batch_is_not_changed", "changed the batch"),
        (HasAnIdleWeight, "gradients_reach_every_parameter", "gradient of idle is none"),
        (HidesAWeight, "a_state_dict_is_all_there_is", "state dict gives other tokens"),
        (TakesAnything, "another_modality_is_refused", "takes a batch of another modality"),
        (BreaksTheGraph, "compiles", "branching"),
    ],
)
def test_a_fault_of_an_encoder_is_caught(fault, case, says, tmp_path):
    right = fault.__mro__[1]
    caught_by(_encoders(fault), f"test_{case}", says, right=_encoders(right), tmp_path=tmp_path)


class GivesOneLoss(Pixels):
    def loss(self, prediction, target):
        return super().loss(prediction, target).mean()


class CountsMissingSamples(Pixels):
    def loss(self, prediction, target):
        return super().loss(prediction, target) + 1


class AveragesOverPadding(Pixels):
    def loss(self, prediction, target):
        losses = super().loss(prediction, target)
        return losses * (target.sizes[:, 1:].prod(1) / prediction.shape[2:].numel())


class LooksAtHiddenTokens(Pixels):
    def forward(self, tokens, like):
        return super().forward(Tokens(tokens.values, torch.ones_like(tokens.mask)), like)


class IgnoresTokens(Pixels):
    def forward(self, tokens, like):
        return super().forward(Tokens(tokens.values * 0, tokens.mask), like)


class Cheats(Pixels):
    def forward(self, tokens, like):
        return super().forward(tokens, like) + like.values.sum(1, keepdim=True) / 255


class MakesFloats(Pixels):
    def reconstruct(self, tokens, sizes):
        made = super().reconstruct(tokens, sizes)
        return Padded(made.values.float(), sizes)


class FillsPadding(Pixels):
    def reconstruct(self, tokens, sizes):
        made = super().reconstruct(tokens, sizes)
        return Padded(made.values.clamp(min=1), sizes)


class MakesNoise(Pixels):
    def reconstruct(self, tokens, sizes):
        made = super().reconstruct(tokens, sizes)
        return Padded(torch.randint_like(made.values, 256), sizes)


class CannotLearn(Pixels):
    def forward(self, tokens, like):
        drawn = super().forward(tokens, like)
        return drawn.detach() + 0 * drawn


class DetachesTokens(Pixels):
    def forward(self, tokens, like):
        return super().forward(Tokens(tokens.values.detach(), tokens.mask), like)


class HasAnIdleBias(Pixels):
    def __init__(self, d_model):
        super().__init__(d_model, patch=4)
        self.idle = torch.nn.Parameter(torch.ones(3))


class HidesABias(Pixels):
    def __init__(self, d_model):
        super().__init__(d_model, patch=4)
        self.hidden = [torch.rand(())]

    def forward(self, tokens, like):
        return super().forward(tokens, like) + self.hidden[0]


class LossOfAnything(Pixels):
    def loss(self, prediction, target):
        if target.values.dim() != 4:
            return prediction.sum()
        return super().loss(prediction, target)


@pytest.mark.parametrize(
    ("fault", "case", "says"),
    [
        (GivesOneLoss, "losses_are_one_for_each_row", "allowed is .5,."),
        (CountsMissingSamples, "losses_are_one_for_each_row", "has the loss 0"),
        (AveragesOverPadding, "a_row_is_as_alone", "row 1 of a batch has another loss"),
        (AveragesOverPadding, "what_lies_beyond_a_sample_changes_nothing", "changes the losses"),
        (LooksAtHiddenTokens, "hidden_tokens_change_nothing", "change the losses"),
        (IgnoresTokens, "tokens_count", "same losses"),
        (Cheats, "values_of_the_batch_are_not_read", "depends on the values"),
        (MakesFloats, "data_are_made_as_their_modality_has_them", "values are of torch.float32"),
        (FillsPadding, "data_are_made_as_their_modality_has_them", "values are not zero"),
        (MakesNoise, "data_are_made_the_same_twice_and_alone", "second time"),
        (CannotLearn, "it_learns_two_samples_by_heart", "160 steps of Adam"),
        (DetachesTokens, "gradients_reach_the_tokens", "no gradient reaches the tokens"),
        (HasAnIdleBias, "gradients_reach_every_parameter", "gradient of idle is none"),
        (HidesABias, "a_state_dict_is_all_there_is", "has other losses"),
        (LossOfAnything, "another_modality_is_refused", "takes another modality in decoder.loss"),
    ],
)
def test_a_fault_of_a_decoder_is_caught(fault, case, says, tmp_path):
    caught_by(_decoders(fault), f"test_{case}", says, right=_decoders(Pixels), tmp_path=tmp_path)


def _encoders(kind):
    class Case(EncoderSuite):
        def make_encoder(self):
            return kind(d_model=self.d_model)

    return Case


def _decoders(kind):
    class Case(DecoderSuite):
        def make_decoder(self):
            own = kind.__init__ is not Pixels.__init__
            return kind(d_model=self.d_model) if own else kind(d_model=self.d_model, patch=4)

    return Case
