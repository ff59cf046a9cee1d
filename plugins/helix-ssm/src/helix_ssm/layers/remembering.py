"""How a language model asks its memory: row by row where sequences are packed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn
from torch.utils._pytree import tree_map

from helix_kernel.errors import ArgumentError
from helix_ssm.layers.protocol import join
from helix_ssm.ops._check import segments

if TYPE_CHECKING:
    from torch import Tensor

    from helix_kernel.memory import LanguageMemory
    from helix_ssm.layers.protocol import State


class MemoryFactory(Protocol):
    """What builds a model's memory."""

    def __call__(self, *, d_model: int, vocab_size: int) -> LanguageMemory:
        """Return an empty memory for features of width `d_model` and ids below `vocab_size`."""
        ...


def checked(memory: Any) -> Any:
    """Return the memory.

    Raises:
        ArgumentError: It is not one that a language model can take.
    """
    missing = [name for name in ("mix", "init_state") if not hasattr(memory, name)]
    if missing or not isinstance(memory, nn.Module):
        why = f"has no {missing[0]}()" if missing else "is no torch.nn.Module"
        raise ArgumentError(
            f"language-model: memory is a {type(memory).__name__}, which {why}; allowed is a tier for "
            "language models (helix_kernel.memory.LanguageMemory), such as hierarchy"
        )
    return memory


def mixed(
    memory: LanguageMemory,
    logits: Tensor,
    ids: Tensor,
    features: Tensor,
    state: State,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, State]:
    """Return log-probabilities of what comes next, the memory's say among them, and the memory's next state.

    Sequences that are packed into one row are asked for one after another, each with its row of the state.
    """
    if cu_seqlens is None:
        return memory.mix(logits, ids, features, state)
    outputs, states = [], []
    for row, (start, end) in enumerate(segments(cu_seqlens, ids.shape[1])):
        own = tree_map(lambda leaf, row=row: leaf[row : row + 1], state)
        output, own = memory.mix(logits[:, start:end], ids[:, start:end], features[:, start:end], own)
        outputs.append(output)
        states.append(own)
    return torch.cat(outputs, dim=1), join(states)
