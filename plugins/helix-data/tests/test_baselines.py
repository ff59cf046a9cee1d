import gzip
import lzma
import random
import subprocess
import sys

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


def test_gzip_is_no_worse_than_the_difference_of_files():
    text = " ".join(str(number) for number in range(20_000)).encode()
    train, held_out = text[:90_000], text[90_000:]
    bits = compressed_bits_per_byte(train, held_out)
    sizes = {
        "gzip": lambda data: len(gzip.compress(data, 9)),
        "xz": lambda data: len(lzma.compress(data, preset=9)),
    }
    differences = {name: 8 * (size(text) - size(train)) / len(held_out) for name, size in sizes.items()}
    assert bits["gzip"] <= differences["gzip"]
    assert bits["xz"] == pytest.approx(differences["xz"], rel=0.1)


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
