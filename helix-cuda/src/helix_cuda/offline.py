"""Kernels compiled on a machine without a GPU: what each launch of an op would need on one.

The op's own code runs, on tensors of the device ``meta``, while a driver that only knows a target stands in
for the GPU's and each launch compiles instead. That finds what the interpreter does not: types and sizes that
the compiler refuses, more shared memory than there is, registers that spill.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from functools import partialmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import attrs
import torch
import triton

from helix_cuda import production
from helix_cuda.interpreter import interprets
from helix_cuda.ops import implementations
from helix_kernel.errors import ArgumentError
from helix_kernel.ops import defined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helix_kernel.ops import OpContract

SHARED_MEMORY = {"sm_80": 163 << 10, "sm_86": 99 << 10, "sm_89": 99 << 10, "sm_90": 227 << 10}
"""Targets, and how many bytes of shared memory a block of threads can have there.

From the CUDA C++ Programming Guide, technical specifications by compute capability.
"""


@attrs.frozen
class Launch:
    """One kernel as a launch compiled it.

    Args:
        op: Name of the op or gradient that launched it.
        call: Which call of it was the first to.
        kernel: The kernel's module and name.
        config: Its constants, warps and stages.
        is_first: Whether that is the first of its configurations, or the only one.
        registers: Registers of a thread.
        spills: Bytes of a thread that did not fit into registers.
        shared: Bytes of shared memory of a block.
        error: Why it does not compile, or None.
    """

    op: str
    call: str
    kernel: str
    config: str
    is_first: bool = True
    registers: int = 0
    spills: int = 0
    shared: int = 0
    error: str | None = None

    def why_not(self, arch: str) -> str | None:
        """Say what is wrong with it on a target, or None: it does not compile, fit, or stay in registers."""
        if self.error is not None:
            return f"does not compile: {self.error}"
        if self.shared > SHARED_MEMORY[arch]:
            return f"wants {self.shared} bytes of shared memory, allowed are {SHARED_MEMORY[arch]}"
        return f"spills {self.spills} bytes a thread" if self.spills else None


def compile_op(op: str, arch: str, *, thorough: bool = False, every_config: bool = False) -> list[Launch]:
    """Compile what an op and its gradient launch, each kernel once.

    Args:
        op: The op's name; it must be defined.
        arch: The target, such as ``sm_90``.
        thorough: Whether to compile for float32 beside bfloat16, for gradients of all results beside that of
            the first, and for the contract's samples beside calls of a model's size.
        every_config: Whether to compile every configuration of a tuned kernel, and not just the first.

    Raises:
        ArgumentError: The target is none of `SHARED_MEMORY`, or this process interprets kernels.
    """
    if arch not in SHARED_MEMORY:
        raise ArgumentError(f"arch is {arch!r}, allowed is one of {list(SHARED_MEMORY)}")
    if interprets():
        raise ArgumentError("kernels are interpreted in this process: unset TRITON_INTERPRET to compile them")
    recorder = _Recorder(every_config=every_config)
    with _compiling(arch, recorder):
        for call in _calls(defined()[op].contract, thorough=thorough):
            _run(defined()[op].contract, call, recorder, thorough=thorough)
    return list(recorder.launches.values())


@attrs.frozen
class _Call:
    """A call to compile for.

    Args:
        name: What it is, for the table.
        args: The op's arguments, on the device ``meta``.
        has_gradient: Whether to compile the gradient too.
    """

    name: str
    args: tuple[Any, ...]
    has_gradient: bool = True


def _calls(contract: OpContract, *, thorough: bool) -> Iterator[_Call]:
    for dtype in (torch.bfloat16, torch.float32) if thorough else (torch.bfloat16,):
        of_dtype = str(dtype).removeprefix("torch.")
        new = production.empty(dtype, "meta")
        yield _Call(f"training, {of_dtype}", production.call(contract.name, new, 8, 2048))
        decoding = production.call(contract.name, new, 64, 1)
        yield _Call(f"decoding, {of_dtype}", decoding, has_gradient=False)
        for sample in contract.samples() if thorough else ():
            yield _Call(f"{sample.name}, {of_dtype}", tuple(_emptied(arg, dtype) for arg in sample.args))


def _emptied(arg: Any, dtype: torch.dtype) -> Any:
    if not isinstance(arg, torch.Tensor):
        return arg
    if arg.is_complex():
        return torch.empty_like(arg, device="meta", dtype=torch.complex64)
    return torch.empty_like(arg, device="meta", dtype=dtype if arg.is_floating_point() else None)


def _run(contract: OpContract, call: _Call, recorder: _Recorder, *, thorough: bool) -> None:
    found = implementations()
    recorder.call, recorder.op = call.name, contract.name
    results = found[contract.name](*call.args)
    if results is NotImplemented or not call.has_gradient:
        return
    results = results if isinstance(results, tuple) else (results,)
    n_grads = len(results) - len(contract.saved)
    grads = [torch.empty_like(result) for result in results[:n_grads]]
    recorder.op = contract.backward_name
    saved = results[n_grads:]
    # As a loss makes it that looks at the first result alone; and where states have gradients too.
    unused = [None for _ in grads[1:]]
    found[contract.backward_name](grads[0], *unused, *saved, *call.args)
    if thorough:
        found[contract.backward_name](*grads, *saved, *call.args)


class _Recorder:
    """What was launched, by what distinguishes compiled kernels.

    Args:
        every_config: Whether tuned kernels are compiled in every configuration.
    """

    def __init__(self, *, every_config: bool) -> None:
        self.every_config = every_config
        self.launches: dict[tuple[str, str], Launch] = {}
        self.op = self.call = ""
        self.is_first = True
        self._compile = triton.JITFunction.run

    def compile(self, kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        """Compile for a launch, in place of `triton.JITFunction.run`."""
        del warmup
        config = _config(kernel, args, kwargs)
        launch = Launch(self.op, self.call, _name(kernel), config, self.is_first)
        try:
            compiled = self._compile(kernel, *args, grid=grid, warmup=True, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever a compiler raises is what is reported
            message = f"{type(error).__name__}: {error}"
            self.launches.setdefault(
                (launch.kernel, f"{config} {message}"), attrs.evolve(launch, error=message)
            )
            return
        if (launch.kernel, compiled.hash) not in self.launches:
            self.launches[launch.kernel, compiled.hash] = attrs.evolve(launch, **_usage(compiled))

    def tune(self, tuner: Any, *args: Any, **kwargs: Any) -> None:
        """Compile the configurations of a tuned kernel, in place of `triton.runtime.Autotuner.run`."""
        for config in tuner.configs if self.every_config else tuner.configs[:1]:
            self.is_first = config is tuner.configs[0]
            tuner.fn.run(*args, **kwargs, **config.all_kwargs())
        self.is_first = True


@contextmanager
def _compiling(arch: str, recorder: _Recorder) -> Iterator[None]:
    driver = triton.runtime.driver
    with ExitStack() as stack:
        # Where `active` is a property, which it is not in Triton 3.4, asking for it would look for a GPU.
        name = "_active" if hasattr(driver, "_active") else "active"
        stack.enter_context(mock.patch.object(driver, name, _Driver(arch)))
        for owner, function in (
            (triton.JITFunction, recorder.compile),
            (triton.runtime.Autotuner, recorder.tune),
        ):
            stack.enter_context(mock.patch.object(owner, "run", partialmethod(_call_with_self, function)))
        yield


def _call_with_self(self: Any, function: Any, *args: Any, **kwargs: Any) -> None:
    function(self, *args, **kwargs)


class _Driver:
    """Stands in for a GPU's driver.

    Args:
        arch: The target.
    """

    def __init__(self, arch: str) -> None:
        self._arch = arch

    def get_current_target(self) -> Any:
        return triton.backends.compiler.GPUTarget("cuda", int(self._arch.removeprefix("sm_")), 32)

    def get_current_device(self) -> str:
        """Return a device that no GPU has, so that what is compiled here is launched on none."""
        return f"offline {self._arch}"

    def get_current_stream(self, device: str) -> int:
        del device
        return 0


def _name(kernel: Any) -> str:
    return f"{kernel.fn.__module__.rpartition('.')[2]}.{kernel.fn.__name__}"


def _config(kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    constants = [parameter.name for parameter in kernel.params if parameter.is_constexpr]
    given = dict(zip(kernel.arg_names, args, strict=False)) | kwargs
    return ", ".join(
        f"{name}={given[name]}" for name in [*constants, "num_warps", "num_stages"] if name in given
    )


def _usage(compiled: Any) -> dict[str, Any]:
    """Read registers and spills off the machine code, by the tool in Triton's wheel."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        done = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)  # noqa: S603 - Triton's own tool
    used = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", done.stdout)}
    spills = used["STACK"] + used["LOCAL"]
    return {"registers": used["REG"], "spills": spills, "shared": compiled.metadata.shared}
