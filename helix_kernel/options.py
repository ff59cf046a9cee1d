"""The vocabulary of config classes: documented, bounded options and nested components."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping


@attrs.frozen
class ComponentOf:
    """Marks an option that holds one component of a kind.

    Annotate with it, as in ``encoder: Annotated[Any, ComponentOf("layer")]``; the target
    receives the built object.
    """

    kind: str


@attrs.frozen
class FactoryOf:
    """Marks an option from which the target builds components itself.

    Annotate with it, as in ``mixer: Annotated[Any, FactoryOf("layer", supplies=("d_model",))]``;
    the target receives a `helix_kernel.Factory` and calls it with the arguments it supplies.

    Args:
        kind: Kind of the component.
        supplies: Arguments that the parent adds, and that a config therefore leaves out.
    """

    kind: str
    supplies: tuple[str, ...] = ()


def nested_marker(annotation: Any) -> ComponentOf | FactoryOf | None:
    """Return the marker of ``Annotated[Any, ComponentOf(…)]``, or None for any other type."""
    if typing.get_origin(annotation) is typing.Annotated:
        for extra in annotation.__metadata__:
            if isinstance(extra, ComponentOf | FactoryOf):
                return extra
    return None


def markers_within(annotation: Any) -> list[ComponentOf | FactoryOf]:
    """Return the markers in a type: its own, or those of the parts of a list, union or table."""
    marker = nested_marker(annotation)
    if marker is not None:
        return [marker]
    return [found for part in typing.get_args(annotation) for found in markers_within(part)]


@attrs.frozen(kw_only=True)
class Bounds:
    """A validator of numbers that can say what it allows.

    Args:
        gt: The value must be greater than this.
        ge: The value must be at least this.
        lt: The value must be less than this.
        le: The value must be at most this.
    """

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    def __call__(self, _instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        """Raise `ArgumentError` where a number lies outside; other types pass."""
        if not self.admits(value):
            raise ArgumentError(f"{attribute.name} is {value!r}, allowed is {self}")

    def admits(self, value: Any) -> bool:
        """Whether a number, or each number of a list, lies inside; what is no number is not judged."""
        if isinstance(value, tuple | list):
            return all(self.admits(item) for item in value)
        return isinstance(value, bool) or not isinstance(value, int | float) or self.allows(value)

    def allows(self, number: float) -> bool:
        """Whether the number lies inside (NaN never does)."""
        return (
            (self.gt is None or number > self.gt)
            and (self.ge is None or number >= self.ge)
            and (self.lt is None or number < self.lt)
            and (self.le is None or number <= self.le)
        )

    def __str__(self) -> str:
        signs = ((">", self.gt), (">=", self.ge), ("<", self.lt), ("<=", self.le))
        return " and ".join(f"{sign} {bound:g}" for sign, bound in signs if bound is not None)


def option(
    default: Any = attrs.NOTHING,
    *,
    help: str,  # noqa: A002 - the word that every option parser uses
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    deprecated: Mapping[str, str] | None = None,
    locked: bool = True,
) -> Any:
    """Declare an option of a config class: an attrs field with its documentation and bounds.

    Args:
        default: Value where the config gives none; required if left out. For a nested component
            this is a table, such as ``{"use": "rms-norm"}``.
        help: One line that says what the option is, with its unit.
        gt: Greater than.
        ge: At least.
        lt: Less than.
        le: At most.
        deprecated: Old names of the option that a config may still use, each with the version of the
            distribution since which it has the new one.
        locked: False for an option of a section that says where something lies, and not what is made of it:
            ``--locked`` lets each call choose it.
    """
    bounds = Bounds(gt=gt, ge=ge, lt=lt, le=le)
    return attrs.field(
        default=default,
        validator=bounds if bounds != Bounds() else None,
        metadata={"help": help, "deprecated": dict(deprecated or {}), "locked": locked},
    )
