"""Points in space, with colours and normals, from files of five formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from helix_kernel.errors import ArgumentError, DataError, InputError, did_you_mean
from helix_kernel.modality import Sample
from helix_multimodal.files import MAX_BYTES, content, is_file, reading, writing
from helix_multimodal.modalities.point_files import las, obj, pcd, ply, vrml
from helix_multimodal.modalities.point_files.cloud import Cloud

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from helix_kernel.modality import Source

_FORMATS = (
    (ply.is_ply, ply.read),
    (pcd.is_pcd, pcd.read),
    (las.is_las, las.read),
    (vrml.is_vrml, vrml.read),
    (obj.is_obj, obj.read),
)
_WRITERS: dict[str, Callable[[Cloud], bytes]] = {
    ".ply": ply.write,
    ".pcd": pcd.write,
    ".las": las.write,
    ".obj": obj.write,
}
_FEATURES = ("colours", "normals")
_SNIFFED = 4096
"""Bytes of a head from which on its last line may be cut."""

_HEAD = 1 << 16


class PointCloud:
    """Clouds of points: PLY, PCD, LAS, OBJ and, to read alone, VRML; meshes without their faces.

    A sample holds ``points`` (N, 3) float32 or float64, as the file has them, and where it has them
    ``colours`` (N, 3) uint8 and ``normals`` (N, 3). Points that have no place (NaN) are left out. A tensor
    is float32 (N, 3 + 3 for each feature), so that of float64 it keeps what float32 can hold.

    Args:
        features: What a tensor holds beside x, y, z: of ``colours`` (as 0 to 1) and ``normals``, in this
            order. A file that lacks one is refused.
        max_points: Points that `load` keeps, evenly spaced in the file's order; None for all.
        max_bytes: Bytes that a file may have, and its points may take when they are read.

    Raises:
        ArgumentError: A feature is unknown or given twice.
    """

    dtype = "float32"
    suffix = ".ply"
    tolerance = 0.0
    framed = True

    def __init__(
        self,
        features: Sequence[str] = (),
        max_points: int | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.features = checked_features(features)
        self.max_points = max_points
        self.max_bytes = max_bytes
        self.shape: tuple[int | None, ...] = (None, 3 + 3 * len(self.features))

    def sniff(self, head: bytes, name: str | None) -> float:
        """Return how likely a file holds points, by what it begins with; a name raises it for OBJ alone."""
        if any(begins(head) for begins, _ in _FORMATS[:-1]):
            return 0.98
        if obj.is_obj(head if len(head) >= _SNIFFED else head + b"\n"):
            return 0.95 if name is not None and name.lower().endswith(".obj") else 0.9
        return 0.0

    def load(self, source: Source) -> Sample:
        """Read a file of any of the formats, which its content tells.

        Raises:
            DataError: There is none, it is damaged or cut short, holds no points, lacks a feature, or takes
                more than `max_bytes`.
            DependencyError: It is a compressed LAS file and nothing installed unpacks it.
        """
        with reading(source) as opened:
            where, data = opened.where, content(opened, self.max_bytes)
        for begins, read in _FORMATS:
            if begins(data[:_HEAD] if len(data) > _HEAD else data + b"\n"):
                return self._sample(read(data, where, self.max_bytes), where)
        raise DataError(f"{where} is no file of points: neither PLY, PCD, LAS, OBJ nor VRML 2.0")

    def encode(self, sample: Sample) -> Tensor:
        """Return points and features as float32 (N, 3 + 3 for each feature).

        Raises:
            ArgumentError: The sample has no points, lacks a feature, or has numbers beyond float32.
        """
        cloud = _cloud(sample, self.features)
        parts: list[NDArray[Any]] = [cloud.points]
        if "colours" in self.features and cloud.colours is not None:
            parts.append(cloud.colours.astype(np.float32) / np.float32(255))
        if "normals" in self.features and cloud.normals is not None:
            parts.append(cloud.normals)
        with np.errstate(over="ignore"):
            table = np.concatenate([part.astype(np.float32) for part in parts], axis=1)
        if not np.isfinite(table).all():
            raise ArgumentError("points or normals are not finite as float32, which a tensor holds")
        return torch.from_numpy(table)

    def decode(self, tensor: Tensor) -> Sample:
        """Return the sample of a tensor (N, 3 + 3 for each feature).

        Raises:
            ArgumentError: It has another shape.
        """
        if tensor.dim() != 2 or tensor.shape[1] != self.shape[1]:
            raise ArgumentError(f"tensor has shape {tuple(tensor.shape)}, allowed is (N, {self.shape[1]})")
        table = tensor.detach().to("cpu", torch.float32, copy=True).numpy()
        arrays: dict[str, NDArray[Any]] = {"points": table[:, :3].copy()}
        for at, feature in enumerate(self.features, start=1):
            part = table[:, 3 * at : 3 * at + 3].copy()
            if feature == "colours":
                part = np.rint(np.clip(np.nan_to_num(part), 0, 1) * 255).astype(np.uint8)
            arrays[feature] = part
        return Sample(arrays=arrays)

    def save(self, sample: Sample, target: Source) -> None:
        """Write a file: ``.pcd``, ``.las`` or ``.obj`` where the name ends so, else PLY.

        PLY and PCD keep every number. OBJ keeps them too, but is read as float64. LAS rounds coordinates to
        steps, of which 2^31 span the cloud along its axis.

        Raises:
            InputError: The sample has no points, or some that are not finite.
        """
        cloud = _cloud(sample, ())
        for name, part in (("points", cloud.points), ("normals", cloud.normals)):
            if part is not None and not np.isfinite(part).all():
                raise InputError(f"{name} are not all finite; a file holds finite numbers alone")
        name = getattr(target, "name", "") if is_file(target) else str(target)
        suffix = name[name.rfind(".") :].lower() if isinstance(name, str) else ""
        data = _WRITERS.get(suffix, ply.write)(cloud)
        with writing(target) as file:
            file.write(data)

    def samples(self, seed: int) -> list[Sample]:
        """Return one point, some points of a plane, and a ball, whose coordinates differ much in size."""
        draw = np.random.default_rng(seed)
        made = []
        for n_points, scale in ((1, [1e-3] * 3), (17, [1.0, 1.0, 0.0]), (120, [300.0] * 3)):
            n = min(n_points, self.max_points or n_points)
            points = draw.standard_normal((n, 3)) * np.array(scale) + draw.standard_normal(3)
            arrays: dict[str, NDArray[Any]] = {"points": points.astype(np.float32)}
            if "colours" in self.features:
                arrays["colours"] = draw.integers(0, 256, (n, 3), dtype=np.uint8)
            if "normals" in self.features:
                normals = draw.standard_normal((n, 3))
                normals /= np.linalg.norm(normals, axis=1, keepdims=True)
                arrays["normals"] = normals.astype(np.float32)
            made.append(Sample(arrays=arrays))
        return made

    def _sample(self, cloud: Cloud, where: str) -> Sample:
        """Return what a file holds, without points that have no place, thinned."""
        finite = np.isfinite(cloud.points)
        cloud = cloud if finite.all() else cloud.keep(finite.all(axis=1))
        if not len(cloud.points):
            raise DataError(f"{where} has no points with finite coordinates")
        if self.max_points is not None and len(cloud.points) > self.max_points:
            cloud = cloud.keep(np.arange(self.max_points) * len(cloud.points) // self.max_points)
        if cloud.normals is not None and not np.isfinite(cloud.normals).all():
            cloud = Cloud(points=cloud.points, colours=cloud.colours)
        parts = {"points": cloud.points, "colours": cloud.colours, "normals": cloud.normals}
        arrays = {name: part for name, part in parts.items() if part is not None}
        missing = [feature for feature in self.features if feature not in arrays]
        if missing:
            raise DataError(f"{where} has no {missing[0]}, which features={list(self.features)} asks for")
        return Sample(arrays=arrays)


def checked_features(features: Sequence[str]) -> tuple[str, ...]:
    """Return the features of points in their fixed order.

    Raises:
        ArgumentError: One is unknown or given twice.
    """
    for feature in features:
        if feature not in _FEATURES:
            hint = did_you_mean(feature, _FEATURES)
            raise ArgumentError(f"features has {feature!r}, allowed are {', '.join(_FEATURES)}.{hint}")
    if len(set(features)) != len(features):
        raise ArgumentError(f"features is {list(features)}, where one is given twice")
    return tuple(feature for feature in _FEATURES if feature in features)


def _cloud(sample: Sample, needed: Sequence[str]) -> Cloud:
    """Return a sample as what files are written from, checked."""
    for name in ("points", *needed):
        if name not in sample.arrays:
            raise ArgumentError(f"the sample has no array {name!r}; it has {sorted(sample.arrays)}")
    arrays = {name: sample.arrays[name] for name in ("points", *_FEATURES) if name in sample.arrays}
    n_points = len(arrays["points"]) if arrays["points"].ndim else 0
    for name, array in arrays.items():
        allowed = ("uint8",) if name == "colours" else ("float32", "float64")
        if array.shape != (n_points, 3) or not n_points or array.dtype.name not in allowed:
            raise ArgumentError(
                f"the sample's {name} are {array.dtype} {array.shape}, allowed is {' or '.join(allowed)} "
                f"(N, 3) of one N above 0"
            )
    return Cloud(points=arrays["points"], colours=arrays.get("colours"), normals=arrays.get("normals"))
