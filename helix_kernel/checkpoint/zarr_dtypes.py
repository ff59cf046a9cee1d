"""bfloat16 and float8 for zarr-python, which by itself cannot open an array of them.

zarr finds these classes by the entry points ``zarr.data_type`` of helix-kernel; the names are
those of the zarr-extensions registry, and the bytes are numpy's of ml_dtypes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import ml_dtypes
import numpy as np
from zarr.core.dtype.common import HasItemSize
from zarr.dtype import DataTypeValidationError, ZDType

NAMES = ("BFloat16", "Float8E4M3FN", "Float8E4M3FNUZ", "Float8E5M2", "Float8E5M2FNUZ", "Float8E8M0FNU")
"""The classes of this module that zarr is taught."""


@dataclass(frozen=True, kw_only=True)
class _MlFloat(ZDType[Any, Any], HasItemSize):
    """A float type of ml_dtypes; subclasses name it."""

    scalar: ClassVar[type[Any]]

    @classmethod
    def from_native_dtype(cls, dtype: Any) -> Self:
        """Return the Zarr type of a numpy type."""
        if dtype != np.dtype(cls.scalar):
            raise DataTypeValidationError(f"dtype is {dtype}, allowed is {cls._zarr_v3_name}")
        return cls()

    def to_native_dtype(self) -> Any:
        """Return the numpy type."""
        return np.dtype(self.scalar)

    @classmethod
    def _from_json_v2(cls, data: Any) -> Self:
        raise DataTypeValidationError(f"Zarr 2 has no name for {cls._zarr_v3_name}; got {data!r}")

    @classmethod
    def _from_json_v3(cls, data: Any) -> Self:
        if data != cls._zarr_v3_name:
            raise DataTypeValidationError(f"data type is {data!r}, allowed is {cls._zarr_v3_name!r}")
        return cls()

    def to_json(self, zarr_format: Any) -> Any:
        """Return the name in a Zarr 3 metadata document."""
        if zarr_format != 3:
            raise DataTypeValidationError(f"Zarr {zarr_format} has no name for {self._zarr_v3_name}")
        return self._zarr_v3_name

    def _check_scalar(self, data: object) -> bool:
        return isinstance(data, int | float | np.number | self.scalar)

    def cast_scalar(self, data: object) -> Any:
        """Return a number as a scalar of this type."""
        if not self._check_scalar(data):
            raise TypeError(f"{data!r} is no number")
        return self.scalar(data)

    def default_scalar(self) -> Any:
        """Return what an unwritten element reads as."""
        return self.scalar(0)

    def from_json_scalar(self, data: Any, *, zarr_format: Any) -> Any:  # noqa: ARG002 - one format has these types
        """Read a fill value."""
        words = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
        return self.cast_scalar(words.get(data, data) if isinstance(data, str) else data)

    def to_json_scalar(self, data: object, *, zarr_format: Any) -> Any:  # noqa: ARG002 - one format has these types
        """Write a fill value."""
        number = float(self.cast_scalar(data))
        if math.isnan(number):
            return "NaN"
        return number if math.isfinite(number) else "Infinity" if number > 0 else "-Infinity"

    @property
    def item_size(self) -> int:
        """Bytes of one element."""
        return np.dtype(self.scalar).itemsize


class BFloat16(_MlFloat):
    """The upper half of a float32."""

    _zarr_v3_name = "bfloat16"
    scalar = ml_dtypes.bfloat16


class Float8E4M3FN(_MlFloat):
    """Four bits of exponent, three of mantissa, no infinity."""

    _zarr_v3_name = "float8_e4m3fn"
    scalar = ml_dtypes.float8_e4m3fn


class Float8E4M3FNUZ(_MlFloat):
    """Four bits of exponent, three of mantissa, no infinity and no negative zero."""

    _zarr_v3_name = "float8_e4m3fnuz"
    scalar = ml_dtypes.float8_e4m3fnuz


class Float8E5M2(_MlFloat):
    """Five bits of exponent, two of mantissa."""

    _zarr_v3_name = "float8_e5m2"
    scalar = ml_dtypes.float8_e5m2


class Float8E5M2FNUZ(_MlFloat):
    """Five bits of exponent, two of mantissa, no infinity and no negative zero."""

    _zarr_v3_name = "float8_e5m2fnuz"
    scalar = ml_dtypes.float8_e5m2fnuz


class Float8E8M0FNU(_MlFloat):
    """A power of two, for the scales of microscaling formats."""

    _zarr_v3_name = "float8_e8m0fnu"
    scalar = ml_dtypes.float8_e8m0fnu
