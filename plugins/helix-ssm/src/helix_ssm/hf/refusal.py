"""The sentence in which a model that the other side cannot have is refused."""

from __future__ import annotations

from helix_kernel.errors import IncompatibleCheckpointError


def unsupported(source: str, name: str, value: object, supported: object) -> IncompatibleCheckpointError:
    """Return the error for a field whose value the other side has not.

    Args:
        source: The folder or checkpoint.
        name: The field of its config.
        value: What it has there.
        supported: What it could have.
    """
    return IncompatibleCheckpointError(f"{source}: {name} is {value!r}; supported is {supported}")
