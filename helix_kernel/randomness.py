"""Global random number generators that start anew for each batch: it is the same wherever it is made."""

from __future__ import annotations

import random
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def drawing_for(seed: int, step: int, rank: int) -> Iterator[None]:
    """Seed the generators of torch, `random` and NumPy within the block; then put them back.

    What is drawn depends on nothing but the arguments. torch's is left alone where torch is not loaded:
    nothing can draw from it then.

    Args:
        seed: The run's seed, at least 0.
        step: Number of the batch, at least 0.
        rank: Which of the ranks makes it, at least 0.
    """
    words = [int(word) for word in np.random.SeedSequence([seed, step, rank]).generate_state(3, np.uint64)]
    torch = sys.modules.get("torch")
    state_of_python, state_of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the one that is drawn from
    state_of_torch = torch.get_rng_state() if torch else None
    random.seed(words[0])
    np.random.seed(words[1] % 2**32)  # noqa: NPY002 - as above
    if torch:
        torch.default_generator.manual_seed(words[2] >> 1)
    try:
        yield
    finally:
        random.setstate(state_of_python)
        np.random.set_state(state_of_numpy)  # noqa: NPY002 - as above
        if torch:
            torch.set_rng_state(state_of_torch)
