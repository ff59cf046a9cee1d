"""Opens what a run saved: checks that its components are installed, builds its model, loads weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel import checkpoint as _checkpoint
from helix_kernel.config import Config, resolve_document
from helix_kernel.errors import ConfigError, IncompatibleCheckpointError, nearest
from helix_kernel.nesting import flatten

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from helix_kernel.kernel import Kernel

_SHOWN = 5
"""How many tensors a message names of those that do not fit in one way."""


@attrs.frozen(kw_only=True)
class SavedRun:
    """A checkpoint with the config that it was made by.

    Args:
        path: The checkpoint.
        attributes: What the run recorded: ``config``, ``components``, ``step`` and more.
    """

    path: Path
    attributes: Mapping[str, Any]

    def config(self, sections: Sequence[str] | None = None, *, kernel: Kernel | None = None) -> Config:
        """Return the run's config, or only some sections of it.

        Raises:
            IncompatibleCheckpointError: A component's provider is not installed, has another
                major version, or no longer takes these options.
        """
        table = dict(self.attributes["config"])
        if sections is not None:
            table = {name: value for name, value in table.items() if name in ("kernel", *sections)}
        self.check_providers(_uses(table), kernel)
        try:
            return resolve_document(table, source=str(self.path), kernel=kernel)
        except ConfigError as error:
            raise IncompatibleCheckpointError(
                f"the checkpoint's config does not fit what is installed. {error}"
            ) from error

    def check_providers(self, used: set[str], kernel: Kernel | None = None) -> None:
        """Compare the providers that a checkpoint needs with those installed.

        Args:
            used: Qualified names of the components needed.
            kernel: What is installed; all plugins if left out.

        Raises:
            IncompatibleCheckpointError: Names each difference and the command that mends it.
        """
        from helix_kernel.kernel import default_kernel

        kernel = kernel or default_kernel()
        installed = {plugin.provider: plugin.version for plugin in kernel.plugins}
        failed = {failure.provider: str(failure) for failure in kernel.failures}
        needed = {
            qualified.partition(":")[0]: version
            for name, version in self.attributes.get("components", {}).items()
            if (qualified := name.rpartition("/")[2]) in used
        }
        wrong = [
            _difference(provider, version, installed.get(provider), failed.get(provider))
            for provider, version in sorted(needed.items())
        ]
        found = [line for line in wrong if line]
        if found:
            raise IncompatibleCheckpointError("\n  ".join([f"{self.path} cannot be opened here:", *found]))


@attrs.frozen(kw_only=True)
class OpenedModel:
    """A model with its weights, and the run that they come from."""

    model: Any
    run: SavedRun


def open_run(checkpoint: str | Path) -> SavedRun:
    """Open a checkpoint, or the newest good one of a run's directory. Imports no torch.

    Raises:
        CheckpointError: It is missing, damaged, or not one that a run saved.
    """
    path = _checkpoint.resolve(checkpoint)
    attributes = _checkpoint.Checkpoint.open(path).attributes
    if "config" not in attributes:
        raise IncompatibleCheckpointError(f"{path} holds arrays but no config; it was not saved by a run")
    return SavedRun(path=path, attributes=attributes)


def open_model(checkpoint: str | Path, *, kernel: Kernel | None = None) -> OpenedModel:
    """Build a checkpoint's model and load its weights; see `helix_kernel.load_model`."""
    run = open_run(checkpoint)
    config = run.config(["model"], kernel=kernel)
    model = config.kernel.build("layer", config["model"])
    weights = _checkpoint.load(run.path, only=["model"], as_torch=True)["model"]
    load_weights(model, weights, str(run.path))
    return OpenedModel(model=model.eval(), run=run)


def load_weights(module: Any, weights: Mapping[str, Any], source: str) -> None:
    """Load nested weights into a module, or nothing at all where they do not fit.

    Args:
        module: An ``nn.Module``.
        weights: Tensors nested as the module's names are.
        source: Where they come from, for the message.

    Raises:
        IncompatibleCheckpointError: Names the tensors that are missing, with the nearest of those left
            over, and the ones left over or of another shape.
    """
    flat, own = flatten(weights), module.state_dict()
    missing = [name for name in own if name not in flat]
    left_over = [name for name in flat if name not in own]
    misshapen = [name for name in own if name in flat and own[name].shape != flat[name].shape]
    found = [
        *_first(missing, lambda n: f"missing: {n} {_shape(own[n])}{_nearest(n, left_over)}"),
        *_first(left_over, lambda n: f"left over: {n} {_shape(flat[n])}"),
        *_first(
            misshapen, lambda n: f"{n}: {_shape(flat[n])} in the checkpoint, {_shape(own[n])} in the model"
        ),
    ]
    if found:
        head = f"{source} holds the weights of another architecture than the config's:"
        raise IncompatibleCheckpointError("\n  ".join([head, *found]))
    module.load_state_dict(flat)


def _nearest(name: str, left_over: Sequence[str]) -> str:
    match = nearest(name, left_over)
    return f", nearest of those left over: {match}" if match else ""


def _first(names: Sequence[str], line: Callable[[str], str]) -> list[str]:
    """Return a line for each of the first names, and one that counts the rest."""
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return [*map(line, names[:_SHOWN]), *more]


def _difference(provider: str, saved: str, installed: str | None, failure: str | None) -> str | None:
    if installed is None and failure is not None:
        return f"it needs {provider} {saved}, which is installed but broken: {failure} (see helix doctor)"
    if installed is None:
        return f"it needs {provider} {saved}, which is not installed: pip install {provider}=={saved}"
    if installed.partition(".")[0] != saved.partition(".")[0]:
        return (
            f"it needs {provider} {saved}, installed is {installed}, another major version: "
            f"pip install {provider}=={saved}"
        )
    return None


def _uses(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["use"]} if isinstance(value.get("use"), str) else set()
        return own.union(*(_uses(item) for item in value.values()))
    if isinstance(value, list | tuple):
        return set().union(*(_uses(item) for item in value))
    return set()


def _shape(tensor: Any) -> str:
    return str(tuple(tensor.shape))
