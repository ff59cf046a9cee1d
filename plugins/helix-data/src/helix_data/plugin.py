"""What helix-data offers: the kinds `dataset` and `tokenizer`, components of both, and quantizers."""

from __future__ import annotations

import helix_kernel
from helix_kernel import Component, Kind

# Examples for the conformance suites; see `helix_data.testing.places` for what is in angle brackets.
_SMALL = {"seq_len": 16, "batch_size": 4}
_TEXT = {"paths": ["<files>"], **_SMALL}

# Rounding has no derivative: training gives it one (straight through, or a rotation).
_STRAIGHT_THROUGH = {
    "test_gradients_agree_with_finite_differences": (
        "choosing a code rounds; its gradient is the one it is given, which no difference quotient has"
    ),
}


@helix_kernel.hookimpl
def helix_kinds() -> list[Kind]:
    """Return the kinds that a config's ``[data]`` and ``[tokenizer]`` tables hold."""
    return [
        Kind(
            name="dataset",
            plural="datasets",
            summary="Sources of batches, each a pure function of (seed, step, rank)",
            section="data",
            suite="helix_data.testing.datasets:DatasetSuite",
            template="helix_data:templates/dataset",
        ),
        Kind(
            name="tokenizer",
            plural="tokenizers",
            summary="What turns text into ids and back",
            section="tokenizer",
            default="bytes",
            suite="helix_data.testing.tokenizers:TokenizerSuite",
            template="helix_data:templates/tokenizer",
        ),
        Kind(
            name="loader",
            plural="loaders",
            summary="How batches reach the trainer: made when asked for, or ahead of it",
            section="loader",
            default="prefetch",
            context=("dataset", "seed", "rank", "world_size"),
            suite="helix_data.testing.loaders:LoaderSuite",
            template="helix_data:templates/loader",
        ),
    ]


@helix_kernel.hookimpl
def helix_datasets() -> list[Component]:
    """Return the datasets of this distribution."""
    return [
        Component(
            name="text-bytes",
            target="helix_data.text_bytes:TextBytes",
            config="helix_data.config:TextBytesConfig",
            summary="Raw bytes of files, or of texts that Python carries, in shuffled windows",
            examples=(
                _TEXT,
                {"source": "python-docs", **_SMALL},
            ),
        ),
        Component(
            name="span-corruption",
            target="helix_data.span_corruption:SpanCorruption",
            config="helix_data.config:SpanCorruptionConfig",
            summary="Windows of bytes with spans blanked out, to be filled in (Raffel et al. 2020)",
            examples=(_TEXT,),
        ),
        Component(
            name="text-tokens",
            target="helix_data.text_tokens:TextTokens",
            config="helix_data.config:TextTokensConfig",
            summary="Text as the tokens of any tokenizer, in shuffled windows",
            examples=(_TEXT,),
        ),
        Component(
            name="cached",
            target="helix_data.caching.cached:Cached",
            config="helix_data.caching.config:CachedConfig",
            summary="Another dataset, whose decoded samples or batches are kept on disk",
            examples=(
                {
                    "path": "<empty>",
                    "data": {"use": "text-bytes", **_TEXT},
                },
            ),
        ),
        Component(
            name="labelled-files",
            target="helix_data.labelled_files:LabelledFiles",
            config="helix_data.config:LabelledFilesConfig",
            summary="Whole files, each of the class whose folder it lies in",
            examples=({"path": "<classes>", "seq_len": 32, "batch_size": 4},),
        ),
        Component(
            name="byte-shards",
            target="helix_data.byte_shards:ByteShards",
            config="helix_data.config:ByteShardsConfig",
            summary="Documents in memory-mapped shards, as helix data ingest makes them, in shuffled windows",
            examples=tuple(
                {"path": "<shards>", **_SMALL, "packing": packing}
                for packing in ("stream", "packed", "documents")
            ),
        ),
        Component(
            name="mixture",
            target="helix_data.mixture:Mixture",
            config="helix_data.config:MixtureConfig",
            summary="Rows of several datasets, each as often as its weight says",
            examples=(
                {
                    "parts": {
                        "text": {"use": "text-bytes", **_TEXT},
                        "same": {"use": "reconstruction", **_TEXT},
                    },
                    "weights": {"text": 2.0, "same": 1.0},
                    "batch_size": 4,
                },
            ),
        ),
        Component(
            name="reconstruction",
            target="helix_data.reconstruction:Reconstruction",
            config="helix_data.config:TextBytesConfig",
            summary="Windows of bytes that are their own targets, for autoencoders",
            examples=(_TEXT,),
        ),
    ]


@helix_kernel.hookimpl
def helix_layers() -> list[Component]:
    """Return the quantizers, and the model in which they learn their codes."""
    return [
        Component(
            name="vq",
            target="helix_data.quantizers.codebook:VQ",
            config="helix_data.quantizers.config:VQConfig",
            summary="Vector quantization: each position becomes a code (van den Oord et al. 2017)",
            expected_failures=_STRAIGHT_THROUGH,
            requires=("helix-data[quantizers]",),
        ),
        Component(
            name="rvq",
            target="helix_data.quantizers.codebook:RVQ",
            config="helix_data.quantizers.config:RVQConfig",
            summary="Residual vector quantization, a code upon another (Zeghidour et al. 2021)",
            expected_failures=_STRAIGHT_THROUGH,
            requires=("helix-data[quantizers]",),
        ),
        Component(
            name="fsq",
            target="helix_data.quantizers.fsq:FSQ",
            config="helix_data.quantizers.config:FSQConfig",
            summary="Finite scalar quantization: a grid instead of a codebook (Mentzer et al. 2023)",
            expected_failures=_STRAIGHT_THROUGH,
            requires=("helix-data[quantizers]",),
        ),
        Component(
            name="quantised-autoencoder",
            target="helix_data.quantizers.autoencoder:QuantisedAutoencoder",
            config="helix_data.quantizers.config:QuantisedAutoencoderConfig",
            summary="Bytes to codes and back, through any quantizer and layers of any kind",
            expected_failures=_STRAIGHT_THROUGH,
            requires=("helix-data[quantizers]",),
        ),
    ]


@helix_kernel.hookimpl
def helix_loaders() -> list[Component]:
    """Return the loaders of this distribution."""
    return [
        Component(
            name="prefetch",
            target="helix_data.loading.prefetch:Prefetch",
            config="helix_data.loading.config:PrefetchConfig",
            summary="Batches in order, made when asked for or ahead by processes, the same to the bit",
            examples=({}, {"workers": 2}),
        ),
    ]


@helix_kernel.hookimpl
def helix_tokenizers() -> list[Component]:
    """Return the tokenizers of this distribution."""
    return [
        Component(
            name="bytes",
            target="helix_data.byte_tokenizer:ByteTokenizer",
            config="helix_data.config:ByteTokenizerConfig",
            summary="Every byte is a token",
        ),
        Component(
            name="hf-tokenizer",
            target="helix_data.hf_tokenizer:HFTokenizer",
            config="helix_data.config:HFTokenizerConfig",
            summary="A tokenizer.json of the library tokenizers, as Hugging Face models have",
            requires=("helix-data[tokenizers]",),
            examples=({"path": "<tokenizer.json>"},),
        ),
        Component(
            name="byte-pair",
            target="helix_data.byte_pair:BytePair",
            config="helix_data.byte_pair_config:BytePairConfig",
            summary="Byte-pair encoding of any bytes, by what helix tokenizer train writes",
            requires=("helix-data[tokenizers]",),
            examples=({"path": "<tokenizer.json>"},),
        ),
    ]


@helix_kernel.hookimpl
def helix_commands() -> list[Component]:
    """Return the commands of this distribution."""
    return [
        Component(
            name="tokenizer",
            target="helix_data.byte_pair_commands:tokenizer",
            summary="Train a byte-pair tokenizer on files, or show one: helix tokenizer train OUT PATHS",
        ),
        Component(
            name="data-ingest",
            aliases=("data ingest",),
            target="helix_data.commands:ingest",
            summary="Make memory-mapped shards of the documents in files",
        ),
        Component(
            name="data-show",
            aliases=("data show",),
            target="helix_data.commands:show",
            summary="Show what a folder of shards holds",
        ),
        Component(
            name="data-verify",
            aliases=("data verify",),
            target="helix_data.commands:verify",
            summary="Read every byte of a folder of shards, and name what is damaged",
        ),
    ]
