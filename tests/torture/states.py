"""States of which every byte tells the step, so that a checkpoint made of two steps shows."""

import math

import ml_dtypes
import numpy as np

from helix_kernel.checkpoint import Checkpoint, CheckpointManager
from helix_kernel.errors import CheckpointError

LARGE = 9 * 2**20
"""Bytes of the array that is added to a state to be written by several threads, past the cache."""


class LostError(AssertionError):
    """A checkpoint was lost, torn or not recognised as damaged."""


def state_of(step, *, large=False):
    """Return the state of a step: arrays that all differ from other steps', and one that never changes."""
    state = {
        "model": {f"w{i}": np.full(400 + i, step, np.float32) for i in range(5)},
        "moments": [np.full((2, 7), step, ml_dtypes.bfloat16), np.full((), step)],
        "same": np.arange(9000.0),
        "step": step,
    }
    return state | {"large": np.full(LARGE // 8, step)} if large else state


def check_state(state, step):
    """Raise `LostError` unless a state is wholly that of a step."""
    expected = state_of(step, large="large" in state)
    for path, value in _leaves(state):
        wanted = dict(_leaves(expected)).get(path)
        if not np.array_equal(np.asarray(value), np.asarray(wanted)):
            raise LostError(f"step {step} is torn: {path} is {value!r}, not {wanted!r}")
    if math.prod(map(len, (state, expected))) != len(expected) ** 2:
        raise LostError(f"step {step} lacks {expected.keys() - state.keys()}")


def good_steps(directory, damaged=()):
    """Return the steps that load; raises `LostError` where one other than those known as damaged does not.

    Args:
        directory: The run's.
        damaged: Steps that may be refused with a `CheckpointError`, but never load as something else.
    """
    manager, good = CheckpointManager(directory), []
    for step in manager.steps():
        try:
            with Checkpoint.open(manager.path(step)) as checkpoint:
                checkpoint.verify()
                state = checkpoint.state()
        except CheckpointError as error:
            if step not in damaged:
                raise LostError(f"step {step} is there but cannot be loaded: {error}") from error
            continue
        check_state(state, step)
        good.append(step)
    return good


def _leaves(value, path=()):
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [leaf for key, item in items for leaf in _leaves(item, (*path, key))]
    return [("/".join(map(str, path)), value)]
