"""Which data types a checkpoint holds, under the names that Zarr v3 and its extensions give them."""

from __future__ import annotations

import functools

import ml_dtypes
import numpy as np

_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_NUMPY = ("bool", *_INTEGERS, "float16", "float32", "float64", "complex64", "complex128")
_FLOAT8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
EXTENSIONS = ("bfloat16", *_FLOAT8)
"""Types that numpy has through ml_dtypes; the names are those of the zarr-extensions registry."""

DTYPES: dict[str, np.dtype] = {name: np.dtype(name).newbyteorder("<") for name in _NUMPY} | {
    name: np.dtype(getattr(ml_dtypes, name)) for name in EXTENSIONS
}
"""Zarr name → the little-endian numpy type that holds it."""


@functools.cache
def zarr_name(dtype: np.dtype) -> str | None:
    """Return the Zarr name of a numpy type in either byte order, or None where it has none."""
    return dtype.name if dtype.name in DTYPES and DTYPES[dtype.name].kind == dtype.kind else None
