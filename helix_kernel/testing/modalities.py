"""The conformance suite of modalities: what every modality must do, whoever wrote it.

Subclass `ModalitySuite`, give it a modality, and pytest runs the rest::

    class TestAudio(ModalitySuite):
        def make_modality(self):
            return Audio(rate=8000)

What it sends through the modality are the modality's own `samples`.
"""

from __future__ import annotations

import importlib.util
import io
import random
from typing import TYPE_CHECKING, Any

from helix_kernel.errors import DataError, InputError
from helix_kernel.modality import Sample
from helix_kernel.testing.files import FOREIGN_HEADS, files_limited_to
from helix_kernel.testing.suite import Suite, applies_when

if TYPE_CHECKING:
    from pathlib import Path

    from helix_kernel.modality import Modality

_HEAD = 4096
_SURE = 0.5


class ModalitySuite(Suite):
    """Pytest class of the modality protocol (docs: "What each kind must be").

    A subclass overrides `make_modality`. Options that change the format of the files, or what is kept, are
    tested by an example each.

    Attributes:
        n_damaged: Damaged files that are tried of each sample.
    """

    n_damaged = 20

    def make_modality(self) -> Modality:
        """Return a new modality."""
        modality: Modality = self.build()
        return modality

    def test_samples_are_several_and_depend_on_the_seed_alone(self) -> None:
        first, again = (self.make_modality().samples(3) for _ in range(2))
        assert len(first) >= 2, f"samples() gives {len(first)}; two that differ are the least"
        assert len(first) == len(again), f"samples(3) gives {len(first)}, then {len(again)}"
        for number, (one, other) in enumerate(zip(first, again, strict=True)):
            self._assert_same(one, other, f"samples(3)[{number}] of two calls differ", number, exact=True)
        assert any(first[0].differences(other) for other in first[1:]), "all samples are the same"

    def test_tensors_are_as_declared(self) -> None:
        modality = self.make_modality()
        for number, sample in enumerate(modality.samples(0)):
            tensor = modality.encode(sample)
            see = self._see(number, "modality.encode(sample).dtype, modality.encode(sample).shape")
            assert str(tensor.dtype) == f"torch.{modality.dtype}", (
                f"encode() gives {tensor.dtype}, declared is dtype={modality.dtype!r}{see}"
            )
            fits = len(tensor.shape) == len(modality.shape) and all(
                want in (None, has) for want, has in zip(modality.shape, tensor.shape, strict=True)
            )
            assert fits, f"encode() gives shape {tuple(tensor.shape)}, declared is {modality.shape}{see}"
            assert tensor.device.type == "cpu", f"encode() gives a tensor on {tensor.device}{see}"

    def test_a_tensor_gives_its_sample_back(self) -> None:
        modality = self.make_modality()
        for number, sample in enumerate(modality.samples(0)):
            back = modality.decode(modality.encode(sample))
            what = f"sample {number} comes back from its tensor changed"
            self._assert_same(sample, back, what, number, "modality.decode(modality.encode(sample))")

    def test_a_file_gives_its_sample_back(self, tmp_path: Path) -> None:
        modality, path = self.make_modality(), self._path(tmp_path)
        for number, sample in enumerate(modality.samples(0)):
            modality.save(sample, path)
            back = modality.load(path)
            what = f"sample {number} comes back from its file changed"
            self._assert_same(sample, back, what, number, f"modality.save(sample, {path.name!r})")
            modality.save(back, path)
            kept = dict(modality.load(path).metadata)
            assert kept == dict(back.metadata), (
                f"a file that is loaded and saved again has metadata {kept}, before {dict(back.metadata)}"
                + self._see(number, f"modality.save(sample, {path.name!r})")
            )

    def test_the_whole_way_there_and_back_loses_nothing(self, tmp_path: Path) -> None:
        """File, sample, tensor, sample, file, sample."""
        modality, path = self.make_modality(), self._path(tmp_path)
        for number, sample in enumerate(modality.samples(1)):
            modality.save(sample, path)
            modality.save(modality.decode(modality.encode(modality.load(path))), path)
            what = f"sample {number} is changed by the way through a file, a tensor and a file"
            self._assert_same(sample, modality.load(path), what, number, seed=1)

    def test_nothing_given_is_changed_nor_shared(self) -> None:
        """A tensor has memory of its own, so that training on it changes no sample."""
        modality = self.make_modality()
        for number, sample in enumerate(modality.samples(0)):
            original = modality.samples(0)[number]
            tensor = modality.encode(sample)
            kept = tensor.clone()
            self._assert_same(original, sample, "encode() changed the sample", number, exact=True)
            back = modality.decode(tensor)
            assert tensor.equal(kept), "decode() changed the tensor" + self._see(number)
            tensor.zero_()
            self._assert_same(original, sample, "a tensor shares memory with its sample", number, exact=True)
            what = "a decoded sample shares memory with the tensor"
            self._assert_same(modality.decode(kept), back, what, number, exact=True)

    def test_all_is_the_same_twice(self) -> None:
        for number, sample in enumerate(self.make_modality().samples(0)):
            modalities = [self.make_modality() for _ in range(2)]
            tensors = [modality.encode(sample) for modality in modalities]
            assert tensors[0].equal(tensors[1]), f"encoding sample {number} twice gives two tensors" + (
                self._see(number, "modality.encode(sample).equal(modality.encode(sample))")
            )
            files = [_saved(modality, sample) for modality in modalities]
            assert files[0] == files[1], f"saving sample {number} twice gives two files" + self._see(number)

    def test_own_files_are_recognised_whatever_their_name(self) -> None:
        modality = self.make_modality()
        for number, sample in enumerate(modality.samples(0)):
            head = _saved(modality, sample)[:_HEAD]
            for name in (f"sample{modality.suffix}", None, "sample.bin", f"SAMPLE{modality.suffix.upper()}"):
                likely = modality.sniff(head, name)
                assert _SURE < likely <= 1, (
                    f"sniff() of its own file under the name {name!r} is {likely}; allowed is above {_SURE} "
                    f"up to 1{self._see(number, f'modality.sniff(head, {name!r})')}"
                )

    def test_other_files_are_not_taken_for_own(self) -> None:
        modality = self.make_modality()
        noise = random.Random(0).randbytes(_HEAD)  # noqa: S311 - no secret
        for what, head in {**FOREIGN_HEADS, "nothing": b"", "random bytes": noise}.items():
            for name in (None, f"sample{modality.suffix}"):
                if not head and name:
                    continue
                likely = modality.sniff(head, name)
                assert 0 <= likely <= _SURE, (
                    f"sniff() of {what} under the name {name!r} is {likely}; allowed is 0 to {_SURE}, since "
                    f"names may lie{self.see(*self._made(), f'modality.sniff({head[:24]!r}, {name!r})')}"
                )

    def test_a_head_of_any_length_gets_a_likelihood(self) -> None:
        modality = self.make_modality()
        head = _saved(modality, modality.samples(0)[0])[:_HEAD]
        whole = modality.sniff(head, None)
        for length in sorted({*range(min(40, len(head))), len(head) // 2}):
            likely = self._sniffed(modality, head[:length])
            assert 0 <= likely <= whole, (
                f"sniff() of the first {length} bytes is {likely}, of the first {len(head)} bytes {whole}; "
                f"less can tell no more{self._see(0, f'modality.sniff(head[:{length}], None)')}"
            )

    @applies_when("modalities whose files say how long they are", lambda suite: suite.make_modality().framed)
    def test_a_file_cut_short_is_refused(self, tmp_path: Path) -> None:
        modality, path = self.make_modality(), self._path(tmp_path)
        for number, sample in enumerate(modality.samples(0)):
            data = _saved(modality, sample)
            for length in sorted({0, 1, len(data) // 4, len(data) // 2, len(data) * 3 // 4}):
                path.write_bytes(data[:length])
                what = f"a file cut short to {length} of {len(data)} bytes"
                back = self._loaded(modality, path, what, number)
                assert back is None, (
                    f"{what} is loaded as if it were whole, as {_told(back)}; raise DataError"
                    + self._see(number, f"modality.load(io.BytesIO(file.getvalue()[:{length}]))")
                )

    def test_a_damaged_file_ends_in_one_clear_error_or_in_a_sample(self, tmp_path: Path) -> None:
        modality, path = self.make_modality(), self._path(tmp_path)
        draw = random.Random(0)  # noqa: S311 - no secret
        for number, sample in enumerate(modality.samples(0)):
            data = _saved(modality, sample)
            for _ in range(self.n_damaged):
                path.write_bytes(_damaged(data, draw))
                self._loaded(modality, path, "a damaged file", number)
            path.write_bytes(draw.randbytes(200))
            self._loaded(modality, path, "a file of random bytes", number)

    def test_a_file_that_is_not_there_is_said(self, tmp_path: Path) -> None:
        modality = self.make_modality()
        for path in (tmp_path / f"missing{modality.suffix}", tmp_path):
            try:
                modality.load(path)
            except DataError as error:
                assert path.name in str(error), f"the error does not name {path.name!r}: {error}"  # noqa: PT017
            except Exception as error:
                raise AssertionError(
                    f"load() of {path.name!r}, which is no file: {type(error).__name__}: {error}; raise "
                    "DataError that names it"
                ) from error
            else:
                raise AssertionError(f"load() of {path.name!r}, which is no file, raises nothing")

    def test_paths_and_open_files_are_the_same(self, tmp_path: Path) -> None:
        modality, path = self.make_modality(), self._path(tmp_path)
        for number, sample in enumerate(modality.samples(0)):
            modality.save(sample, str(path))
            data = path.read_bytes()
            opened = io.BytesIO()
            opened.write(b"before")
            modality.save(sample, opened)
            assert not opened.closed, "save() closed a file that the caller had opened"
            assert opened.getvalue() == b"before" + data, (
                f"sample {number} saved to a path and to an open file gives other bytes" + self._see(number)
            )
            opened.seek(len(b"before"))
            from_file = modality.load(opened)
            assert not opened.closed, "load() closed a file that the caller had opened"
            what = "what is loaded from a path and from an open file differs"
            self._assert_same(modality.load(str(path)), from_file, what, number, exact=True)

    def test_a_sample_that_no_file_can_hold_leaves_the_target_alone(self, tmp_path: Path) -> None:
        modality, path = self.make_modality(), self._path(tmp_path)
        for held in (None, modality.samples(0)[0]):
            if held is not None:
                modality.save(held, path)
            before = _content(tmp_path)
            try:
                modality.save(Sample(arrays={}), path)
            except InputError:
                self._assert_untouched(
                    tmp_path, before, "save() of a sample without arrays, which it refuses"
                )
            except Exception as error:
                raise AssertionError(
                    f"save() of a sample without arrays: {type(error).__name__}: {error}; raise ArgumentError"
                    + self.see(*self._made(), f"modality.save(Sample(arrays={{}}), {path.name!r})")
                ) from error
            else:
                raise AssertionError("save() takes a sample without arrays; raise ArgumentError")

    @applies_when("systems that limit files", lambda _suite: importlib.util.find_spec("resource") is not None)
    def test_a_save_that_fails_midway_leaves_the_target_alone(self, tmp_path: Path) -> None:
        """As when the disk is full: the file that was there stays whole, and nothing is left beside it."""
        modality, path = self.make_modality(), self._path(tmp_path)
        old, new = modality.samples(0)[:2]
        size = min(len(_saved(modality, old)), len(_saved(modality, new)))
        for held in (None, old):
            if held is not None:
                modality.save(held, path)
            before = _content(tmp_path)
            error = files_limited_to(size // 2, lambda: modality.save(new, path))
            assert error is not None, "save() on a full disk raises nothing: what is lost is lost in silence"
            self._assert_untouched(tmp_path, before, "save() on a full disk")

    def _assert_same(
        self,
        expected: Sample,
        actual: Sample,
        what: str,
        number: int,
        *lines: str,
        seed: int = 0,
        exact: bool = False,
    ) -> None:
        tolerance = 0.0 if exact else self.make_modality().tolerance
        found = expected.differences(actual, tolerance=tolerance)
        assert not found, f"{what}: {'; '.join(found)}" + self._see(number, *lines, seed=seed)

    def _assert_untouched(self, folder: Path, before: dict[str, bytes], what: str) -> None:
        after = _content(folder)
        extra = sorted(set(after) - set(before))
        assert not extra, f"{what} leaves {extra} behind; write to a temporary file, and remove it"
        changed = [name for name, data in before.items() if after.get(name) != data]
        assert not changed, (
            f"{what} spoils {changed}, which held {[len(before[name]) for name in changed]} bytes and holds "
            f"{[len(after.get(name, b'')) for name in changed]}; write a temporary file and rename it"
        )

    def _loaded(self, modality: Modality, path: Path, what: str, number: int) -> Sample | None:
        """Load a file that may be damaged: None where it is refused as it should be."""
        try:
            sample = modality.load(path)
        except DataError:
            return None
        except Exception as error:
            raise AssertionError(
                f"{what} ends in {type(error).__name__}: {error}; raise DataError, which says what is wrong "
                f"with the file{self._see(number)}"
            ) from error
        assert isinstance(sample, Sample), f"{what} is loaded as {type(sample).__name__}, not as a Sample"
        return sample

    def _sniffed(self, modality: Modality, head: bytes) -> float:
        try:
            return modality.sniff(head, None)
        except Exception as error:
            raise AssertionError(
                f"sniff() of the first {len(head)} bytes: {type(error).__name__}: {error}; it never raises"
                + self.see(*self._made(), f"modality.sniff({head!r}, None)")
            ) from error

    def _path(self, folder: Path) -> Path:
        return folder / f"sample{self.make_modality().suffix}"

    def _made(self) -> list[str]:
        return ["import helix_kernel", f"modality = {self.how('make_modality()')}"]

    def _see(self, number: int, *lines: str, seed: int = 0) -> str:
        return self.see(
            "import io",
            *self._made(),
            f"sample = modality.samples({seed})[{number}]",
            "file = io.BytesIO()",
            "modality.save(sample, file)",
            "head = file.getvalue()[:4096]",
            *lines,
        )


def _saved(modality: Modality, sample: Sample) -> bytes:
    file = io.BytesIO()
    modality.save(sample, file)
    return file.getvalue()


def _damaged(data: bytes, draw: random.Random) -> bytes:
    """Return a file with some bytes changed, and maybe one cut out."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        if changed:
            changed[draw.randrange(len(changed))] = draw.randrange(256)
    if changed and draw.random() < 0.3:
        del changed[draw.randrange(len(changed))]
    return bytes(changed)


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _told(sample: Any) -> str:
    return ", ".join(f"{name} {array.shape}" for name, array in sample.arrays.items())
