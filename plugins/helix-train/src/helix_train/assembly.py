"""Builds what a run is made of from its config, in an order that makes equal configs begin alike."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import torch

from helix_kernel.errors import ArgumentError
from helix_train.initial_weights import load_initial_weights
from helix_train.logits import check_has_features
from helix_train.objective import Objective
from helix_train.optimizers.muon import mark_tables
from helix_train.precision import Precision
from helix_train.state import parameter_groups, seed_rngs
from helix_train.streaming import check_streams

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helix_kernel.backends import Selection
    from helix_kernel.config import Resolved
    from helix_train.config import TrainerConfig
    from helix_train.ranks.base import Ranks


@attrs.frozen(kw_only=True)
class Parts:
    """What a run is made of.

    Args:
        dataset: Makes batches.
        selection: Which backend serves which op.
        model: What is trained, evaluated and saved.
        objective: Runs it, as it is compiled or spread over ranks, and adds up gradients.
        precision: The number format of a forward pass.
        optimizer: Updates the model.
        schedule: The learning rate over the steps, as a multiple of the optimizer's.
        notes: What is to be told before training begins.
    """

    dataset: Any
    selection: Selection
    model: torch.nn.Module
    objective: Objective
    precision: Precision
    optimizer: torch.optim.Optimizer
    schedule: Any
    notes: tuple[str, ...]

    def describe(self, device: torch.device) -> Iterator[str]:
        """Yield what is to be told before training begins, a line each."""
        yield self.dataset.describe()
        n_parameters = sum(parameter.numel() for parameter in self.model.parameters())
        serving = [name for name in self.selection.chosen if self.selection.offers[name].ops]
        backends = ", ".join(serving) or "the references"
        yield f"model: {n_parameters:,} parameters on {device}; ops by {backends}"
        yield from self.notes


def assemble(options: TrainerConfig, ranks: Ranks, *, resumes: bool) -> Parts:
    """Build the parts of a run.

    Args:
        options: The trainer's, the whole config among them.
        ranks: Where the model is put, and what it is wrapped in.
        resumes: Whether the weights come from a checkpoint of the run itself.

    Raises:
        ArgumentError: The model cannot stream or recompute its blocks as is asked, has too few ids for the
            data, or the loss gives more than one number.
        CheckpointError: What `load_initial_weights` raises.
    """
    config = options.config
    kernel = config.kernel
    seed_rngs(options.seed)
    dataset = kernel.build("dataset", config["data"])
    selection = kernel.use_backends(config.settings.backends)
    model = kernel.build("layer", config["model"]).to(ranks.device)
    _require_ids(model, dataset)
    notes: tuple[str, ...] = ()
    if options.initial_weights is not None and not resumes:
        table = config.to_dict()["model"]
        notes = load_initial_weights(
            model, options.initial_weights, table, accept_versions=options.accept_versions
        )
    if options.activation_checkpointing:
        _recompute_blocks(model)
    if options.chunk_len:
        check_streams(model, instead="whole sequences (trainer.chunk_len=0)")
    if options.logits_chunk:
        check_has_features(model)
    _require_one_number(config["loss"])
    loss = kernel.build("loss", config["loss"]).to(ranks.device)
    in_parts = options.chunk_len > 0 or options.logits_chunk > 0
    runs = ranks.prepare(model, streams=in_parts)
    forward: Any = runs.features if options.logits_chunk else runs
    ranks.seed_apart(options.seed)
    precision = Precision(options.precision, ranks.device.type)
    mark_tables(model)
    optimizer = kernel.build("optimizer", config["optimizer"], params=parameter_groups(model))
    return Parts(
        dataset=dataset,
        selection=selection,
        model=model,
        objective=Objective(
            model=model,
            loss=loss,
            precision=_contexts(precision, ranks.device, offload=options.activation_offload),
            forward=torch.compile(forward) if options.compile else forward,
        ),
        precision=precision,
        optimizer=optimizer,
        schedule=kernel.build("schedule", config["schedule"], total_steps=options.steps),
        notes=notes,
    )


def _contexts(precision: Precision, device: torch.device, *, offload: bool) -> Any:
    if not offload:
        return precision.context

    @contextmanager
    def both() -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(precision.context())
            stack.enter_context(torch.autograd.graph.save_on_cpu(pin_memory=device.type == "cuda"))
            yield

    return both


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
