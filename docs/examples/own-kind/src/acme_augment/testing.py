"""The conformance suite of augmentations: what every one must do, whoever wrote it.

``pytest --helix-provider NAME`` runs it on every augmentation that NAME declares. In a test of one's own::

    class TestMaskBytes(AugmentationSuite):
        def make_augmentation(self):
            return MaskBytes(rate=0.5)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from helix_kernel.testing.suite import Suite

if TYPE_CHECKING:
    import torch

    from acme_augment.augmentation import Augmentation


class AugmentationSuite(Suite):
    """Pytest class of the protocol `acme_augment.augmentation.Augmentation`."""

    def make_augmentation(self) -> Augmentation:
        """Return a new augmentation."""
        augmentation: Augmentation = self.build()
        return augmentation

    def inputs(self) -> torch.Tensor:
        """Return bytes (8, 64) int64, the same every time."""
        import torch

        return torch.randint(256, (8, 64), generator=torch.Generator().manual_seed(0))

    def test_shape_and_dtype_stay(self) -> None:
        for inputs in (self.inputs(), self.inputs()[:1], self.inputs()[:, :1]):
            changed = self.make_augmentation()(inputs, seed=1)
            given, found = (f"{tuple(each.shape)} {each.dtype}" for each in (inputs, changed))
            assert found == given, f"inputs {given} come out as {found}" + self._see()

    def test_bytes_stay_bytes(self) -> None:
        changed = self.make_augmentation()(self.inputs(), seed=1)
        low, high = int(changed.min()), int(changed.max())
        assert low >= 0, f"bytes come out as {low}; allowed is 0 to 255" + self._see()
        assert high <= 255, f"bytes come out as {high}; allowed is 0 to 255" + self._see()

    def test_something_is_changed(self) -> None:
        inputs = self.inputs()
        changed = [self.make_augmentation()(inputs, seed=seed) for seed in range(4)]
        assert not all(result.equal(inputs) for result in changed), "no seed changes a byte" + self._see()

    def test_inputs_are_not_changed(self) -> None:
        inputs = self.inputs()
        self.make_augmentation()(inputs, seed=1).zero_()
        assert inputs.equal(self.inputs()), (
            "the inputs themselves were changed: return new memory" + self._see("inputs")
        )

    def test_the_seed_alone_decides(self) -> None:
        import torch

        augmentation, inputs = self.make_augmentation(), self.inputs()
        with torch.random.fork_rng():
            first = augmentation(inputs, seed=1)
            torch.manual_seed(5)
            again, fresh = augmentation(inputs, seed=1), self.make_augmentation()(inputs, seed=1)
        assert first.equal(again), (
            "one seed gives two results: draw from torch.Generator().manual_seed(seed) alone"
            + self._see("augmentation(inputs, seed=1)  # should be the same")
        )
        assert first.equal(fresh), "two augmentations with the same options differ" + self._see()

    def test_another_seed_gives_another_result(self) -> None:
        augmentation, inputs = self.make_augmentation(), self.inputs()
        results = [augmentation(inputs, seed=seed) for seed in range(6)]
        assert not all(result.equal(results[0]) for result in results[1:]), (
            "six seeds give one result: every batch would be changed in the same places" + self._see()
        )

    def _see(self, *lines: str) -> str:
        return self.see(
            "import torch",
            "import helix_kernel",
            f"augmentation = {self.how('make_augmentation()')}",
            "inputs = torch.randint(256, (8, 64))",
            "augmentation(inputs, seed=1)",
            *lines,
        )
