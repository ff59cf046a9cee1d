"""Other forms made checkpoints: the first form, safetensors files, Zarr directories and zip files.

What `export` wrote comes back as it was, attributes and ties included, and is checked against its digests.
"""

from __future__ import annotations

import json
import struct
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from helix_kernel.checkpoint import safetensors_file
from helix_kernel.checkpoint.compression import check_compression
from helix_kernel.checkpoint.digests import ChunkDigests, digest_of_all
from helix_kernel.checkpoint.export import keys_of
from helix_kernel.checkpoint.layout import Layout
from helix_kernel.checkpoint.manifest import FORMAT, MANIFEST
from helix_kernel.checkpoint.reader import Checkpoint
from helix_kernel.checkpoint.tree import Decoder
from helix_kernel.checkpoint.writer import save
from helix_kernel.errors import ArgumentError, CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import zarr
    from zarr.abc.store import Store

_MOST_UNFOLDED = 20


@attrs.frozen
class Source:
    """What is to become a checkpoint.

    Args:
        form: Which form it has, in words.
        state: Its arrays, nested.
        attributes: What it says besides.
    """

    form: str
    state: Mapping[Any, Any]
    attributes: dict[str, Any]


def convert(source: str | Path, out: str | Path, *, compression: str | None = None) -> Source:
    """Write a checkpoint of the present form from one of another; the original stays as it is.

    The arrays of a Zarr hierarchy are in memory all at once; those of the other forms are mapped from
    their file where they lie in one piece.

    Args:
        source: A checkpoint of any form, a safetensors file, a Zarr directory or a Zarr zip file. A
            safetensors file of others gives one array a name; Zarr groups give nested mappings.
        out: The checkpoint's directory to make.
        compression: As for `save`; what was compressed before is not, if left out.

    Raises:
        CheckpointError: `source` is none of these or damaged, or `out` exists.
        ArgumentError: An array is of a type that no checkpoint holds, or there is no such compression.
    """
    check_compression(compression)
    read = _read(Path(source))
    save(out, read.state, attributes=read.attributes, compression=compression)
    return read


def _read(source: Path) -> Source:
    if not source.exists():
        raise CheckpointError(f"{source} does not exist")
    if (source / MANIFEST).exists():
        return _checkpoint(source)
    if (source / "zarr.json").exists() or (source / ".zgroup").exists():
        return _zarr_directory(source)
    if source.is_file() and zipfile.is_zipfile(source):
        return _zarr_zip(source)
    if source.is_file():
        return _safetensors(source)
    raise CheckpointError(
        f"{source} is nothing to convert; allowed are a checkpoint's directory, a Zarr directory with "
        "a zarr.json, a zip file of one, and a safetensors file"
    )


def _checkpoint(source: Path) -> Source:
    with Checkpoint.open(source) as checkpoint:
        return Source("checkpoint", checkpoint.state(mmap=True), checkpoint.attributes)


def _safetensors(source: Path) -> Source:
    tensors, metadata = safetensors_file.read(source)
    document = _helix(metadata.get("helix"))
    if document is None:
        return Source("safetensors file", tensors, {"metadata": metadata} if metadata else {})
    arrays = {path: tensors[name] for name, path in document["paths"].items()}
    layouts = {path: Layout.of(array.shape, array.dtype) for path, array in arrays.items()}
    return _exported("safetensors file of Helix", str(source), document, arrays, layouts)


def _zarr_directory(source: Path) -> Source:
    from zarr.storage import LocalStore

    return _zarr(source, LocalStore(source, read_only=True))


def _zarr_zip(source: Path) -> Source:
    from zarr.storage import ZipStore

    _refuse_bomb(source)
    store = ZipStore(source, mode="r")
    try:
        return _zarr(source, store)
    finally:
        store.close()


def _refuse_bomb(source: Path) -> None:
    """Refuse a zip file that unfolds to many times its size: what Zarr compresses, it compresses itself."""
    try:
        with zipfile.ZipFile(source) as file:
            claimed = sum(entry.file_size for entry in file.infolist())
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(f"{source} is no zip file that can be read: {error}") from error
    size = source.stat().st_size
    if claimed > _MOST_UNFOLDED * size:
        raise CheckpointError(
            f"{source} has {size} bytes and claims to hold {claimed}; "
            f"allowed are {_MOST_UNFOLDED} times its size"
        )


def _zarr(source: Path, store: Store) -> Source:
    import zarr

    from helix_kernel.checkpoint.checkpoint_store import register_dtypes

    register_dtypes()
    try:
        root = zarr.open_group(store, mode="r")
        with warnings.catch_warnings():  # of files that belong to no array; ours are checked by digest
            warnings.simplefilter("ignore", UserWarning)
            nodes = dict(root.members(max_depth=None))
        arrays = {path: _array(node) for path, node in nodes.items() if isinstance(node, zarr.Array)}
    except (ValueError, KeyError, TypeError, OSError, RuntimeError, MemoryError) as error:
        raise CheckpointError(f"{source} is no Zarr hierarchy that zarr can read: {error}") from error
    document = _helix(root.attrs.get("helix"))
    if document is not None:
        layouts = {path: _layout(nodes[path], array) for path, array in arrays.items()}
        return _exported("Zarr hierarchy of Helix", str(source), document, arrays, layouts)
    own = {path: dict(node.attrs) for path, node in [("", root), *nodes.items()] if node.attrs}
    return Source(
        "Zarr hierarchy",
        _nested({tuple(p.split("/")): a for p, a in arrays.items()}),
        {"zarr": own} if own else {},
    )


def _array(node: zarr.Array[Any]) -> np.ndarray:
    return np.asarray(node[...])


def _layout(node: Any, array: np.ndarray) -> Layout:
    """Return how an exported array was cut: its digest is of that."""
    return Layout(array.shape, array.dtype, node.shards or node.chunks, node.chunks if node.shards else None)


def _helix(document: Any) -> dict[str, Any] | None:
    """Return what `export` wrote beside the arrays; None where it is of others."""
    if isinstance(document, str):
        try:
            document = json.loads(document)
        except (ValueError, RecursionError):
            return None
    is_ours = isinstance(document, dict) and document.get("format") == FORMAT
    return document if is_ours and "ties" in document else None


def _exported(
    form: str,
    source: str,
    document: dict[str, Any],
    arrays: Mapping[str, np.ndarray],
    layouts: Mapping[str, Layout],
) -> Source:
    try:
        for path, digest in document["digests"].items():
            if _digest(arrays[path], layouts[path]) != digest:
                raise CheckpointError(
                    f"{source} is damaged: array {path!r} is not as it was when it was exported"
                )
        named = {**arrays, **{tied: arrays[path] for tied, path in document["ties"].items()}}
        state = document["state"]
        decoded = (
            _nested({keys_of(path): array for path, array in named.items()})
            if state is None
            else Decoder(_reader(named)).decode(state)
        )
        return Source(form, decoded, Decoder(str).decode(document["attributes"]))
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, struct.error) as error:
        if isinstance(error, ArgumentError):
            raise
        raise CheckpointError(
            f"{source} is damaged: an array or a value of it is missing ({error!r})"
        ) from error


def _reader(arrays: Mapping[str, np.ndarray]) -> Callable[[str], np.ndarray]:
    return lambda path: arrays[path]


def _digest(array: np.ndarray, layout: Layout) -> str:
    """Return the digest that a checkpoint has of an array, over the chunks of its shards."""
    digests: list[str] = []
    for shard in layout.shards:
        data = np.zeros(layout.data_shape(shard), layout.dtype)
        data[tuple(slice(n) for n in shard.shape)] = array[shard.region]
        found = ChunkDigests(layout.chunk_bytes)
        found.update(data.reshape(-1).view(np.uint8))
        digests += found.finish()
    return digest_of_all(digests)


def _nested(arrays: Mapping[tuple[str, ...], np.ndarray]) -> dict[str | int, Any]:
    state: dict[str | int, Any] = {}
    for (*groups, name), array in arrays.items():
        place: Any = state
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = array
    return state
