"""The backward pass of a reversible stack: it takes layers off one by one, and differentiates each anew."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from helix_ssm.layers import auxiliary

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def run_recomputed(
    halves: Sequence[nn.Module], a: Tensor, b: Tensor, *, dtype: torch.dtype, cu_seqlens: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run (a, b) <- (b, a + half(b)) over all halves, keeping nothing between them for the backward pass.

    Args:
        halves: Each is called as half(x, cu_seqlens) and gives what x has the shape of. They may draw
            random numbers, and may have auxiliary losses; they must change no buffers.
        a: The stream (B, L, D) that the first half adds to.
        b: The stream that it reads.
        dtype: What halves are given; the streams stay in their own.
        cu_seqlens: Handed to the halves.

    Returns:
        Both streams after the last half, and the halves' auxiliary losses, None if there are none.
    """
    named = [dict(half.named_parameters()) for half in halves]
    run = _Run(halves, [list(parameters) for parameters in named], a.device, dtype, cu_seqlens)
    tensors = [tensor for parameters in named for tensor in parameters.values()]
    a, b, loss = _Recomputed.apply(run, a, b, *tensors)  # type: ignore[no-untyped-call]  # torch
    return a, b, loss if run.has_losses else None


class _Run:
    """What the forward pass leaves to the backward pass beside tensors."""

    def __init__(
        self,
        halves: Sequence[nn.Module],
        names: list[list[str]],
        device: torch.device,
        dtype: torch.dtype,
        cu_seqlens: Tensor | None,
    ) -> None:
        self.halves, self.names, self.device, self.dtype, self.cu_seqlens = (
            halves,
            names,
            device,
            dtype,
            cu_seqlens,
        )
        self.autocast = (torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type))
        self.random_states: list[tuple[Tensor, ...]] = []
        self.has_losses = False

    def call(self, index: int, x: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return a half's output for x, and its auxiliary loss."""
        half = self.halves[index]
        named = dict(zip(self.names[index], parameters, strict=True))
        y = functional_call(half, named, (x.to(self.dtype), self.cu_seqlens))
        return y, auxiliary.collect(half)

    @contextmanager
    def as_before(self, index: int) -> Iterator[None]:
        """Return to the random numbers and the autocasting that the half saw in the forward pass."""
        enabled, dtype = self.autocast
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.autocast(self.device.type, dtype, enabled=enabled):
            cpu, *own = self.random_states[index]
            torch.set_rng_state(cpu)
            for device, state in zip(devices, own, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield

    def remember_random_state(self) -> None:
        """Keep the state from which the next half draws."""
        own = (torch.cuda.get_rng_state(self.device),) if self.device.type == "cuda" else ()
        self.random_states.append((torch.get_rng_state(), *own))

    def shares(self, tensors: Sequence[Tensor]) -> list[Sequence[Tensor]]:
        """Return the tensors half by half."""
        rest = iter(tensors)
        return [[next(rest) for _ in names] for names in self.names]


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: _Run, a: Tensor, b: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        losses = a.new_zeros(())
        for index, parameters in enumerate(run.shares(tensors)):
            run.remember_random_state()
            y, loss = run.call(index, b, parameters)
            a, b = b, a + y
            if loss is not None:
                run.has_losses = True
                losses = losses + loss
        ctx.run = run
        ctx.save_for_backward(a, b, *tensors)
        return a, b, losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_a: Tensor, grad_b: Tensor, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        a, b, *tensors = ctx.saved_tensors
        run: _Run = ctx.run
        found: list[Tensor | None] = []
        for index, parameters in reversed(list(enumerate(run.shares(tensors)))):
            inputs = [x.detach().requires_grad_(x.requires_grad) for x in (a, *parameters)]
            inputs[0].requires_grad_()
            with torch.enable_grad(), run.as_before(index):
                y, loss = run.call(index, inputs[0], inputs[1:])
            grad_read, *grads = _gradients((y, loss), (grad_b.to(y.dtype), grad_loss), inputs)
            found[:0] = grads
            a, b = b - y.detach(), a
            grad_a, grad_b = grad_b, grad_a if grad_read is None else grad_a + grad_read
        return None, grad_a, grad_b, *found


def _gradients(
    outputs: Sequence[Tensor | None], cotangents: Sequence[Tensor], inputs: Sequence[Tensor]
) -> list[Tensor | None]:
    """Return the gradient of each input, None for one that needs none or has none."""
    pairs = [
        (output, cotangent)
        for output, cotangent in zip(outputs, cotangents, strict=True)
        if output is not None and output.requires_grad
    ]
    wanted = [x for x in inputs if x.requires_grad]
    found = iter(
        torch.autograd.grad(
            [output for output, _ in pairs], wanted, [cotangent for _, cotangent in pairs], allow_unused=True
        )
    )
    return [next(found) if x.requires_grad else None for x in inputs]
