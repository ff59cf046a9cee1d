"""Each kernel against its floor: the bytes that it must move or the products that it must make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from helix_cuda.production import call
from helix_kernel.ops import defined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from helix_kernel.ops import Op

_FALLING = ("A", "g", "w")  # arguments that are rates or logarithms of decays


@dataclass(frozen=True)
class Case:
    """A call that is timed.

    Args:
        name: The op, and what of it.
        shape: The sizes that matter.
        run: Makes the call.
        nbytes: Bytes that it must read and write.
        flops: Floating-point operations of products that it must make on the tensor cores, or 0.
        peer: What it is compared with, and that call.
        goal: What is to be reached: a fraction of the ceiling, or a ratio to the peer.
    """

    name: str
    shape: tuple[int, ...]
    run: Callable[[], object]
    nbytes: int
    flops: int = 0
    peer: tuple[str, Callable[[], object]] | None = None
    goal: str = ""


@dataclass(frozen=True)
class Sizes:
    """Batch and length of the cases: those of the goals, or small ones to see that all runs."""

    scan: tuple[int, int] = (8, 2048)
    ssd: tuple[int, int] = (8, 2048)
    attention: tuple[int, int] = (8, 2048)
    long: tuple[int, ...] = (8192, 131072)


def cases(device: torch.device, sizes: Sizes) -> Iterator[Callable[[], Iterator[Case]]]:
    """Yield what makes the cases of each op, so that no more than one op's tensors are held at a time."""
    for op, goals in (
        ("rms_norm", ("≥ 80 % of copy", "")),
        ("causal_conv1d", ("≥ 80 % of copy", "")),
        ("selective_scan", ("≥ 60 % of copy", "≥ 40 % of copy")),
        ("diagonal_scan", ("", "")),
    ):
        yield lambda op=op, goals=goals: _bound_by_memory(op, device, sizes.scan, goals)
    yield lambda: _ssd(device, sizes.ssd)
    for op in ("gla", "gated_delta_rule", "rwkv7"):
        yield lambda op=op: _bound_by_memory(op, device, sizes.attention, ("", ""))
    for seq_len in sizes.long:
        yield lambda seq_len=seq_len: _long_conv(device, seq_len)


def _bound_by_memory(
    name: str, device: torch.device, size: tuple[int, int], goals: tuple[str, str]
) -> Iterator[Case]:
    op, args = defined()[name], _drawn(name, device, *size)
    shape = tuple(args[0].shape)
    results = _results(op(*args))[: _n_results(op)]
    inputs = [arg for arg in args if isinstance(arg, torch.Tensor)]
    forward = _nbytes(inputs) + _nbytes(results)
    yield Case(f"{name}, forward", shape, lambda: op(*args), forward, goal=goals[0])
    backward, leaves = _backward(op, args)
    moved = forward + _nbytes(leaves)
    yield Case(f"{name}, backward", shape, backward, moved, goal=goals[1])


def _ssd(device: torch.device, size: tuple[int, int]) -> Iterator[Case]:
    from helix_ssm.ops.chunked.ssd_scan import ssd_scan as chunked

    op, args = defined()["ssd_scan"], _drawn("ssd_scan", device, *size)
    shape = (*args[0].shape, args[3].shape[-1])
    flops = op.contract.flops(*(arg.shape if isinstance(arg, torch.Tensor) else arg for arg in args))
    inputs = [arg for arg in args if isinstance(arg, torch.Tensor)]
    nbytes = _nbytes(inputs) + _nbytes(_results(op(*args)))
    compiled = torch.compile(chunked)
    peer = ("torch.compile, chunked", lambda: compiled(*args))
    yield Case("ssd_scan, forward", shape, lambda: op(*args), nbytes, flops, goal="≥ 35 % of matrix rate")
    yield Case(
        "ssd_scan, forward", shape, lambda: op(*args), nbytes, peer=peer, goal="≥ 3\N{MULTIPLICATION SIGN}"
    )
    backward, leaves = _backward(op, args)
    yield Case("ssd_scan, backward", shape, backward, nbytes + _nbytes(leaves), 2 * flops)


def _long_conv(device: torch.device, seq_len: int) -> Iterator[Case]:
    op, args = defined()["long_conv"], _drawn("long_conv", device, 1, seq_len)
    x, kernel, D = args
    peer = ("torch.fft", lambda: _by_fft(x, kernel, D))
    nbytes = _nbytes([*args, x])
    yield Case(
        "long_conv, forward",
        tuple(x.shape),
        lambda: op(*args),
        nbytes,
        peer=peer,
        goal="≥ 2\N{MULTIPLICATION SIGN}",
    )


def _by_fft(x: Tensor, kernel: Tensor, D: Tensor) -> Tensor:
    n = x.shape[1] + kernel.shape[1]
    spectrum = torch.fft.rfft(x.float().transpose(1, 2), n) * torch.fft.rfft(kernel.float(), n)
    y = torch.fft.irfft(spectrum, n)[..., : x.shape[1]].transpose(1, 2)
    return (y + D.float() * x.float()).to(x.dtype)


def _drawn(name: str, device: torch.device, batch_size: int, seq_len: int) -> tuple[Any, ...]:
    """Draw the arguments of a call in bfloat16, decays below one and keys of unit length among them."""
    torch.manual_seed(0)

    def new(*shape: int, wide: bool = False) -> Tensor:
        return torch.randn(shape, device=device, dtype=torch.float32 if wide else torch.bfloat16)

    names = [argument.name for argument in defined()[name].forward._schema.arguments]
    args = dict(zip(names, call(name, new, batch_size, seq_len), strict=True))
    for key, value in args.items():
        if key in _FALLING:
            args[key] = -0.1 * value.abs()
    for key in ("k", "a", "b") if name in ("gated_delta_rule", "rwkv7") else ():
        if key in args:
            args[key] = F.normalize(args[key].float(), dim=-1).to(args[key].dtype)
    if name == "rwkv7":
        args["a"] = -args["b"]
    return tuple(args.values())


def _backward(op: Op, args: tuple[Any, ...]) -> tuple[Callable[[], object], list[Tensor]]:
    """Return what differentiates a call again and again, and the tensors that get a gradient."""
    leaves = [
        arg.detach().requires_grad_() if isinstance(arg, torch.Tensor) and arg.is_floating_point() else arg
        for arg in args
    ]
    wanted = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    y = _results(op(*leaves))[0]
    grad = torch.randn_like(y)
    return lambda: torch.autograd.grad(y, wanted, grad, retain_graph=True), wanted


def _n_results(op: Op) -> int:
    return len(op.forward._schema.returns) - len(op.contract.saved)


def _results(found: Any) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def _nbytes(tensors: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors)
