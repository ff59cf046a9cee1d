"""Places one run on a Ray cluster, by Ray Train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.errors import HelixError, InputError
from helix_ray.ending import EndedRunError, fit_until_asked, request_in
from helix_ray.worker import has_checkpoints, train_worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from helix_kernel.config import Config

_TIMEOUT_S = 600
_SHOWN_CHARACTERS = 2000


@attrs.frozen(kw_only=True)
class Workers:
    """Who works on a run, and how often they may fail.

    Args:
        count: Processes that share each step.
        cpus: CPUs that each takes of the cluster.
        gpus: GPUs that each takes.
        max_failures: How often the group is started again after one of them died; -1: always.
    """

    count: int = 1
    cpus: float = 1
    gpus: float = 0
    max_failures: int = 3

    @property
    def resources(self) -> dict[str, float]:
        """What Ray is to reserve for each."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}


def train_on_ray(
    config: Config, workers: Workers, *, storage: str | None = None, locked: bool = False
) -> dict[str, Any]:
    """Train what a config describes with workers of the cluster that this process is connected to.

    A worker that dies ends its group; Ray starts it again, and it goes on from the newest checkpoint in
    ``trainer.out``, which all workers and this process must see as the same folder.

    Args:
        config: The checked config.
        workers: How many, with what.
        storage: Where Ray keeps its own records of the run; left out: ``ray`` in the run's directory.
        locked: Whether workers that something else serves than this process are refused.

    Returns:
        What the run came to: steps, held-out measures, the checkpoint and the metrics' file.

    Raises:
        InputError: ``trainer.out`` holds checkpoints that the run is not to go on from, or a worker raised
            an `InputError`.
        EndedRunError: SIGTERM or Ctrl-C came to this process; the workers wrote a checkpoint.
        HelixError: The run failed more often than `workers` allow.
    """
    from ray import train as ray_train
    from ray.train.torch import TorchConfig, TorchTrainer

    table = _with_absolute_out(config)
    out = Path(table["trainer"]["out"])
    if table["trainer"]["resume"] is False and has_checkpoints(out):
        raise InputError(
            f"trainer.out: {str(out)!r} holds checkpoints already; go on with trainer.resume=true, or choose "
            "another trainer.out"
        )
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "config": table,
            "folder": str(Path.cwd()),
            "record": config.record.as_dict() if locked else None,
        },
        torch_config=TorchConfig(
            backend="cpu:gloo,cuda:nccl" if workers.gpus else "gloo", timeout_s=_TIMEOUT_S
        ),
        scaling_config=ray_train.ScalingConfig(
            num_workers=workers.count, use_gpu=bool(workers.gpus), resources_per_worker=workers.resources
        ),
        run_config=ray_train.RunConfig(
            name="train",
            storage_path=absolute(storage) if storage else str(out / "ray"),
            failure_config=ray_train.FailureConfig(max_failures=workers.max_failures),
            logging_config=ray_train.LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        outcome: dict[str, Any] = fit_until_asked(lambda: trainer.fit().return_value, request_in(out))
    except ray_train.WorkerGroupError as error:
        raise _failure(error.worker_failures) from error
    except ray_train.TrainingFailedError as error:
        raise HelixError(f"Ray could not run the workers: {_first_line(error)}") from error
    if "ended" in outcome:
        raise EndedRunError(outcome["ended"], outcome["exit_code"])
    return outcome


def absolute(place: str) -> str:
    """Return a folder's full path; the address of an object store as it is."""
    return place if "://" in place else str(Path(place).resolve())


def cause_of(error: BaseException) -> BaseException:
    """Return what the training itself raised, out of Ray's wrappings."""
    for name in ("_base_exc", "cause"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException):
            return cause_of(inner)
    return error


def _with_absolute_out(config: Config) -> dict[str, Any]:
    """Return the frozen table, whose ``trainer.out`` means the same folder wherever a worker starts."""
    table = config.to_dict()
    trainer = {**table["trainer"], "out": str(Path(table["trainer"]["out"]).resolve())}
    return {**table, "trainer": trainer}


def _failure(by_rank: Mapping[int, BaseException]) -> HelixError:
    """Return as one error what workers raised, the same text told once."""
    causes = {rank: cause_of(error) for rank, error in sorted(by_rank.items())}
    wrong_input = [error for error in causes.values() if isinstance(error, InputError)]
    if wrong_input:
        return InputError(str(wrong_input[0]))
    texts: dict[str, int] = {}
    for rank, error in causes.items():
        texts.setdefault(str(error)[:_SHOWN_CHARACTERS] or type(error).__name__, rank)
    told = "\n  ".join(f"worker {rank}: {text}" for text, rank in texts.items())
    return HelixError(
        f"the run failed:\n  {told}\nWhat was saved is whole: mend the cause and go on with the same command "
        "and trainer.resume=true"
    )


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
