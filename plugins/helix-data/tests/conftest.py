"""What tests of datasets share: a tokenizer trained on the spot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

TEXT = "The cat sat on the mat. Das Mädchen aß süße Äpfel — naïve café, 日本語 too.\n" * 30


@pytest.fixture(scope="session")
def text():
    """Some text with characters of one, two and three bytes."""
    return TEXT


@pytest.fixture(scope="session")
def tokenizer_json(tmp_path_factory):
    """The path of a tokenizer.json: byte-pair encoding over bytes, with a token for the beginning."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<begin>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([TEXT], trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<begin> $A", special_tokens=[("<begin>", backend.token_to_id("<begin>"))]
    )
    # Settings of a file that would spoil a corpus: both must be left out.
    backend.enable_truncation(8)
    backend.enable_padding(length=64)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    backend.save(str(path))
    return str(path)
