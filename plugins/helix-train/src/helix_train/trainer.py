"""The trainer: one process, a loop that reads top to bottom, and an exact resume."""

from __future__ import annotations

import math
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

import attrs
import torch
from torch.nn.utils import clip_grad_norm_

from helix_kernel.checkpoint import CheckpointManager, Retention
from helix_kernel.errors import ArgumentError, HelixError, did_you_mean
from helix_kernel.nesting import nest
from helix_train.config import check_best, check_recomputation
from helix_train.device import choose_device
from helix_train.evaluation import Evaluation, evaluate_dataset
from helix_train.initial_weights import load_initial_weights
from helix_train.objective import Examples, Losses, Objective, add_up
from helix_train.plot import draw_loss_curve
from helix_train.provenance import WallTime, provenance
from helix_train.records import Recorder, read_records
from helix_train.resume import Start, find_start, restore
from helix_train.state import kept_rngs, optimizer_state, parameter_groups, rng_state, seed_rngs
from helix_train.streaming import Gradient, backward_in_chunks, check_streams

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from helix_kernel import Config
    from helix_kernel.checkpoint.location import Place
    from helix_kernel.config import Resolved
    from helix_train.progress import Progress

PRECISIONS = ("fp32", "bf16")


@attrs.frozen(kw_only=True)
class Result:
    """What a run came to.

    Args:
        step: Steps done.
        evaluation: The model on the held-out part; None where nothing is held out.
        checkpoint: The last checkpoint.
        metrics: The file of metrics.
        plot: The loss curve, or None where it could not be drawn.
    """

    step: int
    evaluation: Evaluation | None
    checkpoint: Place
    metrics: Path
    plot: Path | None


class Trainer:
    """Trains the model of a config: forward, loss, backward, clip, step.

    Args:
        config: The whole config; its sections name the model, data, loss, optimizer and schedule.
        steps: Optimizer steps of the whole run.
        out: The run's directory.
        seed: Seed of initialisation, dropout and the order of data.
        resume: False, True (from the newest checkpoint in `out`), "auto" (the same if there is
            one), or a checkpoint's path.
        accept_versions: Resume, or begin with, a checkpoint of components of other versions too.
        initial_weights: A checkpoint, or a run's directory, whose weights the first step begins with; None
            for random ones. A resumed run does not read it.
        checkpoint_every: Steps between checkpoints.
        keep: Checkpoints that stay on disk, the newest.
        keep_every: Checkpoints at multiples of so many steps stay too; 0: none.
        keep_best: So many checkpoints with the lowest held-out loss stay too.
        checkpoint_async: Write checkpoints in the background.
        checkpoint_incremental: Do not write again what the last checkpoint holds bit for bit.
        validate_every: Steps between validations; 0: only after the last.
        log_every: Steps between lines of metrics.
        accumulate: Batches whose gradients are averaged for one step.
        clip_norm: Largest norm of the gradient; 0: no limit.
        precision: "fp32", or "bf16" for a forward pass under autocast.
        chunk_len: Tokens run at a time, with the model's state carried on; 0: whole sequences at once.
        gradient: What passes backwards through the borders between chunks: "truncated", nothing;
            "exact", the gradient of the whole sequence.
        activation_checkpointing: Recompute blocks in the backward pass.
        device: "auto", or a device's name.

    Raises:
        ArgumentError: The device, precision or gradient does not exist, the model cannot stream or
            recompute its blocks as is asked, or the loss gives more than one number.
        InputError: What `find_start` raises about `resume` and `out`.
        CheckpointError: What `load_initial_weights` raises.
    """

    def __init__(
        self,
        *,
        config: Config,
        steps: int,
        out: str = "runs/helix",
        seed: int = 0,
        resume: bool | str = False,
        accept_versions: bool = False,
        initial_weights: str | None = None,
        checkpoint_every: int = 100,
        keep: int = 3,
        keep_every: int = 0,
        keep_best: int = 0,
        checkpoint_async: bool = False,
        checkpoint_incremental: bool = False,
        validate_every: int = 0,
        log_every: int = 10,
        accumulate: int = 1,
        clip_norm: float = 1.0,
        precision: str = "fp32",
        chunk_len: int = 0,
        gradient: Gradient = "exact",
        activation_checkpointing: bool = False,
        device: str = "auto",
    ) -> None:
        self.config = config
        self.steps = steps
        self.out = Path(out)
        self.seed = seed
        self.resume = resume
        self.accept_versions = accept_versions
        self.checkpoint_every = checkpoint_every
        self.validate_every = validate_every
        self.log_every = log_every
        self.accumulate = accumulate
        self.clip_norm = clip_norm
        self.precision = _one_of("trainer.precision", precision, PRECISIONS)
        self.chunk_len = chunk_len
        self.gradient = gradient
        _one_of("trainer.gradient", gradient, get_args(Gradient))
        check_recomputation(chunk_len, activation_checkpointing=activation_checkpointing)
        self.device = choose_device(device)
        self.start: Start | None = find_start(self.out, resume, accept_versions=accept_versions)
        self._build(initial_weights, activation_checkpointing=activation_checkpointing)
        check_best(keep_best, validate_every)
        metric = "held_out_loss" if keep_best else None
        self._manager = CheckpointManager(
            self.out / "checkpoints",
            keep=Retention(last=keep, every=keep_every or None, best=keep_best, metric=metric),
            async_=checkpoint_async,
            incremental=checkpoint_incremental,
        )
        self._checkpoint: Place = self.out / "checkpoints"
        self._wall_time = WallTime(self.start.attributes.get("wall_time", 0.0) if self.start else 0.0)
        self.step = 0

    def fit(self, progress: Progress) -> Result:
        """Train to the last step, evaluating and saving on the way, and draw the loss curve.

        Args:
            progress: Shows what happens.

        Raises:
            HelixError: The loss, its gradient or the weights are no longer finite; checkpoints stay as
                they were, and there is none of such a step.
            IncompatibleCheckpointError: The checkpoint to resume from does not fit this config.
        """
        with self._running(progress):
            self.model.train()
            evaluation = None
            while self.step < self.steps:
                rate = self._set_learning_rate()
                losses = self._accumulate_gradients()
                loss = float(losses.total)
                norm = float(clip_grad_norm_(self.model.parameters(), self.clip_norm or math.inf))
                if not (math.isfinite(loss) and math.isfinite(norm)):
                    self._stop(f"loss is {loss} and the gradient's norm {norm}")
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                self.step += 1
                if self._is_due(self.log_every):
                    self._record(losses, norm, rate)
                evaluation = self._validate() if self._is_due(self.validate_every) else None
                self._manager.poll()
                if self._is_due(self.checkpoint_every):
                    self._checkpoint = self._save(loss, evaluation)
            self._manager.wait()
            return self._finish(evaluation)

    def _build(self, initial_weights: str | None, *, activation_checkpointing: bool) -> None:
        kernel, config = self.config.kernel, self.config
        seed_rngs(self.seed)
        self.dataset = kernel.build("dataset", config["data"])
        self.selection = kernel.use_backends(config.settings.backends)
        self.model = kernel.build("layer", config["model"]).to(self.device)
        _require_ids(self.model, self.dataset)
        self._beginning: tuple[str, ...] = ()
        if initial_weights is not None and self.start is None:
            self._beginning = load_initial_weights(
                self.model,
                initial_weights,
                config.to_dict()["model"],
                accept_versions=self.accept_versions,
            )
        if activation_checkpointing:
            _recompute_blocks(self.model)
        if self.chunk_len:
            check_streams(self.model, instead="whole sequences (trainer.chunk_len=0)")
        _require_one_number(config["loss"])
        self.loss = kernel.build("loss", config["loss"]).to(self.device)
        self.objective = Objective(model=self.model, loss=self.loss, precision=self._autocast)
        self.optimizer = kernel.build("optimizer", config["optimizer"], params=parameter_groups(self.model))
        self.schedule = kernel.build("schedule", config["schedule"], total_steps=self.steps)
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]

    @contextmanager
    def _running(self, progress: Progress) -> Iterator[None]:
        """Close the files and leave the terminal as it was, however the run ends."""
        self._begin(progress)
        try:
            yield
        finally:
            self._recorder.close()
            progress.close()
            self._manager.close()

    def _begin(self, progress: Progress) -> None:
        self._progress = progress
        progress.note(self.dataset.describe())
        n_parameters = sum(parameter.numel() for parameter in self.model.parameters())
        serving = [name for name in self.selection.chosen if self.selection.offers[name].ops]
        backends = ", ".join(serving) or "the references"
        progress.note(f"model: {n_parameters:,} parameters on {self.device}; ops by {backends}")
        for note in self._beginning:
            progress.note(note)
        if self.start:
            restore(self.start, self.model, self.optimizer, self.config["optimizer"])
            self.step, self._checkpoint = self.start.step, self.start.checkpoint
            for note in self.start.differences(self._attributes()):
                progress.note(note)
            progress.note(f"resuming from {self._checkpoint} at step {self.step}")
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "config.toml").write_text(self.config.to_toml(), encoding="utf-8")
        in_bits = _counts_bits(self.config["loss"], self.dataset)
        self._recorder = Recorder(self.out, step=self.step, in_bits=in_bits)
        progress.begin(step=self.step, steps=self.steps)

    def _finish(self, evaluation: Evaluation | None) -> Result:
        if self.step > self.steps:
            self._progress.note(f"the checkpoint is at step {self.step}, past trainer.steps={self.steps}")
        evaluation = evaluation or self._validate()
        plot = draw_loss_curve(read_records(self._recorder.metrics), self.out / "loss.png")
        if plot is None:
            self._progress.note("no loss curve is drawn: pip install 'helix-train[plot]'")
        return Result(
            step=self.step,
            evaluation=evaluation,
            checkpoint=self._checkpoint,
            metrics=self._recorder.metrics,
            plot=plot,
        )

    def _set_learning_rate(self) -> float:
        factor = float(self.schedule(self.step))
        for group, base in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = base * factor
        return float(self._base_rates[0]) * factor

    def _accumulate_gradients(self) -> Losses:
        first = self.step * self.accumulate
        return add_up(self._backward(micro_step) for micro_step in range(first, first + self.accumulate))

    def _backward(self, micro_step: int) -> Losses:
        batch = self.dataset.batch(seed=self.seed, step=micro_step)
        examples, weight = Examples.of(batch, self.device), 1 / self.accumulate
        if not self.chunk_len:
            return self.objective.backward(examples, weight=weight)
        return backward_in_chunks(
            self.objective, examples, chunk_len=self.chunk_len, gradient=self.gradient, weight=weight
        )

    def _autocast(self) -> AbstractContextManager[object]:
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _is_due(self, every: int) -> bool:
        return every > 0 and (self.step % every == 0 or self.step == self.steps)

    def _record(self, losses: Losses, norm: float, rate: float) -> None:
        n_tokens = self.accumulate * self.dataset.batch_size * self.dataset.seq_len
        update = self._recorder.training(
            step=self.step,
            loss=float(losses.task),
            auxiliary=None if losses.auxiliary is None else float(losses.auxiliary),
            norm=norm,
            rate=rate,
            n_tokens=n_tokens,
        )
        self._progress.update(update)

    def _stop(self, what: str) -> NoReturn:
        rate = self.optimizer.param_groups[0]["lr"]
        raise HelixError(
            f"{what} after {self.step} steps; nothing of this is saved. Lower optimizer.lr ({rate:g} here) "
            'or trainer.clip_norm, and go on with trainer.resume="auto"'
        )

    def _validate(self) -> Evaluation | None:
        with kept_rngs(), self._recorder.paused():
            evaluation = evaluate_dataset(self.model, self.dataset)
        if evaluation is None:
            return None
        if not math.isfinite(evaluation.loss):
            self._stop(f"held-out loss is {evaluation.loss}")
        self._recorder.validation(step=self.step, evaluation=evaluation)
        self._progress.note(f"step {self.step}: {evaluation} held out")
        return evaluation

    def _save(self, loss: float, evaluation: Evaluation | None) -> Place:
        # The loss was that of the weights before the step: the step itself may have gone too far.
        if not all(bool(parameter.isfinite().all()) for parameter in self.model.parameters()):
            self._stop("weights are not finite")
        state: dict[str | int, Any] = {
            "model": nest(self.model.state_dict()),
            "optimizer": optimizer_state(self.optimizer, self.model),
            "rng": rng_state(),
            "data": {"position": torch.tensor(self.step * self.accumulate)},
            "step": self.step,
        }
        metrics = {"loss": loss} | ({"held_out_loss": evaluation.loss} if evaluation else {})
        attributes = {
            "step": self.step,
            "metrics": metrics,
            **self._wall_time.describe(),
            **self._attributes(),
        }
        return self._manager.save(self.step, state, attributes=attributes)

    def _attributes(self) -> dict[str, Any]:
        return provenance(self.config, self.selection, self.dataset.fingerprint, self.device)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ArgumentError(
            f"{name} is {value!r}, allowed is one of {allowed}.{did_you_mean(value, allowed)}"
        )
    return value


def _require_one_number(loss: Resolved) -> None:
    if loss.arguments.get("reduction") == "none":
        raise ArgumentError(
            "loss.reduction is 'none', which gives no number to minimise; allowed is mean or sum"
        )


def _recompute_blocks(model: torch.nn.Module) -> None:
    switch = getattr(model, "set_activation_checkpointing", None)
    if switch is None:
        raise ArgumentError(
            f"trainer.activation_checkpointing is true, but {type(model).__name__} has no "
            "set_activation_checkpointing(); leave it false"
        )
    switch(enabled=True)


def _require_ids(model: Any, dataset: Any) -> None:
    own, needed = getattr(model, "vocab_size", None), getattr(dataset, "vocab_size", None)
    if own is not None and needed is not None and own < needed:
        raise ArgumentError(
            f"the model takes {own} ids and the data have {needed}; raise model.vocab_size by "
            f"{needed - own}, or choose another tokenizer"
        )


def _counts_bits(loss: Resolved, dataset: Any) -> bool:
    """Whether the training loss is a mean over predicted bytes in nats, so that it can be told in bits."""
    arguments = loss.arguments
    return (
        loss.component.name == "cross-entropy"
        and not arguments.get("label_smoothing")
        and arguments.get("reduction", "mean") == "mean"
        and getattr(dataset, "tokens_per_byte", 1.0) == 1.0
    )
