"""Continues a prompt byte by byte, in constant memory a byte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator


@torch.inference_mode()
def generate_bytes(
    model: Any, prompt: bytes, n_bytes: int, *, temperature: float = 1.0, top_k: int = 0, seed: int = 0
) -> Iterator[int]:
    """Yield bytes that continue the prompt.

    Args:
        model: A language model over bytes with ``init_state``, ``extend`` and ``step``.
        prompt: What comes before; at least one byte.
        n_bytes: How many to yield.
        temperature: Divides the logits; 0 always takes the likeliest byte.
        top_k: Sample among this many likeliest bytes; 0: among all.
        seed: Seed of the sampling.

    Raises:
        ArgumentError: The prompt is empty, a number is out of range, or the model cannot stream.
    """
    _check(model, prompt, n_bytes, temperature, top_k)
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor([list(prompt)], dtype=torch.int64, device=device)
    state = model.init_state(1, device=device)
    logits, state = model.extend(ids, state)
    last = logits[:, -1]
    for _ in range(n_bytes):
        choice = _sample(last[0].float().cpu(), temperature, top_k, generator)
        yield choice
        last, state = model.step(torch.tensor([choice], device=device), state)


def _sample(logits: torch.Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    if top_k:
        least = logits.topk(min(top_k, logits.numel())).values[-1]
        logits = logits.masked_fill(logits < least, -torch.inf)
    probabilities = torch.softmax(logits / temperature, dim=-1)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def _check(model: Any, prompt: bytes, n_bytes: int, temperature: float, top_k: int) -> None:
    if not prompt:
        raise ArgumentError("prompt is empty; give at least one byte to continue")
    if n_bytes < 1:
        raise ArgumentError(f"n_bytes is {n_bytes}, allowed is >= 1")
    if temperature < 0:
        raise ArgumentError(f"temperature is {temperature}, allowed is >= 0")
    if top_k < 0:
        raise ArgumentError(f"top_k is {top_k}, allowed is >= 0")
    if not hasattr(model, "step"):
        raise ArgumentError(f"{type(model).__name__} has no step(); it cannot generate")
