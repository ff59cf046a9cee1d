import gzip
import lzma
import random
import subprocess
import sys
import zlib

import pytest

from helix_data.baselines import compressed_bits_per_byte
from helix_kernel.errors import ArgumentError

NOISE = random.Random(0).randbytes(40_000)


def test_noise_costs_eight_bits():
    bits = compressed_bits_per_byte(NOISE[:20_000], NOISE[20_000:])
    assert 8 <= bits["gzip"] < 8.02
    assert 8 <= bits["xz"] < 8.02


def test_priming_counts():
    """What the training part holds already costs next to nothing, within what each can remember."""
    bits = compressed_bits_per_byte(NOISE, NOISE[-20_000:])
    assert max(bits.values()) < 0.3


def test_gzip_looks_back_32_kib_and_xz_further():
    bits = compressed_bits_per_byte(NOISE, NOISE[:5_000])
    assert bits["gzip"] > 7.9
    assert bits["xz"] < 1


@pytest.mark.parametrize(("train_kind", "n_words"), [("text", 60), ("noise", 3000)])
def test_gzip_is_the_better_of_appending_and_a_dictionary(train_kind, n_words):
    """Appending wins on a short text like the one before it, a dictionary after one unlike it."""
    train, held_out = (_text(9000) if train_kind == "text" else NOISE), _text(n_words)
    appended = len(gzip.compress(train + held_out, 9)) - len(gzip.compress(train, 9))
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=train[-32768:])
    with_dictionary = len(deflate.compress(held_out) + deflate.flush())
    assert (appended < with_dictionary) == (train_kind == "text")
    bits = compressed_bits_per_byte(train, held_out)
    assert bits["gzip"] == 8 * min(appended, with_dictionary) / len(held_out)


def test_xz_is_what_appending_costs():
    train, held_out = _text(5000), _text(500)
    preset = 9 | lzma.PRESET_EXTREME
    appended = len(lzma.compress(train + held_out, preset=preset)) - len(lzma.compress(train, preset=preset))
    assert compressed_bits_per_byte(train, held_out)["xz"] == 8 * appended / len(held_out)


def test_no_training_part_is_plain_compression():
    text = b"the quick brown fox " * 100
    assert compressed_bits_per_byte(b"", text)["gzip"] <= 8 * len(gzip.compress(text, 9)) / len(text)


def test_nothing_held_out_is_an_error():
    with pytest.raises(ArgumentError, match="held_out is empty"):
        compressed_bits_per_byte(b"text", b"")


def test_listing_the_datasets_imports_neither_torch_nor_numpy():
    code = (
        "import sys, helix_data.plugin as p, helix_data.config; p.helix_kinds(), p.helix_datasets(); "
        "sys.exit(' '.join({'torch', 'numpy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def _text(n_words):
    draw = random.Random(n_words)
    words = [bytes(random.Random(index).choices(b"abcdefghij", k=2 + index % 8)) for index in range(800)]
    return b" ".join(draw.choices(words, k=n_words))
