"""What a call of an op costs before it computes anything, by each way that PyTorch offers.

Usage: python tests/benchmarks/kernel/op_dispatch.py
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import torch

from helix_kernel.backends import BackendSelector, Memory, Probe
from helix_kernel.ops import Op, OpContract, define

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = 300
ROUNDS = 40


def main() -> None:
    """Measure every way in turn, many times over, and print the table of medians."""
    op = _define()
    x = torch.ones(4)
    leaf = torch.ones(4, requires_grad=True)
    custom = _custom_op()
    with BackendSelector({"here": _Backend()}).using(["here"]):
        ways: dict[str, Callable[[], Any]] = {
            "raw function": lambda: _double(x),
            "`torch.ops.helix.X`": lambda: op.forward(x),
            "entry": lambda: op(x),
            "`torch.library.custom_op`": lambda: custom(x),
            "raw function, recorded by autograd": lambda: _double(leaf),
            "plain `autograd.Function`": lambda: _Function.apply(leaf),
            "entry, recorded by autograd": lambda: op(leaf),
            "`torch.ops.helix.X`, recorded by autograd": lambda: op.forward(leaf),
            "`torch.library.custom_op`, recorded by autograd": lambda: custom(leaf),
        }
        times = _interleaved(ways)
    base = times["raw function"]
    recorded = times["raw function, recorded by autograd"]
    print("## Op dispatch\n")
    print(f"An op that doubles four numbers; medians of {ROUNDS} rounds of {CALLS} calls, in turn.\n")
    print("| way | µs a call | µs over the raw function |")
    print("|---|---:|---:|")
    for way, micros in times.items():
        over = micros - (recorded if "recorded" in way or "autograd" in way else base)
        print(f"| {way} | {micros:.1f} | {over:.1f} |")


def _double(x: torch.Tensor) -> torch.Tensor:
    return x * 2


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return _double(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return _double(grads[0])


class _Backend:
    """Serves the op by the raw function, as a fast backend would."""

    device_type = "cpu"
    priority = 0
    ops: dict[str, Callable[..., Any]] = {"benchmark_double": _double}  # noqa: RUF012 - read only

    def probe(self) -> Probe:
        return Probe(available=True, reason="here")

    def memory(self, index: int = 0) -> Memory | None:
        return None


def _define() -> Op:
    return define(
        OpContract(
            name="benchmark_double",
            schema="(Tensor x) -> (Tensor y)",
            reference=_double,
            fake=torch.empty_like,
            samples=list,
            flops=lambda shape: shape.numel(),
        )
    )


def _custom_op() -> Callable[..., Any]:
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    double.__annotations__ = {"x": torch.Tensor, "return": torch.Tensor}
    custom = torch.library.custom_op("helix_benchmark::double", double, mutates_args=())
    custom.register_autograd(
        lambda _ctx, grad: _double(grad),
        setup_context=lambda ctx, inputs, output: None,
    )
    return custom


def _interleaved(ways: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Return microseconds a call, each the median of rounds in which every way has its turn."""
    rounds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, call in ways.items():
            start = time.process_time()
            for _ in range(CALLS):
                call()
            rounds[way].append((time.process_time() - start) / CALLS * 1e6)
    return {way: statistics.median(values) for way, values in rounds.items()}


if __name__ == "__main__":
    main()
