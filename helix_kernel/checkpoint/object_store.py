"""Checkpoints in object stores: S3, Google Cloud Storage, Azure, and whatever else obstore speaks to.

An object appears whole or not at all, and is never written twice: a pack has a name of its own, and the
manifest, which is put last and only if there is none, is what makes a step exist. So neither a dead
writer nor a second one can tear what a reader sees. Needs obstore (https://developmentseed.org/obstore).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs
import obstore
from obstore import store as stores

from helix_kernel.checkpoint.manifest import MANIFEST
from helix_kernel.checkpoint.object_errors import is_missing, named_errors
from helix_kernel.checkpoint.object_packs import ObjectPacks
from helix_kernel.checkpoint.object_run import ObjectRun
from helix_kernel.checkpoint.object_step import new_object_step
from helix_kernel.errors import ArgumentError, CheckpointError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from obstore.store import ClientConfig, ObjectStore, RetryConfig

    from helix_kernel.checkpoint.object_step import NewObjects

SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "http", "https", "file")
"""Schemes of URLs; ``file`` means a directory, and stores reached by plain http can only be read."""

# A server that is down is known to be so within seconds, one that hangs within two minutes.
_CLIENT: ClientConfig = {"connect_timeout": "5s", "timeout": "60s", "allow_http": True}
_RETRIES: RetryConfig = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=5),
        "base": 2,
    },
}


@attrs.frozen
class ObjectPrefix:
    """The objects whose keys begin with a prefix: a `Location`, and what users see of it.

    Args:
        store: Of obstore.
        url: How it is printed.
        prefix: Path within the store; empty for all of it.
    """

    store: ObjectStore = attrs.field(repr=False)
    url: str
    prefix: str = attrs.field(default="", repr=False)

    @classmethod
    def of_url(cls, url: str) -> ObjectPrefix:
        """Open a URL; who may do what there stands in the provider's environment variables.

        Raises:
            ArgumentError: obstore knows no such scheme, or the URL names no bucket.
        """
        scheme = urlsplit(url).scheme
        if scheme not in SCHEMES:
            raise ArgumentError(
                f"{url!r} begins with {scheme}://; allowed are {', '.join(SCHEMES)}, and a path."
                f"{did_you_mean(scheme, SCHEMES)}"
            )
        try:
            store = stores.from_url(url, client_options=_CLIENT, retry_config=_RETRIES)
        except (obstore.exceptions.BaseError, ValueError) as error:
            first = str(error).partition("\n")[0]
            raise ArgumentError(f"{url!r} names no place: {first}; write {scheme}://bucket/path") from error
        return cls(store, url.rstrip("/"))

    @classmethod
    def of_store(cls, value: Any) -> ObjectPrefix | None:
        """Return what stands for a store of obstore, or for such a prefix; None for anything else."""
        kinds = (
            stores.S3Store,
            stores.GCSStore,
            stores.AzureStore,
            stores.HTTPStore,
            stores.LocalStore,
            stores.MemoryStore,
        )
        if isinstance(value, kinds):
            prefix = getattr(value, "prefix", None)
            return cls(value, f"{type(value).__name__}({prefix or ''})")
        return value if isinstance(value, cls) else None

    @property
    def name(self) -> str:
        """The last part of it."""
        return str(self).rpartition("/")[2]

    @property
    def parent(self) -> ObjectPrefix:
        """What this was made from by ``/``."""
        return ObjectPrefix(self.store, self.url.rpartition("/")[0], self.prefix.rpartition("/")[0])

    @property
    def place(self) -> ObjectPrefix:
        """Itself."""
        return self

    def key(self, name: str) -> str:
        """Return the key of an object below."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def __truediv__(self, name: str) -> ObjectPrefix:
        return ObjectPrefix(self.store, f"{self.url}/{name}", self.key(name))

    def __str__(self) -> str:
        return self.url

    def is_checkpoint(self) -> bool:
        """See `Location.is_checkpoint`."""
        with named_errors(f"read {self}"):
            try:
                obstore.head(self.store, self.key(MANIFEST))
            except FileNotFoundError as error:
                if is_missing(error):
                    return False
                raise
        return True

    def exists(self) -> bool:
        """Whether it is a checkpoint: an object store knows no directories."""
        return self.is_checkpoint()

    def state(self) -> str:
        """See `Location.state`."""
        return "holds no checkpoint"

    def read_manifest(self) -> bytes:
        """See `Location.read_manifest`."""
        with named_errors(f"read {self}"):
            try:
                return bytes(obstore.get(self.store, self.key(MANIFEST)).bytes())
            except FileNotFoundError as error:
                if is_missing(error):
                    raise CheckpointError(
                        f"{self} is no checkpoint: it has no {MANIFEST}, which is written last"
                    ) from None
                raise

    def open_packs(self, packs: dict[str, int], owner: Callable[[str, int], str]) -> ObjectPacks:
        """See `Location.open_packs`."""
        return ObjectPacks(self, packs, owner)

    def new_step(self) -> AbstractContextManager[NewObjects]:
        """See `Location.new_step`."""
        return new_object_step(self)

    def run(self) -> ObjectRun:
        """See `Location.run`."""
        return ObjectRun(self)
