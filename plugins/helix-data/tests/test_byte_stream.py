import hashlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_data.byte_stream import ByteStream, FileSegment, MemorySegment
from helix_kernel.errors import DataError


def memory_stream(*texts):
    return ByteStream([MemorySegment(np.frombuffer(text, dtype=np.uint8)) for text in texts])


def file_stream(folder, *texts):
    paths = [folder / f"{index:04}.txt" for index in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text)
    return ByteStream([FileSegment.of(path, path.name) for path in paths])


texts = st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=8)


@given(texts=texts, data=st.data())
@settings(max_examples=60, deadline=None)
def test_reads_like_the_joined_bytes(texts, data):
    stream, joined = memory_stream(*texts), b"".join(texts)
    start = data.draw(st.integers(0, len(joined)))
    stop = data.draw(st.integers(start, len(joined)))
    assert len(stream) == len(joined)
    assert stream.read(start, stop).tobytes() == joined[start:stop]
    assert stream.sha256() == hashlib.sha256(joined).hexdigest()


@given(texts=texts, data=st.data())
@settings(max_examples=60, deadline=None)
def test_gathers_windows_across_segments(texts, data):
    stream, joined = memory_stream(*texts), b"".join(texts)
    width = data.draw(st.integers(1, len(joined)))
    starts = data.draw(st.lists(st.integers(0, len(joined) - width), max_size=5))
    windows = stream.gather(np.array(starts, dtype=np.int64), width)
    assert windows.shape == (len(starts), width)
    assert [row.tobytes() for row in windows] == [joined[start : start + width] for start in starts]


def test_files_are_mapped_not_copied(tmp_path):
    stream = file_stream(tmp_path, b"x" * 4_000_000)
    tracemalloc.start()
    whole = stream.read(0, len(stream))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert whole.size == 4_000_000
    assert peak < 100_000


def test_what_is_read_cannot_be_written(tmp_path):
    for stream in (file_stream(tmp_path, b"abcd", b"efgh"), memory_stream(b"abcd", b"efgh")):
        for start, stop in [(0, 3), (2, 7)]:
            with pytest.raises(ValueError, match="read-only"):
                stream.read(start, stop)[0] = 0


def test_more_files_than_a_process_may_open(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = min(soft, 400)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        stream = file_stream(tmp_path, *[b"%04d" % index for index in range(limit + 50)])
        assert stream.gather(np.arange(len(stream) - 8), 8).shape == (len(stream) - 8, 8)
        assert stream.read(4 * limit, 4 * limit + 4).tobytes() == b"%04d" % limit
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("change", "words"), [(b"longer text", "had 4 bytes.*has 11 now"), (b"", "had 4 bytes.*has 0 now")]
)
def test_a_file_that_changed_its_size_is_an_error(tmp_path, change, words):
    stream = file_stream(tmp_path, b"text")
    (tmp_path / "0000.txt").write_bytes(change)
    with pytest.raises(DataError, match=rf"0000\.txt: {words}"):
        stream.read(0, 4)


def test_a_file_that_has_gone_is_an_error(tmp_path):
    stream = file_stream(tmp_path, b"text")
    (tmp_path / "0000.txt").unlink()
    with pytest.raises(DataError, match=r"0000\.txt: cannot be opened: No such file"):
        stream.read(0, 4)
