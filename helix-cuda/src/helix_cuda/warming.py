"""A config's model run at its sizes, so that the kernels it needs are compiled, tuned and kept on disk."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import attrs
import torch

from helix_kernel.errors import InputError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from helix_kernel.config import Config

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@attrs.frozen
class Warmed:
    """How long one part of the work took.

    Args:
        what: The part.
        first_seconds: The first time, with all that was compiled and tuned.
        seconds: Once more.
    """

    what: str
    first_seconds: float
    seconds: float


def sizes(config: Config, batch_size: int | None, seq_len: int | None) -> tuple[int, int]:
    """Return how many sequences a batch has and how many tokens each, where left out as the data says.

    Raises:
        InputError: The data says nothing of it, or it is not positive.
    """
    said = config.sections["data"].arguments if "data" in config.sections else {}
    found = []
    for name, given in {"batch_size": batch_size, "seq_len": seq_len}.items():
        value = said.get(name) if given is None else given
        option = f"--{name.replace('_', '-')}"
        if value is None:
            raise InputError(f"{option} is missing, and {config.source}'s [data] does not say {name}")
        if value < 1:
            raise InputError(f"{option} is {value}, allowed is >= 1")
        found.append(int(value))
    return found[0], found[1]


def warm(config: Config, device: torch.device, batch_size: int, seq_len: int) -> list[Warmed]:
    """Train one step of a config's model and decode one token, each twice, on random ids.

    Args:
        config: The config; of its trainer only the precision counts.
        device: Where.
        batch_size: Sequences of a batch.
        seq_len: Tokens of each.

    Raises:
        ConfigError: The config has no model.
    """
    model = config.kernel.build("layer", config["model"]).to(device)
    generator = torch.Generator().manual_seed(0)
    n_ids = getattr(model, "vocab_size", 2)
    ids = torch.randint(n_ids, (batch_size, seq_len), generator=generator).to(device)
    context = _precision(config, device)
    done = [_twice("training step", lambda: _train(model, ids, context), device)]
    if hasattr(model, "step"):
        model.eval()
        done.append(_twice("decoding step", lambda: _decode(model, ids, context), device))
    return done


def _train(model: Any, ids: torch.Tensor, context: AbstractContextManager[object]) -> None:
    with context:
        logits = model(ids)
    logits.float().square().mean().backward()


@torch.no_grad()
def _decode(model: Any, ids: torch.Tensor, context: AbstractContextManager[object]) -> None:
    with context:
        model.step(ids[:, 0], model.init_state(len(ids), device=ids.device))


def _precision(config: Config, device: torch.device) -> AbstractContextManager[object]:
    trainer = config.sections["trainer"].arguments if "trainer" in config.sections else {}
    dtype = _AUTOCAST.get(trainer.get("precision", "fp32"))
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def _twice(what: str, run: Any, device: torch.device) -> Warmed:
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return Warmed(what, *seconds)
