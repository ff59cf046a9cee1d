"""The table of `helix bench ops`: which contests there are, and what each should come to."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch

from helix_cpu.bench import inputs, models, ours
from helix_cpu.bench.contest import (
    OURS,
    AbsentError,
    Contest,
    Entry,
    Goal,
    Line,
    times_faster,
    times_slower,
)
from helix_cpu.bench.machine import cores, has_amx
from helix_cpu.bench.memory import activations_of_gradients
from helix_cpu.bench.peers import fla_naive, ggml, jax_scan, mambapy_scan, torch_forms, transformers_slow
from helix_cpu.bench.port_bound import port_bound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Preparations = Mapping[str, Callable[[], Entry]]

Drawn = TypeVar("Drawn")

_SCAN_INSTRUCTIONS = 13
"""Floating-point instructions of the selective scan for a vector of elements: exp takes ten of them."""
_FFT_LENGTHS = (4096, 16384, 65536, 262144)
_HEADS = (1, 512, 12, 64)


def contests(threads: int) -> list[Contest]:
    """Return all contests, those that need more than one thread first."""
    return [
        two_threads("selective_scan", (8, 512, 512, 16), inputs.scan, ours.selective_scan),
        two_threads("ssd_scan", (1, 2048, 24, 64, 128), inputs.ssd, ours.ssd_scan),
        *(selective_scan(shape, threads) for shape in ((1, 2048, 768, 16), (8, 512, 512, 16))),
        selective_scan_on_avx2((1, 2048, 768, 16)),
        selective_scan_with_gradients((1, 512, 768, 16)),
        selective_scan_step(1536, threads),
        ssd_scan((1, 2048, 24, 64, 128), threads),
        ssd_scan_with_gradients((1, 1024, 24, 64, 128)),
        ssd_scan_in_bfloat16((1, 2048, 24, 64, 128)),
        *(long_conv((1, seq_len, 256)) for seq_len in _FFT_LENGTHS),
        causal_conv1d((1, 2048, 1536, 4), threads),
        gated_rms_norm((1, 2048, 1536)),
        *linear_attention(threads),
        prefill(512),
    ]


def selective_scan(shape: tuple[int, int, int, int], threads: int) -> Contest:
    """Mamba's scan, forward."""

    def enter() -> Preparations:
        drawn = inputs.scan(*shape)
        return {
            OURS: partial(ours.selective_scan, drawn),
            "transformers": partial(transformers_slow.selective_scan, drawn),
            "ggml": partial(ggml.selective_scan, drawn, threads),
            "jax.lax.scan": partial(jax_scan.selective_scan, drawn),
            "mambapy": partial(mambapy_scan.selective_scan, drawn),
            "port bound": partial(port_bound, drawn.u.numel() * shape[3], _SCAN_INSTRUCTIONS),
        }

    lines = (
        times_faster("transformers", 100),
        times_faster("ggml", 20),
        times_faster("jax.lax.scan", 5),
        times_faster("mambapy"),
        Line(
            "port bound",
            lambda t: 100 * t["port bound"] / t[OURS],
            ("port bound", OURS),
            "%",
            Goal(60, at_least=True),
        ),
    )
    return Contest("selective_scan", "forward", _text(shape), enter, lines)


def selective_scan_on_avx2(shape: tuple[int, int, int, int]) -> Contest:
    """The same without AVX-512."""

    def enter() -> Preparations:
        drawn = inputs.scan(*shape)
        return {
            OURS: partial(ours.selective_scan, drawn),
            "transformers": partial(transformers_slow.selective_scan, drawn),
        }

    lines = (times_faster("transformers", 50),)
    return Contest("selective_scan", "forward, AVX2 alone", _text(shape), enter, lines, isa="avx2")


def selective_scan_with_gradients(shape: tuple[int, int, int, int]) -> Contest:
    """Mamba's scan, forward and backward."""
    forward, memory = "own forward", "memory"

    def enter() -> Preparations:
        drawn = inputs.scan(*shape)
        return {
            OURS: partial(ours.selective_scan_with_gradients, drawn),
            forward: lambda: Entry(ours.selective_scan(drawn).run),
            "transformers": partial(transformers_slow.selective_scan_with_gradients, drawn),
            "mambapy": partial(mambapy_scan.selective_scan_with_gradients, drawn),
            "jax.lax.scan": partial(jax_scan.selective_scan_with_gradients, drawn),
        }

    lines = (
        times_faster("transformers", 1000),
        times_faster("mambapy", 90),
        times_faster("jax.lax.scan"),
        Line(
            "own forward: backward takes",
            lambda t: (t[OURS] - t[forward]) / t[forward],
            (forward, OURS),
            goal=Goal(2.2, at_least=False),
        ),
        Line(
            memory,
            lambda _: activations_of_gradients(*shape),
            (),
            " activations",
            Goal(6, at_least=False),
        ),
    )
    return Contest("selective_scan", "forward + backward", _text(shape), enter, lines)


def selective_scan_step(d_model: int, threads: int) -> Contest:
    """One step of Mamba's scan, as decoding takes it, with all that Python costs."""
    d_state, python = 16, "Python and ctypes"

    def enter() -> Preparations:
        drawn = inputs.scan(1, 1, d_model, d_state)
        least = inputs.scan(1, 1, 1, 1)
        state = torch.zeros(1, d_model, d_state)
        return {
            OURS: partial(ours.selective_scan_step, drawn, state),
            "transformers": partial(transformers_slow.selective_scan_step, drawn, state),
            "ggml": partial(ggml.selective_scan, drawn, threads),
            "jax.lax.scan": partial(jax_scan.selective_scan_step, drawn, state),
            # One channel of one state leaves next to nothing to the kernel.
            python: lambda: Entry(ours.selective_scan_step(least, torch.zeros(1, 1, 1)).run),
        }

    lines = (
        times_faster("transformers", 8),
        times_faster("ggml"),
        times_faster("jax.lax.scan"),
        Line(python, lambda t: 1e6 * t[python], (python,), " µs", Goal(8, at_least=False)),
    )
    return Contest("selective_scan", "decoding step", _text((1, d_model)), enter, lines)


def ssd_scan(shape: tuple[int, int, int, int, int], threads: int) -> Contest:
    """Mamba-2's scan, forward."""

    def enter() -> Preparations:
        drawn = inputs.ssd(*shape)
        return {
            OURS: partial(ours.ssd_scan, drawn),
            "transformers": partial(transformers_slow.ssd_scan, drawn),
            "ggml": partial(ggml.ssd_scan, drawn, threads),
            "jax.lax.scan": partial(jax_scan.ssd_scan, drawn),
        }

    lines = (times_faster("transformers", 15), times_faster("ggml", 5), times_faster("jax.lax.scan"))
    return Contest("ssd_scan", "forward", _text(shape), enter, lines)


def ssd_scan_with_gradients(shape: tuple[int, int, int, int, int]) -> Contest:
    """Mamba-2's scan, forward and backward."""

    def enter() -> Preparations:
        drawn = inputs.ssd(*shape)
        return {
            OURS: partial(ours.ssd_scan_with_gradients, drawn),
            "transformers": partial(transformers_slow.ssd_scan_with_gradients, drawn),
            "jax.lax.scan": partial(jax_scan.ssd_scan_with_gradients, drawn),
        }

    lines = (times_faster("transformers", 15), times_faster("jax.lax.scan"))
    return Contest("ssd_scan", "forward + backward", _text(shape), enter, lines)


def ssd_scan_in_bfloat16(shape: tuple[int, int, int, int, int]) -> Contest:
    """Mamba-2's scan of bfloat16, against transformers in float32; its goal is for processors with AMX."""

    def enter() -> Preparations:
        drawn = inputs.ssd(*shape)
        return {
            OURS: lambda: Entry(ours.ssd_scan(inputs.narrowed(drawn)).run),
            "transformers": lambda: Entry(transformers_slow.ssd_scan(drawn).run),
        }

    line = times_faster("transformers", 50 if has_amx() else None)
    title = "forward, bfloat16 with AMX" if has_amx() else "forward, bfloat16 (no AMX here)"
    return Contest("ssd_scan", title, _text(shape), enter, (line,))


def long_conv(shape: tuple[int, int, int]) -> Contest:
    """Convolution with a kernel as long as the sequence."""
    blocked = "torch.fft in blocks"

    def enter() -> Preparations:
        drawn = inputs.long_conv(*shape)
        return {
            OURS: partial(ours.long_conv, drawn),
            "torch.fft": partial(torch_forms.long_conv, drawn),
            blocked: partial(torch_forms.long_conv_in_blocks, drawn),
        }

    return Contest(
        "long_conv", "forward", _text(shape), enter, (times_faster("torch.fft", 6), times_faster(blocked, 4))
    )


def causal_conv1d(shape: tuple[int, int, int, int], threads: int) -> Contest:
    """The short convolution with silu."""

    def enter() -> Preparations:
        drawn = inputs.conv(*shape)
        return {
            OURS: partial(ours.causal_conv1d, drawn),
            "copy": partial(torch_forms.copy, drawn.x),
            "transformers": partial(transformers_slow.causal_conv1d, drawn),
            "ggml": partial(ggml.causal_conv1d, drawn, threads),
        }

    lines = (times_slower("copy", 1.5), times_faster("transformers"), times_faster("ggml"))
    return Contest("causal_conv1d", "forward with silu", _text(shape), enter, lines)


def gated_rms_norm(shape: tuple[int, int, int]) -> Contest:
    """Mamba-2's gated norm."""

    def enter() -> Preparations:
        drawn = inputs.norm(*shape)
        return {
            OURS: partial(ours.gated_rms_norm, drawn),
            "copy": partial(torch_forms.copy, drawn.x),
            "transformers": partial(transformers_slow.gated_rms_norm, drawn),
        }

    lines = (times_slower("copy", 2), times_faster("transformers"))
    return Contest("rms_norm", "forward with gate", _text(shape), enter, lines)


def linear_attention(threads: int) -> list[Contest]:
    """The recurrences whose state is a matrix a head."""
    return [
        _recurrence("gla", inputs.gated, ours.gla, fla_naive.gla, partial(ggml.gla, threads=threads)),
        _recurrence(
            "gated_delta_rule",
            inputs.delta_rule,
            ours.gated_delta_rule,
            fla_naive.gated_delta_rule,
            partial(ggml.gated_delta_rule, threads=threads),
        ),
        _recurrence("rwkv7", inputs.rwkv, ours.rwkv7, fla_naive.rwkv7, partial(ggml.rwkv7, threads=threads)),
    ]


def prefill(seq_len: int) -> Contest:
    """A whole model in transformers, with our kernels and without."""

    def enter() -> Preparations:
        return {
            OURS: partial(models.patched_prefill, seq_len),
            "transformers": partial(models.prefill, seq_len),
        }

    title = "prefill of Mamba 130M in transformers, patched"
    return Contest("transformers", title, _text((1, seq_len)), enter, (times_faster("transformers", 4),))


def two_threads(
    op: str, shape: tuple[int, ...], draw: Callable[..., Drawn], run: Callable[[Drawn], Entry]
) -> Contest:
    """An op on two threads against one."""
    one = "one thread"

    def on(threads: int, drawn: Drawn) -> Entry:
        if cores() < threads:
            raise AbsentError("this process has one core")
        own = run(drawn).run

        def compute() -> object:
            torch.set_num_threads(threads)
            return own()

        return Entry(compute)

    def enter() -> Preparations:
        drawn = draw(*shape)
        return {OURS: partial(on, 2, drawn), one: partial(on, 1, drawn)}

    lines = (times_faster(one, 1.8),)
    return Contest(op, "forward, two threads", _text(shape), enter, lines, pinned=False)


def _recurrence(
    op: str,
    draw: Callable[..., Drawn],
    own: Callable[[Drawn], Entry],
    naive: Callable[[Drawn], Entry],
    in_ggml: Callable[[Drawn], Entry],
) -> Contest:
    def enter() -> Preparations:
        drawn = draw(*_HEADS)
        return {
            OURS: partial(own, drawn),
            "fla naive": partial(naive, drawn),
            "ggml": partial(in_ggml, drawn),
        }

    return Contest(op, "forward", _text(_HEADS), enter, (times_faster("fla naive", 30), times_faster("ggml")))


def _text(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))})"
