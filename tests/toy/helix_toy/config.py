"""Options of the toy components."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import attrs

from helix_kernel import ComponentOf, FactoryOf, option
from helix_kernel.errors import ArgumentError


@attrs.frozen(kw_only=True)
class Window:
    """A nested record that is no component."""

    size: int = option(8, ge=1, help="samples")
    shape: Literal["hann", "box"] = option("hann", help="taper")


@attrs.frozen(kw_only=True)
class BlockConfig:
    """A layer with an option of each type."""

    d_model: int = option(ge=1, help="width")
    d_state: int = option(16, ge=1, help="states")
    rate: float = option(0.1, gt=0, lt=1, help="a fraction")
    mode: Literal["fast", "slow", 3] = option("fast", help="a choice")
    label: str = option("block", help="a text")
    active: bool = option(True, help="a switch")
    sizes: list[int] = option([1, 2], ge=1, help="a list")
    pair: tuple[int, float] = option((1, 0.5), help="two values")
    limits: dict[str, float] = option({"low": 0.0}, help="a table")
    window: Window = option(Window(), help="a nested record")
    maximum: int | None = option(None, ge=1, help="optional")
    either: int | str = option("auto", help="a number or a word")
    where: Path = option(Path("here"), help="a path")


@attrs.frozen(kw_only=True)
class StackConfig:
    """A layer that nests others in every way."""

    n_layers: int = option(2, ge=1, help="blocks")
    d_model: int = option(8, ge=1, help="width")
    block: Annotated[Any, FactoryOf("layer", supplies=("d_model",))] = option(
        {"use": "block", "d_state": 4}, help="one for each layer"
    )
    head: Annotated[Any, ComponentOf("layer")] | None = option(None, help="built once")
    extras: list[Annotated[Any, FactoryOf("layer", supplies=("d_model",))]] | None = option(None, help="more")


@attrs.frozen(kw_only=True)
class RangeConfig:
    """Two options that must agree."""

    low: int = option(0, help="lower end")
    high: int = option(1, help="upper end")

    def __attrs_post_init__(self):
        if self.low > self.high:
            raise ArgumentError(f"low={self.low} is above high={self.high}")


@attrs.frozen(kw_only=True)
class RenamedConfig:
    """Options that were called otherwise."""

    width: int = option(ge=1, help="channels", deprecated={"n_channels": "1.1", "size": "1.2"})
    rate: float = option(0.5, gt=0, help="a fraction", deprecated={"speed": "1.2"})
    window: Window | None = option(None, help="a nested record")
    block: Annotated[Any, FactoryOf("layer")] = option(
        {"use": "block", "d_model": 4}, help="has what it requires"
    )
