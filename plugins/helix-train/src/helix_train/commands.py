"""The commands `helix train`, `helix eval` and `helix generate`."""

from __future__ import annotations

import json as _json
import shlex
import sys
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel import load_config
from helix_kernel.errors import HelixError, InputError
from helix_kernel.lock import load_locked
from helix_kernel.restore import OpenedModel, SavedRun, Weights, open_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from helix_train.evaluation import Evaluation


def train(
    file: str,
    /,
    *overrides: str,
    dry_run: bool = False,
    verify_resume: bool = False,
    locked: bool = False,
    lock: str | None = None,
    json: bool = False,
) -> None:
    """Train what a config describes.

    Args:
        file: The TOML file.
        overrides: Assignments such as ``model.d_model=512`` or ``trainer.resume=true``.
        dry_run: Take a few steps, write nothing, and say what the run will take: time, memory, disk.
        verify_resume: Train a few steps in one go and, beside it, killed and resumed, and compare; in a
            temporary folder.
        locked: Refuse to run where the config or what serves it is not as ``helix config lock`` recorded.
        lock: Hold to this lock instead of the one beside the config.
        json: Print one JSON object at the end.
    """
    if dry_run and verify_resume:
        raise InputError("--dry-run and --verify-resume are both given; leave one of them out")
    holding = ["--lock", lock] if lock is not None else ["--locked"] if locked else []
    if holding:
        load_locked(file, overrides, lock=lock)
    if verify_resume:
        _verify_resume(file, overrides, as_json=json)
    elif dry_run:
        _dry_run(file, overrides, as_json=json)
    else:
        _train(file, overrides, holding, as_json=json)


def evaluate(
    checkpoint: str,
    /,
    *,
    stream: bool = False,
    chunk_len: int | None = None,
    baselines: bool = False,
    weights: Weights = "averaged",
    accept_versions: bool = False,
    locked: bool = False,
    json: bool = False,
) -> None:
    """Measure a checkpoint's model on the held-out part of its data.

    Args:
        checkpoint: A checkpoint, or a run's directory (its newest good checkpoint).
        stream: Read it in one pass, each token predicted from everything before it, instead of in
            windows.
        chunk_len: Tokens (bytes, mostly) read at a time with --stream; 4096 if left out.
        baselines: Compress the same bytes with general compressors too, primed with the
            training part.
        weights: The averaged ones where the run kept an average, or those that it trained.
        accept_versions: Open it with components of other versions too, where they exist.
        locked: Refuse where what serves its model and data is not what the checkpoint records, and let only
            the backends of its config serve.
        json: Print one JSON object.
    """
    from helix_train.evaluation import evaluate_dataset

    chunk_len = _chunk_len(chunk_len, stream=stream)
    opened = _open(checkpoint, also=["data"], weights=weights, accept_versions=accept_versions, locked=locked)
    config = opened.run.config(["data"])
    dataset = config.kernel.build("dataset", config["data"])
    found = evaluate_dataset(opened.model, dataset, chunk_len=chunk_len, loss=_loss_of(opened.run))
    if found is None:
        raise InputError(
            f"{opened.run.path}: its data hold nothing out; set data.validation_fraction above 0"
        )
    results = {
        "checkpoint": str(opened.run.path),
        "step": opened.run.attributes["step"],
        **_measures(found),
    }
    if opened.run.attributes.get("data_fingerprint") != dataset.fingerprint:
        print("note: the data differ from those that this checkpoint was trained on", file=sys.stderr)
    _print({**results, **(_baselines(dataset) if baselines else {})}, as_json=json)


def generate(
    checkpoint: str,
    /,
    *,
    prompt: str,
    n_bytes: int = 400,
    temperature: float = 0.7,
    top_k: int = 0,
    seed: int = 0,
    tokenizer: str | None = None,
    weights: Weights = "averaged",
    accept_versions: bool = False,
    json: bool = False,
) -> None:
    """Continue a prompt with a checkpoint's model.

    Args:
        checkpoint: A checkpoint, or a run's directory (its newest good checkpoint).
        prompt: Text to continue.
        n_bytes: How many bytes to add; a model over tokens ends with the token that reaches them.
        temperature: Below 1 more likely bytes, 0 always the likeliest.
        top_k: Sample among this many likeliest bytes (or tokens); 0: among all.
        seed: Seed of the sampling.
        tokenizer: A tokenizer.json, instead of the tokenizer that the checkpoint's config names.
        weights: The averaged ones where the run kept an average, or those that it trained.
        accept_versions: Open it with components of other versions too, where they exist.
        json: Print one JSON object.
    """
    from helix_train.generation import generate_text

    opened = _open(checkpoint, also=(), weights=weights, accept_versions=accept_versions)
    start = prompt.encode("utf-8", "surrogateescape")  # the bytes that were typed, valid text or not
    pieces = generate_text(
        opened.model,
        start,
        n_bytes,
        tokenizer=_tokenizer(opened.run, tokenizer),
        temperature=temperature,
        top_k=top_k,
        seed=seed,
    )
    if json:
        text = b"".join(pieces).decode("utf-8", "replace")
        _print({"checkpoint": str(opened.run.path), "prompt": prompt, "text": text}, as_json=True)
        return
    sys.stdout.buffer.write(start)
    for piece in pieces:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    sys.stdout.buffer.write(b"\n")


def _train(file: str, overrides: Sequence[str], holding: Sequence[str], *, as_json: bool) -> None:
    from helix_train.interruption import InterruptedRunError
    from helix_train.progress import Progress

    config = load_config(file, overrides)
    trainer = config.kernel.build("trainer", config["trainer"], config=config)
    try:
        result = trainer.fit(Progress())
    except InterruptedRunError as error:
        if trainer.ranks.is_first:
            error.add_note(f"go on with: {_resuming(file, overrides, holding, trainer.ranks.world_size)}")
        raise
    if not trainer.ranks.is_first:
        return
    measured = _measures(result.evaluation) if result.evaluation else {"bits_per_byte": None}
    _print(
        {
            "step": result.step,
            **{name: measured[name] for name in ("bits_per_byte", "accuracy") if name in measured},
            "checkpoint": str(result.checkpoint),
            "metrics": str(result.metrics),
            "report": str(result.report),
            **({"plot": str(result.plot)} if result.plot else {}),
        },
        as_json=as_json,
    )


def _dry_run(file: str, overrides: Sequence[str], *, as_json: bool) -> None:
    from helix_train.dry_run import dry_run

    config = load_config(file, overrides)
    trainer = config.kernel.build("trainer", config["trainer"], config=config)
    forecast = dry_run(trainer)
    _print(attrs.asdict(forecast) if as_json else forecast.told(), as_json=as_json)
    for warning in forecast.warnings():
        print(f"warning: {warning}", file=sys.stderr)


def _verify_resume(file: str, overrides: Sequence[str], *, as_json: bool) -> None:
    from helix_train.verification import verify_resume

    found = verify_resume(file, overrides)
    _print({"exact": not found.differences, **attrs.asdict(found)}, as_json=as_json)
    if found.differences:
        raise HelixError(
            f"the resumed run is another in {len(found.differences)} ways; docs/how-to/training.md says what "
            "a resume cannot keep"
        )


def _resuming(file: str, overrides: Sequence[str], holding: Sequence[str], world_size: int) -> str:
    """Return the command that goes on with a run, as a shell would take it."""
    if world_size > 1:
        return "the same torchrun command, with trainer.resume=true at its end"
    kept = [override for override in overrides if not override.startswith("trainer.resume=")]
    return shlex.join(["helix", "train", file, *kept, "trainer.resume=true", *holding])


def _measures(found: Evaluation) -> dict[str, Any]:
    """Return what an evaluation tells: of bytes, of tokens, or of classes of whole rows."""
    if found.tokens_per_byte is None:
        accuracy = {} if found.accuracy is None else {"accuracy": found.accuracy}
        return {**accuracy, "loss": found.loss, "targets": found.n_targets, **found.metrics}
    of_bytes = {"bits_per_byte": found.bits_per_byte, "bytes": found.n_bytes}
    if found.tokens_per_byte == 1:
        return of_bytes
    return {**of_bytes, "loss_per_token": found.loss, "tokens": found.n_targets}


def _chunk_len(given: int | None, *, stream: bool) -> int:
    """Return how many bytes to read at a time, or 0 for windows."""
    if not stream:
        if given is not None:
            raise InputError(f"--chunk-len {given} is for --stream; give both, or neither")
        return 0
    chunk_len = 4096 if given is None else given
    if chunk_len < 1:
        raise InputError(f"--chunk-len is {chunk_len}, allowed is >= 1")
    return chunk_len


def _open(
    checkpoint: str, *, also: Sequence[str], weights: Weights, accept_versions: bool, locked: bool = False
) -> OpenedModel:
    opened = open_model(
        checkpoint, also=also, accept_versions=accept_versions, weights=weights, locked=locked
    )
    config = opened.run.config([])
    # The backends of this machine, which need not be those of the one that trained.
    config.kernel.use_backends(config.settings.backends if locked else ["auto"])
    return opened


def _tokenizer(run: SavedRun, path: str | None) -> Any | None:
    """Return the tokenizer of a file, of the run's config or of its data; None where none is named."""
    if path is not None:
        return run.config([]).kernel.build("tokenizer", {"use": "hf-tokenizer", "path": path})
    table = run.attributes["config"]
    named = table.get("tokenizer", table.get("data", {}).get("tokenizer"))
    if named is None:
        return None
    alone = {name: value for name, value in table.items() if name == "kernel"} | {"tokenizer": named}
    config = attrs.evolve(run, attributes={**run.attributes, "config": alone}).config()
    return config.kernel.build("tokenizer", config["tokenizer"])


def _loss_of(run: SavedRun) -> Callable[..., Any]:
    """Return the run's loss, built when it is called: only targets that are no classes need it."""

    def measured(*compared: Any, **masked: Any) -> Any:
        config = run.config(["loss"])
        return config.kernel.build("loss", config["loss"])(*compared, **masked)

    return measured


def _baselines(dataset: Any) -> dict[str, float]:
    measure = getattr(dataset, "compressed_bits_per_byte", None)
    if measure is None:
        raise InputError(f"--baselines: {type(dataset).__name__} holds no bytes to compress")
    found: dict[str, float] = measure()
    return found


def _print(results: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(_json.dumps(results))
        return
    for key, value in results.items():
        print(f"{key.replace('_', ' '):<14} {_shown(value)}")


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, tuple):
        return "\n  ".join(["", *value])
    return f"{value:,}" if type(value) is int and value >= 10_000 else str(value)
