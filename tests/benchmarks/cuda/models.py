"""Whole models: a decoding step under CUDA graphs, long contexts, and what each lever saves of memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from helix_kernel import default_kernel
from helix_train.logits import backward_by_positions
from helix_train.losses.classification import CrossEntropy
from helix_train.objective import Examples, Objective

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clock import Clock

_VOCABULARY = 50_280
_GIB = 1 << 30


@dataclass(frozen=True)
class Sizes:
    """How large the models and their inputs are."""

    width: int = 768
    layers: int = 24
    vocabulary: int = _VOCABULARY
    decoding_width: int = 2048
    lever_tokens: tuple[int, int] = (4, 4096)
    training_context: int = 1 << 18
    forward_context: int = 1 << 20
    piece: int = 1 << 16


SMALL = Sizes(16, 2, 64, 16, (1, 32), 64, 64, 32)


@dataclass(frozen=True)
class Row:
    """A line of the table: what was done, what was found, what it is held against."""

    what: str
    found: str
    against: str
    ratio: str
    goal: str = ""


def rows(clock: Clock, sizes: Sizes, bandwidth: float) -> Iterator[Callable[[], Iterator[Row]]]:
    """Yield what measures each part, so that one that fails does not take the others along."""
    yield lambda: _decoding(clock, sizes, bandwidth)
    yield lambda: _levers(clock.device, sizes)
    yield lambda: _long_training(clock.device, sizes)
    yield lambda: _long_forward(clock.device, sizes)


def _decoding(clock: Clock, sizes: Sizes, bandwidth: float) -> Iterator[Row]:
    model = _model(clock.device, sizes.decoding_width, sizes.layers, sizes.vocabulary).bfloat16().eval()
    step = _recorded_step(model, clock.device)
    seconds = clock.seconds(step)
    # The embedding is read for one id only, and whole as the head.
    floor = sum(parameter.nbytes for parameter in model.parameters()) / bandwidth
    yield Row(
        f"decoding step, {sizes.layers} layers of Mamba, width {sizes.decoding_width}, bf16, CUDA graph",
        f"{seconds * 1e6:.0f} µs",
        f"reading the weights: {floor * 1e6:.0f} µs",
        f"{seconds / floor:.2f}\N{MULTIPLICATION SIGN}",
        "≤ 1.5\N{MULTIPLICATION SIGN}",
    )


def _recorded_step(model: torch.nn.Module, device: torch.device) -> Callable[[], object]:
    """Return a step's replay; where there is no GPU, the step itself."""
    ids = torch.zeros(1, dtype=torch.int64, device=device)
    with torch.inference_mode():
        state = model.init_state(1, device=device)

    @torch.inference_mode()
    def step() -> object:
        return model.step(ids, state)

    if device.type != "cuda":
        return step
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _levers(device: torch.device, sizes: Sizes) -> Iterator[Row]:
    batch_size, seq_len = sizes.lever_tokens
    standard = _peak(device, sizes, batch_size, seq_len)
    yield Row(
        f"training, {sizes.layers} layers of width {sizes.width}, {sizes.vocabulary:,} ids,"
        f" {batch_size}\N{MULTIPLICATION SIGN}{seq_len} tokens, bf16 autocast",
        f"{standard.peak / _GIB:.2f} GiB, {standard.seconds * 1e3:.0f} ms",
        "itself",
        "",
    )
    for name, options in (
        ("logits in parts", {"parts": True}),
        ("activation recomputation", {"recompute": True}),
        ("both", {"parts": True, "recompute": True}),
        ("reversible stack, logits in parts", {"parts": True, "reversible": True}),
    ):
        found = _peak(device, sizes, batch_size, seq_len, **options)
        yield Row(
            f"- with {name}",
            f"{found.peak / _GIB:.2f} GiB, {found.seconds * 1e3:.0f} ms",
            "standard training",
            f"{1 - found.peak / max(standard.peak, 1):.0%} less,"
            f" {found.seconds / standard.seconds:.2f}\N{MULTIPLICATION SIGN} the time",
            "50 to 70 % less" if name == "both" else "",
        )


def _long_training(device: torch.device, sizes: Sizes) -> Iterator[Row]:
    found = _peak(device, sizes, 1, sizes.training_context, parts=True, recompute=True)
    yield Row(
        f"training step on {sizes.training_context:,} tokens of context",
        f"{found.peak / _GIB:.2f} GiB, {found.seconds:.2f} s",
        "fits on one GPU",
        "yes",
        "fits",
    )


@torch.inference_mode()
def _long_forward(device: torch.device, sizes: Sizes) -> Iterator[Row]:
    model = _model(device, sizes.width, sizes.layers, sizes.vocabulary).bfloat16().eval()
    ids = torch.randint(sizes.vocabulary, (1, sizes.forward_context), device=device)
    _start_counting(device)
    begun, state = time.perf_counter(), model.init_state(1, device=device)
    for piece in ids.split(sizes.piece, dim=1):
        _, state = model.blocks.extend(model.embedding(piece), state)
    _wait(device)
    seconds = time.perf_counter() - begun
    yield Row(
        f"forward over {sizes.forward_context:,} tokens, {sizes.piece:,} at a time",
        f"{_counted(device) / _GIB:.2f} GiB, {seconds:.2f} s",
        "fits on one GPU",
        "yes",
        "fits",
    )


@dataclass(frozen=True)
class _Peak:
    peak: int
    seconds: float


def _peak(
    device: torch.device,
    sizes: Sizes,
    batch_size: int,
    seq_len: int,
    *,
    parts: bool = False,
    recompute: bool = False,
    reversible: bool = False,
) -> _Peak:
    """Return the peak memory and the time of the second of two training steps' gradients."""
    model = _model(device, sizes.width, sizes.layers, sizes.vocabulary, reversible=reversible)
    if recompute:
        model.set_activation_checkpointing(enabled=True)
    ids = torch.randint(sizes.vocabulary, (batch_size, seq_len + 1), device=device)
    examples = Examples(inputs=ids[:, :-1], targets=ids[:, 1:])
    objective = Objective(
        model=model,
        loss=CrossEntropy(),
        precision=lambda: torch.autocast(device.type, torch.bfloat16),
        forward=model.features if parts else None,
    )
    seconds = 0.0
    for _ in range(2):
        model.zero_grad(set_to_none=False)
        _start_counting(device)
        begun = time.perf_counter()
        if parts:
            backward_by_positions(objective, examples, n_positions=2048)
        else:
            objective.backward(examples)
        _wait(device)
        seconds = time.perf_counter() - begun
    return _Peak(_counted(device), seconds)


def _model(
    device: torch.device, width: int, layers: int, vocabulary: int, *, reversible: bool = False
) -> torch.nn.Module:
    torch.manual_seed(0)
    mixer = {"use": "mamba"}
    stack = {"use": "reversible", "n_layers": layers // 2, "mixer": mixer, "channel": mixer}
    table = {
        "use": "language-model",
        "d_model": width,
        "n_layers": 1 if reversible else layers,
        "mixer": stack if reversible else mixer,
        "vocab_size": vocabulary,
    }
    return default_kernel().build("layer", table).to(device)


def _start_counting(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _counted(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else 0


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
