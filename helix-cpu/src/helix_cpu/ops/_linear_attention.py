"""What the ops share that keep a memory of products of keys and values: the arguments of their kernels.

Each kernel runs u_t = S_{t-1}^T a_t, S_t = diag(decay_t) S_{t-1} + b_t u_t^T + k_t x_t^T and o_t = S_t^T q_t,
with those of the terms that its op has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from helix_cpu.arguments import address, as_given, bounds, code, common_dtype, dense, rows, serves
from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from torch import Tensor

    from helix_cpu.library import Kernel

FORWARD = "42q1d"
"""Layout of a forward kernel's arguments."""

BACKWARD = "55q1d"
"""Layout of a backward kernel's arguments."""

_ABSENT = (0, 0, 0, 0, 0)
_PLAIN = {torch.float32}


class Tokens(NamedTuple):
    """What a kernel reads of each token; None for what its op has not.

    Args:
        q: Queries (B, L, H, K).
        k: Keys (B, L, H, K).
        v: Values (B, L, H, V).
        gate: Logarithms of a decay for each row of the state (B, L, H, K).
        a: What is read of the state (B, L, H, K).
        b: Where that is written (B, L, H, K).
        log_decay: Logarithms of a decay for all of the state (B, L, H).
        beta: Strengths of the writes (B, L, H).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    gate: Tensor | None = None
    a: Tensor | None = None
    b: Tensor | None = None
    log_decay: Tensor | None = None
    beta: Tensor | None = None


def forward(
    kernel: Kernel, tokens: Tokens, scale: float, initial_state: Tensor | None, cu_seqlens: Tensor | None
) -> Any:
    """Run a kernel of this kind; returns what the op's contract says, NotImplemented of float64.

    Args:
        kernel: The op's.
        tokens: Its arguments.
        scale: Factor on the outputs.
        initial_state: State (N, H, K, V) or None.
        cu_seqlens: Bounds of packed sequences or None.

    Raises:
        ArgumentError: A shape or the bounds do not fit.
    """
    call = _call(tokens, initial_state, cu_seqlens)
    if call is None:
        return NotImplemented
    v = tokens.v
    o = torch.empty(v.shape, dtype=call.dtype)
    final_state = torch.empty(call.state_shape, dtype=torch.float32)
    kernel(*call.arguments, o.data_ptr(), final_state.data_ptr(), scale)
    return o if call.dtype is v.dtype else o.to(v.dtype), final_state


def backward(
    kernel: Kernel,
    grads: tuple[Tensor | None, Tensor | None],
    tokens: Tokens,
    scale: float,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Any:
    """Run the kernel of a gradient; the arguments are those of `forward`, after the gradients of its results.

    Returns:
        The gradients of the tokens' tensors, in their order, and of the initial state, each in the dtype of
        its argument, an empty tensor for one that is None; NotImplemented of float64.

    Raises:
        ArgumentError: A shape or the bounds do not fit.
    """
    call = _call(tokens, initial_state, cu_seqlens)
    if call is None or not serves(*grads):
        return NotImplemented
    grad_o = torch.zeros_like(tokens.v) if grads[0] is None else grads[0]
    grad_o = rows(grad_o, call.dtype)
    place_o = (grad_o.data_ptr(), *grad_o.stride())
    grad_final = None if grads[1] is None else dense(grads[1])
    given = (*tokens, initial_state)
    # Where the state has no column, no tile of it writes the gradients.
    new = torch.empty if tokens.v.shape[3] else torch.zeros
    found = [None if tensor is None else new(tensor.shape, dtype=torch.float32) for tensor in given]
    found[2] = torch.empty(tokens.v.shape, dtype=call.dtype)
    kernel(*call.arguments, *place_o, address(grad_final), *(address(grad) for grad in found), scale)
    return as_given(tuple(found), given)


class _Call(NamedTuple):
    """The arguments that both kernels take.

    Args:
        dtype: That of the tokens' tensors, as the kernel reads them.
        state_shape: (N, H, K, V).
        arguments: In the kernel's order.
        alive: What they hold the addresses of.
    """

    dtype: torch.dtype
    state_shape: tuple[int, ...]
    arguments: list[int]
    alive: list[Tensor]


def _call(tokens: Tokens, initial_state: Tensor | None, cu_seqlens: Tensor | None) -> _Call | None:
    """Lay out what both kernels take, None of float64; short, since a decoding step pays for every line."""
    plain = {tensor.dtype for tensor in (*tokens, initial_state) if tensor is not None} == _PLAIN
    if not plain and not serves(*tokens, initial_state):
        return None
    dtype = torch.float32 if plain else common_dtype(*tokens[:6])
    batch_size, seq_len, n_heads, k_dim = tokens.k.shape
    v_dim = tokens.v.shape[3]
    ends = None if cu_seqlens is None else bounds(cu_seqlens, seq_len)
    n_sequences = batch_size if ends is None else ends.shape[0] - 1
    state_shape = (n_sequences, n_heads, k_dim, v_dim)
    _check(tokens, initial_state, state_shape, packed=ends is not None)
    arguments: list[int] = []
    alive: list[Tensor] = []
    for tensor in tokens[:6]:
        if tensor is None:
            arguments += _ABSENT
            continue
        laid_out = rows(tensor, dtype)
        arguments += (laid_out.data_ptr(), *laid_out.stride())
        alive.append(laid_out)
    for tensor in (tokens.log_decay, tokens.beta, initial_state):
        if tensor is None:
            arguments.append(0)
            continue
        contiguous = dense(tensor)
        arguments.append(contiguous.data_ptr())
        alive.append(contiguous)
    if ends is not None:
        alive.append(ends)
    arguments += (address(ends), n_sequences, seq_len, n_heads, k_dim, v_dim, code(dtype))
    return _Call(dtype, state_shape, arguments, alive)


def _check(tokens: Tokens, initial_state: Tensor | None, state: tuple[int, ...], *, packed: bool) -> None:
    """Refuse shapes with which a kernel would read beyond a tensor."""
    keys = tokens.k.shape
    heads = keys[:3]
    allowed = (keys, keys, (*heads, state[3]), keys, keys, keys, heads, heads)
    for name, tensor, shape in zip(Tokens._fields, tokens, allowed, strict=True):
        if tensor is not None and tensor.shape != shape:
            raise ArgumentError(f"{name} has shape {tuple(tensor.shape)}, allowed is {tuple(shape)}")
    if initial_state is not None and initial_state.shape != state:
        raise ArgumentError(f"initial_state has shape {tuple(initial_state.shape)}, allowed is {state}")
    if packed and keys[0] != 1:
        raise ArgumentError(f"cu_seqlens packs sequences into one row, but the batch size is {keys[0]}")
