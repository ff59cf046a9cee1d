"""Each kind of data goes from a file to a sample, a tensor, a sample and a file, and is what it was."""

import pytest
import torch

from helix_kernel import default_kernel
from helix_multimodal.detection.files import detect

KINDS = {
    "text": {},
    "image": {},
    "audio": {},
    "video": {},
    "point-cloud": {"features": ["colours"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_comes_back(kind, tmp_path):
    modality = default_kernel().build("modality", {"use": kind, **KINDS[kind]})
    for number, sample in enumerate(modality.samples(5)):
        first, second = (tmp_path / f"{name}-{number}{modality.suffix}" for name in ("first", "second"))
        modality.save(sample, first)
        assert detect(first).kind == kind
        loaded = modality.load(first)
        tensor = modality.encode(loaded)
        assert isinstance(tensor, torch.Tensor)
        modality.save(modality.decode(tensor), second)
        assert not modality.load(second).differences(loaded, tolerance=modality.tolerance)
