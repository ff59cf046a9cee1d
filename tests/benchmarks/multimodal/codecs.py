"""Rate and distortion of learnt codecs of speech, beside PCM of 8 bits and Opus.

Prompts of Asterisk (package asterisk-core-sounds-en-wav), 8 kHz, one speaker. Prompts are split by a shuffle
of the seed: what is measured was not trained on. A codec is a `WaveformCodec` over the quantizer named, which
is trained for 100 seconds of processor time (`--seconds`) on one thread. Those of RVQ and FSQ differ in their
strides too (160 and 80 samples a position, 40 and 20), so that rates meet: the table ranks codecs, and not
quantizers. Rates are of codes, or of packets, without containers: for the learnt codecs, bits of a code times
codes a second, uncompressed. Opus shapes its noise to the ear, which the SNR does not tell.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import scipy.signal
import soundfile
import soxr
import torch

from helix_kernel import default_kernel
from helix_multimodal.decoders.waveform_codec import WaveformCodec
from helix_multimodal.inputs import pad

sys.path.insert(0, str(Path(__file__).parents[1]))

from heading import ROOT, heading

FOLDER = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
RATE, OPUS_RATE = 8000, 48000
N_HELD_OUT, LONGEST = 40, 6 * RATE
PAGE = ROOT / "docs/benchmarks/multimodal-codecs.md"
RVQ = {"use": "rvq", "n_codes": 256, "kmeans_init": False, "decay": 0.95, "replace_after": 20}
# Name: strides, quantizer, and the bits of a position.
CODECS: dict[str, tuple[tuple[int, ...], dict[str, Any], float]] = {
    "RVQ, 4 of 256": ((4, 5, 8), {**RVQ, "n_quantizers": 4}, 32),
    "RVQ, 8 of 256": ((4, 5, 4), {**RVQ, "n_quantizers": 8}, 64),
    "FSQ, 8·5·5·5": ((4, 5, 2), {"use": "fsq", "levels": [8, 5, 5, 5]}, math.log2(1000)),
    "FSQ, 8·8·8·5·5·5": ((4, 5), {"use": "fsq", "levels": [8, 8, 8, 5, 5, 5]}, math.log2(64000)),
}
OPUS_KBITS = (6, 8, 12, 16, 24)
PCM_RATES = (2000, 4000, 8000)


def main() -> None:
    """Measure, adding a line of JSON for each codec and seed; with --write, make the page of all lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=100)
    parser.add_argument("--only", nargs="+", help="names of codecs")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = {(line["codec"], line["seed"]) for line in findings(options.out)}
    for seed in options.seeds:
        training, held_out = prompts(seed)
        for name, measure in ways(training, held_out, seed, options.seconds):
            if (name, seed) in known or (options.only and name not in options.only):
                continue
            line = {"codec": name, "seed": seed} | measure()
            print(line, flush=True)
            with options.out.open("a") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    if options.write:
        PAGE.write_text(page(findings(options.out)), encoding="utf-8")


def ways(training: Any, held_out: Any, seed: int, seconds: float) -> list[tuple[str, Any]]:
    """Return each codec's name, and what measures it."""
    return [
        *((name, lambda name=name: learnt(name, training, held_out, seed, seconds)) for name in CODECS),
        *((f"Opus at {k}", lambda k=k: distortion(held_out, lambda x: opus(x, k))) for k in OPUS_KBITS),
        *(
            (
                f"8 bits {law} at {rate} Hz",
                lambda law=law, rate=rate: distortion(held_out, lambda x: pcm(x, rate, law)),
            )
            for law in ("µ-law", "linear")
            for rate in PCM_RATES
        ),
    ]


def prompts(seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return prompts to train on, and others to measure."""
    paths = sorted(FOLDER.rglob("*.wav"))
    random.Random(seed).shuffle(paths)
    sounds = []
    for path in paths:
        sound, rate = soundfile.read(path, dtype="float32")
        assert rate == RATE
        # Silences and clicks have no SNR to speak of.
        if len(sound) > RATE // 2 and float(np.abs(sound).max()) > 0.05:
            sounds.append(sound[:LONGEST])
    return sounds[N_HELD_OUT:], sounds[:N_HELD_OUT]


def learnt(
    name: str, training: list[np.ndarray], held_out: list[np.ndarray], seed: int, seconds: float
) -> dict[str, Any]:
    """Train a codec and return its rate and distortion."""
    torch.manual_seed(seed)
    strides, table, bits = CODECS[name]
    quantizer = default_kernel().factory("layer", table)
    codec = WaveformCodec(32, quantizer=quantizer, strides=strides, d_hidden=48, spectral_weight=0.1)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=2e-3)
    chance, step, start = random.Random(seed), 0, time.process_time()
    while (spent := time.process_time() - start) < seconds:
        optimizer.param_groups[0]["lr"] = 2e-3 * max(0.02, 1 - spent / seconds)
        batch = pad([cut(chance.choice(training), chance) for _ in range(4)])
        loss = codec.loss(codec(batch), batch).mean()
        own = codec.auxiliary_loss()
        optimizer.zero_grad()
        (loss if own is None else loss + own).backward()
        torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimizer.step()
        step += 1
    codec.eval()
    kbits = bits * RATE / math.prod(strides) / 1000

    def coded(sound: np.ndarray) -> tuple[np.ndarray, float]:
        with torch.no_grad():
            back = codec.decode(codec.encode(pad([torch.from_numpy(sound)[None]])))
        return back[0, : len(sound)].numpy(), kbits * len(sound) / RATE * 1000

    return {"steps": step, **distortion(held_out, coded)}


def cut(sound: np.ndarray, chance: random.Random) -> torch.Tensor:
    """Return half a second of a sound, at a loudness by chance."""
    length = RATE // 2
    first = chance.randrange(max(1, len(sound) - length))
    return torch.from_numpy(sound[first : first + length])[None] * chance.uniform(0.5, 1.2)


def distortion(sounds: list[np.ndarray], coded: Any) -> dict[str, float]:
    """Return kilobits a second, the mean SNR in dB and the mean log-spectral distance in dB."""
    bits, ratios, distances = 0.0, [], []
    for sound in sounds:
        back, own_bits = coded(sound)
        bits += own_bits
        error = sound - back
        ratios.append(10 * math.log10(float((sound**2).sum() / (error**2).sum())))
        distances.append(log_spectral_distance(sound, back))
    kbits = bits / (sum(map(len, sounds)) / RATE) / 1000
    return {"kbit/s": kbits, "SNR": statistics.mean(ratios), "LSD": statistics.mean(distances)}


def log_spectral_distance(x: np.ndarray, y: np.ndarray, size: int = 256) -> float:
    """Return the mean over frames of the root mean square difference of spectra in dB, 50 dB at most down.

    Gray and Markel (1976), "Distance measures for speech processing", equation 2, on Hann windows of 32 ms.
    """
    window = np.hanning(size)

    def decibels(sound: np.ndarray) -> np.ndarray:
        frames = np.lib.stride_tricks.sliding_window_view(sound, size)[:: size // 2] * window
        return 20 * np.log10(np.maximum(np.abs(np.fft.rfft(frames)), 1e-12))

    spectra = [decibels(each) for each in (x, y)]
    floor = spectra[0].max() - 50
    first, second = (np.maximum(each, floor) for each in spectra)
    return float(np.sqrt(((first - second) ** 2).mean(1)).mean())


def pcm(sound: np.ndarray, rate: int, law: str) -> tuple[np.ndarray, float]:
    """Return a sound after 8 bits a sample at a rate, and its bits; µ-law is G.711's formula with µ = 255."""
    small = np.clip(soxr.resample(sound, RATE, rate, quality="VHQ") if rate != RATE else sound, -1, 1)
    if law == "µ-law":
        code = np.round(127 * np.sign(small) * np.log1p(255 * np.abs(small)) / math.log(256))
        small = np.sign(code) * np.expm1(np.abs(code) / 127 * math.log(256)) / 255
    else:
        small = np.round(small * 127) / 127
    back = soxr.resample(small, rate, RATE, quality="VHQ") if rate != RATE else small
    return _of_length(back, len(sound)), 8.0 * round(len(sound) * rate / RATE)


def opus(sound: np.ndarray, kbits: int) -> tuple[np.ndarray, float]:
    """Return a sound after libopus at so many kbit/s, brought to where it correlates best, and its bits."""
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = OPUS_RATE, "mono", "flt"
    encoder.bit_rate = 1000 * kbits
    encoder.options = {"application": "audio"}
    encoder.open()
    decoder = av.CodecContext.create("libopus", "r")
    decoder.extradata = encoder.extradata
    loud = soxr.resample(sound, RATE, OPUS_RATE, quality="VHQ").astype(np.float32)
    size = encoder.frame_size
    loud = np.pad(loud, (0, -len(loud) % size + 2 * size))
    packets = []
    for first in range(0, len(loud), size):
        frame = av.AudioFrame.from_ndarray(loud[None, first : first + size], format="flt", layout="mono")
        frame.sample_rate, frame.pts = OPUS_RATE, first
        packets += encoder.encode(frame)
    frames = [frame for packet in packets for frame in decoder.decode(packet)]
    back = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]).astype(np.float32)
    if frames[0].format.name.startswith("s16"):
        back /= 32768
    # The two further frames carry no sound of the prompt.
    bits = 8.0 * sum(packet.size for packet in packets) * len(sound) / RATE / (len(loud) / OPUS_RATE)
    delay = int(scipy.signal.correlate(back, loud).argmax()) - len(loud) + 1
    aligned = soxr.resample(back[max(0, delay) :], OPUS_RATE, RATE, quality="VHQ")
    return _of_length(aligned, len(sound)), bits


def _of_length(sound: np.ndarray, length: int) -> np.ndarray:
    return np.pad(sound, (0, max(0, length - len(sound))))[:length]


def findings(path: Path) -> list[dict[str, Any]]:
    """Return what was measured so far."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def page(lines: list[dict[str, Any]]) -> str:
    """Return the table, by rate."""
    command = "python tests/benchmarks/multimodal/codecs.py --write"
    packages = ["helix-multimodal", "helix-data", "vector-quantize-pytorch", "torch", "av", "soxr"]
    rows = []
    for name in dict.fromkeys(line["codec"] for line in lines):
        own = [line for line in lines if line["codec"] == name]
        cells = " | ".join(_cell([line[what] for line in own]) for what in ("SNR", "LSD"))
        rate = statistics.mean(line["kbit/s"] for line in own)
        steps = [line["steps"] for line in own if "steps" in line]
        told = f"{statistics.mean(steps):.0f}" if steps else ""
        rows.append((rate, f"| {name} | {rate:.1f} | {cells} | {told} | {len(own)} |"))
    return "\n".join(
        [
            heading("Codecs of speech", command, packages),
            (__doc__ or "").split("\n\n", 1)[1].replace("\n", " ").strip(),
            "",
            "SNR: higher is better; LSD, log-spectral distance: lower is. Cells are means over seeds.",
            "",
            "| codec | kbit/s | SNR in dB | LSD in dB | steps | seeds |",
            "|---" + "|---:" * 5 + "|",
            *(row for _, row in sorted(rows)),
            "",
        ]
    )


def _cell(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
