"""What the first-party distributions offer, so that a missing one can be named."""

from __future__ import annotations

SECTIONS = {
    "model": "helix-ssm",
    "data": "helix-data",
    "loader": "helix-data",
    "loss": "helix-train",
    "optimizer": "helix-train",
    "schedule": "helix-train",
    "tokenizer": "helix-data",
    "trainer": "helix-train",
}

KINDS = (
    dict.fromkeys(("dataset", "loader", "tokenizer"), "helix-data")
    | dict.fromkeys(("callback", "logger", "metric", "schedule", "trainer"), "helix-train")
    | dict.fromkeys(("alignment", "decoder", "encoder", "fusion"), "helix-multimodal")
    | {"eviction": "helix-topo"}
)

HOOKS = frozenset(f"helix_{kind}s" for kind in KINDS)
"""Hooks of kinds that plugins bring: known whether or not what brings them is installed."""

COMPONENTS = {
    "alignment": dict.fromkeys(("ctc", "info-nce", "sinkhorn", "soft-dtw"), "helix-multimodal"),
    "backend": {
        "cpu-simd": "helix-cpu",
        "cuda-triton": "helix-cuda",
        "torch-chunked": "helix-ssm",
    },
    "callback": dict.fromkeys(("early-stopping", "ema", "lr-finder", "spike-guard"), "helix-train"),
    "command": {
        "bench": "helix-cpu",
        "cuda-check": "helix-cuda",
        "cuda-compile": "helix-cuda",
        "cuda-warmup": "helix-cuda",
        "data-ingest": "helix-data",
        "data-show": "helix-data",
        "data-verify": "helix-data",
        "diff": "helix-train",
        "distil": "helix-ssm",
        "eval": "helix-train",
        "export": "helix-ssm",
        "generate": "helix-train",
        "import": "helix-ssm",
        "inspect": "helix-multimodal",
        "ray-train": "helix-ray",
        "ray-tune": "helix-ray",
        "report": "helix-train",
        "runs": "helix-train",
        "tokenizer": "helix-data",
        "topo-plot": "helix-topo",
        "train": "helix-train",
    },
    "dataset": dict.fromkeys(
        (
            "byte-shards",
            "cached",
            "labelled-files",
            "mixture",
            "reconstruction",
            "span-corruption",
            "text-bytes",
            "text-tokens",
        ),
        "helix-data",
    )
    | {"file-groups": "helix-multimodal"},
    "decoder": dict.fromkeys(("bytes", "pixels", "points", "waveform"), "helix-multimodal"),
    "encoder": dict.fromkeys(
        (
            "byte-embedding",
            "byte-patches",
            "image-patches",
            "learned-frames",
            "log-mel",
            "point-groups",
            "video-tubelets",
        ),
        "helix-multimodal",
    ),
    "eviction": dict.fromkeys(("belady", "fsrs", "lfu", "lru", "tinylfu"), "helix-topo"),
    "fusion": dict.fromkeys(
        (
            "cross-attention",
            "early-concat",
            "gated",
            "interleaved-scan",
            "late-logits",
            "low-rank-bilinear",
        ),
        "helix-multimodal",
    ),
    "layer": dict.fromkeys(
        (
            "attention",
            "bidirectional",
            "classifier",
            "conv",
            "gated-deltanet",
            "gla",
            "hyena",
            "language-model",
            "layer-norm",
            "linear",
            "mamba",
            "mamba2",
            "mamba3",
            "min-gru",
            "mlp",
            "moe",
            "multi-hybrid",
            "reversible",
            "rg-lru",
            "rms-norm",
            "rnn",
            "rwkv7",
            "rwkv7-channel-mix",
            "s4",
            "s4d",
            "s5",
            "span-infiller",
        ),
        "helix-ssm",
    )
    | dict.fromkeys(("fsq", "quantised-autoencoder", "rvq", "vq"), "helix-data")
    | dict.fromkeys(("captioner", "multimodal-classifier", "reconstructor", "retriever"), "helix-multimodal")
    | {"memory-layer": "helix-topo"},
    "loader": {"prefetch": "helix-data"},
    "logger": dict.fromkeys(("csv", "mlflow", "tensorboard", "wandb"), "helix-train") | {"ray": "helix-ray"},
    "loss": dict.fromkeys(
        ("bce-with-logits", "cross-entropy", "focal", "l1", "mse", "smooth-l1"), "helix-train"
    ),
    "memory_tier": dict.fromkeys(("cycles", "hierarchy", "motifs", "stable-cores", "vectors"), "helix-topo"),
    "metric": dict.fromkeys(
        (
            "accuracy",
            "bits-per-byte",
            "f1",
            "mean-absolute-error",
            "mean-squared-error",
            "perplexity",
            "precision",
            "recall",
            "top-k-accuracy",
        ),
        "helix-train",
    ),
    "modality": dict.fromkeys(("audio", "image", "point-cloud", "text", "video"), "helix-multimodal"),
    "op": dict.fromkeys(
        (
            "add_rms_norm",
            "causal_conv1d",
            "diagonal_scan",
            "gated_delta_rule",
            "gla",
            "grouped_linear",
            "long_conv",
            "rms_norm",
            "rwkv7",
            "selective_scan",
            "ssd_scan",
        ),
        "helix-ssm",
    ),
    "optimizer": dict.fromkeys(
        (
            "adam",
            "adamw",
            "lion",
            "muon",
            "rmsprop",
            "schedule-free-adamw",
            "schedule-free-sgd",
            "sgd",
            "soap",
        ),
        "helix-train",
    ),
    "scheduling_policy": {"earliest-finish": "helix-multimodal"},
    "schedule": dict.fromkeys(("constant", "cosine", "exponential", "linear"), "helix-train"),
    "tokenizer": dict.fromkeys(("byte-pair", "bytes", "hf-tokenizer"), "helix-data"),
    "trainer": {"trainer": "helix-train"},
}

DISTRIBUTIONS = frozenset(SECTIONS.values()).union(*(names.values() for names in COMPONENTS.values()))


def distribution_of(kind: str, name: str) -> str | None:
    """Return the first-party distribution that provides a component, or None."""
    return COMPONENTS.get(kind, {}).get(name)


def distribution_of_kind(kind: str) -> str | None:
    """Return the first-party distribution that brings a kind, or None; the kernel's own kinds have none."""
    return KINDS.get(kind)
