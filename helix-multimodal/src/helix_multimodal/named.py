"""Parts of other distributions, built by their names when they are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_kernel import default_kernel

if TYPE_CHECKING:
    from collections.abc import Callable


def named(kind: str, name: str) -> Callable[..., Any]:
    """Return a factory of a component, which is called with what its config leaves out."""

    def build(**missing: Any) -> Any:
        return default_kernel().build(kind, {"use": name}, **missing)

    return build
