"""The commands `helix cuda check`, `helix cuda compile` and `helix cuda warmup`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from helix_kernel.cli.output import print_json, print_table
from helix_kernel.errors import DependencyError, InputError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from helix_cuda.offline import Launch


def check(*, op: list[str] | None = None, fresh: bool = False, json: bool = False) -> int:
    """Check kernels on the GPU here: every sample of their op's contract, in every configuration.

    Args:
        op: Only this op, such as ``ssd_scan``; may be given again. All if left out.
        fresh: Check again what was checked before; else the verdict on disk is shown.
        json: Print one JSON object.

    Returns:
        0, or 1 where an op is wrong.
    """
    chosen = _ops(op)
    _require_device()
    from helix_cuda import serving, verdicts

    found: dict[tuple[str, str], str | None] = {}
    for device in {verdicts.describe(device): device for device in serving.present()}.values():
        name = verdicts.describe(device)
        for each in chosen:
            verdict = None if fresh else verdicts.read(each, name)
            if verdict is None or not verdict.thorough:
                verdict = serving.check(each, device, thorough=True)
            found[name, each] = verdict.reason
    if json:
        checks = [{"device": name, "op": each, "wrong": wrong} for (name, each), wrong in found.items()]
        print_json({"triton": verdicts.triton_version(), "checks": checks})
    else:
        rows = [(*about, wrong or "right") for about, wrong in found.items()]
        print_table(("device", "op", "verdict"), rows)
    return 1 if any(found.values()) else 0


def compile_kernels(
    *,
    arch: str = "sm_90",
    op: list[str] | None = None,
    thorough: bool = False,
    every_config: bool = False,
    json: bool = False,
) -> int:
    """Compile kernels for a GPU that need not be here, and show what they take of it.

    Args:
        arch: The target: sm_80, sm_86, sm_89 or sm_90.
        op: Only this op, such as ``ssd_scan``; may be given again. All if left out.
        thorough: For float32 beside bfloat16, and for small and odd sizes beside those of models.
        every_config: Every configuration of a tuned kernel, and not just the first.
        json: Print one JSON object.

    Returns:
        0, or 1 where a kernel does not compile or fit, or spills registers in its first configuration.
    """
    chosen = _ops(op)
    from helix_cuda.offline import compile_op

    launches = [
        launch
        for each in chosen
        for launch in compile_op(each, arch, thorough=thorough, every_config=every_config)
    ]
    rows = [attrs.asdict(launch) | {"wrong": launch.why_not(arch)} for launch in launches]
    if json:
        print_json({"arch": arch, "kernels": rows})
    else:
        _print_launches(launches, arch)
    return 1 if any(row["wrong"] for row in rows if row["is_first"] or row["error"]) else 0


def warmup(
    config: str, /, *, batch_size: int | None = None, seq_len: int | None = None, json: bool = False
) -> None:
    """Compile and tune what a config's model needs on the GPU here, so that a run begins at once.

    Args:
        config: The config's file.
        batch_size: Sequences of a batch; as its data says if left out.
        seq_len: Tokens of each; as its data says if left out.
        json: Print one JSON object.
    """
    from helix_kernel.config import load_config

    read = load_config(config)
    device = _require_device()
    from helix_cuda import warming

    n_sequences, n_tokens = warming.sizes(read, batch_size, seq_len)
    with read.kernel.backend_selector.using(["cuda-triton", "auto"]):
        done = warming.warm(read, device, n_sequences, n_tokens)
    if json:
        print_json({"device": str(device), "warmed": [attrs.asdict(each) for each in done]})
        return
    rows = [(each.what, f"{each.first_seconds:.2f} s", f"{each.seconds:.4f} s") for each in done]
    print_table(("part", "compiling and tuning", "once more"), rows)


def _ops(names: Sequence[str] | None) -> list[str]:
    """Return the ops meant, and have their contracts defined."""
    from helix_cuda.ops import NAMES
    from helix_kernel import default_kernel
    from helix_kernel.ops import defined
    from helix_kernel.targets import load_target

    for name in names or ():
        if name not in NAMES:
            known = list(NAMES)
            raise InputError(
                f"--op {name}: helix-cuda has no op of that name, allowed is one of {known}."
                f"{did_you_mean(name, known)}"
            )
    for component in default_kernel().components("op"):
        load_target(component)
    found = [name for name in NAMES if (names is None or name in names) and name in defined()]
    if not found:
        raise DependencyError("no op is defined that helix-cuda implements: python -m pip install helix-ssm")
    return found


def _require_device() -> torch.device:
    """Return the device to work on, and say what is missing where there is none."""
    from helix_cuda.backend import CUDABackend
    from helix_cuda.serving import present

    probe = CUDABackend().probe()
    if not probe.available:
        raise DependencyError(
            f"there is no GPU to do it on: {probe.reason}. `helix cuda compile` compiles without one"
        )
    return present()[0]


def _print_launches(launches: Sequence[Launch], arch: str) -> None:
    columns = ("kernel", "for", "configuration", "registers", "spills", "shared", "")
    rows = [
        (
            launch.kernel,
            launch.call,
            launch.config,
            str(launch.registers),
            str(launch.spills),
            str(launch.shared),
            (launch.why_not(arch) or "").partition("\n")[0],
        )
        for launch in launches
    ]
    print_table(columns, rows)
