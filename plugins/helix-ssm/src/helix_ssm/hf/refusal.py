"""The sentence in which a config.json is refused."""

from __future__ import annotations

from helix_kernel.errors import IncompatibleCheckpointError


def unsupported(source: str, name: str, value: object, supported: object) -> IncompatibleCheckpointError:
    """Return the error for a field whose value no layer of Helix has.

    Args:
        source: The folder.
        name: The field of its config.json.
        value: What it has there.
        supported: What it could have.
    """
    return IncompatibleCheckpointError(f"{source}: {name} is {value!r}; supported is {supported}")
