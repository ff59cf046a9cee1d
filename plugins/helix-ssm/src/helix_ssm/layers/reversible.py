"""A stack whose activations can be computed back from its output, so that training need not keep them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from helix_kernel.errors import ArgumentError
from helix_ssm.layers import auxiliary, protocol
from helix_ssm.layers.mamba import Mamba
from helix_ssm.layers.mlp import MLP
from helix_ssm.layers.protocol import State, at_least_float32, check_at_least, check_chunk
from helix_ssm.layers.recomputed import run_recomputed
from helix_ssm.layers.rms_norm import RMSNorm

if TYPE_CHECKING:
    from collections.abc import Callable

    from helix_ssm.layers.block import LayerFactory


class Reversible(nn.Module):
    """Pairs of layers on two streams: x1 <- x1 + mixer(norm(x2)), then x2 <- x2 + channel(norm(x1)).

    RevNet (Gomez et al. 2017, arXiv:1707.04585, equations 6 to 8) with the layers of a language model, as
    Reformer has it (Kitaev et al. 2020, arXiv:2001.04451, section 3). Both streams begin as x and the
    output is their mean, as wide as x; Reformer doubles the width where it begins and hands on both.

    With `recompute`, training keeps the two streams after the last layer and nothing in between, whatever
    n_layers is. The backward pass takes each layer off again, x2 = x2' - channel(norm(x1')), and
    differentiates what it so computes anew: memory O(1) in depth for about one more forward pass. The
    streams are held in float32 at least, and gradients are those of the kept activations up to rounding.
    Under `torch.compile` and `torch.export` activations are kept, and the compiler decides about them.

    Args:
        d_model: Width D of input and output, and of each stream.
        n_layers: Number of pairs.
        mixer: Builds each pair's layer along the sequence.
        channel: Builds each pair's layer across channels.
        norm: Builds the norm before each layer.
        dropout: Probability that an element of a layer's output is dropped in training.
        recompute: Whether activations are computed back in place of kept.

    Raises:
        ArgumentError: A size is below 1, or dropout is not in [0, 1).
    """

    def __init__(
        self,
        d_model: int,
        *,
        n_layers: int = 2,
        mixer: LayerFactory = Mamba,
        channel: LayerFactory = MLP,
        norm: LayerFactory = RMSNorm,
        dropout: float = 0.0,
        recompute: bool = True,
    ) -> None:
        super().__init__()
        check_at_least("reversible", "d_model", d_model, 1)
        check_at_least("reversible", "n_layers", n_layers, 1)
        if not 0 <= dropout < 1:
            raise ArgumentError(f"reversible: dropout is {dropout!r}, allowed is >= 0 and < 1")
        self.d_model, self.recompute = d_model, recompute
        self.halves = nn.ModuleList(
            Half(d_model, layer=layer, norm=norm, dropout=dropout)
            for _ in range(n_layers)
            for layer in (mixer, channel)
        )
        self.causal = not any(protocol.looks_ahead(half.layer) for half in self._halves())
        self._auxiliary: Tensor | None = None
        self._scale_output_maps(n_layers)

    def forward(self, x: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Map x (B, L, D), or sequences packed into (1, T, D), to the same shape."""
        check_chunk("reversible", x, self.d_model)
        self._auxiliary = None
        if not (self.recompute and torch.is_grad_enabled()) or _is_traced():
            return self._run(lambda half, x: half(x, cu_seqlens), x)
        a = at_least_float32(x)
        a, b, self._auxiliary = run_recomputed(self._halves(), a, a, dtype=x.dtype, cu_seqlens=cu_seqlens)
        return ((a + b) / 2).to(x.dtype)

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> tuple[State, ...]:
        """Return the state before the first token: one for each layer, mixers and channel layers in turn."""
        return tuple(
            protocol.init_state(half.layer, batch_size, device=device, dtype=dtype) for half in self._halves()
        )

    def extend(
        self, x: Tensor, state: tuple[State, ...], *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, tuple[State, ...]]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state."""
        check_chunk("reversible", x, self.d_model)
        before, after = iter(state), []

        def run(half: Half, x: Tensor) -> Tensor:
            y, own = protocol.extend(half.layer, half.norm(x), next(before), cu_seqlens)
            after.append(own)
            return half.dropout(y)  # type: ignore[no-any-return]  # nn.Module's call is untyped

        return self._run(run, x), tuple(after)

    def step(self, x_t: Tensor, state: tuple[State, ...]) -> tuple[Tensor, tuple[State, ...]]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state."""
        y, state = self.extend(x_t.unsqueeze(1), state)
        return y.squeeze(1), state

    def auxiliary_loss(self) -> Tensor | None:
        """Return the sum of the losses of the layers inside, over the last forward in training."""
        if not self.training:
            return None
        return auxiliary.collect(self) if self._auxiliary is None else self._auxiliary

    def __getstate__(self) -> dict[str, Any]:
        # As in `MoE`: a loss with its graph could not be copied.
        return {**self.__dict__, "_auxiliary": None}

    def _run(self, run: Callable[[Half, Tensor], Tensor], x: Tensor) -> Tensor:
        """Run each half on the stream that it reads, and add what it gives to the other."""
        a = b = at_least_float32(x)
        for half in self._halves():
            a, b = b, a + run(half, b.to(x.dtype))
        return ((a + b) / 2).to(x.dtype)

    def _halves(self) -> list[Half]:
        return list(self.halves)  # type: ignore[arg-type]  # ModuleList forgets what it holds

    @torch.no_grad()
    def _scale_output_maps(self, n_residuals: int) -> None:
        """Divide out_proj by the root of its stream's additions, as `Stack` does (GPT-2, section 2.3)."""
        for name, parameter in self.named_parameters():
            if name.endswith("out_proj.weight"):
                parameter.div_(math.sqrt(n_residuals))


class Half(nn.Module):
    """One layer with the norm before it: what is added to one stream, as a function of the other.

    Args:
        d_model: Width D of the streams.
        layer: Builds the layer.
        norm: Builds the norm.
        dropout: Probability that an element of the output is dropped in training.
    """

    def __init__(self, d_model: int, *, layer: LayerFactory, norm: LayerFactory, dropout: float) -> None:
        super().__init__()
        self.norm = norm(d_model=d_model)
        self.layer = layer(d_model=d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        """Map x (B, L, D), or sequences packed into (1, T, D), to the same shape."""
        return self.dropout(protocol.forward(self.layer, self.norm(x), cu_seqlens))  # type: ignore[no-any-return]  # nn.Module's call is untyped


def _is_traced() -> bool:
    """Whether a compiler or a transform looks on, to which the autograd function would be opaque."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()  # noqa: SLF001 - it has no public name
