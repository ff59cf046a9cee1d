"""Lets a language model over bytes write a few texts, for people to see what the loss means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_train.generation import generate_bytes
from helix_train.saving import averaged_in_place, averaged_weights
from helix_train.state import kept_rngs

if TYPE_CHECKING:
    from helix_train.trainer import Trainer

_PROMPT_BYTES, _SAMPLE_BYTES = 64, 256


def samples_of(trainer: Trainer) -> list[str]:
    """Return texts of a trainer's model, which stays as it is; of several ranks, none."""
    if trainer.ranks.world_size > 1:  # all ranks would have to write them together
        return []
    averaged = averaged_weights(trainer.optimizer, trainer.model, trainer.callbacks)
    with kept_rngs(), averaged_in_place(trainer.model, averaged):
        return write_samples(trainer.model, trainer.dataset, trainer.options.samples)


def write_samples(model: Any, dataset: Any, count: int) -> list[str]:
    """Return texts that begin as places of what is held out do, and go on as the model has it.

    Args:
        model: A language model; nothing is returned unless it streams over 256 ids.
        dataset: Its data; nothing is returned unless bytes are held out.
        count: How many texts.
    """
    if not (count and _writes_bytes(model, dataset)):
        return []
    held_out = dataset.held_out()
    places = [number * max(0, len(held_out) - _PROMPT_BYTES) // count for number in range(count)]
    was_training = model.training
    model.eval()
    try:
        return [_text(model, bytes(held_out[place : place + _PROMPT_BYTES]), seed=place) for place in places]
    finally:
        model.train(was_training)


def _writes_bytes(model: Any, dataset: Any) -> bool:
    streams = all(hasattr(model, name) for name in ("init_state", "extend", "step"))
    own, held_out = getattr(model, "vocab_size", 256), getattr(dataset, "held_out", None)
    of_bytes = getattr(dataset, "tokens_per_byte", 1.0) == 1.0 and not hasattr(dataset, "evaluation_batches")
    return streams and own == 256 and of_bytes and held_out is not None and len(held_out()) > 0


def _text(model: Any, prompt: bytes, *, seed: int) -> str:
    made = bytes(generate_bytes(model, prompt, _SAMPLE_BYTES, temperature=0.7, seed=seed))
    return (prompt + made).decode("utf-8", "replace")
