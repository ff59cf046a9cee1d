"""What helix-ssm offers: layers, op contracts, and the pure-PyTorch backend that speeds them up."""

from __future__ import annotations

import helix_kernel
from helix_kernel import Component


@helix_kernel.hookimpl
def helix_layers() -> list[Component]:
    """Return the layers."""
    return [
        Component(
            name="linear",
            target="helix_ssm.layers.mlp:Linear",
            config="helix_ssm.config.position_wise:LinearConfig",
            summary="Affine map of each token",
        ),
        Component(
            name="rms-norm",
            target="helix_ssm.layers.rms_norm:RMSNorm",
            config="helix_ssm.config.position_wise:RMSNormConfig",
            summary="Root-mean-square normalisation of each token (Zhang and Sennrich 2019)",
        ),
        Component(
            name="layer-norm",
            target="helix_ssm.layers.layer_norm:LayerNorm",
            config="helix_ssm.config.position_wise:LayerNormConfig",
            summary="Layer normalisation of each token, over all channels or groups (Ba et al. 2016)",
        ),
        Component(
            name="mlp",
            target="helix_ssm.layers.mlp:MLP",
            config="helix_ssm.config.position_wise:MLPConfig",
            summary="Feed-forward network with a plain or gated activation",
        ),
        Component(
            name="mamba",
            target="helix_ssm.layers.mamba:Mamba",
            config="helix_ssm.config.state_space:MambaConfig",
            summary="Selective state-space layer (Gu and Dao 2023)",
        ),
        Component(
            name="mamba2",
            target="helix_ssm.layers.mamba2:Mamba2",
            config="helix_ssm.config.state_space:Mamba2Config",
            summary="State-space duality layer with heads and groups (Dao and Gu 2024)",
        ),
        Component(
            name="mamba3",
            target="helix_ssm.layers.mamba3:Mamba3",
            config="helix_ssm.config.state_space:Mamba3Config",
            summary="Trapezoidal recurrence with turning states, one or many inputs (Lahoti et al. 2026)",
        ),
        Component(
            name="s4",
            target="helix_ssm.layers.s4:S4",
            config="helix_ssm.config.state_space:S4Config",
            summary="Structured state-space layer that begins as HiPPO-LegS (Gu et al. 2021)",
        ),
        Component(
            name="s4d",
            target="helix_ssm.layers.s4d:S4D",
            config="helix_ssm.config.state_space:S4DConfig",
            summary="Diagonal state-space layer (Gu et al. 2022)",
        ),
        Component(
            name="s5",
            target="helix_ssm.layers.s5:S5",
            config="helix_ssm.config.state_space:S5Config",
            summary="One diagonal state-space system for all channels (Smith et al. 2023)",
        ),
        Component(
            name="min-gru",
            target="helix_ssm.layers.min_gru:MinGRU",
            config="helix_ssm.config.recurrent:MinGRUConfig",
            summary="Minimal gated recurrent unit, by a scan (Feng et al. 2024)",
        ),
        Component(
            name="rg-lru",
            target="helix_ssm.layers.rg_lru:RGLRU",
            config="helix_ssm.config.recurrent:RGLRUConfig",
            summary="Recurrent block with the gated linear unit of Griffin (De et al. 2024)",
        ),
        Component(
            name="hyena",
            target="helix_ssm.layers.hyena:Hyena",
            config="helix_ssm.config.convolution:HyenaConfig",
            summary="Gated long convolutions with implicit filters (Poli et al. 2023)",
        ),
        Component(
            name="gla",
            target="helix_ssm.layers.gla:GLA",
            config="helix_ssm.config.linear_attention:GLAConfig",
            summary="Linear attention whose memory decays by gates (Yang et al. 2023)",
        ),
        Component(
            name="attention",
            target="helix_ssm.layers.attention:Attention",
            config="helix_ssm.config.attention:AttentionConfig",
            summary="Softmax attention with grouped queries, rotary positions, sliding window and KV cache",
            examples=({}, {"causal": False}),
        ),
        Component(
            name="gated-deltanet",
            target="helix_ssm.layers.gated_deltanet:GatedDeltaNet",
            config="helix_ssm.config.linear_attention:GatedDeltaNetConfig",
            summary="Gated delta rule with short convolutions (Yang et al. 2024)",
        ),
        Component(
            name="moe",
            target="helix_ssm.layers.moe:MoE",
            config="helix_ssm.config.composite:MoEConfig",
            summary="Sparse mixture of experts that drops no token, with balance and z losses",
            examples=({"n_experts": 4},),
        ),
        Component(
            name="bidirectional",
            target="helix_ssm.layers.bidirectional:Bidirectional",
            config="helix_ssm.config.composite:BidirectionalConfig",
            summary="Two causal layers as one that looks both ways (Schuster and Paliwal 1997)",
            examples=({}, {"mixer": {"use": "attention"}, "combine": "concat", "share": True}),
        ),
        Component(
            name="reversible",
            target="helix_ssm.layers.reversible:Reversible",
            config="helix_ssm.config.composite:ReversibleConfig",
            summary="Two-stream stack whose backward pass computes its activations back (Gomez et al. 2017)",
            examples=({}, {"n_layers": 1, "mixer": {"use": "bidirectional"}}),
        ),
        Component(
            name="multi-hybrid",
            target="helix_ssm.layers.multi_hybrid:MultiHybrid",
            config="helix_ssm.config.convolution:MultiHybridConfig",
            summary="Gated short, medium or long convolutions of StripedHyena 2 (Ku et al. 2025)",
        ),
        Component(
            name="rwkv7",
            target="helix_ssm.layers.rwkv7:RWKV7",
            config="helix_ssm.config.linear_attention:RWKV7Config",
            summary="Time mix of RWKV-7: a delta rule with vectors for gates (Peng et al. 2025)",
        ),
        Component(
            name="rwkv7-channel-mix",
            target="helix_ssm.layers.rwkv7_channel_mix:RWKV7ChannelMix",
            config="helix_ssm.config.linear_attention:RWKV7ChannelMixConfig",
            summary="Channel mix of RWKV-7: squared ReLU over a token and the one before it",
        ),
        Component(
            name="conv",
            target="helix_ssm.layers.conv:Conv",
            config="helix_ssm.config.convolution:ConvConfig",
            summary="Causal convolution of a few tokens: torch's nn.Conv1d",
        ),
        Component(
            name="rnn",
            target="helix_ssm.layers.rnn:RNN",
            config="helix_ssm.config.recurrent:RNNConfig",
            summary="torch's nn.LSTM, nn.GRU or nn.RNN",
        ),
        Component(
            name="language-model",
            target="helix_ssm.layers.language_model:LanguageModel",
            config="helix_ssm.config.models:LanguageModelConfig",
            summary="Next-token model: embedding, residual blocks of any mixer, norm, head",
            examples=(
                {"n_layers": 2, "mixer": {"use": "mamba"}, "channel": {"use": "mlp"}, "vocab_size": 17},
                {
                    "pattern": [{"use": "attention"}, {"use": "mlp"}],
                    "vocab_size": 17,
                    "tie_embeddings": False,
                },
            ),
        ),
        Component(
            name="span-infiller",
            target="helix_ssm.layers.span_infiller:SpanInfiller",
            config="helix_ssm.config.models:SpanInfillerConfig",
            summary="Model that fills in blanks from both sides, in blocks of any mixer",
            examples=({"n_layers": 1, "mixer": {"use": "mamba"}, "vocab_size": 17},),
        ),
        Component(
            name="classifier",
            target="helix_ssm.layers.classifier:Classifier",
            config="helix_ssm.config.models:ClassifierConfig",
            summary="Model that tells the class of a sequence: blocks of any mixer, pooling, head",
            examples=tuple(
                {"n_layers": 1, "mixer": {"use": "mamba"}, "vocab_size": 17, "pooling": pooling}
                for pooling in ("last", "attention")
            ),
        ),
    ]


@helix_kernel.hookimpl
def helix_ops() -> list[Component]:
    """Return the op contracts."""
    return [
        Component(
            name="selective_scan",
            target="helix_ssm.ops.selective_scan:contract",
            summary="Linear recurrence whose step, input and output depend on the token",
        ),
        Component(
            name="ssd_scan",
            target="helix_ssm.ops.ssd_scan:contract",
            summary="Selective scan of heads that each decay by one number (state-space duality)",
        ),
        Component(
            name="causal_conv1d",
            target="helix_ssm.ops.causal_conv1d:contract",
            summary="Short depthwise causal convolution with an optional SiLU",
        ),
        Component(
            name="diagonal_scan",
            target="helix_ssm.ops.diagonal_scan:contract",
            summary="Elementwise linear recurrence with given factors, real or complex",
        ),
        Component(
            name="grouped_linear",
            target="helix_ssm.ops.grouped_linear:contract",
            summary="Rows that lie group by group, each group times a matrix of its own",
        ),
        Component(
            name="long_conv",
            target="helix_ssm.ops.long_conv:contract",
            summary="Causal convolution with a filter as long as the sequence",
        ),
        Component(
            name="rms_norm",
            target="helix_ssm.ops.rms_norm:contract",
            summary="Root-mean-square norm with optional gate and residual",
        ),
        Component(
            name="add_rms_norm",
            target="helix_ssm.ops.add_rms_norm:contract",
            summary="Sum of a residual stream and its root-mean-square norm",
        ),
        Component(
            name="gated_delta_rule",
            target="helix_ssm.ops.gated_delta_rule:contract",
            summary="Linear attention whose memory decays and corrects what it held (Gated DeltaNet)",
        ),
        Component(
            name="gla",
            target="helix_ssm.ops.gla:contract",
            summary="Linear attention whose memory decays channel by channel (gated linear attention)",
        ),
        Component(
            name="rwkv7",
            target="helix_ssm.ops.rwkv7:contract",
            summary="Linear attention that decays by channel and rewrites one direction a step (RWKV-7)",
        ),
    ]


@helix_kernel.hookimpl
def helix_backends() -> list[Component]:
    """Return the backends."""
    return [
        Component(
            name="torch-chunked",
            target="helix_ssm.ops.chunked:ChunkedBackend",
            summary="Ops in plain PyTorch, in chunks that fit the cache, on any device",
        ),
    ]


@helix_kernel.hookimpl
def helix_commands() -> list[Component]:
    """Return the commands."""
    return [
        Component(
            name="distil",
            target="helix_ssm.commands.distil:distil",
            summary="Make a checkpoint's Hyena layers recurrent, with a stated error",
        ),
        Component(
            name="import",
            target="helix_ssm.commands.import_:import_",
            summary="Read another library's model: helix import hf DIRECTORY --out RUN",
        ),
        Component(
            name="export",
            target="helix_ssm.commands.export:export",
            summary="Write a model for another library: helix export hf RUN --out DIRECTORY",
        ),
    ]
