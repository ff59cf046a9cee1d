"""Opens what a run saved: checks that its components are installed, builds its model, loads weights."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, get_args

import attrs

from helix_kernel import checkpoint as _checkpoint
from helix_kernel.config import Config, resolve_document
from helix_kernel.diagnosis.mending import install, upgrade
from helix_kernel.errors import (
    ArgumentError,
    CheckpointError,
    ConfigError,
    IncompatibleCheckpointError,
    LockError,
    did_you_mean,
    nearest,
)
from helix_kernel.lock_differences import serving_differences, source_differences
from helix_kernel.lock_record import Record, record_components
from helix_kernel.needs import API, needs
from helix_kernel.nesting import flatten, nest
from helix_kernel.renames import untold
from helix_kernel.upgrades import upgraded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from helix_kernel.checkpoint.location import Place
    from helix_kernel.kernel import Kernel
    from helix_kernel.needs import Need

Weights = Literal["averaged", "trained"]
"""Which weights of a checkpoint are meant, where its run kept an average of them."""
_log = logging.getLogger(__name__)
_SHOWN = 5
"""How many tensors a message names of those that do not fit in one way."""


@attrs.frozen(kw_only=True)
class SavedRun:
    """A checkpoint with the config that it was made by.

    Args:
        path: The checkpoint.
        attributes: What the run recorded: ``config``, ``components``, ``step`` and more.
        accept_versions: Whether components of other versions are accepted.
    """

    path: Place
    attributes: Mapping[str, Any]
    accept_versions: bool = False

    def config(self, sections: Sequence[str] | None = None, *, kernel: Kernel | None = None) -> Config:
        """Return the run's config, or only some sections of it.

        Raises:
            IncompatibleCheckpointError: As for `check`, or a component no longer takes these options.
        """
        self.check(sections, kernel=kernel)
        try:
            with untold():  # of old names in what nobody edits; `open_run` tells of the version
                return resolve_document(self._table(sections), source=str(self.path), kernel=kernel)
        except ConfigError as error:
            raise IncompatibleCheckpointError(
                f"the checkpoint's config does not fit what is installed. {error}"
            ) from error

    def check(self, sections: Sequence[str] | None = None, *, kernel: Kernel | None = None) -> list[str]:
        """Compare what a checkpoint needs with what is installed; reads no array.

        Args:
            sections: The sections of the config whose components are needed; all if left out.
            kernel: What is installed; all plugins if left out.

        Returns:
            A line for each difference that is accepted: older versions that what is installed reads, and
            with `accept_versions` all versions, where what is installed has all that is needed.

        Raises:
            IncompatibleCheckpointError: Names each difference and the command that mends it.
        """
        from helix_kernel.kernel import default_kernel
        from helix_kernel.listing import describe

        used = _uses(self._table(sections))
        components = {
            name: version
            for name, version in self.attributes.get("components", {}).items()
            if name.rpartition("/")[2] in used
        }
        found = needs({**self.attributes, "components": components}, describe(kernel or default_kernel()))
        differences = [need for need in found if need.state != "ok"]
        accepted = {"read", "version"} if self.accept_versions else {"read"}
        if not all(need.state in accepted for need in differences):
            refused = [need for need in differences if need.state != "read"]
            raise IncompatibleCheckpointError(_refusal(self.path, refused))
        return list(dict.fromkeys(map(str, differences)))

    def source_changes(
        self, sections: Sequence[str] | None = None, *, kernel: Kernel | None = None
    ) -> list[str]:
        """Return what of the source is another than that which saved it, though of the same version.

        Args:
            sections: The sections of the config whose components count; all if left out.
            kernel: What is installed; all plugins if left out.

        Returns:
            A line for each distribution, with its components that changed and what brings them back. Nothing
            for a checkpoint from before source was recorded, or by a version that records it otherwise.
        """
        from helix_kernel.kernel import default_kernel

        try:
            saved = Record.from_dict(self.attributes.get("lock"))
        except LockError:
            return []
        used = _uses(self._table(sections))
        saved = saved.restricted(name for name in saved.components if name.rpartition("/")[2] in used)
        kernel = kernel or default_kernel()
        here = [c for c in kernel.components() if f"{c.kind}/{c.qualified}" in saved.components]
        return list(map(str, source_differences(saved, record_components(here, kernel))))

    def require_locked(self, sections: Sequence[str] | None = None, *, kernel: Kernel | None = None) -> None:
        """Refuse it where what serves it here is not what it records.

        Args:
            sections: The sections of the config whose components count; all if left out.
            kernel: What is installed; what the config's ``[kernel]`` table lets through if left out.

        Raises:
            LockError: It carries no record; or a version, a source or a backend differs: names each, and what
                mends it.
        """
        try:
            saved = Record.from_dict(self.attributes.get("lock"))
        except LockError as error:
            raise LockError(f"{self.path} does not say what saved it: {error}") from error
        here = self.config(sections, kernel=kernel).record
        names = {name for name in saved.components if name in here.components or name.startswith("backend/")}
        found = serving_differences(saved.restricted(names), here)
        if found:
            raise LockError("\n  ".join([f"{self.path} was saved by something else:", *map(str, found)]))

    def weights(
        self, module: Any, which: Weights = "averaged", *, kernel: Kernel | None = None
    ) -> dict[str, Any]:
        """Read the weights of the run's model, as the installed versions of its components name them.

        Args:
            module: The model that takes them on.
            which: See `open_model`.
            kernel: What is installed; all plugins if left out.

        Returns:
            The weights, nested as the module's names are.

        Raises:
            ArgumentError: See `read_weights`.
            CheckpointError: They are damaged, or an upgrade failed.
        """
        saved = self.attributes.get("components", {})
        return nest(upgraded(module, flatten(read_weights(self.path, which)), saved, kernel=kernel))

    def _table(self, sections: Sequence[str] | None) -> dict[str, Any]:
        table = dict(self.attributes["config"])
        if sections is None:
            return table
        return {name: value for name, value in table.items() if name in ("kernel", *sections)}


@attrs.frozen(kw_only=True)
class OpenedModel:
    """A model with its weights, and the run that they come from."""

    model: Any
    run: SavedRun


def open_run(
    checkpoint: str | Path,
    *,
    sections: Sequence[str] | None = None,
    kernel: Kernel | None = None,
    accept_versions: bool = False,
) -> SavedRun:
    """Open a checkpoint, or the newest good one of a run's directory. Imports no torch.

    What it needs is compared with what is installed before any array is read.

    Args:
        checkpoint: A checkpoint, or a run's directory.
        sections: The sections of the config whose components are needed; all if left out.
        kernel: What is installed; all plugins if left out.
        accept_versions: Open it with components of other versions too, where they exist.

    Raises:
        CheckpointError: It is missing, damaged, or not one that a run saved.
        IncompatibleCheckpointError: See `SavedRun.check`.
    """
    run = None
    if (newest := _newest_readable(checkpoint)) is not None:
        run = _saved_run(newest, accept_versions=accept_versions)
        run.check(sections, kernel=kernel)
    path = _checkpoint.resolve(checkpoint)
    if run is None or run.path != path:
        run = _saved_run(path, accept_versions=accept_versions)
    if accepted := run.check(sections, kernel=kernel):
        _log.warning("%s is opened all the same: %s", path, "; ".join(accepted))
    if changed := run.source_changes(sections, kernel=kernel):
        _log.warning("%s was saved by other source, of the same version: %s", path, "; ".join(changed))
    return run


def open_model(
    checkpoint: str | Path,
    *,
    kernel: Kernel | None = None,
    also: Sequence[str] = (),
    accept_versions: bool = False,
    weights: Weights = "averaged",
    locked: bool = False,
) -> OpenedModel:
    """Build a checkpoint's model and load its weights; see `helix_kernel.load_model`.

    Args:
        checkpoint: A checkpoint, or a run's directory.
        kernel: What is installed; all plugins if left out.
        also: Sections of the config, beside the model's, that the caller will build.
        accept_versions: See `open_run`.
        weights: ``"averaged"`` for those that the run was evaluated with, where it averaged any;
            ``"trained"`` for those that it goes on training.
        locked: See `SavedRun.require_locked`.
    """
    run = open_run(checkpoint, sections=["model", *also], kernel=kernel, accept_versions=accept_versions)
    if locked:
        run.require_locked(["model", *also], kernel=kernel)
    config = run.config(["model"], kernel=kernel)
    model = config.kernel.build("layer", config["model"])
    load_weights(model, run.weights(model, weights, kernel=config.kernel), str(run.path))
    return OpenedModel(model=model.eval(), run=run)


def read_weights(checkpoint: Place, which: Weights = "averaged") -> dict[str, Any]:
    """Read the weights of a checkpoint's model, nested as the module's names are.

    Args:
        checkpoint: A checkpoint, not a run's directory.
        which: See `open_model`.

    Raises:
        ArgumentError: `which` is neither ``"averaged"`` nor ``"trained"``.
        CheckpointError: It is missing or damaged.
    """
    if which not in get_args(Weights):
        raise ArgumentError(
            f"weights is {which!r}, allowed is one of {get_args(Weights)}."
            f"{did_you_mean(which, get_args(Weights))}"
        )
    with _checkpoint.Checkpoint.open(checkpoint) as opened:
        averaged = any(name.startswith("averaged/") for name in opened.arrays)
    parts = ["model", "averaged"] if averaged and which == "averaged" else ["model"]
    state = _checkpoint.load(checkpoint, only=parts, as_torch=True)
    return nest({name: weight for part in parts for name, weight in flatten(state[part]).items()})


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


def _newest_readable(checkpoint: str | Path) -> Place | None:
    """Return the newest step with a manifest that can be read; whether its arrays are good is not asked."""
    for path in reversed(_checkpoint.steps_at(checkpoint)):
        with suppress(CheckpointError):
            _checkpoint.Checkpoint.open(path).close()
            return path
    return None


def _saved_run(path: Place, *, accept_versions: bool) -> SavedRun:
    with _checkpoint.Checkpoint.open(path) as opened:
        attributes = opened.attributes
    if "config" not in attributes:
        raise IncompatibleCheckpointError(f"{path} holds arrays but no config; it was not saved by a run")
    return SavedRun(path=path, attributes=attributes, accept_versions=accept_versions)


def _refusal(path: Place, differences: Sequence[Need]) -> str:
    lines = list(dict.fromkeys(map(str, differences)))
    requirements = dict.fromkeys(need.requirement for need in differences if need.requirement)
    if len(requirements) > 1:
        command = upgrade if any(need.name == API for need in differences) else install
        lines.append(f"all at once: {command(*requirements)}")
    if all(need.state == "version" for need in differences):
        lines.append(
            "what is installed has all that it needs: accept_versions=True, or --accept-versions, opens it "
            "all the same (helix train: trainer.accept_versions=true)"
        )
    return "\n  ".join([f"{path} cannot be opened here:", *lines])


def _uses(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["use"]} if isinstance(value.get("use"), str) else set()
        return own.union(*(_uses(item) for item in value.values()))
    if isinstance(value, list | tuple):
        return set().union(*(_uses(item) for item in value))
    return set()


def _shape(tensor: Any) -> str:
    return str(tuple(tensor.shape))
