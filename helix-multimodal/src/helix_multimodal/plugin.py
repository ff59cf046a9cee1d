"""What helix-multimodal offers: modalities, encoders, decoders, fusion, alignment, models and commands."""

from __future__ import annotations

import helix_kernel
from helix_kernel import Component, Kind

_TESTING = "helix_multimodal.testing"
_MAMBA = {"use": "mamba"}
_FUSIONS = (
    "early-concat",
    "late-logits",
    "gated",
    "cross-attention",
    "interleaved-scan",
    "low-rank-bilinear",
)


@helix_kernel.hookimpl
def helix_kinds() -> list[Kind]:
    """Bring the kinds that a multimodal model is made of."""
    return [
        Kind(
            name="encoder",
            plural="encoders",
            summary="From a batch of one kind of data to tokens",
            suite=f"{_TESTING}.encoders:EncoderSuite",
        ),
        Kind(
            name="decoder",
            plural="decoders",
            summary="From tokens to one kind of data",
            suite=f"{_TESTING}.decoders:DecoderSuite",
        ),
        Kind(
            name="fusion",
            plural="fusions",
            summary="Several kinds of data about one thing become one vector",
            suite=f"{_TESTING}.fusions:FusionSuite",
        ),
        Kind(
            name="alignment",
            plural="alignments",
            summary="How well two sequences, sets or vectors belong together",
            suite=f"{_TESTING}.alignments:AlignmentSuite",
        ),
    ]


@helix_kernel.hookimpl
def helix_modalities() -> list[Component]:
    """Return the kinds of data."""
    return [
        Component(
            name="text",
            target="helix_multimodal.modalities.text:Text",
            config="helix_multimodal.config.modalities:TextConfig",
            summary="Bytes of text, invalid UTF-8 among them",
        ),
        Component(
            name="image",
            target="helix_multimodal.modalities.image:Image",
            config="helix_multimodal.config.modalities:ImageConfig",
            examples=[{}, {"depth": 16}, {"channels": "rgb"}],
            summary="Pictures: PNG, JPEG, WebP, GIF, TIFF, PPM and what else Pillow reads",
        ),
        Component(
            name="audio",
            target="helix_multimodal.modalities.audio:Audio",
            config="helix_multimodal.config.media:AudioConfig",
            examples=[
                {},
                {"rate": 8000, "channels": 1},
                {"channels": 2, "seconds": 0.01},
                {"dtype": "float64"},
            ],
            summary="Sound: WAV, FLAC, OGG, AIFF, AU, MP3",
        ),
        Component(
            name="video",
            target="helix_multimodal.modalities.video:Video",
            config="helix_multimodal.config.media:VideoConfig",
            examples=[{}, {"size": [6, 8], "rate": 10.0}, {"max_frames": 2, "sound": True}],
            summary="Films: frames with their times, and the sound beside them",
        ),
        Component(
            name="point-cloud",
            target="helix_multimodal.modalities.point_cloud:PointCloud",
            config="helix_multimodal.config.points:PointCloudConfig",
            examples=[{}, {"features": ["colours", "normals"]}, {"max_points": 9}],
            summary="Points in space, with colours and normals: PLY, PCD, LAS, OBJ, VRML",
        ),
    ]


@helix_kernel.hookimpl
def helix_encoders() -> list[Component]:
    """Return the encoders."""
    return [
        Component(
            name="byte-patches",
            target="helix_multimodal.encoders.byte_patches:BytePatches",
            config="helix_multimodal.config.encoders:BytePatchesConfig",
            examples=[{"patch": 4}, {"patch": 5, "positions": "sinusoidal", "layers": [_MAMBA]}],
            summary="Patches of the bytes of any kind of data, through one trunk",
        ),
        Component(
            name="byte-embedding",
            target="helix_multimodal.encoders.byte_embedding:ByteEmbedding",
            config="helix_multimodal.config.encoders:ByteEmbeddingConfig",
            examples=[{}, {"patch": 4, "positions": "learned", "layers": [_MAMBA]}],
            summary="Bytes of text, one token each or a few to a token",
        ),
        Component(
            name="image-patches",
            target="helix_multimodal.encoders.image_patches:ImagePatches",
            config="helix_multimodal.config.encoders:ImagePatchesConfig",
            examples=[
                {"patch": 4},
                {"patch": 5, "channels": 1, "positions": "none"},
                {"patch": 4, "channels": 4, "positions": "learned", "layers": [_MAMBA]},
            ],
            summary="Squares of a picture",
        ),
        Component(
            name="log-mel",
            target="helix_multimodal.encoders.log_mel:LogMel",
            config="helix_multimodal.config.encoders:LogMelConfig",
            examples=[
                {"n_mels": 12},
                {"rate": 8000, "n_fft": 100, "hop": 50, "n_mels": 9, "scale": "htk", "layers": [_MAMBA]},
            ],
            summary="Frames of sound as logarithms of energies in mel bands",
        ),
        Component(
            name="learned-frames",
            target="helix_multimodal.encoders.learned_frames:LearnedFrames",
            config="helix_multimodal.config.encoders:LearnedFramesConfig",
            examples=[{}, {"strides": [4, 5], "d_hidden": 6, "layers": [_MAMBA]}],
            summary="Frames of sound by strided convolutions that are learned",
        ),
        Component(
            name="video-tubelets",
            target="helix_multimodal.encoders.video_tubelets:VideoTubelets",
            config="helix_multimodal.config.encoders:VideoTubeletsConfig",
            examples=[{"patch": 4}, {"patch": 3, "depth": 3, "positions": "learned", "layers": [_MAMBA]}],
            summary="Boxes of a film, some frames deep",
        ),
        Component(
            name="point-groups",
            target="helix_multimodal.encoders.point_groups:PointGroups",
            config="helix_multimodal.config.points:PointGroupsConfig",
            examples=[{}, {"n_groups": 5, "k": 4, "radius": 0.5, "place": False}],
            summary="Neighbourhoods of far-apart points, as in PointNet++",
        ),
    ]


@helix_kernel.hookimpl
def helix_decoders() -> list[Component]:
    """Return the decoders."""
    return [
        Component(
            name="bytes",
            target="helix_multimodal.decoders.bytes:Bytes",
            config="helix_multimodal.config.decoders:BytesConfig",
            examples=[{"patch": 4}, {"patch": 3, "layers": [], "local": []}],
            summary="Bytes of any kind of data, patch by patch, each byte after those before it",
        ),
        Component(
            name="pixels",
            target="helix_multimodal.decoders.pixels:Pixels",
            config="helix_multimodal.config.decoders:PixelsConfig",
            examples=[
                {"patch": 4},
                {"patch": 5, "channels": 1},
                {"patch": 4, "channels": 4, "layers": [_MAMBA]},
            ],
            summary="A picture from tokens, square by square",
        ),
        Component(
            name="waveform",
            target="helix_multimodal.decoders.waveform:Waveform",
            config="helix_multimodal.config.decoders:WaveformConfig",
            examples=[
                {"strides": [4, 5]},
                {"strides": [4, 5], "quantizer": {"use": "fsq"}, "layers": [_MAMBA]},
            ],
            requires=("helix-data[quantizers]",),
            summary="Sound from tokens, through the codes of a residual quantizer",
        ),
        Component(
            name="points",
            target="helix_multimodal.decoders.points:Points",
            config="helix_multimodal.config.points:PointsConfig",
            summary="A set of points, by its Chamfer distance",
        ),
    ]


@helix_kernel.hookimpl
def helix_fusions() -> list[Component]:
    """Return the ways to fuse."""
    return [
        Component(
            name="early-concat",
            target="helix_multimodal.fusion.early_concat:EarlyConcat",
            config="helix_multimodal.config.fusions:EarlyConcatConfig",
            examples=[{}, {"layers": []}],
            summary="All tokens in one sequence, through layers of any kind",
        ),
        Component(
            name="late-logits",
            target="helix_multimodal.fusion.late_logits:LateLogits",
            config="helix_multimodal.config.fusions:LateLogitsConfig",
            examples=[{}, {"weighted": True}],
            summary="Each part answers on its own; the answers are averaged",
        ),
        Component(
            name="gated",
            target="helix_multimodal.fusion.gated:Gated",
            config="helix_multimodal.config.fusions:GatedConfig",
            summary="Gates, learned from the parts, weigh the parts",
        ),
        Component(
            name="cross-attention",
            target="helix_multimodal.fusion.cross_attention:CrossAttention",
            config="helix_multimodal.config.fusions:CrossAttentionConfig",
            examples=[{}, {"n_heads": 2, "n_layers": 2}],
            summary="Each part's tokens look at those of the others",
        ),
        Component(
            name="interleaved-scan",
            target="helix_multimodal.fusion.interleaved_scan:InterleavedScan",
            config="helix_multimodal.config.fusions:InterleavedScanConfig",
            examples=[{}, {"bidirectional": False}],
            summary="Tokens of all parts take turns in one state-space scan: cross-attention's counterpart",
        ),
        Component(
            name="low-rank-bilinear",
            target="helix_multimodal.fusion.low_rank_bilinear:LowRankBilinear",
            config="helix_multimodal.config.fusions:LowRankBilinearConfig",
            summary="Products of projections of the parts, a tensor product of low rank",
        ),
    ]


@helix_kernel.hookimpl
def helix_alignments() -> list[Component]:
    """Return the ways to align."""
    return [
        Component(
            name="info-nce",
            target="helix_multimodal.alignment.info_nce:InfoNCE",
            config="helix_multimodal.config.alignments:InfoNCEConfig",
            summary="Semantic: cosines of vectors over a learned temperature",
        ),
        Component(
            name="soft-dtw",
            target="helix_multimodal.alignment.soft_dtw:SoftDTW",
            config="helix_multimodal.config.alignments:SoftDTWConfig",
            examples=[{}, {"divergence": False}],
            summary="Temporal: the cost of warping one sequence onto another, softly",
        ),
        Component(
            name="ctc",
            target="helix_multimodal.alignment.ctc:CTC",
            config="helix_multimodal.config.alignments:CTCConfig",
            examples=[{}, {"upsample": 2}],
            summary="Temporal: the likelihood of a text, its bytes spread over tokens in any way",
            expected_failures={
                "test_compiles_to_one_graph": "the shape of torch's ctc_loss depends on the lengths, so that "
                "the graph breaks around it; compiled in two graphs it gives the same scores",
            },
        ),
        Component(
            name="sinkhorn",
            target="helix_multimodal.alignment.sinkhorn:Sinkhorn",
            config="helix_multimodal.config.alignments:SinkhornConfig",
            examples=[{}, {"epsilon": 0.02}],
            summary="Spatial: the cost of moving one set of tokens onto another, with some entropy",
        ),
    ]


@helix_kernel.hookimpl
def helix_layers() -> list[Component]:
    """Return the models."""
    pictures, sound = {"use": "image-patches", "patch": 8}, {"use": "log-mel"}
    text = {"use": "byte-embedding"}
    both = {"encoders": {"picture": pictures, "sound": sound}}
    three = {
        "encoders": {**both["encoders"], "text": text},
        "query": ["picture", "sound"],
        "target": ["text"],
    }
    return [
        Component(
            name="multimodal-classifier",
            target="helix_multimodal.models.classifier:MultimodalClassifier",
            config="helix_multimodal.config.models:MultimodalClassifierConfig",
            examples=[{**both, "n_classes": 5, "fusion": {"use": name}} for name in _FUSIONS],
            summary="Any parts of a thing to its class",
        ),
        Component(
            name="retriever",
            target="helix_multimodal.models.retriever:Retriever",
            config="helix_multimodal.config.models:RetrieverConfig",
            examples=[
                {**three, "fusion": {"use": "gated"}},
                {**three, "alignment": {"use": "soft-dtw"}},
                {**three, "alignment": {"use": "sinkhorn"}},
                {
                    "encoders": {"sound": sound},
                    "query": ["sound"],
                    "target": ["text"],
                    "alignment": {"use": "ctc"},
                },
            ],
            summary="Finds, of many, what belongs to a thing, such as the text of a picture",
        ),
        Component(
            name="captioner",
            target="helix_multimodal.models.captioner:Captioner",
            config="helix_multimodal.config.models:CaptionerConfig",
            examples=[{**both, "target": "text"}],
            summary="Any parts of a thing to a text, byte by byte",
        ),
        Component(
            name="reconstructor",
            target="helix_multimodal.models.reconstructor:Reconstructor",
            config="helix_multimodal.config.models:ReconstructorConfig",
            examples=[
                {"part": "text", "encoder": {"use": "byte-patches"}, "decoder": {"use": "bytes"}},
                {"part": "picture", "encoder": pictures, "decoder": {"use": "pixels"}},
                {"part": "shape", "encoder": {"use": "point-groups"}, "decoder": {"use": "points"}},
            ],
            summary="One kind of data through a code of tokens and back",
        ),
    ]


@helix_kernel.hookimpl
def helix_datasets() -> list[Component]:
    """Return the dataset."""
    return [
        Component(
            name="file-groups",
            target="helix_multimodal.data.file_groups:FileGroups",
            config="helix_multimodal.config.data:FileGroupsConfig",
            examples=[
                {
                    "path": "<classes>",
                    "files": {"text": "{name}.txt"},
                    "modalities": {"text": {"use": "text"}},
                    "shapes": {"text": [64]},
                    "batch_size": 4,
                    "task": task,
                }
                for task in ("retrieval", "classification", "reconstruction")
            ],
            summary="Files that belong together by their names, each part of a kind of its own",
        )
    ]


@helix_kernel.hookimpl
def helix_scheduling_policies() -> list[Component]:
    """Return the policy."""
    return [
        Component(
            name="earliest-finish",
            target="helix_multimodal.placement.earliest_finish:EarliestFinish",
            config="helix_multimodal.config.placement:EarliestFinishConfig",
            summary="The most urgent task next, where it ends first (HEFT)",
        )
    ]


@helix_kernel.hookimpl
def helix_commands() -> list[Component]:
    """Return the commands."""
    return [
        Component(
            name="inspect",
            target="helix_multimodal.commands:inspect",
            summary="Show what every file of a folder is",
        )
    ]
