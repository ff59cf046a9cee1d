"""The layers `vq` and `rvq`: vectors replaced by the nearest of a codebook, once or again and again."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor
from vector_quantize_pytorch import ResidualVQ
from vector_quantize_pytorch.vector_quantize_pytorch import cdist, rotate_to, uniform_init

from helix_data.quantizers.config import GradientEstimator
from helix_data.quantizers.quantizer import Quantizer, check_at_least, exactly
from helix_data.quantizers.use import n_ranks
from helix_kernel.errors import ArgumentError, HelixError, did_you_mean


class _CodebookQuantizer(Quantizer):
    """Codebooks that the library keeps, and what it leaves to be desired.

    The library's `forward` learns; what only reads the codebooks is written here, since that of the
    library also begins k-means in evaluation, and does not compile. Arguments are those of `RVQ`.
    """

    def __init__(
        self,
        name: str,
        d_model: int,
        *,
        n_quantizers: int | None,
        n_codes: int,
        codebook_dim: int | None,
        decay: float,
        kmeans_init: bool,
        replace_after: int,
        commitment_weight: float,
        gradient: GradientEstimator,
        use_batches: int,
    ) -> None:
        _check(name, n_codes, decay, replace_after, commitment_weight, gradient)
        super().__init__(
            name,
            d_model,
            codebook_dim=codebook_dim,
            n_codes=n_codes,
            n_codebooks=n_quantizers,
            use_batches=use_batches,
        )
        self.gradient = gradient
        self._library: Any = ResidualVQ(
            dim=self.codebook_dim,
            num_quantizers=n_quantizers or 1,
            codebook_size=n_codes,
            decay=decay,
            kmeans_init=kmeans_init,
            # A code that is left at one vector a batch has this much of it after so many batches.
            threshold_ema_dead_code=decay**replace_after if replace_after else 0,
            commitment_weight=commitment_weight,
            # The library adds up each codebook's gradient, so that the encoder's grows with their number.
            rotation_trick=False,
            route_gradients_to_input=False,
            # Asked for here: the library remembers what it saw when the first layer of all was made.
            sync_codebook=n_ranks() > 1,
        )
        for book in self._books():
            book.reset_cluster_size = 1.0
            # Until k-means the library's would be zero, and all positions alike.
            book.embed_avg.copy_(book.embed.copy_(uniform_init(*book.embed.shape)))

    def _learn(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        _refuse_recomputation(self._name)
        self._check_ranks()
        self._check_first_batch(z)
        codes, ids, losses = self._library(z)
        return self._with_gradient(z, codes), self._unlisted(ids), losses.sum()

    def _passed(self, z: Tensor) -> Tensor:
        return self._with_gradient(z, self._look_up(self._choose(z)))

    def _choose(self, z: Tensor) -> Tensor:
        chosen = []
        for codes in self._codes():
            ids = _nearest(z, codes)
            chosen.append(ids)
            z = z - codes[ids]
        return self._unlisted(torch.stack(chosen, dim=-1))

    def _look_up(self, ids: Tensor) -> Tensor:
        # Added one after the other, as in training: another order would round otherwise.
        total = torch.zeros((), device=ids.device)
        for codes, own in zip(self._codes(), self._listed(ids).unbind(-1), strict=True):
            total = total + codes[own]
        return total

    def _with_gradient(self, z: Tensor, codes: Tensor) -> Tensor:
        return exactly(codes, rotate_to(z, codes.detach()) if self.gradient == "rotation" else z)

    def _unlisted(self, ids: Tensor) -> Tensor:
        return ids.squeeze(-1) if self.n_codebooks is None else ids

    def _codes(self) -> list[Tensor]:
        """Return each codebook's vectors (n_codes, C) in float32."""
        return [book.embed[0].float() for book in self._books()]

    def _books(self) -> list[Any]:
        return [layer._codebook for layer in self._library.layers]  # noqa: SLF001 - it has no public name

    def _check_ranks(self) -> None:
        if n_ranks() > 1 and not self._books()[0].use_ddp:
            raise HelixError(
                f"{self._name}: the layer was built before its process joined the others, and each rank "
                "would move codebooks of its own; build it after torch.distributed.init_process_group"
            )

    def _check_first_batch(self, z: Tensor) -> None:
        n_vectors = z.shape[0] * z.shape[1] * n_ranks()
        if n_vectors < self.n_codes and not all(bool(book.initted) for book in self._books()):
            raise ArgumentError(
                f"{self._name}: the first training batch has {n_vectors} vectors, allowed with kmeans_init "
                f"is >= n_codes={self.n_codes}; give a larger batch, fewer codes or kmeans_init=false"
            )


class VQ(_CodebookQuantizer):
    """Vector quantization: z becomes the code e that is nearest to it.

    van den Oord et al. 2017, arXiv:1711.00937, equations 1 and 2; all else is as in `RVQ` with one
    codebook, but for the ids' shape (B, L).

    Args:
        d_model: See `RVQ`, for all arguments.
        n_codes: Vectors in the codebook.
        codebook_dim: Width of its vectors.
        decay: Of the running means.
        kmeans_init: Whether codes begin as k-means.
        replace_after: Batches until a dead code is moved.
        commitment_weight: Factor of the mean squared distance to the code.
        gradient: "rotation" or "straight-through".
        use_batches: Training batches over which the use of codes is measured.

    Raises:
        ArgumentError: An argument is out of range.
    """

    def __init__(
        self,
        d_model: int,
        *,
        n_codes: int = 512,
        codebook_dim: int | None = 8,
        decay: float = 0.99,
        kmeans_init: bool = True,
        replace_after: int = 100,
        commitment_weight: float = 0.25,
        gradient: GradientEstimator = "rotation",
        use_batches: int = 100,
    ) -> None:
        super().__init__(
            "vq",
            d_model,
            n_quantizers=None,
            n_codes=n_codes,
            codebook_dim=codebook_dim,
            decay=decay,
            kmeans_init=kmeans_init,
            replace_after=replace_after,
            commitment_weight=commitment_weight,
            gradient=gradient,
            use_batches=use_batches,
        )


class RVQ(_CodebookQuantizer):
    """Residual vector quantization: z becomes e_1 + … + e_Q, e_q the code nearest to z - e_1 - … - e_(q-1).

    Zeghidour et al. 2021 (SoundStream, arXiv:2107.03312, algorithm 1), over the library
    vector-quantize-pytorch, which keeps and moves the codebooks: running means of the vectors that chose a
    code (van den Oord et al. 2017, arXiv:1711.00937, appendix A.1), k-means of the first training batch
    to begin with, dead codes moved to vectors of the batch. Random numbers are drawn from torch's global
    generators. Ranks that train together move their codebooks together; a layer must be built after its
    process joined the others.

    The gradient of the sum of codes with respect to z is the identity ("straight-through"), or turns and
    scales z onto it ("rotation", Fifty et al. 2024, arXiv:2410.06424), whatever Q is. A position has ids
    (B, L, Q). A codebook moves with every forward in training, so the layer cannot be one that is
    recomputed in the backward pass.

    Args:
        d_model: Width D of input and output.
        n_quantizers: Codebooks Q.
        n_codes: Vectors in a codebook.
        codebook_dim: Width of the codebooks' vectors, reached by a learnt map and left by another (Yu et
            al. 2021, arXiv:2110.04627, section 3.2); None for d_model, without maps.
        decay: How much of a code's running mean a batch leaves, above 0 and below 1.
        kmeans_init: Whether the first training batch's k-means become the first codes. Until then, and
            otherwise, they are random.
        replace_after: A code that had one vector a batch is moved to a random vector of the batch after so
            many batches without one; 0: never.
        commitment_weight: Factor of the mean squared distances to the codes, summed over codebooks.
        gradient: "rotation" or "straight-through".
        use_batches: Training batches over which the use of codes is measured.

    Raises:
        ArgumentError: An argument is out of range.
    """

    def __init__(
        self,
        d_model: int,
        *,
        n_quantizers: int = 4,
        n_codes: int = 512,
        codebook_dim: int | None = 8,
        decay: float = 0.99,
        kmeans_init: bool = True,
        replace_after: int = 100,
        commitment_weight: float = 0.25,
        gradient: GradientEstimator = "rotation",
        use_batches: int = 100,
    ) -> None:
        super().__init__(
            "rvq",
            d_model,
            n_quantizers=n_quantizers,
            n_codes=n_codes,
            codebook_dim=codebook_dim,
            decay=decay,
            kmeans_init=kmeans_init,
            replace_after=replace_after,
            commitment_weight=commitment_weight,
            gradient=gradient,
            use_batches=use_batches,
        )


def _nearest(z: Tensor, codes: Tensor) -> Tensor:
    """Return which of the codes (n, C) each vector of z (B, L, C) is nearest to, as the library does."""
    flat = z.reshape(1, -1, z.shape[-1])
    ids: Tensor = (-cdist(flat, codes.unsqueeze(0))).argmax(-1)
    return ids.view(z.shape[:-1])


def _refuse_recomputation(name: str) -> None:
    # The same question that torch.utils.checkpoint asks to learn whether it runs inside a backward pass.
    if torch._C._current_graph_task_id() != -1:  # noqa: SLF001 - torch has no public name for it
        raise HelixError(
            f"{name}: its forward is run again in the backward pass, where the codebook has already moved; "
            "leave this layer out of activation checkpointing (trainer.activation_checkpointing=false)"
        )


def _check(
    name: str,
    n_codes: int,
    decay: float,
    replace_after: int,
    commitment_weight: float,
    gradient: str,
) -> None:
    check_at_least(name, "n_codes", n_codes, 2)
    check_at_least(name, "replace_after", replace_after, 0)
    check_at_least(name, "commitment_weight", commitment_weight, 0)
    if not 0 < decay < 1:
        raise ArgumentError(f"{name}: decay is {decay!r}, allowed is > 0 and < 1")
    known = get_args(GradientEstimator)
    if gradient not in known:
        raise ArgumentError(
            f"{name}: gradient is {gradient!r}, allowed is one of {known}.{did_you_mean(gradient, known)}"
        )
