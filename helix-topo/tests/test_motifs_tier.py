"""The motifs predict as their definition says, row by row and place by place, within their budget."""

from __future__ import annotations

import copy

import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_topo.motifs.reference import ReferenceMotifs
from helix_topo.motifs.tier import Motifs

ORDERS = (1, 2, 3, 4, 6, 12)
SMALL = 1 << 20


def text(n, *, seed=0):
    """Return `n` symbols of words that recur, as ids."""
    draw = torch.Generator().manual_seed(seed)
    words = [bytes(torch.randint(97, 123, (length,), generator=draw).tolist()) for length in range(1, 25)]
    chosen = torch.randint(len(words), (n,), generator=draw).tolist()
    return torch.tensor(list(b" ".join(words[i] for i in chosen)[:n]))


def nothing(rows=1):
    return torch.full((rows, 1), -1)


def test_bits_are_those_of_the_definition():
    ids = text(2500)
    wanted = torch.tensor(ReferenceMotifs(ORDERS).bits(ids.tolist()))
    bits = Motifs(orders=ORDERS, budget=16 << 20).score(ids)
    torch.testing.assert_close(bits, wanted, rtol=2e-3, atol=2e-3)
    assert bits.mean() < 2.5, "what recurs is not learned, so the comparison says little"


def test_a_stream_predicts_as_the_definition_and_says_which_motif():
    ids, model = text(700), ReferenceMotifs(ORDERS)
    found = Motifs(orders=ORDERS, budget=16 << 20).advance(ids[None], nothing(), write=True, order="stream")
    model.read()
    for place, symbol in enumerate(ids.tolist()):
        model.write(symbol)
        wanted = torch.tensor(model.read())
        torch.testing.assert_close(found.prediction.probabilities[place], wanted, rtol=5e-3, atol=1e-4)
        if model.motif:
            assert found.length[place] == len(model.motif)
        assert (found.motif[place] >= 0) == (found.length[place] > 0)


def test_a_context_that_came_again_is_a_motif_though_longer_ones_counted_for_it():
    memory = Motifs(orders=(1, 2, 8, 24))
    memory.score(torch.tensor(list(b"the cat sat on the mat. " * 3)))
    found = memory.advance(torch.tensor([list(b"on the ma")]), nothing(), write=False)
    assert found.length.tolist() == [0, 2, 2, 2, 2, 2, 2, 8, 8]
    assert (found.count[1:] >= 2).all()


def test_a_motif_has_one_id_wherever_it_comes():
    memory = Motifs(orders=(2, 4))
    for _ in range(2):
        memory.score(torch.tensor(list(b"the cat, the dog")))
    found = memory.advance(
        torch.tensor([list(b"xthe"), list(b"athe"), list(b"cdog")]), nothing(3), write=False
    )
    last = found.motif.view(3, 4)[:, -1]
    assert last[0] == last[1]
    assert last[0] != last[2]


def test_a_batch_reads_the_memory_as_it_was_and_each_row_as_if_alone():
    memory = Motifs(orders=ORDERS)
    memory.score(text(3000))
    rows, before = text(600, seed=4).view(6, 100), nothing(6)
    alone = [memory.advance(row[None], before[:1], write=False).prediction for row in rows]
    for write in (False, True):
        found = copy.deepcopy(memory).advance(rows, before, write=write).prediction
        assert found.probabilities.equal(torch.cat([each.probabilities for each in alone]))
        assert found.bucket.equal(torch.cat([each.bucket for each in alone]))


def test_rows_that_were_written_before_are_neither_written_nor_learned_from_again():
    memory, rows = Motifs(orders=ORDERS), text(800, seed=5).view(4, 200)
    memory.score(text(1000))
    # A row is known by its longest contexts only after it was written, whatever of it recurs.
    fresh = torch.randint(256, (4, 200), generator=torch.Generator().manual_seed(0))
    rows = torch.cat([rows[:, :60], fresh[:, :140]], 1)
    assert not memory.advance(rows, nothing(4), write=True).repeated.any()
    before = copy.deepcopy(memory.state_dict())
    assert memory.advance(rows, nothing(4), write=True).repeated.all()
    changed = [name for name, table in memory.state_dict().items() if not table.equal(before[name])]
    assert changed == ["counters"]
    mixed = torch.cat([rows[:1], fresh.flip(1)[:1]])
    assert memory.advance(mixed, nothing(2), write=True).repeated.tolist() == [True, False]
    assert memory.counters.tolist()[3] == 5


def test_what_comes_before_nothing_does_not_count():
    memory, row = Motifs(orders=ORDERS), torch.tensor([list(b"cat")])
    memory.score(torch.tensor(list(b"the cat sat on the mat. " * 9)))
    wanted, cut = (
        memory.advance(row, torch.tensor([before]), write=False).prediction.probabilities
        for before in ([-1], [*b"at. the ", -1])
    )
    assert cut.equal(wanted)


@pytest.mark.parametrize("order", ["batch", "stream"])
@pytest.mark.parametrize("before", [[*b"at. the ", -1], [-1, -1, -1], [*b"the", -1, *b"the", -1]])
def test_no_context_reaches_over_nothing(before, order):
    whole, cut = Motifs(orders=ORDERS), Motifs(orders=ORDERS)
    for turn in range(4):
        row = torch.tensor([[*b"cat sat on", 97 + turn]])  # never a row that was written before
        wanted = whole.advance(row, nothing(), write=True, order=order)
        found = cut.advance(row, torch.tensor([before]), write=True, order=order)
        assert (found.length <= torch.arange(1, 12)).all()
        assert found.motif.equal(wanted.motif)
        assert found.prediction.probabilities.equal(wanted.prediction.probabilities)
    assert wanted.length.max() >= 6, "nothing long was known, so the test says little"
    changed = [name for name, table in whole.state_dict().items() if not table.equal(cut.state_dict()[name])]
    assert not changed


def test_reading_changes_nothing():
    memory = Motifs(orders=ORDERS)
    memory.score(text(2000))
    before = copy.deepcopy(memory.state_dict())
    memory.advance(text(300, seed=1)[None], nothing(), write=False)
    assert all(tensor.equal(before[name]) for name, tensor in memory.state_dict().items())


def test_a_row_in_pieces_is_as_the_row():
    memory, row = Motifs(orders=ORDERS), text(300, seed=2)
    memory.score(text(3000))
    whole = memory.advance(row[None], nothing(), write=False)
    before = torch.full((1, memory.window), -1)
    for first, stop in ((0, 1), (1, 40), (40, 41), (41, 300)):
        found = memory.advance(row[None, first:stop], before, write=False)
        assert found.prediction.probabilities.equal(whole.prediction.probabilities[first:stop])
        assert found.motif.equal(whole.motif[first:stop])
        before = torch.cat([before, row[None, first:stop]], 1)[:, -memory.window :]


@pytest.mark.parametrize("blend", ["cascade", "longest"])
def test_predictions_are_distributions_and_their_buckets_are_in_range(blend):
    memory = Motifs(orders=ORDERS, blend=blend)
    assert not memory.advance(text(9)[None], nothing(), write=False).prediction.probabilities.any()
    memory.score(text(3000))
    found = memory.advance(text(500, seed=1)[None], nothing(), write=False).prediction
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(500))
    assert found.bucket.min() >= 1
    assert found.bucket.max() < memory.n_buckets


def test_a_full_memory_keeps_to_its_budget_and_goes_on_predicting():
    memory = Motifs(orders=ORDERS, budget=SMALL)
    bits = memory.score(torch.randint(256, (60_000,), generator=torch.Generator().manual_seed(0)))
    assert bits.isfinite().all()
    assert memory.counters[2] > 0, "nothing gave way, so the test says little"
    assert sum(table.nbytes for table in memory.buffers()) <= SMALL
    assert memory.score(text(3000))[-1000:].mean() < 2.5


def test_symbols_beyond_bytes_are_remembered():
    ids = torch.randint(50_000, (50,), generator=torch.Generator().manual_seed(0)).repeat(4)
    memory = Motifs(orders=ORDERS, vocab_size=50_000)
    assert memory.score(ids)[-50:].mean() < 0.5


def test_a_model_that_goes_elsewhere_leaves_the_tables_as_they_are():
    memory = Motifs(orders=ORDERS)
    memory.score(text(500))
    before = copy.deepcopy(memory.state_dict())
    memory.half().to(torch.bfloat16)
    assert all(tensor.dtype == before[name].dtype for name, tensor in memory.state_dict().items())


@pytest.mark.parametrize(
    ("ids", "context", "says"),
    [
        (torch.zeros(3, dtype=torch.int64), nothing(), "allowed is .B, L."),
        (torch.zeros(2, 3, dtype=torch.int64), nothing(), "allowed is .B, L."),
        (torch.full((1, 3), 256), nothing(), "allowed is 0 to 255"),
        (torch.full((1, 3), -1), nothing(), "allowed is 0 to 255"),
    ],
)
def test_wrong_ids_are_refused(ids, context, says):
    with pytest.raises(ArgumentError, match=says):
        Motifs().advance(ids, context, write=True)


def test_orders_that_do_not_rise_are_refused():
    with pytest.raises(ArgumentError, match=r"orders is \[2, 1\]"):
        Motifs(orders=(2, 1))
