"""A loader's batches are the same whoever makes them, and its workers neither linger nor run ahead."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from other_datasets import Drawing, Logging, Misbehaving, Unsendable

from helix_data.loading.prefetch import Prefetch
from helix_kernel import default_kernel
from helix_kernel.errors import ArgumentError, DataError, HelixError

SUPPORT = Path(__file__).parent / "support"


def batches(dataset, first, last, **options):
    return Prefetch(dataset=dataset, seed=7, **options).batches(first, last)


def same(left, right):
    return pickle.dumps(plain(left)) == pickle.dumps(plain(right))


def plain(drawn):
    return drawn.inputs.tolist(), drawn.targets.tolist(), drawn.place, drawn.number


def generators():
    return pickle.dumps((random.getstate(), np.random.get_state(), torch.get_rng_state().tolist()))


@pytest.fixture(scope="module")
def inline():
    """The batches of steps 0 to 11, made in this process."""
    return list(batches(Drawing(), 0, 12, rank=1, world_size=2))


@pytest.mark.parametrize(("workers", "prefetch"), [(1, 1), (1, 3), (2, 2), (4, 1)])
def test_workers_give_what_this_process_does_to_the_bit(inline, workers, prefetch):
    before = generators()
    made = list(batches(Drawing(), 0, 12, rank=1, world_size=2, workers=workers, prefetch=prefetch))
    assert generators() == before
    assert len(made) == 12
    assert all(map(same, made, inline))


def test_a_run_goes_on_with_another_number_of_workers(inline):
    parts = [(0, 3, 2), (3, 4, 1), (4, 4, 2), (4, 9, 0), (9, 12, 3)]
    made = [
        batch
        for first, last, workers in parts
        for batch in batches(Drawing(), first, last, rank=1, world_size=2, workers=workers)
    ]
    assert len(made) == 12
    assert all(map(same, made, inline))


def test_what_draws_before_and_between_does_not_matter(inline):
    for number, batch in enumerate(batches(Drawing(), 0, 12, rank=1, world_size=2)):
        torch.randn(1 + number), np.random.random(), random.random()
        assert same(batch, inline[number])


def test_batches_come_in_order_whatever_their_size(tmp_path):
    made = list(batches(Logging(tmp_path / "log", 100), 0, 20, workers=2, prefetch=3))
    assert [(int(batch[0]), len(batch)) for batch in made] == [
        (step, 100 * (1 + step % 3)) for step in range(20)
    ]
    # Each lies in memory of its own: no later one was written over it.
    assert all(bool((batch == batch[0]).all()) for batch in made)


def test_a_batch_can_be_written_to():
    for batch in batches(Drawing(), 0, 3, workers=1):
        batch.inputs.zero_()
        batch.targets[:] = 0


@pytest.mark.parametrize(("workers", "prefetch"), [(1, 1), (2, 3)])
def test_a_slow_consumer_is_not_run_ahead_of(tmp_path, workers, prefetch):
    dataset = Logging(tmp_path / "log")
    made = batches(dataset, 0, 100, workers=workers, prefetch=prefetch)
    for taken in range(1, 6):
        next(made)
        ahead = workers * prefetch if taken > 1 else 0
        deadline = time.monotonic() + 30
        while dataset.made < taken + ahead and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert dataset.made == taken + ahead
    made.close()


def test_closing_early_leaves_no_process(tmp_path):
    made = batches(Logging(tmp_path / "log"), 0, 1000, workers=2)
    list(islice(made, 5))
    assert len(multiprocessing.active_children()) == 2
    begun = time.monotonic()
    made.close()
    assert time.monotonic() - begun < 5
    assert multiprocessing.active_children() == []


def test_a_worker_that_hangs_is_killed_when_the_iterator_is_closed():
    made = batches(Misbehaving("hang", 2), 0, 10, workers=1)
    list(islice(made, 2))
    begun = time.monotonic()
    made.close()
    assert time.monotonic() - begun < 5
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("deed", "options", "kind", "says"),
    [
        ("fail", {}, HelixError, "batch 4: KeyError: 'a word that is not in the list'"),
        ("blame_the_data", {}, DataError, "batch 4: DataError: corpus.txt: line 7 is no JSON"),
        ("raise_what_cannot_be_sent", {}, HelixError, "batch 4: RuntimeError: <function"),
        ("return_what_cannot_be_sent", {}, HelixError, "batch 4: AttributeError: Can't pickle local object"),
        ("kill_itself", {}, HelixError, "batch 4: the process that was making it was killed by SIGKILL"),
        ("leave", {}, HelixError, "batch 4: the process that was making it ended with exit code 5"),
        (
            "hang",
            {"timeout": 0.5},
            HelixError,
            "batch 4: its worker has not made it within loader.timeout=0.5",
        ),
    ],
)
def test_what_befalls_a_worker_is_told_with_the_step(deed, options, kind, says):
    made = batches(Misbehaving(deed, 4), 0, 10, workers=2, **options)
    assert [int(batch) for batch in islice(made, 4)] == [0, 1, 2, 3]
    with pytest.raises(kind) as caught:
        next(made)
    assert str(caught.value).startswith(says)
    assert type(caught.value) is kind
    assert multiprocessing.active_children() == []


def test_a_failure_in_a_worker_tells_where_in_its_code():
    with pytest.raises(HelixError) as caught:
        list(batches(Misbehaving("fail", 1), 0, 2, workers=1))
    assert "other_datasets.py" in str(caught.value.__cause__)


def test_a_worker_killed_from_outside_is_noticed(tmp_path):
    made = batches(Logging(tmp_path / "log"), 0, 1000, workers=2, prefetch=1)
    list(islice(made, 3))
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    with pytest.raises(HelixError, match="SIGKILL"):
        list(made)
    assert multiprocessing.active_children() == []


def test_a_dataset_that_cannot_be_sent_is_refused():
    with pytest.raises(ArgumentError, match="Unsendable cannot"):
        list(batches(Unsendable(), 0, 3, workers=1))
    assert list(batches(Unsendable(), 0, 3)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"workers": -1}, "loader.workers is -1, allowed is >= 0"),
        ({"prefetch": 0}, "loader.prefetch is 0, allowed is >= 1"),
        ({"timeout": -1.0}, "loader.timeout is -1.0, allowed is >= 0"),
        ({"timeout": float("nan")}, "loader.timeout is nan, allowed is >= 0"),
    ],
)
def test_an_argument_out_of_range_is_refused(options, says):
    with pytest.raises(ArgumentError) as caught:
        Prefetch(dataset=Drawing(), seed=0, **options)
    assert str(caught.value) == says


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to lock pages for")
def test_without_a_gpu_no_memory_is_locked():
    with pytest.raises(ArgumentError, match="torch sees no GPU"):
        Prefetch(dataset=Drawing(), seed=0, pin_memory=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU to lock pages for")
@pytest.mark.parametrize("workers", [0, 1])
def test_memory_is_locked_for_a_gpu(workers):
    made = list(batches(Drawing(), 0, 3, workers=workers, pin_memory=True))
    assert all(batch.inputs.is_pinned() for batch in made)
    assert all(map(same, made, batches(Drawing(), 0, 3)))


def test_the_kernel_builds_it_for_a_trainer():
    loader = default_kernel().build(
        "loader", {"use": "prefetch"}, dataset=Drawing(), seed=1, rank=0, world_size=1
    )
    assert loader.workers == 0
    assert [batch.place for batch in loader.batches(3, 5)] == [(1, 3, 0), (1, 4, 0)]


@pytest.mark.slow
def test_ctrl_c_is_the_trainers_alone_and_a_dead_trainer_leaves_no_worker(tmp_path):
    """A whole process group gets SIGINT, as from a terminal; then the trainer is killed."""
    program = (
        "import signal, time; from pathlib import Path; from other_datasets import Logging\n"
        "from helix_data.loading.prefetch import Prefetch\n"
        "if __name__ == '__main__':\n"
        "    seen = []; signal.signal(signal.SIGINT, lambda *_: seen.append(1))\n"
        f"    loader = Prefetch(dataset=Logging(Path({str(tmp_path / 'log')!r})), seed=0, workers=2)\n"
        "    made = loader.batches(0, 10**6); next(made), next(made)\n"
        "    from multiprocessing import active_children\n"
        "    print(*[child.pid for child in active_children()], flush=True)\n"
        "    while not seen: time.sleep(0.01)\n"
        "    for _ in range(20): next(made)\n"
        "    print('went on', flush=True); time.sleep(600)\n"
    )
    script = tmp_path / "train.py"
    script.write_text(program)
    trainer = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
    )
    workers = [int(word) for word in trainer.stdout.readline().split()]
    os.killpg(trainer.pid, signal.SIGINT)
    went_on = trainer.stdout.readline()
    trainer.kill()
    assert (went_on, *trainer.communicate()) == ("went on\n", "", "")
    assert len(workers) == 2
    deadline = time.monotonic() + 30
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, workers))


def is_running(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
