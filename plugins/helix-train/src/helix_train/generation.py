"""Continues a prompt byte by byte, in constant memory a byte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator


def generate_bytes(
    model: Any, prompt: bytes, n_bytes: int, *, temperature: float = 1.0, top_k: int = 0, seed: int = 0
) -> Iterator[int]:
    """Return bytes that continue the prompt, each made when it is asked for.

    Args:
        model: A language model over bytes with ``init_state``, ``extend`` and ``step``, in
            evaluation mode.
        prompt: What comes before; at least one byte.
        n_bytes: How many to yield.
        temperature: Divides the logits; 0 always takes the likeliest byte.
        top_k: Sample among this many likeliest bytes; 0: among all.
        seed: Seed of the sampling.

    Raises:
        ArgumentError: The prompt is empty, a number is out of range, or the model cannot stream
            or is not one over bytes.
    """
    _check(model, prompt, n_bytes, temperature, top_k)
    return _stream(model, prompt, n_bytes, temperature, top_k, torch.Generator().manual_seed(seed))


@torch.inference_mode()
def _stream(
    model: Any, prompt: bytes, n_bytes: int, temperature: float, top_k: int, generator: torch.Generator
) -> Iterator[int]:
    device = next(model.parameters()).device
    ids = torch.tensor([list(prompt)], dtype=torch.int64, device=device)
    outputs, state = model.extend(ids, model.init_state(1, device=device))
    logits = outputs[:, -1]
    if logits.shape[-1] > 256:
        raise ArgumentError(f"model has {logits.shape[-1]} tokens; allowed is one over bytes, at most 256")
    for made in range(1, n_bytes + 1):
        choice = _sample(logits[0].float().cpu(), temperature, top_k, generator)
        yield choice
        if made < n_bytes:
            logits, state = model.step(torch.tensor([choice], device=device), state)


def _sample(logits: torch.Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    likeliest = logits.topk(min(top_k or len(logits), len(logits)))
    # Less the largest, so that no temperature is too low for the division.
    probabilities = torch.softmax((likeliest.values - likeliest.values[0]) / temperature, dim=-1)
    return int(likeliest.indices[torch.multinomial(probabilities, 1, generator=generator)])


def _check(model: Any, prompt: bytes, n_bytes: int, temperature: float, top_k: int) -> None:
    if not prompt:
        raise ArgumentError("prompt is empty; give at least one byte to continue")
    if n_bytes < 1:
        raise ArgumentError(f"n_bytes is {n_bytes}, allowed is >= 1")
    if not temperature >= 0:  # as NaN is not
        raise ArgumentError(f"temperature is {temperature}, allowed is >= 0")
    if top_k < 0:
        raise ArgumentError(f"top_k is {top_k}, allowed is >= 0")
    missing = [name for name in ("init_state", "extend", "step") if not hasattr(model, name)]
    if missing:
        raise ArgumentError(f"{type(model).__name__} has no {missing[0]}(); it cannot generate")
