"""A long convolution by fast Fourier transforms, two real channels in each complex one.

That spares what PyTorch's real transforms need: a copy of the spectrum before the one back, and the scaling
after it, which the product of the spectra takes over.
"""

from __future__ import annotations

import torch
from torch import Tensor

from helix_cuda.kernels import spectra as kernels
from helix_cuda.ops._turning import from_channels, to_channels

_TILE = 512
"""Products that a program has in hand, of one pair of channels or, where those are short, of several."""
_ODD_FACTORS = (1, 3, 5, 9, 15)


def convolve(x: Tensor, taps: Tensor, D: Tensor | None) -> Tensor:
    """Return y (B, L, D); arguments as `helix_cuda.ops._conv_by_products.convolve` has."""
    n = transform_len(x.shape[1] + taps.shape[1] - 1)
    return _multiply(_spectrum(x, n), _spectrum_of_taps(taps, n), x, D, conjugate=False)


def gradients(grad: Tensor, x: Tensor, taps: Tensor, D: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the gradients of x, in its dtype, and of the taps, in float32."""
    n = transform_len(x.shape[1] + taps.shape[1] - 1)
    of_grad, of_x = _spectrum(grad, n), _spectrum(x, n)
    n_rows, n_pairs = of_x.shape[:2]
    product = torch.empty_like(of_x[0])
    (n_blocks, n_parts), sizes = _tiles(n, n_pairs)
    kernels.correlate[(n_blocks, n_parts)](
        *map(torch.view_as_real, (of_x, of_grad, product)),
        n,
        n_pairs,
        n_rows,
        1 / n,
        **sizes,
    )
    del of_x
    pairs = torch.view_as_real(torch.fft.ifft(product, norm="forward")[:, : taps.shape[1]])
    grad_taps = pairs.transpose(1, 2).flatten(0, 1)[: taps.shape[0]]
    return _multiply(of_grad, _spectrum_of_taps(taps, n), grad, D, conjugate=True), grad_taps


def transform_len(shortest: int) -> int:
    """Return the least length that a transform is quick of: even, with no prime factor over 5."""
    return min(factor * (1 << max((-(-shortest // factor) - 1).bit_length(), 1)) for factor in _ODD_FACTORS)


def _spectrum(x: Tensor, n: int) -> Tensor:
    """Return the spectra (B, D/2, n) of (B, L, D)."""
    spectrum: Tensor = torch.fft.fft(to_channels(x, n, torch.complex64))
    return spectrum


def _spectrum_of_taps(taps: Tensor, n: int) -> Tensor:
    return _spectrum(taps.t().unsqueeze(0), n)


def _multiply(spectrum: Tensor, of_taps: Tensor, x: Tensor, D: Tensor | None, *, conjugate: bool) -> Tensor:
    """Multiply, transform back, and add the skip; the spectrum is written over."""
    n_rows, n_pairs, n = spectrum.shape
    (n_blocks, n_parts), sizes = _tiles(n, n_pairs)
    kernels.multiply[(n_rows * n_blocks, n_parts)](
        torch.view_as_real(spectrum),
        torch.view_as_real(of_taps),
        n,
        n_pairs,
        1 / n,
        CONJUGATE=conjugate,
        **sizes,
    )
    return from_channels(torch.fft.ifft(spectrum, norm="forward"), x, D)


def _tiles(n: int, n_pairs: int) -> tuple[tuple[int, int], dict[str, int]]:
    """Return how many blocks of pairs and of frequencies there are, and their sizes, powers of two."""
    frequencies = min(1 << (n // 2).bit_length(), _TILE // 2)
    pairs = min(_TILE // frequencies, 1 << (n_pairs - 1).bit_length())
    return (-(-n_pairs // pairs), n // 2 // frequencies + 1), {"PAIRS": pairs, "FREQUENCIES": frequencies}
