"""The trainer: a loop that reads top to bottom, and an exact resume."""

from __future__ import annotations

import math
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from helix_kernel.checkpoint.durable import replace_file
from helix_train.accumulation import Accumulation
from helix_train.assembly import assemble
from helix_train.batches import Batches
from helix_train.callbacks.base import Gradients, Verdict
from helix_train.checkpoint_size import checkpoint_size
from helix_train.clipping import Clipping
from helix_train.config import TrainerConfig
from helix_train.determinism import deterministic_algorithms
from helix_train.evaluation import Evaluation, evaluate_dataset
from helix_train.failures import check_disk, not_finite, told_failures
from helix_train.interruption import InterruptedRunError, Interruption, noticed_interruption
from helix_train.metrics.several import Metrics
from helix_train.profiling import Profiler
from helix_train.provenance import WallTime, provenance
from helix_train.ranks import Standing, join
from helix_train.records import StepReport
from helix_train.reporting import Measured, RunFacts, run_info
from helix_train.result import Result
from helix_train.resume import Start, find_start
from helix_train.rollbacks import remember_rollback, remembered_reseeds
from helix_train.samples import samples_of
from helix_train.saving import Learner, averaged_in_place, averaged_weights, open_manager
from helix_train.saving import Place as Stand
from helix_train.speed import count_flops
from helix_train.state import kept_rngs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from helix_kernel.checkpoint.location import Place
    from helix_train.objective import Losses
    from helix_train.progress import Progress


class Trainer:
    """Trains the model of a config: forward, loss, backward, clip, step.

    Args:
        options: What to train, for how long, and what to keep of it.

    Raises:
        ArgumentError: The device does not exist, or what `assemble` raises.
        InputError: What `find_start` raises about ``resume`` and ``out``.
        CheckpointError: What `load_initial_weights` raises.
    """

    def __init__(self, options: TrainerConfig) -> None:
        self.options = options
        self.config = options.config
        self.steps = options.steps
        self.seed = options.seed
        self.out = Path(options.out)
        self.ranks = join(options.parallel, options.device)
        self.start = self._find_start(options.resume)
        self._parts = assemble(options, self.ranks, resumes=self.start is not None)
        self.dataset, self.model = self._parts.dataset, self._parts.model
        self.optimizer, self.schedule = self._parts.optimizer, self._parts.schedule
        self.loss = self._parts.objective.loss
        self.callbacks = options.callbacks
        self.step = 0
        self._batches = Batches(
            self.config, self.dataset, seed=self.seed, rank=self.ranks.rank, world_size=self.ranks.world_size
        )
        self._accumulation = Accumulation(self._parts, self._batches, self.ranks, options)
        self._learner = Learner(
            model=self.model,
            optimizer=self.optimizer,
            precision=self._parts.precision,
            ranks=self.ranks,
            callbacks=self.callbacks,
        )
        self._parameters, self._measured = list(self.model.parameters()), Measured(self.model)
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self._clipping = Clipping(
            adaptive=options.clip_adaptive, value=options.clip_value, norm=options.clip_norm
        )
        self._manager = open_manager(options, self.ranks)
        self._checkpoint: Place = self.out / "checkpoints"
        self._wall_time = WallTime(self.start.attributes.get("wall_time", 0.0) if self.start else 0.0)
        self._stand = Stand()
        self._metrics = Metrics(options.metrics)
        self._profiler = Profiler(options.profile_steps, self.out / "profile", self.note)
        self._interruption = Interruption()
        self._ending = ""
        self._logged: dict[str, float] = {}

    def fit(self, progress: Progress) -> Result:
        """Train to the last step, evaluating and saving on the way, and draw the loss curve.

        Args:
            progress: Shows what happens.

        Raises:
            HelixError: The loss, its gradient or the weights are no longer finite; checkpoints stay as
                they were, and there is none of such a step.
            InterruptedRunError: SIGTERM or Ctrl-C came; a checkpoint was written.
            IncompatibleCheckpointError: The checkpoint to resume from does not fit this config.
        """
        with self._running(progress):
            self.model.train()
            for callback in self.callbacks:
                callback.begin(self)
            self._take_up_rollbacks()
            evaluation = None
            while self.step < self.steps and not self._ending:
                self._profiler.before(self.step + 1)
                rate = self._set_learning_rate()
                losses = self._accumulation.next_step()
                norm = self._clipping(self._parameters)
                loss = float(losses.total)
                standing = self._judge(loss, norm, rate, self._interruption.signum)
                if standing.verdict is Verdict.ROLL_BACK:
                    self._roll_back()
                    continue
                if standing.verdict is Verdict.PROCEED:
                    self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                self.step += 1
                if standing.verdict is Verdict.PROCEED:
                    self._after_step(losses, norm, rate)
                evaluation = None
                if self._is_due(self.options.validate_every):
                    with suppress(InterruptedRunError):  # in the last one; `_finish` raises it again
                        evaluation = self._validate()
                self._manager.poll()
                # A run that is told to roll back is to find the state before its trouble began.
                calm = standing.verdict is Verdict.PROCEED or self._is_last()
                if (calm and self._is_due(self.options.checkpoint_every)) or standing.signum:
                    self._checkpoint = self._save(loss, evaluation)
                if standing.signum and self.step < self.steps:
                    self._interrupt(standing.signum)
            self._manager.wait()
            return self._finish(evaluation)

    def note(self, text: str) -> None:
        """Show a line to whoever watches."""
        self._reporter.note(text)

    def event(self, name: str, text: str) -> None:
        """Write down, in ``events.jsonl``, that something out of the ordinary happened, and show it."""
        self._reporter.event(self.step, name, text)

    def log(self, values: Mapping[str, float]) -> None:
        """Add values to the next line of metrics."""
        self._logged.update(values)

    def stop(self, reason: str) -> None:
        """End the run after this step as if it were the last, with a checkpoint."""
        self._ending = reason

    def interrupt(self, signum: int) -> None:
        """End the run after this step with a checkpoint, as that signal would; from any thread."""
        self._interruption.signum = signum

    def set_base_rate(self, rate: float) -> None:
        """Let the schedule multiply this learning rate instead of the optimizer's, in every group."""
        self._base_rates = [rate] * len(self._base_rates)

    def try_loss(self, ahead: int = 0) -> float:
        """Return the loss of the batches of a step to come, with its gradients added to the parameters'.

        Args:
            ahead: Which step, counted from the next one. Nothing is counted: the batches train their step
                all the same.
        """
        return float(self._accumulation.ahead(ahead).total)

    def count_flops(self) -> int:
        """Return the floating-point operations of a step on this rank, see `helix_train.speed`."""
        return count_flops(lambda: self._accumulation.ahead(0), self.model)

    def state(self) -> dict[str | int, Any]:
        """Return what a checkpoint would hold now."""
        stand = Stand(step=self.step, rows=self._batches.rows, reseeds=self._batches.reseeds)
        return self._learner.state(stand)

    @property
    def tokens_per_step(self) -> int:
        """Tokens of a step, over all ranks."""
        n_tokens: int = self.options.accumulate * self._batches.rows_of_batch * self.dataset.seq_len
        return n_tokens

    @contextmanager
    def _running(self, progress: Progress) -> Iterator[None]:
        """Close the files and leave the terminal as it was, however the run ends."""
        self._reporter = self.ranks.reporter(progress, self.options.loggers)
        with ExitStack() as stack:
            stack.callback(self.ranks.close)
            stack.callback(self._manager.close)
            stack.enter_context(self._reporter)
            stack.enter_context(told_failures(self._what_is_left))
            stack.enter_context(deterministic_algorithms(enabled=self.options.deterministic))
            self._begin()
            stack.callback(self._batches.close)
            stack.callback(self._profiler.close)
            stack.enter_context(noticed_interruption(self._interruption))
            with self.ranks.noticing_losses():
                yield

    def _what_is_left(self) -> str:
        return f"the last checkpoint: {self._checkpoint}" if self._manager.steps() else ""

    def _begin(self) -> None:
        for note in self._parts.describe(self.ranks.device):
            self.note(note)
        if self.start:
            self._checkpoint = self.start.checkpoint
            for note in (*self._restore(self.start), *self.start.differences(self._attributes())):
                self.note(note)
            self.note(f"resuming from {self._checkpoint} at step {self.step}")
        check_disk(self.out, checkpoint_size(self.state(), self.model, self.optimizer))
        self._open_data(self._stand.rows, self._stand.reseeds)
        self.out.mkdir(parents=True, exist_ok=True)
        if self.ranks.is_first:
            replace_file(self.out / "config.toml", self.config.to_toml().encode())
        facts = RunFacts.of(self, self._parts.precision, self._attributes())
        self._reporter.open(run_info(self, facts), facts)
        if self.start:
            self._reporter.saved(self.step, self._checkpoint)

    def _finish(self, evaluation: Evaluation | None) -> Result:
        if self.step > self.steps:
            self.note(f"the checkpoint is at step {self.step}, past trainer.steps={self.steps}")
        evaluation = evaluation or self._validate()
        if self._ending:
            self.event("ended", self._ending)
        self._reporter.samples = samples_of(self)
        for callback in self.callbacks:
            callback.end(self)
        return Result(
            step=self.step,
            evaluation=evaluation,
            checkpoint=self._checkpoint,
            metrics=self.out / "metrics.jsonl",
            report=self.out / "report.html",
            plot=self._reporter.draw(self.out / "loss.png"),
        )

    def _find_start(self, resume: bool | str) -> Start | None:  # noqa: FBT001 - the config's own value
        accept = self.options.accept_versions
        return self.ranks.once(lambda: find_start(self.out, resume, accept_versions=accept))

    def _restore(self, start: Start) -> tuple[str, ...]:
        optimizer = start.attributes["config"]["optimizer"]["use"]
        self._stand, notes = self._learner.restore(
            start.checkpoint, optimizer, self.config["optimizer"], batch_size=self.dataset.batch_size
        )
        self.step = self._stand.step
        return notes

    def _open_data(self, rows: int, reseeds: int) -> None:
        count = max(0, self.steps - self.step) * self.options.accumulate
        self._batches.open(rows, reseeds, count=count)

    def _set_learning_rate(self) -> float:
        factor = float(self.schedule(self.step))
        for group, base in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = base * factor
        return float(self._base_rates[0]) * factor

    def _judge(self, loss: float, norm: float, rate: float, signum: int) -> Standing:
        """Decide, together with all ranks, what becomes of a step's gradients."""
        verdict = Verdict.SKIP if self._parts.precision.overflowed(norm) else Verdict.PROCEED
        # A gradient that overflows by its scale alone is no spike, which callbacks would count.
        if self.callbacks and (verdict is Verdict.PROCEED or not math.isfinite(loss)):
            gradients = Gradients(step=self.step, loss=loss, norm=norm, rate=rate)
            verdict = max([verdict, *(callback.judge(self, gradients) for callback in self.callbacks)])
        standing = self.ranks.agree(Standing(verdict=verdict, signum=signum, ending=self._ending))
        self._ending = standing.ending
        if standing.verdict is Verdict.PROCEED and not (math.isfinite(loss) and math.isfinite(norm)):
            self._stop(f"loss is {loss} and the gradient's norm {norm}")
        return standing

    def _after_step(self, losses: Losses, norm: float, rate: float) -> None:
        for callback in self.callbacks:
            callback.stepped(self)
        self._agree_on_ending()
        if self._is_due(self.options.log_every):
            self._record(losses, norm, rate)

    def _agree_on_ending(self) -> None:
        if self.callbacks:
            self._ending = self.ranks.agree(Standing(ending=self._ending)).ending

    def _roll_back(self) -> None:
        """Go back to the last checkpoint, and on from there with other random numbers and data."""
        self.optimizer.zero_grad(set_to_none=True)
        self._manager.wait()
        start = self._find_start("auto") or self.start
        if start is None:
            self._stop("a callback asks to roll back, but there is no checkpoint yet: gradients are bad")
        failed, reseeds = self.step, self._batches.reseeds + 1
        self._restore(start)
        self._checkpoint = start.checkpoint
        if self.ranks.is_first:
            remember_rollback(self.out, step=self.step, reseeds=reseeds)
        self._reporter.drop_after(self.step)
        self._reseed(reseeds)
        self.event("rolled-back", f"back from step {failed} to {self._checkpoint}, with other data")

    def _take_up_rollbacks(self) -> None:
        """Go on from a checkpoint with what the run, before it was killed, went on from there with."""
        done = self.ranks.once(lambda: remembered_reseeds(self.out, step=self.step))
        for reseeds in range(self._batches.reseeds + 1, done + 1):
            self._reseed(reseeds)

    def _reseed(self, reseeds: int) -> None:
        self._open_data(self._stand.rows, reseeds)
        self.ranks.reseed(self._batches.seed % 2**63)
        for callback in self.callbacks:
            callback.rolled_back(self)

    def _is_due(self, every: int) -> bool:
        return every > 0 and (self.step % every == 0 or self._is_last())

    def _is_last(self) -> bool:
        return self.step == self.steps or bool(self._ending)

    def _record(self, losses: Losses, norm: float, rate: float) -> None:
        self._reporter.training(
            StepReport(
                step=self.step,
                loss=float(losses.task),
                norm=norm,
                rate=rate,
                n_tokens=self.tokens_per_step,
                auxiliary=None if losses.auxiliary is None else float(losses.auxiliary),
                more=self._logged | self._measured.values(),
                waited=self._batches.waited,
            )
        )
        self._logged = {}

    def _stop(self, what: str) -> NoReturn:
        raise not_finite(what, step=self.step, rate=self.optimizer.param_groups[0]["lr"])

    def _interrupt(self, signum: int) -> NoReturn:
        self._manager.wait()
        raise InterruptedRunError(f"interrupted after {self.step} of {self.steps} steps", signum)

    def _validate(self) -> Evaluation | None:
        averaged = averaged_weights(self.optimizer, self.model, self.callbacks)
        with kept_rngs(), self._reporter.paused(), averaged_in_place(self.model, averaged):
            evaluation = evaluate_dataset(
                self.model,
                self.dataset,
                loss=self._parts.objective.loss,
                metrics=self._metrics,
                watch=self._while_validating,
            )
        if evaluation is None:
            return None
        if not math.isfinite(evaluation.loss):
            self._stop(f"held-out loss is {evaluation.loss}")
        self._reporter.validation(self.step, evaluation)
        for callback in self.callbacks:
            callback.validated(self, evaluation)
        self._agree_on_ending()
        return evaluation

    def _while_validating(self, done: int, total: int | None) -> None:
        """Show how far a validation is, and end the last one for a signal: a resumed run takes it up."""
        self._reporter.validating(done, total)
        is_last = self.step >= self.steps or self._ending
        if is_last and (signum := self.ranks.agree(Standing(signum=self._interruption.signum)).signum):
            self._interrupt(signum)

    def _save(self, loss: float, evaluation: Evaluation | None) -> Place:
        # The loss was that of the weights before the step: the step itself may have gone too far.
        if not self.ranks.are_finite(self.model.parameters()):
            self._stop("weights are not finite")
        metrics = ({"loss": loss} if math.isfinite(loss) else {}) | (
            {"held_out_loss": evaluation.loss} if evaluation else {}
        )
        attributes = {
            "step": self.step,
            "metrics": metrics,
            **self._wall_time.describe(),
            **self._attributes(),
        }
        place: Place = self._manager.save(self.step, self.state(), attributes=attributes)
        self._reporter.saved(self.step, place)
        return place

    def _attributes(self) -> dict[str, Any]:
        return provenance(self.config, self._parts.selection, self.dataset.fingerprint, self.ranks.device)


def build_trainer(**options: Any) -> Trainer:
    """Build a trainer from the options of `TrainerConfig`, which says what each is."""
    return Trainer(TrainerConfig(**options))
