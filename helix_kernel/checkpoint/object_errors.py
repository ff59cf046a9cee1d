"""Says in one line what went wrong with an object store, and what to do about it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError

from helix_kernel.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator

# What a message of obstore contains → why, and what to do. The first that fits is taken.
_CAUSES = (
    (("NoSuchBucket", "ContainerNotFound"), "there is no such bucket: make it, or check its name and region"),
    (
        ("169.254.169.254", "metadata.google.internal", "Unauthenticated", "401 Unauthorized"),
        "no accepted credentials: set AWS_ACCESS_KEY_ID and so on, or give a store of obstore that has them",
    ),
    (
        ("403 Forbidden", "AccessDenied", "PermissionDenied"),
        "permission denied: the credentials must allow to read, write, list and delete there",
    ),
    (
        ("kind: Connect", "ConnectionRefused", "error sending request"),
        "no answer from the server: check the network and the endpoint (for S3 AWS_ENDPOINT_URL)",
    ),
    (("NotSupported", "NotImplemented"), "this kind of store cannot do that; use another"),
)


@contextmanager
def named_errors(doing: str) -> Iterator[None]:
    """Turn errors of obstore into those of checkpoints; a missing object is one as well.

    Args:
        doing: What is tried, such as ``write s3://bucket/run``.

    Raises:
        CheckpointError: Something went wrong.
    """
    try:
        yield
    except (BaseError, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"cannot {doing}: {_cause(error)}") from error


def is_missing(error: Exception) -> bool:
    """Whether an error says that there is no such object, in a bucket that there is."""
    return isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error)


def _cause(error: Exception) -> str:
    message = f"{type(error).__name__}: {error}"
    if "kind: Timeout" in message:
        return "no answer from the server in time: check the network and try again"
    known = (cause for marks, cause in _CAUSES if any(mark in message for mark in marks))
    return next(known, str(error).partition("\n")[0])
