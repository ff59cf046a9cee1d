"""How a run ends that is not let to its end: by a signal, a full disk, data that vanish."""

from __future__ import annotations

import errno
import io
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from helix_kernel.checkpoint import Checkpoint, CheckpointManager
from helix_kernel.errors import CheckpointError, DataError, HelixError
from helix_train.interruption import InterruptedRunError, Interruption, noticed_interruption
from helix_train.progress import Progress
from helix_train.run_file import read_run_file

DRAWING = {"model.use": "noisy", "model.dropout": 0.3, "data.draws": True, "trainer.accumulate": 2}


def fit(trainer):
    shown = io.StringIO()
    trainer.fit(Progress(shown))
    return shown.getvalue()


def at_step(trained, step, act):
    """Act once, in the forward pass of a step."""
    waiting = [act]

    def look(*_):
        if waiting and trained.step == step and trained.model.training:
            waiting.pop()()

    trained.model.register_forward_hook(look)


def digests(out, step):
    with Checkpoint.open(Path(out) / f"checkpoints/step-{step:08d}") as opened:
        return {name: opened.digest(name) for name in opened.arrays}


def steps(out):
    return CheckpointManager(Path(out) / "checkpoints").steps()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_step_leaves_a_checkpoint_and_costs_no_bit(trainer, tmp_path, number):
    before = signal.getsignal(number)
    fit(trainer({**DRAWING, "trainer.out": str(tmp_path / "whole")}))
    broken = {**DRAWING, "trainer.out": str(tmp_path / "broken")}
    trained = trainer(broken)
    at_step(trained, 2, lambda: signal.raise_signal(number))
    with pytest.raises(InterruptedRunError, match="interrupted after 3 of 6 steps") as caught:
        fit(trained)
    assert caught.value.__notes__ == [f"the last checkpoint: {trained.out / 'checkpoints/step-00000003'}"]
    assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) == before
    assert steps(trained.out) == [3]
    fit(trainer({**broken, "trainer.resume": True}))
    assert digests(tmp_path / "whole", 6) == digests(tmp_path / "broken", 6)
    lines = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "broken")]
    assert lines[0] == lines[1]


def test_a_second_ctrl_c_does_not_wait(trainer):
    trained = trainer()

    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    at_step(trained, 2, twice)
    with pytest.raises(KeyboardInterrupt):
        fit(trained)
    assert steps(trained.out) == []


def test_a_signal_in_the_last_step_only_ends_it_where_nothing_is_measured_after_it(trainer):
    trained = trainer({"data.n_held_out": 0})
    at_step(trained, 5, lambda: signal.raise_signal(signal.SIGTERM))
    fit(trained)
    assert steps(trained.out) == [6]


@pytest.mark.parametrize("validate_every", [0, 3])
def test_a_signal_in_the_last_validation_ends_it_and_a_resume_takes_it_up(trainer, tmp_path, validate_every):
    changes = {"trainer.validate_every": validate_every, "data.n_held_out": 200}
    fit(trainer({**changes, "trainer.out": str(tmp_path / "whole")}))
    broken = {**changes, "trainer.out": str(tmp_path / "broken")}
    trained = trainer(broken)
    measured = []

    def look(module, *_):
        if trained.step == 6 and not module.training:
            measured.append(trained.step)
            if len(measured) == 2:
                signal.raise_signal(signal.SIGTERM)

    trained.model.register_forward_hook(look)
    with pytest.raises(InterruptedRunError, match="interrupted after 6 of 6 steps"):
        fit(trained)
    assert len(measured) == 2
    assert trained.model.training
    assert steps(trained.out)[-1] == 6
    assert read_run_file(trained.out).status == "interrupted"
    fit(trainer({**broken, "trainer.resume": True}))
    lines = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "broken")]
    assert lines[0] == lines[1]
    assert digests(tmp_path / "whole", 6) == digests(tmp_path / "broken", 6)


def test_a_validation_that_is_not_the_last_is_not_cut_short_since_a_resume_would_lack_it(trainer, tmp_path):
    changes = {"trainer.validate_every": 3}
    fit(trainer({**changes, "trainer.out": str(tmp_path / "whole")}))
    broken = {**changes, "trainer.out": str(tmp_path / "broken")}
    trained = trainer(broken)
    waiting = [signal.SIGTERM]

    def look(module, *_):
        if waiting and trained.step == 3 and not module.training:
            signal.raise_signal(waiting.pop())

    trained.model.register_forward_hook(look)
    with pytest.raises(InterruptedRunError, match="interrupted after 4 of 6 steps"):
        fit(trained)
    fit(trainer({**broken, "trainer.resume": True}))
    lines = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "broken")]
    assert lines[0] == lines[1]


def test_another_thread_can_end_a_run_as_a_signal_would(trainer):
    trained = trainer()
    at_step(trained, 2, lambda: trained.interrupt(signal.SIGINT))
    with pytest.raises(InterruptedRunError, match="interrupted after 3 of 6 steps") as caught:
        fit(trained)
    assert caught.value.exit_code == 130
    assert steps(trained.out) == [3]


def test_a_program_that_exits_within_a_run_interrupts_it(trainer):
    trained = trainer()
    at_step(trained, 2, sys.exit)
    with pytest.raises(SystemExit):
        fit(trained)
    assert read_run_file(trained.out).status == "interrupted"


def test_the_config_of_a_run_is_whole_at_every_moment(trainer, monkeypatch):
    fit(trainer({"trainer.steps": 2}))
    trained = trainer({"trainer.steps": 3, "trainer.resume": True})
    before = (trained.out / "config.toml").read_text()

    def die(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("helix_kernel.checkpoint.durable.sync_descriptor", die)
    with pytest.raises(HelixError, match="No space left on device"):
        fit(trained)
    assert (trained.out / "config.toml").read_text() == before


def test_a_signal_while_validating_or_saving_is_taken_at_the_next_step(trainer, monkeypatch):
    trained = trainer({"trainer.checkpoint_every": 2})
    save = trained._manager.save

    def interrupted(*arguments, **named):
        if not steps(trained.out):
            signal.raise_signal(signal.SIGTERM)
        return save(*arguments, **named)

    monkeypatch.setattr(trained._manager, "save", interrupted)
    with pytest.raises(InterruptedRunError, match="after 3 of 6 steps"):
        fit(trained)
    assert steps(trained.out) == [2, 3]


def test_outside_the_main_thread_no_signal_is_caught():
    found = []

    def enter():
        before = signal.getsignal(signal.SIGINT)
        with noticed_interruption(Interruption()):
            found.append(signal.getsignal(signal.SIGINT) is before)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [True]


def test_a_disk_that_is_full_of_checkpoints_leaves_the_last_one_whole(trainer, monkeypatch):
    trained = trainer({"trainer.checkpoint_every": 2})
    full = OSError(errno.ENOSPC, "No space left on device")

    def fill():
        def refuse(*_):
            raise full

        monkeypatch.setattr("helix_kernel.checkpoint.directory.write_file", refuse)

    at_step(trained, 3, fill)
    with pytest.raises(CheckpointError, match="No space left on device") as caught:
        fit(trained)
    assert any("the last checkpoint: " in note and "step-00000002" in note for note in caught.value.__notes__)
    assert digests(trained.out, 2)


def test_a_disk_that_is_full_of_metrics_is_said_so(trainer):
    trained = trainer({"trainer.checkpoint_every": 2})

    class Full:
        def __init__(self):
            self.close = trained._reporter._recorder._metrics.close

        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device", str(trained.out / "metrics.jsonl"))

    at_step(trained, 3, lambda: setattr(trained._reporter._recorder, "_metrics", Full()))
    with pytest.raises(HelixError, match=r"metrics\.jsonl.*No space left on device") as caught:
        fit(trained)
    assert caught.value.exit_code == 1
    assert steps(trained.out) == [2]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
def test_a_disk_that_is_full_at_the_end_too_hides_neither_the_error_nor_how_the_run_ended(trainer):
    trained = trainer({"trainer.checkpoint_every": 2})

    def fill():
        recorder = trained._reporter._recorder
        recorder._metrics.close()
        recorder._metrics = Path("/dev/full").open("a", buffering=1)  # noqa: SIM115 - closed below

    at_step(trained, 3, fill)
    with pytest.raises(HelixError, match="No space left on device") as caught:
        fit(trained)
    assert any("step-00000002" in note for note in caught.value.__notes__)
    assert read_run_file(trained.out).status == "failed"
    assert trained._reporter._recorder._events.closed


def test_a_report_that_cannot_be_drawn_costs_a_line_and_no_logger_its_end(trainer, monkeypatch):
    def fail(_):
        raise ValueError("math domain error")

    trained = trainer({"trainer.loggers": [{"use": "csv"}]})
    monkeypatch.setattr("helix_train.reporting.write_report", fail)
    assert "not all files of the run are whole: ValueError: math domain error" in fit(trained)
    assert trained.options.loggers[0]._stream.closed


def test_metrics_that_cannot_be_read_stop_a_resume_with_their_line(trainer):
    fit(trainer({"trainer.steps": 2}))
    trained = trainer({"trainer.steps": 3, "trainer.resume": True})
    (trained.out / "metrics.jsonl").write_text("nonsense\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 1: not a JSON object with a step"):
        fit(trained)
    assert read_run_file(trained.out).status == "failed"


def test_data_that_vanish_end_the_run_and_the_last_checkpoint_is_named(trainer):
    trained = trainer({"trainer.checkpoint_every": 2})
    batch = trained.dataset.batch

    def vanish(*, seed, step):
        if step == 3:
            raise DataError("paths[0]='corpus.txt': the file has gone")
        return batch(seed=seed, step=step)

    trained.dataset.batch = vanish
    with pytest.raises(DataError, match="the file has gone") as caught:
        fit(trained)
    assert any("step-00000002" in note for note in caught.value.__notes__)


def test_a_step_that_takes_more_memory_than_there_is_says_what_takes_less(trainer):
    trained = trainer()

    def out_of_memory():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …")

    at_step(trained, 1, out_of_memory)
    with pytest.raises(HelixError, match=r"more memory than the device has .*lower data\.batch_size"):
        fit(trained)


def test_memory_of_the_cpu_that_runs_out_is_told_as_that_of_a_gpu_is(trainer):
    trained = trainer()
    at_step(trained, 1, lambda: torch.empty(2**60, dtype=torch.uint8))
    with pytest.raises(
        HelixError, match=r"more memory than the device has \(.*lower data\.batch_size"
    ) as caught:
        fit(trained)
    assert "enforce fail" not in str(caught.value)
    assert read_run_file(trained.out).status == "failed"


def test_memory_that_numpy_lacks_is_told_so_too(trainer):
    trained = trainer()
    at_step(trained, 1, lambda: np.empty(2**60, dtype=np.uint8))
    with pytest.raises(HelixError, match="more memory than the device has"):
        fit(trained)


def test_an_error_of_the_program_itself_stays_what_it_is(trainer):
    def fail():
        raise RuntimeError("shapes do not match")

    trained = trainer()
    at_step(trained, 1, fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        fit(trained)


def test_no_checkpoint_has_room_and_so_nothing_begins(trainer, monkeypatch):
    monkeypatch.setattr("helix_train.failures.disk_free", lambda path: 100)
    with pytest.raises(HelixError, match=r"has 100 bytes free, and a checkpoint takes [\d,]+; make room"):
        fit(trainer())
