"""What samples of a modality differ in."""

from __future__ import annotations

import numpy as np
import pytest

from helix_kernel.modality import Sample

TONE = Sample(arrays={"waveform": np.array([[0.0, 0.5, np.nan]], dtype=np.float32)}, rate=8000)


def of(values, dtype="float32", **others):
    return Sample(arrays={"waveform": np.array(values, dtype=dtype)}, **{"rate": 8000, **others})


def test_a_sample_does_not_differ_from_itself_nor_by_less_than_the_tolerance():
    assert TONE.differences(TONE) == []
    assert TONE.differences(of([[0.0, 0.5, np.nan]], metadata={"title": "tone"})) == []
    assert TONE.differences(of([[0.0, 0.75, np.nan]]), tolerance=0.25) == []


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (of([[0.0, 0.5]]), "array 'waveform' had shape (1, 3) and has (1, 2)"),
        (of([[0.0, 0.5, np.nan]], "float64"), "array 'waveform' was of float32 and is of float64"),
        (
            of([[0.0, 0.75, np.nan]]),
            "1 of 3 elements off by more than 0, the first at [0, 1]: it was 0.5 and is 0.75",
        ),
        (of([[0.0, 0.5, 0.0]]), "array 'waveform' has 1 of 3 elements off"),
        (of([[0.0, 0.5, np.nan]], rate=None), "the rate was 8000 and is None"),
        (Sample(arrays={"points": np.zeros(1)}, rate=8000), "there is no array 'waveform'"),
        (Sample(arrays={"points": np.zeros(1)}, rate=8000), "there is a new array 'points'"),
    ],
)
def test_each_difference_is_said(other, says):
    assert any(says in line for line in TONE.differences(other)), TONE.differences(other)


def test_integers_do_not_wrap_round_in_a_difference_and_strings_are_compared_whole():
    black, white = (Sample(arrays={"pixels": np.array([[v]], dtype=np.uint8)}) for v in (0, 255))
    assert black.differences(white, tolerance=1)
    names = [Sample(arrays={"names": np.array([name])}) for name in ("a", "b")]
    assert names[0].differences(names[1]) == ["array 'names' holds other values"]
    assert names[0].differences(names[0]) == []


def test_infinities_are_equal_to_themselves_alone():
    assert of([[np.inf]]).differences(of([[np.inf]])) == []
    assert of([[np.inf]]).differences(of([[-np.inf]]), tolerance=1)
