"""The command `helix import`."""

from __future__ import annotations

from helix_ssm.commands.formats import check_format, show


def import_(
    format: str,  # noqa: A002 - the word that a user reads in the usage line
    directory: str,
    /,
    *,
    out: str,
    dtype: str | None = None,
    json: bool = False,
) -> None:
    """Read another library's model into a new run's directory, from which every command goes on.

    Args:
        format: hf: a folder of transformers, with config.json and safetensors.
        directory: The folder.
        out: The run's directory to make.
        dtype: Convert the weights to float32, float16 or bfloat16; left out, each keeps its bits.
        json: Print one JSON object.
    """
    check_format(format)
    from helix_ssm.hf import import_hf

    done = import_hf(directory, out, dtype=dtype)
    results = {
        "checkpoint": str(done.checkpoint),
        "model_type": done.model_type,
        "parameters": done.n_parameters,
        "dtypes": done.dtypes,
        "tokenizer": str(done.tokenizer) if done.tokenizer else None,
    }
    show(results, as_json=json)
