"""ggml's kernels, by its C functions in the libraries that llama-cpp-python installs.

Only the kernel is timed: a graph of one node, or of the few that make the op up, on tensors that ggml holds
already. What ggml leaves to other nodes, such as a gate, it is spared, which is in its favour.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from helix_cpu.bench.contest import AbsentError, Entry
from helix_cpu.bench.peers import installed

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from helix_cpu.bench.inputs import Conv, DeltaRule, Gated, Rwkv, Scan, Ssd

DISTRIBUTION = "llama-cpp-python"
_OLDEST = (0, 3, 36)
"""ggml ends the process where a shape is not what its functions take, and older ones took others."""
_F32, _I32 = 0, 26  # enum ggml_type
_ROOM = 1 << 20


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


class Graph:
    """Tensors in a context of ggml's, and the node that is computed.

    Args:
        n_floats: Room for all inputs and results.
        threads: How many threads compute it.
    """

    def __init__(self, n_floats: int, threads: int) -> None:
        self._ggml, self._cpu = libraries()
        size = 4 * n_floats + _ROOM + self._ggml.ggml_graph_overhead()
        self.context = self._ggml.ggml_init(_InitParams(size, None, False))
        self._backend = self._cpu.ggml_backend_cpu_init()
        self._cpu.ggml_backend_cpu_set_n_threads(ctypes.c_void_p(self._backend), threads)

    def tensor(self, values: Tensor, *sizes: int) -> int:
        """Return a tensor of ggml's with those values; its sizes, innermost first."""
        dtype = _I32 if values.dtype is torch.int32 else _F32
        values = values.contiguous() if dtype == _I32 else values.float().contiguous()
        lengths = (ctypes.c_int64 * len(sizes))(*sizes)
        made: int = self._ggml.ggml_new_tensor(ctypes.c_void_p(self.context), dtype, len(sizes), lengths)
        ctypes.memmove(self._data(made), values.data_ptr(), values.numel() * 4)
        return made

    def node(self, name: str, *operands: float) -> int:
        """Return the node that a function of ggml's makes of tensors, integers and floats."""
        function = getattr(self._ggml, name)
        function.restype = ctypes.c_void_p
        made: int = function(ctypes.c_void_p(self.context), *map(_operand, operands))
        return made

    def entry(self, node: int, read: Callable[[Tensor], Tensor], n_floats: int) -> Entry:
        """Return the contestant that computes the node; `read` gets its first so many floats."""
        graph = self._ggml.ggml_new_graph(ctypes.c_void_p(self.context))
        self._ggml.ggml_build_forward_expand(ctypes.c_void_p(graph), ctypes.c_void_p(node))
        pointers = tuple(map(ctypes.c_void_p, (self._backend, graph)))
        found = (ctypes.c_float * n_floats).from_address(self._data(node))

        def run() -> None:
            self._ggml.ggml_backend_graph_compute(*pointers)  # by self, which owns the memory

        # A copy, since the memory goes with the graph.
        return Entry(run, lambda _: read(torch.frombuffer(found, dtype=torch.float32).clone()))

    def _data(self, tensor: int) -> int:
        address: int = self._ggml.ggml_get_data(ctypes.c_void_p(tensor))
        return address

    def __del__(self) -> None:
        if hasattr(self, "_backend"):
            self._ggml.ggml_backend_free(ctypes.c_void_p(self._backend))
            self._ggml.ggml_free(ctypes.c_void_p(self.context))


def selective_scan(inputs: Scan, threads: int) -> Entry:
    """Mamba's scan with softplus; bias is added beforehand, skip and gate are left out."""
    (batch_size, seq_len, d_model), d_state = inputs.u.shape, inputs.A.shape[1]
    n_states = batch_size * d_model * d_state
    graph = Graph(8 * inputs.u.numel() + 4 * n_states + 4 * inputs.B.numel(), threads)
    sizes = (1, d_model, seq_len, batch_size)
    node = graph.node(
        "ggml_ssm_scan",
        graph.tensor(torch.zeros(n_states), d_state, 1, d_model, batch_size),
        graph.tensor(inputs.u, *sizes),
        graph.tensor(inputs.delta + inputs.delta_bias, *sizes[1:]),
        graph.tensor(inputs.A, d_state, d_model),
        graph.tensor(inputs.B, d_state, 1, seq_len, batch_size),
        graph.tensor(inputs.C, d_state, 1, seq_len, batch_size),
        graph.tensor(torch.arange(batch_size, dtype=torch.int32), batch_size),
        1,
    )
    return graph.entry(node, lambda y: _gated(y.view(inputs.u.shape), inputs), inputs.u.numel())


def ssd_scan(inputs: Ssd, threads: int) -> Entry:
    """Mamba-2's scan with softplus; bias is added beforehand, the skip is left out."""
    (batch_size, seq_len, n_heads, head_dim), (n_groups, d_state) = inputs.x.shape, inputs.B.shape[2:]
    n_states = batch_size * n_heads * head_dim * d_state
    graph = Graph(8 * inputs.x.numel() + 4 * n_states + 4 * inputs.B.numel(), threads)
    node = graph.node(
        "ggml_ssm_scan",
        graph.tensor(torch.zeros(n_states), d_state, head_dim, n_heads, batch_size),
        graph.tensor(inputs.x, head_dim, n_heads, seq_len, batch_size),
        graph.tensor(inputs.dt + inputs.dt_bias, n_heads, seq_len, batch_size),
        graph.tensor(inputs.A, 1, n_heads),
        graph.tensor(inputs.B, d_state, n_groups, seq_len, batch_size),
        graph.tensor(inputs.C, d_state, n_groups, seq_len, batch_size),
        graph.tensor(torch.arange(batch_size, dtype=torch.int32), batch_size),
        1,
    )
    skip = inputs.D[:, None] * inputs.x
    return graph.entry(node, lambda y: y.view(inputs.x.shape) + skip, inputs.x.numel())


def causal_conv1d(inputs: Conv, threads: int) -> Entry:
    """The convolution, plus bias, through silu: three nodes."""
    (batch_size, seq_len, d_model), width = inputs.x.shape, inputs.weight.shape[1]
    padded = torch.nn.functional.pad(inputs.x.transpose(1, 2), (width - 1, 0))
    graph = Graph(8 * padded.numel(), threads)
    node = graph.node(
        "ggml_ssm_conv",
        graph.tensor(padded, seq_len + width - 1, d_model, batch_size),
        graph.tensor(inputs.weight, width, d_model),
    )
    node = graph.node("ggml_silu", graph.node("ggml_add", node, graph.tensor(inputs.bias, d_model)))
    return graph.entry(node, lambda y: y.view(inputs.x.shape), inputs.x.numel())


def gla(inputs: Gated, threads: int) -> Entry:
    """Gated linear attention, its gates' exponential taken beforehand."""
    graph, sizes, state = _heads(inputs.v, threads)
    tensors = (inputs.k, inputs.v, inputs.q, inputs.g.exp())
    operands = (graph.tensor(tensor, *sizes) for tensor in tensors)
    node = graph.node("ggml_gated_linear_attn", *operands, state, float(inputs.scale))
    return graph.entry(node, lambda o: o.view(inputs.v.shape), inputs.v.numel())


def rwkv7(inputs: Rwkv, threads: int) -> Entry:
    """RWKV-7's recurrence, its decays' exponential taken beforehand; heads of 64 channels, or a multiple."""
    graph, sizes, state = _heads(inputs.v, threads)
    tensors = (inputs.r, inputs.w.exp(), inputs.k, inputs.v, inputs.a, inputs.b)
    node = graph.node("ggml_rwkv_wkv7", *(graph.tensor(tensor, *sizes) for tensor in tensors), state)
    return graph.entry(node, lambda o: o.view(inputs.v.shape), inputs.v.numel())


def gated_delta_rule(inputs: DeltaRule, threads: int) -> Entry:
    """The gated delta rule; its scale is always 1 / sqrt(K)."""
    batch_size, seq_len, n_heads, head_dim = inputs.v.shape
    graph, _, _ = _heads(inputs.v, threads)
    sizes = (head_dim, n_heads, seq_len, batch_size)
    node = graph.node(
        "ggml_gated_delta_net",
        *(graph.tensor(tensor, *sizes) for tensor in (inputs.q, inputs.k, inputs.v)),
        *(graph.tensor(tensor, 1, *sizes[1:]) for tensor in (inputs.g, inputs.beta)),
        graph.tensor(torch.zeros(head_dim, head_dim, n_heads, batch_size), head_dim, head_dim, *sizes[1::2]),
        1,
    )
    return graph.entry(node, lambda o: o.view(inputs.v.shape), inputs.v.numel())


@cache
def libraries() -> tuple[ctypes.CDLL, ctypes.CDLL]:
    """Load ggml: its base and its CPU backend.

    Raises:
        AbsentError: It is not installed, or its functions may differ from those called here.
    """
    found = installed(DISTRIBUTION)
    if found is None:
        raise AbsentError(f"absent: pip install {DISTRIBUTION}")
    if tuple(int(part) for part in found.split(".")[:3] if part.isdigit()) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise AbsentError(f"too old ({found}): pip install '{DISTRIBUTION}>={oldest}'")
    spec = importlib.util.find_spec("llama_cpp")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    try:
        base, cpu = (
            ctypes.CDLL(str(next(Path(folders[0]).glob(f"lib/lib{name}.*"))), mode=ctypes.RTLD_GLOBAL)
            for name in ("ggml-base", "ggml-cpu")
        )
    except (OSError, StopIteration, IndexError) as error:
        raise AbsentError(f"{DISTRIBUTION} {found} has no ggml that loads here: {error}") from error
    base.ggml_init.argtypes, base.ggml_init.restype = (_InitParams,), ctypes.c_void_p
    base.ggml_graph_overhead.restype = ctypes.c_size_t
    for function in (
        base.ggml_new_tensor,
        base.ggml_get_data,
        base.ggml_new_graph,
        cpu.ggml_backend_cpu_init,
    ):
        function.restype = ctypes.c_void_p
    return base, cpu


def _heads(values: Tensor, threads: int) -> tuple[Graph, tuple[int, int, int], int]:
    """Return a graph for ops whose heads carry a square state, the sizes of values, and a zero state."""
    batch_size, seq_len, n_heads, head_dim = values.shape
    n_states = batch_size * n_heads * head_dim * head_dim
    graph = Graph(10 * values.numel() + 4 * n_states, threads)
    state = graph.tensor(torch.zeros(batch_size, n_states // batch_size), n_states // batch_size, batch_size)
    return graph, (head_dim, n_heads, batch_size * seq_len), state


def _operand(value: float) -> Any:
    # Addresses and 64-bit integers go the same way to a C function.
    return ctypes.c_int64(value) if isinstance(value, int) else ctypes.c_float(value)


def _gated(y: Tensor, inputs: Scan) -> Tensor:
    return (y + inputs.D * inputs.u) * torch.nn.functional.silu(inputs.z)
