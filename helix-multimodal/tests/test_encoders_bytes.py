"""Bytes of any kind of data, and the tokens that they become."""

import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_multimodal.encoders.byte_embedding import ByteEmbedding
from helix_multimodal.encoders.byte_patches import BytePatches
from helix_multimodal.encoders.element_bytes import from_bytes, to_bytes
from helix_multimodal.encoders.patch_embedding import BEYOND, N_SYMBOLS, PatchEmbedding, patches_of
from helix_multimodal.inputs import pad
from helix_multimodal.testing.batches import batch_of, beyond

MODALITIES = ["text", "image", "audio", "video", "point-cloud"]


@pytest.mark.parametrize(
    "sample",
    [
        torch.tensor([[[1, 2], [3, 255]]], dtype=torch.uint8),
        torch.tensor([[[1, 2], [300, 65535]]], dtype=torch.int32),
        torch.tensor([[0.0, 1.0, -1.0, 0.5]]),
    ],
)
def test_bytes_are_those_of_numpy(sample):
    data, lengths = to_bytes(pad([sample]))
    array = sample.numpy()
    if sample.dtype == torch.int32:
        array = array.astype("<u2")
    elif sample.is_floating_point():
        array = (array.astype("f8") * 32767).round().astype("<i2")
    assert bytes(data[0].tolist()) == array.tobytes()
    assert lengths.tolist() == [len(array.tobytes())]


@pytest.mark.parametrize("modality", MODALITIES)
def test_bytes_give_the_samples_back(modality):
    batch = batch_of(modality)
    data, _ = to_bytes(batch)
    back = from_bytes(data, batch.sizes, batch.values.dtype)
    assert back.sizes.equal(batch.sizes)
    if batch.values.is_floating_point():
        torch.testing.assert_close(back.values, batch.values, atol=0.51 / 32767, rtol=0)
        again, _ = to_bytes(back)
        assert again.equal(data)
    else:
        assert back.values.equal(batch.values)


@pytest.mark.parametrize("modality", MODALITIES)
def test_padding_is_no_byte(modality):
    batch = batch_of(modality)
    data, lengths = to_bytes(batch)
    more, same_lengths = to_bytes(beyond(batch))
    assert lengths.equal(same_lengths)
    assert more[:, : data.shape[1]].equal(data)
    assert not more[:, data.shape[1] :].any()


def test_samples_of_one_batch_have_the_bytes_that_they_have_alone():
    samples = [torch.randint(256, (3, h, w), dtype=torch.uint8) for h, w in ((4, 9), (7, 2))]
    data, lengths = to_bytes(pad(samples))
    for row, sample in enumerate(samples):
        assert data[row, : lengths[row]].equal(sample.flatten())


def test_dtypes_without_bytes_are_refused():
    with pytest.raises(ArgumentError, match=r"values are of torch.int64, allowed is uint8"):
        BytePatches(8)(pad([torch.zeros(3, dtype=torch.int64)]))


def test_a_patch_is_filled_up_with_a_symbol_of_its_own():
    data = torch.tensor([[1, 2, 3, 0], [0, 9, 9, 9]], dtype=torch.uint8)
    ids, mask = patches_of(data, torch.tensor([3, 1]), 2)
    assert ids.tolist() == [[[1, 2], [3, BEYOND]], [[0, BEYOND], [BEYOND, BEYOND]]]
    assert mask.tolist() == [[True, True], [True, False]]


def test_an_embedded_patch_is_a_linear_map_of_one_hot_codes():
    embedding = PatchEmbedding("test", 3, 5).double()
    ids = torch.randint(N_SYMBOLS, (2, 4, 3), generator=torch.Generator().manual_seed(0))
    one_hot = torch.nn.functional.one_hot(ids, N_SYMBOLS).double().flatten(2)
    torch.testing.assert_close(embedding(ids), one_hot @ embedding.weight)


@pytest.mark.parametrize(("patch", "length", "n_tokens"), [(1, 5, 5), (4, 5, 2), (4, 4, 1)])
def test_text_becomes_tokens(patch, length, n_tokens):
    batch = pad([torch.zeros(length, dtype=torch.uint8)])
    for encoder in (ByteEmbedding(8, patch=patch), BytePatches(8, patch=patch)):
        assert encoder(batch).mask.sum() == n_tokens


def test_a_wrong_patch_is_refused():
    with pytest.raises(ArgumentError, match="byte-embedding: patch is 0, allowed is >= 1"):
        ByteEmbedding(8, patch=0)
