"""What the quantizers share: maps into the codes' space and out of it, ids, losses and use of codes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from helix_data.quantizers.use import CodebookUse
from helix_kernel.errors import ArgumentError


class Quantizer(nn.Module):
    """A layer whose every position passes through one of finitely many codes.

    Codes are chosen and learnt in float32, whatever autocast does around it. Positions stand alone, so the
    layer is causal and keeps no state between tokens. In training it remembers its last commitment loss
    and counts the codes that it chose.

    Args:
        name: Name of the component, for messages.
        d_model: Width D of input and output.
        codebook_dim: Width of the codes; None for d_model, without learnt maps to it and back.
        n_codes: Codes in each codebook.
        n_codebooks: Codes that a position has; None for one that is no list.
        use_batches: See `CodebookUse`.

    Raises:
        ArgumentError: A size is below 1.
    """

    def __init__(
        self,
        name: str,
        d_model: int,
        *,
        codebook_dim: int | None,
        n_codes: int,
        n_codebooks: int | None = None,
        use_batches: int,
    ) -> None:
        super().__init__()
        sizes = {"d_model": d_model, "codebook_dim": codebook_dim, "use_batches": use_batches}
        for option, size in {**sizes, "n_quantizers": n_codebooks}.items():
            if size is not None:
                check_at_least(name, option, size, 1)
        self.d_model, self.n_codes, self.n_codebooks = d_model, n_codes, n_codebooks
        self.codebook_dim = d_model if codebook_dim is None else codebook_dim
        self._name = name
        mapped = codebook_dim is not None
        self.in_proj = nn.Linear(d_model, self.codebook_dim) if mapped else nn.Identity()
        self.out_proj = nn.Linear(self.codebook_dim, d_model) if mapped else nn.Identity()
        self.use = CodebookUse(n_codes, n_codebooks=n_codebooks or 1, n_batches=use_batches)
        self._auxiliary: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, L, D) to what its codes decode to, (B, L, D).

        In training this also moves the codes, where they are learnt from the batch.

        Raises:
            ArgumentError: x has another shape or dtype.
        """
        z = self._projected(x)
        with torch.autocast(z.device.type, enabled=False):
            if self.training and z.numel():
                codes, ids, self._auxiliary = self._learn(z.float())
                self.use.count(self._listed(ids))
            else:
                codes = self._passed(z.float())
        return self._out(codes.to(z.dtype))

    def encode(self, x: Tensor) -> Tensor:
        """Return the ids of the codes of x (B, L, D): (B, L) int64, or (B, L, n_codebooks).

        Nothing is learnt from x, in training neither.

        Raises:
            ArgumentError: x has another shape or dtype.
        """
        z = self._projected(x)
        with torch.autocast(z.device.type, enabled=False):
            return self._choose(z.float())

    def decode(self, ids: Tensor) -> Tensor:
        """Return what ids stand for: (B, L, D) for the ids that `encode` gives.

        Raises:
            ArgumentError: ids have another shape or dtype, or there is no such code.
        """
        n_dims = 2 if self.n_codebooks is None else 3
        if ids.dim() != n_dims or ids.dtype != torch.int64 or ids.shape[2:] not in ((), (self.n_codebooks,)):
            shape = "(B, L)" if self.n_codebooks is None else f"(B, L, {self.n_codebooks})"
            raise ArgumentError(
                f"{self._name}: ids have shape {tuple(ids.shape)} and dtype {ids.dtype}, "
                f"allowed is int64 {shape}"
            )
        wrong = ids[(ids < 0) | (ids >= self.n_codes)]
        if wrong.numel():
            raise ArgumentError(
                f"{self._name}: ids hold {int(wrong[0])}, allowed is 0 to {self.n_codes - 1}, the codes"
            )
        return self._out(self._look_up(ids).to(self.use.frequencies.dtype))

    def auxiliary_loss(self) -> Tensor | None:
        """Return the weighted commitment loss of the last forward in training, or None."""
        return self._auxiliary if self.training else None

    def measurements(self) -> dict[str, float]:
        """Return what training uses of the codes; see `CodebookUse.measured`."""
        return self.use.measured()

    def __getstate__(self) -> dict[str, Any]:
        # A copy or pickle of the layer has had no forward: a loss with its graph could not be copied.
        return {**self.__dict__, "_auxiliary": None}

    def _learn(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the codes of z (B, L, C) with their gradient, their ids and the commitment loss."""
        raise NotImplementedError

    def _passed(self, z: Tensor) -> Tensor:
        """Return the codes of z (B, L, C) with their gradient, and learn nothing."""
        raise NotImplementedError

    def _choose(self, z: Tensor) -> Tensor:
        """Return the ids of z (B, L, C), int64."""
        raise NotImplementedError

    def _look_up(self, ids: Tensor) -> Tensor:
        """Return the codes (B, L, C) that ids stand for, in float32."""
        raise NotImplementedError

    def _projected(self, x: Tensor) -> Tensor:
        if x.dim() != 3 or x.shape[-1] != self.d_model or not x.is_floating_point():
            raise ArgumentError(
                f"{self._name}: x has shape {tuple(x.shape)} and dtype {x.dtype}, "
                f"allowed is a floating (B, L, d_model={self.d_model})"
            )
        z: Tensor = self.in_proj(x)
        return z

    def _out(self, codes: Tensor) -> Tensor:
        y: Tensor = self.out_proj(codes)
        return y

    def _listed(self, ids: Tensor) -> Tensor:
        return ids.unsqueeze(-1) if self.n_codebooks is None else ids


def exactly(value: Tensor, gradient: Tensor) -> Tensor:
    """Return `value` to the bit, with the gradient of a finite `gradient` of the same shape."""
    return value.detach() + (gradient - gradient.detach())


def check_at_least(name: str, option: str, value: float, least: float) -> None:
    """Raise `ArgumentError` where an argument of a layer's constructor is below its least value."""
    if not value >= least:
        raise ArgumentError(f"{name}: {option} is {value!r}, allowed is >= {least:g}")
