"""Continues a prompt token by token, in constant memory a token where the model's state is."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# A prompt is read so many ids at a time, so that a long one takes no more memory than a short one.
_CHUNK = 4096
# Decoders look at what stands before: at a beginning, some leave out a space.
_CONTEXT = 8
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}".encode()


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
    _check_n_bytes(n_bytes)
    ids = generate_ids(model, list(prompt), n_ids=256, temperature=temperature, top_k=top_k, seed=seed)
    return islice(ids, n_bytes)


def generate_text(
    model: Any,
    prompt: bytes,
    n_bytes: int,
    *,
    tokenizer: Any = None,
    temperature: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
) -> Iterator[bytes]:
    """Return pieces of text that continue the prompt, each made when it is asked for.

    Args:
        model: A language model over the tokenizer's ids, as for `generate_bytes`.
        prompt: What comes before; at least one token.
        n_bytes: How many bytes to yield: the piece that reaches them is the last. So many tokens are the
            most.
        tokenizer: A component of kind ``tokenizer``; None for a model over bytes.
        temperature: As for `generate_bytes`.
        top_k: As for `generate_bytes`, among tokens.
        seed: Seed of the sampling.

    Raises:
        ArgumentError: As for `generate_bytes`; or the prompt is no text to the tokenizer, or holds an id
            that the model lacks.
    """
    if tokenizer is None:
        made = generate_bytes(model, prompt, n_bytes, temperature=temperature, top_k=top_k, seed=seed)
        return (bytes([byte]) for byte in made)
    _check_n_bytes(n_bytes)
    start = [int(value) for value in tokenizer.encode(prompt)]
    ids = generate_ids(model, start, temperature=temperature, top_k=top_k, seed=seed)
    return _until(n_bytes, decode_stream(tokenizer, start, islice(ids, n_bytes)))


def generate_ids(
    model: Any,
    prompt: Sequence[int],
    *,
    n_ids: int | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
) -> Iterator[int]:
    """Return ids that continue the prompt without end, each made when it is asked for.

    Args:
        model: As for `generate_bytes`, over any ids.
        prompt: What comes before; at least one id.
        n_ids: The most ids that the model may have; None for any number.
        temperature: As for `generate_bytes`.
        top_k: As for `generate_bytes`.
        seed: Seed of the sampling.

    Raises:
        ArgumentError: The prompt is empty or holds an id that the model lacks, a number is out of range,
            or the model cannot stream or has too many ids.
    """
    _check(model, prompt, n_ids, temperature, top_k)
    return _stream(model, prompt, n_ids, temperature, top_k, torch.Generator().manual_seed(seed))


def decode_stream(tokenizer: Any, context: Sequence[int], ids: Iterable[int]) -> Iterator[bytes]:
    """Yield the text of ids as soon as its characters are whole.

    Args:
        tokenizer: A component of kind ``tokenizer``.
        context: The ids that come before.
        ids: The ids to decode.
    """
    window = list(context[-_CONTEXT:])
    shown = len(tokenizer.decode(window))
    text = b""
    for token in ids:
        window.append(token)
        text = tokenizer.decode(window)
        if not text.endswith(_INCOMPLETE):
            yield text[shown:]
            window = window[-_CONTEXT:]
            shown = len(tokenizer.decode(window))
            text = b""
    if text[shown:]:  # the model stopped in the middle of a character
        yield text[shown:]


def _until(n_bytes: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        n_bytes -= len(piece)
        if n_bytes <= 0:
            return


@torch.inference_mode()
def _stream(
    model: Any,
    prompt: Sequence[int],
    n_ids: int | None,
    temperature: float,
    top_k: int,
    generator: torch.Generator,
) -> Iterator[int]:
    device = next(model.parameters()).device
    state = model.init_state(1, device=device)
    for start in range(0, len(prompt), _CHUNK):
        ids = torch.tensor([prompt[start : start + _CHUNK]], dtype=torch.int64, device=device)
        outputs, state = model.extend(ids, state)
    logits = outputs[:, -1]
    _check_ids(logits.shape[-1], n_ids)
    while True:
        choice = _sample(logits[0].float().cpu(), temperature, top_k, generator)
        yield choice
        logits, state = model.step(torch.tensor([choice], device=device), state)


def _sample(logits: torch.Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    likeliest = logits.topk(min(top_k or len(logits), len(logits)))
    # Less the largest, so that no temperature is too low for the division.
    probabilities = torch.softmax((likeliest.values - likeliest.values[0]) / temperature, dim=-1)
    return int(likeliest.indices[torch.multinomial(probabilities, 1, generator=generator)])


def _check_n_bytes(n_bytes: int) -> None:
    if n_bytes < 1:
        raise ArgumentError(f"n_bytes is {n_bytes}, allowed is >= 1")


def _check(model: Any, prompt: Sequence[int], n_ids: int | None, temperature: float, top_k: int) -> None:
    if not prompt:
        raise ArgumentError("prompt is empty; give at least one byte to continue")
    if not temperature >= 0:  # as NaN is not
        raise ArgumentError(f"temperature is {temperature}, allowed is >= 0")
    if top_k < 0:
        raise ArgumentError(f"top_k is {top_k}, allowed is >= 0")
    missing = [name for name in ("init_state", "extend", "step") if not hasattr(model, name)]
    if missing:
        raise ArgumentError(f"{type(model).__name__} has no {missing[0]}(); it cannot generate")
    vocab_size = getattr(model, "vocab_size", None)
    if vocab_size is None:
        return
    _check_ids(vocab_size, n_ids)
    if max(prompt) >= vocab_size:
        raise ArgumentError(
            f"prompt holds the id {max(prompt)}, allowed by the model is 0 to {vocab_size - 1}; give the "
            "tokenizer that it was trained with (--tokenizer path/to/tokenizer.json)"
        )


def _check_ids(vocab_size: int, n_ids: int | None) -> None:
    if n_ids is not None and vocab_size > n_ids:
        raise ArgumentError(
            f"model has {vocab_size} ids, more than the {n_ids} of bytes, and its config names no tokenizer; "
            "give that which it was trained with (--tokenizer path/to/tokenizer.json)"
        )
