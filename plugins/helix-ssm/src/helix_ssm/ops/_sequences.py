"""How the references of the linear-attention ops treat sequences packed into one row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from helix_ssm.ops._check import segments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


def one_by_one(
    run: Callable[..., tuple[Tensor, Tensor]],
    tokens: Sequence[Tensor],
    initial_state: Tensor | None,
    cu_seqlens: Tensor,
) -> tuple[Tensor, Tensor]:
    """Run each of the packed sequences by itself.

    Args:
        run: Maps one sequence's tensors (1, L, ...) and its state, (1, ...) or None, to its outputs and
            final state.
        tokens: Tensors (1, T, ...), one entry a token.
        initial_state: States (n, ...), or None.
        cu_seqlens: Bounds (n+1,) of the sequences.

    Returns:
        The outputs (1, T, ...) and the final states (n, ...).
    """
    outputs, finals = [], []
    for i, (start, end) in enumerate(segments(cu_seqlens, tokens[0].shape[1])):
        state = None if initial_state is None else initial_state[i : i + 1]
        y, final = run(*(tensor[:, start:end] for tensor in tokens), state)
        outputs.append(y)
        finals.append(final)
    return torch.cat(outputs, dim=1), torch.cat(finals)
