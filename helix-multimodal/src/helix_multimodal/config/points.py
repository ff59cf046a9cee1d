"""Options of all that has to do with points: their modality, encoder and decoder."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import attrs

from helix_kernel import FactoryOf, option
from helix_multimodal.files import MAX_BYTES

Layer = Annotated[Any, FactoryOf("layer", supplies=("d_model",))]
"""A layer that tokens go through, built in their width."""

Feature = Literal["colours", "normals"]
"""What a tensor may tell of a point beside where it is: three columns each."""


@attrs.frozen(kw_only=True)
class PointCloudConfig:
    """Points as rows of float32: x, y, z, then the features that are asked for."""

    features: tuple[Feature, ...] = option(
        (), help="What else a tensor holds of each point, in this order: colours (0 to 1), normals"
    )
    max_points: int | None = option(
        None, help="Points that are kept of a file, evenly spaced in its order; left out: all", ge=1
    )
    max_bytes: int = option(MAX_BYTES, help="Bytes that a file may take when it is read", ge=1)


@attrs.frozen(kw_only=True)
class PointGroupsConfig:
    """Neighbourhoods of points that lie far apart, each a token (PointNet++'s set abstraction)."""

    d_model: int = option(help="Width of the tokens", ge=1)
    features: tuple[Feature, ...] = option(
        (), help="Features of the points, as the modality's option has them"
    )
    n_groups: int = option(64, help="Tokens of a cloud, at most", ge=1)
    k: int = option(32, help="Points of a neighbourhood: the nearest to its centre", ge=1)
    radius: float | None = option(
        None,
        help="How far they may lie from it, in radii of the cloud; left out: as it comes",
        gt=0,
    )
    d_hidden: int | None = option(None, help="Width of the network of each point; left out: d_model", ge=1)
    layers: tuple[Layer, ...] = option(
        (), help="Layers that tokens go through, each residual after a norm, such as mamba"
    )
    place: bool = option(
        True, help="Whether tokens also tell where the cloud lies and how large it is, or its shape alone"
    )


@attrs.frozen(kw_only=True)
class PointsConfig:
    """Spheres of points, one to a token, that a network folds into a cloud (FoldingNet)."""

    d_model: int = option(help="Width of the tokens", ge=1)
    features: tuple[Feature, ...] = option(
        (), help="Features of the points, as the modality's option has them"
    )
    d_hidden: int | None = option(None, help="Width of the network that folds; left out: 2 d_model", ge=1)
