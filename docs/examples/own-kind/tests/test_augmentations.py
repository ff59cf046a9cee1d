"""The augmentation and the dataset pass their suites, and the suite finds faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from acme_augment.augmented import Augmented
from acme_augment.mask_bytes import MaskBytes
from acme_augment.testing import AugmentationSuite

from helix_data.testing.datasets import DatasetSuite
from helix_kernel import default_kernel
from helix_kernel.testing.faults import caught_by

if TYPE_CHECKING:
    from pathlib import Path


class TestMaskBytes(AugmentationSuite):
    def make_augmentation(self) -> MaskBytes:
        return MaskBytes(rate=0.5)


class TestAugmented(DatasetSuite):
    def make_dataset(self) -> Augmented:
        text = {"use": "text-bytes", "source": "python-docs", "seq_len": 16, "batch_size": 4}
        return Augmented(data=default_kernel().build("dataset", text), augmentation=MaskBytes())


def test_the_share_of_replaced_bytes_is_the_rate() -> None:
    ones = torch.ones(100, 100, dtype=torch.int64)
    share = (MaskBytes(rate=0.3)(ones, seed=0) == 0).double().mean().item()
    assert share == pytest.approx(0.3, abs=0.02)


class DrawsFromTheProcess(MaskBytes):
    def __call__(self, inputs: torch.Tensor, *, seed: int) -> torch.Tensor:
        return super().__call__(inputs, seed=int(torch.randint(1 << 40, ())))


class IgnoresTheSeed(MaskBytes):
    def __call__(self, inputs: torch.Tensor, *, seed: int) -> torch.Tensor:
        return super().__call__(inputs, seed=0)


class WritesInPlace(MaskBytes):
    def __call__(self, inputs: torch.Tensor, *, seed: int) -> torch.Tensor:
        return inputs.copy_(super().__call__(inputs, seed=seed))


class LeavesTheBytes(MaskBytes):
    def __call__(self, inputs: torch.Tensor, *, seed: int) -> torch.Tensor:
        return super().__call__(inputs, seed=seed) - 1


class Widens(MaskBytes):
    def __call__(self, inputs: torch.Tensor, *, seed: int) -> torch.Tensor:
        return super().__call__(inputs, seed=seed).float()


class DoesNothing(MaskBytes):
    def __call__(self, inputs: torch.Tensor, *, seed: int) -> torch.Tensor:
        return inputs.clone()


FAULTS = [
    (DrawsFromTheProcess, "test_the_seed_alone_decides", "one seed gives two results"),
    (IgnoresTheSeed, "test_another_seed_gives_another_result", "in the same places"),
    (WritesInPlace, "test_inputs_are_not_changed", "return new memory"),
    (LeavesTheBytes, "test_bytes_stay_bytes", "come out as -1"),
    (Widens, "test_shape_and_dtype_stay", "come out as .* torch.float32"),
    (DoesNothing, "test_something_is_changed", "no seed changes a byte"),
]


@pytest.mark.parametrize(("fault", "case", "says"), FAULTS, ids=[row[0].__name__ for row in FAULTS])
def test_the_suite_finds_a_fault(fault: type[MaskBytes], case: str, says: str, tmp_path: Path) -> None:
    caught_by(suite_of(fault), case, says, right=suite_of(MaskBytes), tmp_path=tmp_path)


def suite_of(made: type[MaskBytes]) -> type[AugmentationSuite]:
    def make_augmentation(_suite: AugmentationSuite) -> MaskBytes:
        return made(rate=0.5)

    return type("Suite", (AugmentationSuite,), {"make_augmentation": make_augmentation})
