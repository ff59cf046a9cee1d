import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from helix_data.shuffle import Shuffle, philox_words

seeds = st.integers(0, 2**64 - 1)


@given(n=st.integers(1, 3000), seed=seeds, stream=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_is_a_permutation(n, seed, stream):
    order = Shuffle(n, seed=seed, stream=stream)(np.arange(n))
    assert np.array_equal(np.sort(order), np.arange(n))


@given(n=st.integers(1, 2**40), seed=seeds, data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_place_is_computed_alone(n, seed, data):
    places = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20, unique=True)))
    shuffle = Shuffle(n, seed=seed, stream=0)
    together = shuffle(places)
    assert together.tolist() == [int(shuffle(places[i : i + 1])[0]) for i in range(len(places))]
    assert len(set(together.tolist())) == len(places)
    assert ((together >= 0) & (together < n)).all()


@pytest.mark.parametrize("n", [2, 3, 5, 10, 24])
def test_every_place_is_equally_likely_to_hold_every_value(n):
    orders = np.array([Shuffle(n, seed=seed, stream=seed % 7)(np.arange(n)) for seed in range(1500)])
    for place in range(n):
        assert chisquare(np.bincount(orders[:, place], minlength=n)).pvalue > 1e-6


def test_neighbours_are_not_kept_together():
    order = Shuffle(10_000, seed=3, stream=1)(np.arange(10_000))
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05
    assert (np.diff(order) == 1).mean() < 0.002


def test_seed_and_stream_each_give_another_order():
    places = np.arange(1000)
    orders = [Shuffle(1000, seed=s, stream=t)(places) for s, t in [(0, 0), (0, 1), (1, 0), (2**64 - 1, 0)]]
    assert max((a == b).mean() for i, a in enumerate(orders) for b in orders[:i]) < 0.02


def test_philox_words_are_the_published_generator():
    """First block of Philox4x64-10 for key 0 and counter 1: NumPy counts before it draws."""
    words = philox_words(0, 0, 4)
    assert words.dtype == np.uint64
    assert [int(word) for word in words] == _philox4x64(key=(0, 0), counter=(1, 0, 0, 0))


@given(seed=seeds, stream=seeds)
@settings(max_examples=60, deadline=None)
def test_philox_words_depend_on_seed_and_stream_alone(seed, stream):
    expected = _philox4x64(key=(seed, 0), counter=(1, stream, 0, 0))
    assert philox_words(seed, stream, 4).tolist() == expected


def _philox4x64(key, counter):
    """The generator of Salmon et al. 2011, section 3.3, in plain integers."""
    mask = 2**64 - 1
    k0, k1 = key
    x0, x1, x2, x3 = counter
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * x0, 0xCA5A826395121157 * x2
        x0, x1, x2, x3 = (p1 >> 64) ^ x1 ^ k0, p1 & mask, (p0 >> 64) ^ x3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return [x0, x1, x2, x3]
