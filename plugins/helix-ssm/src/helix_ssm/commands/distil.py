"""The command `helix distil`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_kernel.cli.output import print_json, print_table

if TYPE_CHECKING:
    from helix_ssm.distillation import FilterError


def distil(
    checkpoint: str, out: str, /, *, d_state: int = 32, n_lags: int = 4096, json: bool = False
) -> None:
    """Turn a checkpoint's Hyena layers into recurrent ones, and say how exact they are.

    Args:
        checkpoint: A checkpoint, or a run's directory (its newest good checkpoint).
        out: The run's directory to make.
        d_state: Real states of each channel of a filter, even.
        n_lags: Over how many lags filters are fitted and errors measured.
        json: Print one JSON object, with every channel's errors.
    """
    from helix_ssm.distillation import distil_checkpoint

    path, distilled = distil_checkpoint(checkpoint, out, d_state=d_state, n_lags=n_lags)
    if json:
        errors = [_as_dict(error) for error in distilled.errors]
        print_json({"checkpoint": str(path), "d_state": d_state, "n_lags": n_lags, "filters": errors})
        return
    columns = ("layer", "filter", "l2 median", "l2 worst", "max median", "max worst")
    title = f"{path}: errors over {n_lags} lags, relative, of the median and of the worst channel"
    print_table(columns, [_row(error) for error in distilled.errors], title)


def _as_dict(error: FilterError) -> dict[str, Any]:
    return {
        "layer": error.layer,
        "filter": error.index,
        "relative_l2": list(error.relative_l2),
        "relative_max": list(error.relative_max),
    }


def _row(error: FilterError) -> tuple[str, ...]:
    numbers = [
        number
        for channels in (sorted(error.relative_l2), sorted(error.relative_max))
        for number in (channels[len(channels) // 2], channels[-1])
    ]
    return (error.layer, str(error.index), *(f"{number:.1e}" for number in numbers))
