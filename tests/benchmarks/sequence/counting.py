"""Counts what a model computes and moves, by formula: nothing is run, so any length costs nothing.

FLOPs: torch's flop counter over fake tensors; helix ops by their contracts' formulas, matrix products by
torch's, causal attention as half of the full square of scores.

Bytes of a forward pass: every op reads each of its inputs once and writes its outputs once, in float32;
views move nothing. Attention is counted as a fused kernel with queries in blocks of 128: scores stay on
the chip, keys and values are read again for every block that sees them.

Bytes of one decoded token at batch 1: all weights once; a state of constant size is read and written; a
state that grows with the context, as a cache of keys and values, is read, and one token's part of it
written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from collections.abc import Callable

QUERY_BLOCK = 128
_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_ALLOCATIONS = (torch.ops.aten.empty.memory_format, torch.ops.aten.empty_like.default)


class Cost(NamedTuple):
    """What one token costs on average.

    Attributes:
        flops: Floating-point operations.
        n_bytes: Bytes moved.
    """

    flops: float
    n_bytes: float


def attention_flops(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    """Return the operations of scores and of their sums; half of them where attention is causal."""
    *rows, n_queries, head_dim = query
    is_causal = kwargs.get("is_causal", args[1] if len(args) > 1 else False)
    n_rows = torch.Size(rows).numel()
    full = 2 * n_rows * n_queries * key[-2] * (head_dim + value[-1])
    return full // 2 if is_causal else full


def flop_counter() -> FlopCounterMode:
    """Return torch's counter, which by itself does not know attention on the CPU."""
    return FlopCounterMode(display=False, custom_mapping={_ATTENTION: attention_flops})


class Traffic(TorchDispatchMode):
    """Adds up the bytes that the ops inside this context read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.n_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the op, and count it."""
        results = func(*args, **(kwargs or {}))
        if func._overloadpacket is _ATTENTION:
            self.n_bytes += _attention_bytes(*args[:3])
        elif not _is_view(func) and func not in _ALLOCATIONS:
            self.n_bytes += sum(_size(leaf) for leaf in tree_leaves((args, kwargs, results)))
        return results


class Imagined:
    """A model without memory behind its tensors.

    Args:
        build: Makes the model: ids (B, L) to logits, with `init_state`, `extend` and `step`.
    """

    def __init__(self, build: Callable[[], Any]) -> None:
        self._mode = FakeTensorMode()
        with self._mode:
            self._model = build().eval()

    def prefill(self, context: int) -> Cost:
        """Return the cost of a token in one forward pass over `context` tokens at batch 1."""
        with self._mode, torch.no_grad():
            ids = torch.zeros(1, context, dtype=torch.int64)
            with flop_counter() as counter, Traffic() as traffic:
                self._model(ids)
        return Cost(counter.get_total_flops() / context, traffic.n_bytes / context)

    def decoding(self, context: int) -> Cost:
        """Return the cost of the token that follows `context` tokens at batch 1; see the module."""
        with self._mode, torch.no_grad():
            state, earlier = self._state(context), self._state(context // 2)
            with flop_counter() as counter:
                self._model.step(torch.zeros(1, dtype=torch.int64), state)
            sizes, before = ([_size(leaf) for leaf in tree_leaves(tree)] for tree in (state, earlier))
            weights = sum(_size(parameter) for parameter in self._model.parameters())
        constant = sum(size for size, past in zip(sizes, before, strict=True) if size == past)
        growing = sum(sizes) - constant
        return Cost(counter.get_total_flops(), weights + 2 * constant + growing + growing / context)

    def count(self) -> int:
        """Return how many parameters it has."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    def _state(self, context: int) -> Any:
        """Return the state after `context` tokens."""
        ids = torch.zeros(1, context, dtype=torch.int64)
        return self._model.extend(ids, self._model.init_state(1))[1]


def _attention_bytes(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> int:
    """Return the bytes of causal attention by blocks of queries; a block reads the keys before its end."""
    n_blocks = -(-query.shape[-2] // QUERY_BLOCK)
    reads = (n_blocks + 1) / 2  # on average, of all keys and values
    return 2 * _size(query) + round(reads * (_size(key) + _size(value)))


def _size(leaf: Any) -> int:
    if not isinstance(leaf, torch.Tensor):
        return 0
    return min(leaf.numel() * leaf.element_size(), leaf.untyped_storage().nbytes())


def _is_view(func: Any) -> bool:
    """Whether the op's results share memory with its arguments without writing to it."""
    return any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
