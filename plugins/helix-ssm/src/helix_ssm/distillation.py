"""Turns trained Hyena layers into recurrent ones, by modal filters in place of the implicit ones.

Massaroli et al. 2023, "Laughing Hyena Distillery", arXiv:2310.18780: a long filter h is replaced by the
impulse response of a diagonal system, so that decoding takes constant memory and time. What that costs in
exactness is measured, filter by filter, and stated.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor, nn

from helix_kernel import checkpoint as checkpoints
from helix_kernel.config import resolve_document
from helix_kernel.errors import ArgumentError
from helix_kernel.nesting import nest
from helix_kernel.restore import open_model
from helix_ssm.exponential_fit import fit
from helix_ssm.layers.hyena import Hyena
from helix_ssm.layers.hyena_filter import HyenaFilter
from helix_ssm.layers.modal_filter import ModalFilter

if TYPE_CHECKING:
    from helix_kernel.checkpoint.location import Place

_HYENA = "hyena"


@attrs.frozen(kw_only=True)
class FilterError:
    """How far one modal filter is from the implicit one that it replaces, channel by channel.

    Args:
        layer: Name of the Hyena layer in the model; empty if it is the model.
        index: Which of the layer's filters, from 0.
        relative_l2: Norm of the difference over the lags, divided by the filter's norm.
        relative_max: Largest difference of a lag, divided by the filter's largest value.
    """

    layer: str
    index: int
    relative_l2: tuple[float, ...]
    relative_max: tuple[float, ...]


@attrs.frozen(kw_only=True)
class Distillation:
    """A model with modal filters, and the errors of each of them.

    Args:
        model: A copy of what was given, with every implicit filter replaced.
        errors: One entry for each filter of each layer.
        n_lags: Over how many lags the errors are measured.
    """

    model: nn.Module
    errors: tuple[FilterError, ...]
    n_lags: int


def distil(model: nn.Module, *, d_state: int = 32, n_lags: int = 4096) -> Distillation:
    """Return a twin of a model in which every Hyena layer has modal filters.

    A filter is fitted over its first `n_lags` lags (`exponential_fit`); at lag 0 the skip weight D takes
    up what is left, so that the twin is exact there. Errors are those of the twin's stored parameters.

    Args:
        model: A Hyena layer, or a model that holds some. It stays as it is.
        d_state: Real states of each channel of a modal filter, even.
        n_lags: Lags to fit. Choose as many as the filters live: some multiples of time_scale.

    Raises:
        ArgumentError: The model has no Hyena layer with implicit filters, d_state is below 2 or odd, or
            n_lags is below 2 d_state + 1.
    """
    twin = copy.deepcopy(model)
    layers = {
        name: layer
        for name, layer in twin.named_modules()
        if isinstance(layer, Hyena) and isinstance(layer.filter, HyenaFilter)
    }
    if not layers:
        raise ArgumentError(
            f"model is a {type(model).__name__} without implicit filters, allowed is one with hyena layers "
            'whose filter is "implicit"'
        )
    errors = [
        error for name, layer in layers.items() for error in _replace_filter(name, layer, d_state, n_lags)
    ]
    return Distillation(model=twin, errors=tuple(errors), n_lags=n_lags)


def distil_checkpoint(
    checkpoint: str | Path, out: str | Path, *, d_state: int = 32, n_lags: int = 4096
) -> tuple[Place, Distillation]:
    """Distil a checkpoint's model and save it as a run of its own.

    The new checkpoint has the old one's config and records with the filters changed, and the weights; no
    optimizer, so that it can be evaluated and generated from but not resumed.

    Args:
        checkpoint: A checkpoint, or a run's directory (its newest good checkpoint).
        out: The run's directory to make.
        d_state: See `distil`.
        n_lags: See `distil`.

    Returns:
        The new checkpoint's path and the distillation.

    Raises:
        ArgumentError: See `distil`.
        CheckpointError: The checkpoint is missing or damaged, or `out` holds one of that step already.
    """
    opened = open_model(checkpoint)
    distilled = distil(opened.model, d_state=d_state, n_lags=n_lags)
    attributes = dict(opened.run.attributes)
    config = resolve_document(_with_modal_filters(attributes["config"], d_state), source=str(opened.run.path))
    attributes |= {
        "config": config.to_dict(),
        "distilled": {"from": str(opened.run.path), "d_state": d_state, "n_lags": n_lags},
    }
    manager = checkpoints.CheckpointManager(Path(out) / "checkpoints")
    state: dict[str | int, Any] = {"model": nest(distilled.model.state_dict())}
    return manager.save(attributes["step"], state, attributes=attributes), distilled


@torch.no_grad()
def _replace_filter(name: str, layer: Hyena, d_state: int, n_lags: int) -> list[FilterError]:
    """Give a layer modal filters, and return their errors."""
    old = layer.filter
    assert isinstance(old, HyenaFilter)
    wanted = copy.deepcopy(old).double()(n_lags)
    new = ModalFilter(layer.d_model, n_filters=layer.order, d_state=d_state, time_scale=old.time_scale)
    new.set_(fit(wanted.flatten(0, 1), d_state // 2))
    layer.filter = new.to(layer.D).train(layer.training)
    found = layer.filter(n_lags).double()
    layer.D.add_((wanted - found)[..., 0])
    found[..., 0] = wanted[..., 0]
    return [
        FilterError(
            layer=name, index=index, relative_l2=_ratio(*norms, 2), relative_max=_ratio(*norms, torch.inf)
        )
        for index, norms in enumerate(zip(found - wanted, wanted, strict=True))
    ]


def _ratio(difference: Tensor, wanted: Tensor, order: float) -> tuple[float, ...]:
    """Return the norm of each channel's difference over that of what was wanted; 0 where both are 0."""
    norms = (torch.linalg.vector_norm(x, order, dim=-1) for x in (difference, wanted))
    return tuple((next(norms) / next(norms).clamp_min(1e-300)).tolist())


def _with_modal_filters(table: Any, d_state: int) -> Any:
    """Return a config in which every table of a Hyena layer asks for modal filters."""
    if isinstance(table, dict):
        changed = {key: _with_modal_filters(value, d_state) for key, value in table.items()}
        if str(changed.get("use", "")).rpartition(":")[2] == _HYENA:
            changed |= {"filter": "modal", "d_state": d_state}
        return changed
    if isinstance(table, list | tuple):
        return [_with_modal_filters(item, d_state) for item in table]
    return table
