"""Blocks of sound: mixed, resampled and cut, against soxr on the whole and against slices of it."""

import numpy as np
import pytest
import soxr

from helix_multimodal.modalities.resampling import mixed, regular, resampled

SOUND = np.random.default_rng(0).uniform(-1, 1, (1_003, 2))


def cut(sizes):
    """Return the sound in blocks of some sizes, which come again until it ends."""
    blocks, place, number = [], 0, 0
    while place < len(SOUND):
        blocks.append(SOUND[place : place + sizes[number % len(sizes)]])
        place, number = place + sizes[number % len(sizes)], number + 1
    return blocks


CUTS = [cut([1_003]), cut([1]), cut([7, 0, 300]), cut([100])]


@pytest.mark.parametrize("blocks", CUTS)
@pytest.mark.parametrize("size", [1, 64, 100, 1_003, 5_000])
@pytest.mark.parametrize("most", [None, 0, 1, 64, 100, 250, 1_003, 9_999])
def test_blocks_become_of_one_length(blocks, size, most):
    found = list(regular(blocks, size, most))
    kept = SOUND[:most]
    assert np.array_equal(np.concatenate([SOUND[:0], *found]), kept)
    assert [len(block) for block in found] == [
        min(size, len(kept) - start) for start in range(0, len(kept), size)
    ]


@pytest.mark.parametrize("blocks", CUTS)
@pytest.mark.parametrize("to", [8_000, 22_050, 48_000])
def test_resampling_does_not_depend_on_the_blocks(blocks, to):
    found = np.concatenate(list(resampled(blocks, 16_000, to)))
    assert np.array_equal(found, soxr.resample(SOUND, 16_000, to))


def test_one_rate_changes_nothing():
    assert np.array_equal(np.concatenate(list(resampled(CUTS[2], 16_000, 16_000))), SOUND)


def test_no_blocks_give_none():
    assert not list(resampled([], 8_000, 16_000))
    assert not list(regular([], 5))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mixing_keeps_the_dtype(dtype):
    sound = SOUND.astype(dtype)
    assert mixed(sound, None) is sound
    assert mixed(sound, 2) is sound
    assert mixed(sound, 1).dtype == dtype
    assert np.array_equal(mixed(sound, 1)[:, 0], sound.astype(np.float64).mean(1).astype(dtype))
    assert np.array_equal(mixed(sound[:, :1], 2), sound[:, [0, 0]])
    assert np.array_equal(mixed(np.hstack([sound, sound[:, :1]]), 2), sound)
