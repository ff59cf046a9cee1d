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

COMPONENTS = {
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
    ),
    "eviction": dict.fromkeys(("belady", "fsrs", "lfu", "lru", "tinylfu"), "helix-topo"),
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
    "schedule": dict.fromkeys(("constant", "cosine", "exponential", "linear"), "helix-train"),
    "tokenizer": dict.fromkeys(("byte-pair", "bytes", "hf-tokenizer"), "helix-data"),
    "trainer": {"trainer": "helix-train"},
}

DISTRIBUTIONS = frozenset(SECTIONS.values()).union(*(names.values() for names in COMPONENTS.values()))


def distribution_of(kind: str, name: str) -> str | None:
    """Return the first-party distribution that provides a component, or None."""
    return COMPONENTS.get(kind, {}).get(name)


def distribution_of_kind(kind: str) -> str | None:
    """Return the one first-party distribution of a kind that only one provides, or None."""
    providers = set(COMPONENTS.get(kind, {}).values())
    return providers.pop() if len(providers) == 1 else None
