"""The suite of modalities passes a correct modality and catches each of these faults."""

from __future__ import annotations

import contextlib
import os
import random
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from helix_kernel.errors import ArgumentError, DataError
from helix_kernel.modality import Sample
from helix_kernel.testing.faults import caught_by
from helix_kernel.testing.modalities import ModalitySuite

HEAD = struct.Struct("<4sIII")


class Tones:
    """Sounds of 16 bits in a file with a header and a checksum; each fault below breaks one thing."""

    dtype, shape, suffix, tolerance, framed = "int16", (None, None), ".tone", 0.0, True
    magic = b"TONE"

    def sniff(self, head, name):
        if not head.startswith(self.magic):
            return 0.0
        return 0.99 if len(head) > HEAD.size else 0.9

    def load(self, source):
        with self.opened(source) as file:
            data = file.read()
        return self.parse(data)

    @contextlib.contextmanager
    def opened(self, source):
        if hasattr(source, "read"):
            yield source
            return
        try:
            with Path(source).open("rb") as file:
                yield file
        except OSError as error:
            raise DataError(f"{source}: {error}") from error

    def parse(self, data):
        body, check = data[:-4], data[-4:]
        if len(data) < HEAD.size + 4 or struct.pack("<I", zlib.crc32(body)) != check:
            raise DataError("the file is damaged or cut short")
        magic, rate, channels, title = HEAD.unpack_from(body)
        if magic != self.magic:
            raise DataError("the file holds no tone")
        title = body[HEAD.size : HEAD.size + title].decode()
        samples = np.frombuffer(body, dtype=np.int16, offset=HEAD.size + len(title.encode()))
        return Sample(
            arrays={"waveform": samples.reshape(channels, -1).copy()},
            rate=rate,
            metadata={"title": title} if title else {},
        )

    def encode(self, sample):
        return torch.from_numpy(sample.arrays["waveform"].copy())

    def decode(self, tensor):
        return Sample(arrays={"waveform": tensor.numpy().copy()}, rate=8000)

    def save(self, sample, target):
        data = self.packed(sample)
        if hasattr(target, "write"):
            target.write(data)
            return
        self.write(Path(target), data)

    def packed(self, sample):
        if "waveform" not in sample.arrays:
            raise ArgumentError("the sample has no waveform")
        waveform = sample.arrays["waveform"]
        title = str(sample.metadata.get("title", "")).encode()
        body = HEAD.pack(self.magic, int(sample.rate or 0), len(waveform), len(title)) + title
        body += waveform.tobytes()
        return body + struct.pack("<I", zlib.crc32(body))

    def write(self, path, data):
        temporary = path.with_name(f"{path.name}.tmp")
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def samples(self, seed):
        draw = np.random.default_rng(seed)
        return [
            Sample(
                arrays={"waveform": draw.integers(-32768, 32767, (channels, length), dtype=np.int16)},
                rate=8000,
                metadata={"title": title} if title else {},
            )
            for channels, length, title in [(1, 301, "mono"), (2, 200, ""), (1, 77, "ö")]
        ]


class TestTones(ModalitySuite):
    def make_modality(self):
        return Tones()


class Rounded(Tones):
    """Keeps 8 of 16 bits, and says so; files have no checksum that could tell a part from the whole."""

    tolerance, framed = 256.0, False

    def encode(self, sample):
        return super().encode(sample) // 256 * 256


class TestRounded(ModalitySuite):
    def make_modality(self):
        return Rounded()


class LosesTheLowBits(Tones):
    def encode(self, sample):
        return super().encode(sample) // 256 * 256


class LosesTheLastOfAnOddLength(Tones):
    def packed(self, sample):
        even = sample.arrays["waveform"][:, : sample.arrays["waveform"].shape[1] // 2 * 2]
        return super().packed(Sample(arrays={"waveform": even}, rate=sample.rate, metadata=sample.metadata))


class SwapsChannels(Tones):
    def decode(self, tensor):
        return super().decode(tensor.flip(0))


class ForgetsTheRate(Tones):
    def packed(self, sample):
        return super().packed(Sample(arrays=sample.arrays, rate=44100, metadata=sample.metadata))


class LosesMetadata(Tones):
    def load(self, source):
        found = super().load(source)
        title = {f"{name} of old": value for name, value in found.metadata.items()}
        return Sample(arrays=found.arrays, rate=found.rate, metadata=title)


class EncodesAnotherDtype(Tones):
    def encode(self, sample):
        return super().encode(sample).float()


class AddsAnAxis(Tones):
    def encode(self, sample):
        return super().encode(sample).unsqueeze(0)

    def decode(self, tensor):
        return super().decode(tensor[0])


class SharesMemory(Tones):
    def encode(self, sample):
        return torch.from_numpy(sample.arrays["waveform"])


class TrustsNames(Tones):
    def sniff(self, head, name):
        return 0.9 if name and name.endswith(self.suffix) else super().sniff(head, name)


class TakesEverything(Tones):
    def sniff(self, head, name):
        return 0.8 if head else 0.0


class NeedsItsName(Tones):
    def sniff(self, head, name):
        return super().sniff(head, name) if (name or "").endswith(self.suffix) else 0.1


class FailsOnShortHeads(Tones):
    def sniff(self, head, name):
        return 0.9 if HEAD.unpack_from(head)[0] == self.magic else 0.0


class IgnoresTheChecksum(Tones):
    """Fills what is missing with silence, as some decoders do."""

    def parse(self, data):
        if len(data) < HEAD.size + 4:
            raise DataError("cut short")
        _, rate, channels, _ = HEAD.unpack_from(data)
        samples = np.zeros((channels % 8 or 1, 301), dtype=np.int16)
        return Sample(arrays={"waveform": samples}, rate=rate)


class RaisesAnything(Tones):
    def parse(self, data):
        assert struct.pack("<I", zlib.crc32(data[:-4])) == data[-4:], "checksum"
        return super().parse(data)


class LetsTheSystemSpeak(Tones):
    @contextlib.contextmanager
    def opened(self, source):
        if hasattr(source, "read"):
            yield source
            return
        with Path(source).open("rb") as file:
            yield file


class OverwritesInPlace(Tones):
    def write(self, path, data):
        path.write_bytes(data)


class LeavesItsTemporaryFile(Tones):
    def write(self, path, data):
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.write_bytes(data)
        temporary.replace(path)


class OpensBeforeItChecks(Tones):
    def save(self, sample, target):
        if not hasattr(target, "write"):
            Path(target).write_bytes(b"")
        super().save(sample, target)


class SilencesAFullDisk(Tones):
    def write(self, path, data):
        with contextlib.suppress(OSError):
            super().write(path, data)


class ClosesFiles(Tones):
    @contextlib.contextmanager
    def opened(self, source):
        with super().opened(source) as file, file:
            yield file


class ReadsFromTheFirstByte(Tones):
    def load(self, source):
        if hasattr(source, "seek"):
            source.seek(0)
        return super().load(source)


class StampsTheTime(Tones):
    def packed(self, sample):
        stamped = {"title": f"{sample.metadata.get('title', '')} {time.perf_counter_ns()}"}
        return super().packed(Sample(arrays=sample.arrays, rate=sample.rate, metadata=stamped))


class DrawsItsSamples(Tones):
    def samples(self, seed):
        return super().samples(random.randrange(10**9))


class TakesWhatItCannotHold(Tones):
    def packed(self, sample):
        return super().packed(sample) if sample.arrays else b"TONE" + os.urandom(4)


FAULTS = [
    (LosesTheLowBits, "test_a_tensor_gives_its_sample_back", "elements off by more than 0, the first at"),
    (LosesTheLastOfAnOddLength, "test_a_file_gives_its_sample_back", r"had shape \(1, 301\) and has"),
    (SwapsChannels, "test_a_tensor_gives_its_sample_back", "sample 1 comes back from its tensor"),
    (ForgetsTheRate, "test_a_file_gives_its_sample_back", "the rate was 8000 and is 44100"),
    (LosesMetadata, "test_a_file_gives_its_sample_back", "saved again has metadata {}"),
    (LosesTheLastOfAnOddLength, "test_the_whole_way_there_and_back_loses_nothing", "by the way through"),
    (EncodesAnotherDtype, "test_tensors_are_as_declared", "torch.float32, declared is dtype='int16'"),
    (AddsAnAxis, "test_tensors_are_as_declared", r"shape \(1, 1, 301\), declared is \(None, None\)"),
    (SharesMemory, "test_nothing_given_is_changed_nor_shared", "shares memory with its sample"),
    (TrustsNames, "test_other_files_are_not_taken_for_own", "an ELF program .* names may lie"),
    (TakesEverything, "test_other_files_are_not_taken_for_own", "an ELF program"),
    (NeedsItsName, "test_own_files_are_recognised_whatever_their_name", "under the name None is 0.1"),
    (FailsOnShortHeads, "test_a_head_of_any_length_gets_a_likelihood", r"sniff\(\) of the first 0 bytes"),
    (IgnoresTheChecksum, "test_a_file_cut_short_is_refused", "is loaded as if it were whole"),
    (RaisesAnything, "test_a_damaged_file_ends_in_one_clear_error_or_in_a_sample", "ends in AssertionError"),
    (LetsTheSystemSpeak, "test_a_file_that_is_not_there_is_said", "raise DataError that names it"),
    (OverwritesInPlace, "test_a_save_that_fails_midway_leaves_the_target_alone", "leaves .* behind"),
    (LeavesItsTemporaryFile, "test_a_save_that_fails_midway_leaves_the_target_alone", "tone.tmp"),
    (SilencesAFullDisk, "test_a_save_that_fails_midway_leaves_the_target_alone", "raises nothing"),
    (OpensBeforeItChecks, "test_a_sample_that_no_file_can_hold_leaves_the_target_alone", "leaves .* behind"),
    (TakesWhatItCannotHold, "test_a_sample_that_no_file_can_hold_leaves_the_target_alone", "takes a sample"),
    (ClosesFiles, "test_paths_and_open_files_are_the_same", r"load\(\) closed a file"),
    (ReadsFromTheFirstByte, "test_paths_and_open_files_are_the_same", "damaged or cut short"),
    (StampsTheTime, "test_all_is_the_same_twice", "saving sample 0 twice gives two files"),
    (DrawsItsSamples, "test_samples_are_several_and_depend_on_the_seed_alone", "of two calls differ"),
]


@pytest.mark.parametrize(
    ("fault", "case", "says"), FAULTS, ids=[f"{fault.__name__}-{case}" for fault, case, _ in FAULTS]
)
def test_a_fault_is_caught_by_the_case_meant_for_it(tmp_path, fault, case, says):
    caught_by(suite_of(fault), case, says, right=suite_of(Tones), tmp_path=tmp_path)


def test_that_a_part_is_no_file_is_asked_only_of_those_whose_files_say_how_long_they_are():
    case = "test_a_file_cut_short_is_refused"
    assert suite_of(Tones)().left_out(case) is None
    assert suite_of(Rounded)().left_out(case) == "modalities whose files say how long they are"


def suite_of(modality):
    return type("Suite", (ModalitySuite,), {"make_modality": lambda self: modality()})
