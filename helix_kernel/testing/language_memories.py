"""The conformance suite of memories of language models: what every tier with `mix` must do.

Subclass `LanguageMemorySuite`, give it a memory, and pytest runs the rest::

    class TestHierarchy(LanguageMemorySuite):
        def make_memory(self):
            return Hierarchy(motifs=Motifs, d_model=self.d_model, vocab_size=self.vocab_size)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_kernel.testing.plain_state import same
from helix_kernel.testing.suite import Suite

if TYPE_CHECKING:
    from torch import Tensor


class LanguageMemorySuite(Suite):
    """Pytest class of the protocol `helix_kernel.memory.LanguageMemory`.

    Attributes:
        d_model: Width of the features that the memory is given.
        vocab_size: Number of its ids.
    """

    d_model = 8
    vocab_size = 11
    supplies = ("d_model", "vocab_size")

    def make_memory(self) -> Any:
        """Return a new, empty memory for the suite's `d_model` and `vocab_size`."""
        return self.build(d_model=self.d_model, vocab_size=self.vocab_size)

    def test_what_comes_out_are_log_probabilities(self) -> None:
        import torch

        for training in (False, True):
            mixed, _ = self._asked(self._taught().train(training), self._ids(3, 20, seed=9))
            assert mixed.shape == (3, 20, self.vocab_size), f"mix() returns shape {tuple(mixed.shape)}"
            total = mixed.exp().sum(-1)
            assert torch.allclose(total, torch.ones_like(total), atol=1e-5), (
                f"probabilities sum to {float(total.min())} to {float(total.max())}, not to 1"
            )

    def test_what_recurs_becomes_likelier(self) -> None:
        ids = self._ids(2, 40, seed=9)
        costs = [self._cost(memory, ids) for memory in (self.make_memory().eval(), self._taught())]
        assert costs[1] < costs[0] - 0.1, f"text like what was read costs {costs[1]} nats, {costs[0]} before"

    def test_each_row_is_answered_as_if_it_came_alone(self) -> None:
        memory, ids = self._taught(), self._ids(3, 20, seed=9)
        together, _ = self._asked(memory, ids)
        for row in range(len(ids)):
            alone, _ = self._asked(memory, ids[row : row + 1])
            assert _close(alone[0], together[row]), f"row {row} alone is answered otherwise than among others"

    def test_a_batch_is_read_before_it_is_remembered(self) -> None:
        memory = self._taught().train()
        mixed, _ = self._asked(memory, self._ids(1, 20, seed=9).repeat(2, 1))
        assert _close(mixed[0], mixed[1]), "the second of two equal rows knows the first"

    def test_chunks_give_what_the_whole_gives(self) -> None:
        import torch

        memory, ids = self._taught(), self._ids(2, 20, seed=9)
        whole, after = self._asked(memory, ids)
        parts, state = [], memory.init_state(2)
        for start, end in ((0, 7), (7, 8), (8, 20)):
            mixed, state = memory.mix(*self._given(ids, slice(start, end)), state)
            parts.append(mixed)
        assert _close(torch.cat(parts, 1), whole), "chunks give other probabilities than the whole"
        assert same(after, state), "the state after the chunks is another than after the whole"

    def test_evaluation_remembers_nothing(self) -> None:
        memory, ids = self._taught(), self._ids(2, 20, seed=9)
        first, _ = self._asked(memory, ids)
        again, _ = self._asked(memory, ids)
        assert first.equal(again), "in evaluation, the same question is answered otherwise a second time"

    def test_a_state_dict_holds_the_memory(self) -> None:
        memory, other, ids = self._taught(), self.make_memory(), self._ids(2, 20, seed=9)
        other.load_state_dict(memory.state_dict())
        for training in (False, True, False):
            answers = [self._asked(each.train(training), ids)[0] for each in (memory, other)]
            assert answers[0].equal(answers[1]), "a memory with another's state_dict answers otherwise"

    def test_the_model_learns_through_the_memory(self) -> None:
        memory, ids = self._taught().train(), self._ids(2, 20, seed=9)
        logits, _, features = self._given(ids, slice(None))
        logits.requires_grad_()
        memory.mix(logits, ids, features, memory.init_state(2))[0][..., 0].sum().backward()
        assert logits.grad is not None, "the logits have no gradient"
        assert logits.grad.any(), "the gradient of the logits is 0 everywhere"

    def _taught(self) -> Any:
        memory = self.make_memory().train()
        for seed in range(4):
            self._asked(memory, self._ids(4, 40, seed=seed))
        return memory.eval()

    def _cost(self, memory: Any, ids: Tensor) -> float:
        mixed, _ = self._asked(memory, ids)
        return -float(mixed[:, :-1].gather(-1, ids[:, 1:, None]).mean())

    def _asked(self, memory: Any, ids: Tensor) -> tuple[Tensor, Any]:
        mixed, state = memory.mix(*self._given(ids, slice(None)), memory.init_state(len(ids)))
        return mixed.detach(), state

    def _given(self, ids: Tensor, places: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return a model's logits, the ids and its features at some places: of an id each."""
        import torch

        generator = torch.Generator().manual_seed(0)
        logits, features = (
            torch.randn(self.vocab_size, width, generator=generator)[ids[:, places]]
            for width in (self.vocab_size, self.d_model)
        )
        return logits, ids[:, places], features

    def _ids(self, *shape: int, seed: int) -> Tensor:
        """Return a walk over the ids of which most steps are the same."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        return torch.where(torch.rand(shape, generator=generator) < 0.2, 5, 1).cumsum(-1) % self.vocab_size


def _close(first: Tensor, second: Tensor) -> bool:
    import torch

    return torch.allclose(first, second, rtol=1e-5, atol=1e-6)
