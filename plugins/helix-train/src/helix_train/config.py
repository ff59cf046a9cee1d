"""The options of the trainer. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import attrs

from helix_kernel import ComponentOf, option
from helix_kernel.errors import ArgumentError, did_you_mean
from helix_train.profiling import check_profiled

Gradient = Literal["truncated", "exact"]
"""What passes backwards through the borders between chunks: nothing, or all of the gradient."""
Precision = Literal["fp32", "bf16", "fp16"]
Parallel = Literal["auto", "none", "ddp", "fsdp2"]


@attrs.frozen(kw_only=True)
class TrainerConfig:
    """How long to train, from what seed, in what precision, and what to keep on disk."""

    config: Any = option(help="the whole config; added by `helix train`")
    steps: int = option(help="optimizer steps of the whole run", ge=1)
    out: str = option("runs/helix", help="the run's directory", locked=False)
    seed: int = option(0, help="seed of initialisation, dropout and the order of data", ge=0)
    resume: bool | str = option(
        False,
        help='true: from the newest checkpoint in `out`; "auto": the same if there is one; or a path',
        locked=False,
    )
    accept_versions: bool = option(
        False,
        help="resume, or begin with, a checkpoint of components of other versions, where they exist",
        locked=False,
    )
    initial_weights: str | None = option(
        None,
        help="a checkpoint, or a run's directory, whose weights the first step begins with; left out: random "
        "ones. A resumed run goes on from its own",
    )
    checkpoint_every: int = option(100, help="steps between checkpoints; the last step always has one", ge=1)
    keep: int = option(3, help="checkpoints that stay on disk, the newest", ge=1)
    keep_every: int = option(0, help="checkpoints at multiples of so many steps stay too; 0: none", ge=0)
    keep_best: int = option(
        0, help="so many checkpoints with the lowest held-out loss stay too; needs validate_every", ge=0
    )
    checkpoint_async: bool = option(
        False, help="write checkpoints in the background; training waits only while its state is copied"
    )
    checkpoint_compression: Literal["bitshuffle-lz4"] | None = option(
        None, help="compress what gets smaller by it; such arrays are not mapped into memory"
    )
    checkpoint_incremental: bool = option(
        False, help="do not write again what the last checkpoint holds bit for bit, such as frozen weights"
    )
    validate_every: int = option(0, help="steps between validations; 0: only after the last", ge=0)
    log_every: int = option(10, help="steps between lines of metrics.jsonl", ge=1)
    accumulate: int = option(1, help="batches whose gradients are averaged for one step", ge=1)
    clip_norm: float = option(1.0, help="largest norm of the gradient; 0: no limit", ge=0)
    clip_value: float = option(0.0, help="largest absolute value of a gradient's element; 0: no limit", ge=0)
    clip_adaptive: float = option(
        0.0, help="largest norm of a row's gradient, as a multiple of the row's weights'; 0: no limit", ge=0
    )
    precision: Precision = option(
        "fp32", help="bf16 and fp16 run the forward pass under autocast; fp16 scales the loss"
    )
    chunk_len: int = option(
        0, help="tokens run at a time, with the model's state carried on; 0: whole sequences at once", ge=0
    )
    gradient: Gradient = option(
        "exact",
        help="what passes backwards through the borders between chunks: truncated, nothing; exact, the "
        "gradient of the whole sequence, for one more forward pass",
    )
    logits_chunk: int = option(
        0,
        help="positions whose logits are held at a time, for a vocabulary that outweighs the model; 0: all",
        ge=0,
    )
    activation_checkpointing: bool = option(
        False, help="recompute blocks in the backward pass instead of keeping their activations"
    )
    activation_offload: bool = option(
        False, help="keep activations in the host's memory between the forward and the backward pass"
    )
    compile: bool = option(False, help="run the model through torch.compile")
    deterministic: bool = option(
        False,
        help="let PyTorch use deterministic algorithms only; docs/how-to/training.md says what that covers",
    )
    measure_speed: bool = option(
        True,
        help="count a step's operations and measure the device's peak before training, for flops and mfu",
    )
    profile_steps: tuple[int, int] | None = option(
        None,
        help="first and last step to trace with PyTorch's profiler, into profile/ of the run's directory",
    )
    samples: int = option(
        1, ge=0, help="texts that a language model over bytes writes for the report when the run ends"
    )
    device: str = option("auto", help="auto: the accelerator if there is one, else cpu")
    parallel: Parallel = option(
        "auto", help="how the processes of torchrun share the work; auto: ddp where there are several"
    )
    callbacks: tuple[Annotated[Any, ComponentOf("callback")], ...] = option(
        (), help="what looks on and has a say, such as an average of the weights"
    )
    loggers: tuple[Annotated[Any, ComponentOf("logger")], ...] = option(
        (), help="where metrics go besides metrics.jsonl"
    )
    metrics: tuple[Annotated[Any, ComponentOf("metric")], ...] = option(
        (), help="what is measured of held-out predictions besides the loss"
    )

    def __attrs_post_init__(self) -> None:
        _check_choices(self)
        check_profiled(self.profile_steps)
        check_recomputation(self.chunk_len, activation_checkpointing=self.activation_checkpointing)
        check_logits_chunk(self)
        check_best(self.keep_best, self.validate_every)


def check_best(keep_best: int, validate_every: int) -> None:
    """Raise `ArgumentError` where the best checkpoints are to stay, but nothing tells which they are."""
    if keep_best and not validate_every:
        raise ArgumentError(
            f"trainer.keep_best={keep_best} goes by the held-out loss, which trainer.validate_every=0 never "
            "measures while training; set it, best to trainer.checkpoint_every"
        )


def check_recomputation(chunk_len: int, *, activation_checkpointing: bool) -> None:
    """Raise `ArgumentError` where blocks would be recomputed within chunks, which extend() does not do."""
    if chunk_len and activation_checkpointing:
        raise ArgumentError(
            f"trainer.activation_checkpointing is true with trainer.chunk_len={chunk_len}, which holds one "
            "chunk's activations already; leave one of them out"
        )


def check_logits_chunk(options: TrainerConfig) -> None:
    """Raise `ArgumentError` where logits are to be made in parts, beside what does not go with it."""
    others = {
        "trainer.chunk_len": options.chunk_len > 0,
        'trainer.parallel="fsdp2"': options.parallel == "fsdp2",
    }
    for other, present in others.items():
        if options.logits_chunk and present:
            raise ArgumentError(
                f"trainer.logits_chunk={options.logits_chunk} does not go with {other}; leave one of them out"
            )


def _check_choices(options: TrainerConfig) -> None:
    choices = {"precision": Precision, "gradient": Gradient, "parallel": Parallel}
    for name, allowed in choices.items():
        value, known = getattr(options, name), get_args(allowed)
        if value not in known:
            raise ArgumentError(
                f"trainer.{name} is {value!r}, allowed is one of {known}.{did_you_mean(value, known)}"
            )
