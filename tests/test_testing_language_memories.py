"""The suite of memories of language models passes a correct one and catches each of these faults."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from helix_kernel.testing.faults import caught_by
from helix_kernel.testing.language_memories import LanguageMemorySuite


class Successors(nn.Module):
    """Counts which id follows which, and adds it to what a model expects; each fault breaks one thing."""

    def __init__(self, vocab_size):
        super().__init__()
        self.register_buffer("counts", torch.zeros(vocab_size, vocab_size))

    def init_state(self, batch_size):
        return torch.full((batch_size, 1), -1)

    def mix(self, logits, ids, features, state):
        mixed = self.expected(logits, ids)
        if self.training:
            self.remember(ids)
        return mixed.log(), torch.cat([state, ids], 1)[:, -1:]

    def expected(self, logits, ids):
        weight = 8.0
        return (logits.softmax(-1) + weight * self.shares()[ids]) / (1 + weight * self.known()[ids])

    def shares(self):
        return self.counts / self.counts.sum(-1, keepdim=True).clamp(min=1)

    def known(self):
        return (self.counts.sum(-1, keepdim=True) > 0).float()

    def remember(self, ids):
        self.counts.index_put_((ids[:, :-1], ids[:, 1:]), torch.ones(()), accumulate=True)


class NoProbabilities(Successors):
    def expected(self, logits, ids):
        return super().expected(logits, ids) * 2


class ForgetsAll(Successors):
    def remember(self, ids):
        pass


class AveragesRows(Successors):
    def expected(self, logits, ids):
        return super().expected(logits, ids).mean(0, keepdim=True).expand_as(logits)


class RemembersRowByRow(Successors):
    def mix(self, logits, ids, features, state):
        rows = [
            super(RemembersRowByRow, self).mix(
                *(each[row : row + 1] for each in (logits, ids, features, state))
            )
            for row in range(len(ids))
        ]
        return tuple(torch.cat(each) for each in zip(*rows, strict=True))


class LooksAhead(Successors):
    def expected(self, logits, ids):
        return super().expected(logits, ids.roll(-1, dims=1))


class LosesState(Successors):
    def mix(self, logits, ids, features, state):
        return super().mix(logits, ids, features, state)[0], ids[:, :1]


class AlwaysRemembers(Successors):
    def mix(self, logits, ids, features, state):
        self.remember(ids)
        return super().mix(logits, ids, features, state)


class HidesItsCounts(Successors):
    def __init__(self, vocab_size):
        super().__init__(vocab_size)
        counts = self.counts
        del self.counts
        self.register_buffer("counts", counts, persistent=False)


class CutsTheGradient(Successors):
    def expected(self, logits, ids):
        return super().expected(logits.detach(), ids)


def suite_of(memory):
    class Suited(LanguageMemorySuite):
        def make_memory(self):
            return memory(self.vocab_size)

    return Suited


class TestSuccessors(LanguageMemorySuite):
    def make_memory(self):
        return Successors(self.vocab_size)


@pytest.mark.parametrize(
    ("fault", "case", "says"),
    [
        (NoProbabilities, "test_what_comes_out_are_log_probabilities", "sum to .* not to 1"),
        (ForgetsAll, "test_what_recurs_becomes_likelier", "like what was read costs"),
        (AveragesRows, "test_each_row_is_answered_as_if_it_came_alone", "row 0 alone"),
        (RemembersRowByRow, "test_a_batch_is_read_before_it_is_remembered", "knows the first"),
        (LooksAhead, "test_chunks_give_what_the_whole_gives", "other probabilities"),
        (LosesState, "test_chunks_give_what_the_whole_gives", "state after the chunks"),
        (AlwaysRemembers, "test_evaluation_remembers_nothing", "a second time"),
        (HidesItsCounts, "test_a_state_dict_holds_the_memory", "another's state_dict"),
        (CutsTheGradient, "test_the_model_learns_through_the_memory", "gradient|require grad"),
    ],
    ids=lambda each: each.__name__ if isinstance(each, type) else "",
)
def test_a_fault_is_caught(fault, case, says, tmp_path):
    caught_by(suite_of(fault), case, says, right=TestSuccessors, tmp_path=tmp_path)
