import hashlib
import inspect

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_data.config import TextBytesConfig
from helix_data.text_bytes import TextBytes
from helix_kernel.errors import ArgumentError, DataError

CORPUS_SIZE = 1000
arguments = st.fixed_dictionaries(
    {"seed": st.integers(0, 2**64 - 1), "step": st.integers(0, 10**12), "world_size": st.integers(1, 5)}
)
shapes = st.fixed_dictionaries({"seq_len": st.integers(1, 300), "batch_size": st.integers(1, 9)})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """1,000 bytes in three files; what a byte is tells where it is, but for wrapping at 251."""
    folder = tmp_path_factory.mktemp("corpus")
    text = bytes(index % 251 for index in range(CORPUS_SIZE))
    for name, start, stop in [("a", 0, 100), ("b", 100, 150), ("c", 150, CORPUS_SIZE)]:
        (folder / name).write_bytes(text[start:stop])
    return folder, text


@pytest.fixture(scope="module")
def open_corpus(corpus):
    folder, _ = corpus

    def open_with(**options):
        return TextBytes(paths=[str(folder)], **options)

    return open_with


def equal(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@given(arguments=arguments, shape=shapes)
@settings(max_examples=60, deadline=None)
def test_a_batch_depends_on_its_arguments_alone(open_corpus, arguments, shape):
    used, fresh = open_corpus(**shape), open_corpus(**shape)
    used.batch(seed=arguments["seed"] ^ 1, step=0)
    used.batch(seed=arguments["seed"], step=arguments["step"] + 1)
    for rank in range(arguments["world_size"]):
        assert equal(used.batch(rank=rank, **arguments), fresh.batch(rank=rank, **arguments))


@given(arguments=arguments, shape=shapes)
@settings(max_examples=60, deadline=None)
def test_the_order_is_the_same_at_any_world_size(open_corpus, arguments, shape):
    world_size = arguments["world_size"]
    ranks = [open_corpus(**shape).batch(rank=rank, **arguments) for rank in range(world_size)]
    alone = open_corpus(seq_len=shape["seq_len"], batch_size=shape["batch_size"] * world_size)
    whole = alone.batch(seed=arguments["seed"], step=arguments["step"])
    assert torch.equal(torch.cat([batch.inputs for batch in ranks]), whole.inputs)
    assert torch.equal(torch.cat([batch.targets for batch in ranks]), whole.targets)


@given(
    seed=st.integers(0, 2**64 - 1),
    first=st.integers(0, 10**12),
    seq_len=st.integers(1, 500),
    fraction=st.floats(0.01, 0.49),
)
@settings(max_examples=60, deadline=None)
def test_no_window_touches_a_held_out_byte(open_corpus, seed, first, seq_len, fraction):
    dataset = open_corpus(seq_len=seq_len, validation_fraction=fraction)
    starts = dataset.window_starts(first, 50, seed=seed)
    assert starts.min() >= 0
    assert starts.max() + seq_len + 1 <= dataset.n_train == CORPUS_SIZE - dataset.n_held_out


@given(seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 10**6), seq_len=st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_an_epoch_visits_all_but_its_ends_once(open_corpus, seed, epoch, seq_len):
    dataset = open_corpus(seq_len=seq_len)
    n_windows = dataset.windows_per_epoch
    starts = np.sort(dataset.window_starts(epoch * n_windows, n_windows, seed=seed))
    assert (np.diff(starts) == seq_len).all()
    assert dataset.n_train - n_windows * seq_len < 2 * seq_len + 1


@pytest.mark.parametrize("n_held_out", [99, 100, 104])
def test_epochs_differ_in_order_and_in_where_windows_begin(open_corpus, n_held_out):
    dataset = open_corpus(seq_len=10, validation_fraction=n_held_out / CORPUS_SIZE)
    assert dataset.n_held_out == n_held_out
    n_windows = dataset.windows_per_epoch
    epochs = [dataset.window_starts(epoch * n_windows, n_windows, seed=0) for epoch in range(60)]
    assert len({tuple(np.argsort(starts)) for starts in epochs}) == 60
    assert {int(starts.min()) % 10 for starts in epochs} == set(range(10))


@given(arguments=arguments, shape=shapes)
@settings(max_examples=40, deadline=None)
def test_targets_are_the_bytes_that_follow(corpus, open_corpus, arguments, shape):
    _, text = corpus
    inputs, targets = open_corpus(**shape).batch(**arguments)
    assert inputs.shape == targets.shape == (shape["batch_size"], shape["seq_len"])
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert all(bytes([*row.tolist(), last]) in text for row, last in zip(inputs, targets[:, -1], strict=True))


def test_batches_are_new_contiguous_tensors(open_corpus):
    dataset = open_corpus(seq_len=20)
    first = dataset.batch(seed=0, step=0)
    kept = first.inputs.clone()
    first.inputs.zero_()
    assert torch.equal(dataset.batch(seed=0, step=0).inputs, kept)
    assert all(tensor.is_contiguous() for tensor in first)
    assert first.inputs.data_ptr() != first.targets.data_ptr()


def test_the_random_state_of_the_process_is_neither_used_nor_changed(open_corpus):
    torch.manual_seed(0)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first = open_corpus().batch(seed=0, step=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == numpy_state
    torch.manual_seed(1)
    assert equal(open_corpus().batch(seed=0, step=5), first)


def test_batches_stay_what_they_were_in_earlier_releases(open_corpus):
    """A change here breaks exact resume of every run begun before it."""
    starts = open_corpus(seq_len=10).window_starts(80, 12, seed=7).tolist()
    assert starts == [577, 137, 67, 697, 187, 787, 797, 457, 847, 9, 249, 99]


def test_the_last_part_is_held_out(corpus, open_corpus):
    _, text = corpus
    dataset = open_corpus(validation_fraction=0.25)
    assert dataset.held_out().tobytes() == dataset.read("held-out") == text[750:]
    assert dataset.read("train") == text[:750]
    assert dataset.held_out().dtype == np.uint8


def test_nothing_need_be_held_out(open_corpus):
    dataset = open_corpus(validation_fraction=0)
    assert (dataset.n_train, dataset.held_out().size) == (CORPUS_SIZE, 0)


def test_describes_itself(corpus, open_corpus):
    _, text = corpus
    dataset = open_corpus()
    assert dataset.fingerprint == hashlib.sha256(text).hexdigest()
    line = dataset.describe()
    assert "\n" not in line
    for words in ("1,000 bytes", "900 to train on", "last 100 held out", dataset.fingerprint):
        assert words in line


def test_a_window_may_be_all_there_is(tmp_path):
    (tmp_path / "text").write_bytes(b"abcde")
    dataset = TextBytes(paths=[str(tmp_path)], seq_len=4, batch_size=3, validation_fraction=0)
    assert dataset.batch(seed=0, step=9).targets.tolist() == [list(b"bcde")] * 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seq_len": 900}, "too short: 900 of its 1000 bytes are left to train on; .*seq_len=900 needs 901"),
        ({"seq_len": 10, "validation_fraction": 0.001}, "holds out 1, and 2 are the fewest"),
    ],
)
def test_a_corpus_that_is_too_short_is_an_error(open_corpus, options, words):
    with pytest.raises(DataError, match=words):
        open_corpus(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "neither source nor paths is given"),
        ({"source": "python-docs", "paths": ["a"]}, "both source='python-docs' and paths=.'a'. are given"),
        ({"source": "python_docs"}, "source is 'python_docs', allowed is .* Did you mean 'python-docs'?"),
        ({"paths": "a.txt"}, "paths is 'a.txt', allowed is a list of strings"),
        ({"source": "python-docs", "seq_len": 0}, "seq_len is 0, allowed is >= 1"),
        ({"source": "python-docs", "batch_size": 0}, "batch_size is 0, allowed is >= 1"),
        ({"source": "python-docs", "validation_fraction": 1.0}, "validation_fraction is 1.0, allowed is"),
    ],
)
@pytest.mark.parametrize("target", [TextBytes, TextBytesConfig])
def test_wrong_arguments_are_said_by_dataset_and_config(target, options, words):
    with pytest.raises(ArgumentError, match=words):
        target(**options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": -1, "step": 0}, "seed is -1, allowed is >= 0"),
        ({"seed": 2**64, "step": 0}, "allowed is >= 0 and < 2"),
        ({"seed": 0, "step": -1}, "step is -1, allowed is >= 0"),
        ({"seed": 0, "step": 0, "rank": 2, "world_size": 2}, "rank is 2, allowed is >= 0 and < world_size=2"),
        ({"seed": 0, "step": 0, "world_size": 0}, "world_size is 0, allowed is >= 1"),
    ],
)
def test_wrong_arguments_of_batch_are_said(open_corpus, arguments, words):
    with pytest.raises(ArgumentError, match=words):
        open_corpus().batch(**arguments)


def test_an_unknown_split_is_said(open_corpus):
    with pytest.raises(ArgumentError, match=r"split is 'held_out'.* Did you mean 'held-out'?"):
        open_corpus().read("held_out")


def test_config_and_dataset_take_the_same_options():
    options = {field.name: field.default for field in attrs.fields(TextBytesConfig)}
    signature = inspect.signature(TextBytes).parameters
    assert options == {name: parameter.default for name, parameter in signature.items()}
