"""The command `helix export`."""

from __future__ import annotations

from helix_ssm.commands.formats import check_format, show


def export(
    format: str,  # noqa: A002 - the word that a user reads in the usage line
    checkpoint: str,
    /,
    *,
    out: str,
    json: bool = False,
) -> None:
    """Write a checkpoint's model as another library reads it.

    Args:
        format: hf: a folder for transformers' AutoModelForCausalLM.from_pretrained.
        checkpoint: A checkpoint, or a run's directory (its newest good checkpoint).
        out: The folder to make.
        json: Print one JSON object.
    """
    check_format(format)
    from helix_ssm.hf import export_hf

    done = export_hf(checkpoint, out)
    results = {
        "directory": str(done.directory),
        "model_type": done.model_type,
        "weights": done.weights,
        "beside": done.beside,
        "missing": done.missing,
    }
    show(results, as_json=json)
