"""What checkpoints ask of an S3 server, and what comes of it when the server or the writer fails."""

import subprocess
import sys
import threading
import time
from datetime import timedelta

import numpy as np
import obstore
import pytest
from obstore.store import S3Store, from_url

from helix_kernel.checkpoint import Checkpoint, CheckpointManager, load, resolve, save
from helix_kernel.errors import CheckpointError

STATE = {"model": {"w": np.arange(3_000_000.0).reshape(3000, 1000), "b": np.ones(3)}, "step": 4}


def keys(url):
    store = from_url(url, client_options={"allow_http": True})
    return sorted(found["path"] for found in obstore.list(store).collect())


def state(step):
    return {"w": np.full(3, step), "step": step}


def test_a_save_takes_at_most_five_requests_beside_the_parts(object_server, bucket):
    manager = CheckpointManager(bucket, keep=2)
    steady = ["GET list", "POST upload", "POST upload", "PUT manifest.json", "POST delete"]
    for step in range(5):
        object_server.requests.clear()
        manager.save(step, STATE)
        kinds = object_server.kinds()
        assert kinds.count("PUT part") == 3
        assert [kind for kind in kinds if kind != "PUT part"] == steady[: 4 if step < 2 else 5]
    object_server.requests.clear()
    save(f"{bucket}/alone", STATE)
    assert [kind for kind in object_server.kinds() if kind != "PUT part"] == [
        "HEAD manifest.json",
        *steady[1:4],
    ]
    object_server.requests.clear()
    save(f"{bucket}/small", state(1))
    assert object_server.kinds() == ["HEAD manifest.json", "PUT data", "PUT manifest.json"]


def test_neighbours_are_read_by_one_request_and_of_a_slice_only_its_chunk(object_server, bucket):
    save(f"{bucket}/x", {"many": {f"{i}": np.full(500, i) for i in range(1000)}, **STATE})
    object_server.requests.clear()
    loaded = load(f"{bucket}/x", only="many")
    assert all((loaded["many"][f"{i}"] == i).all() for i in range(1000))
    assert object_server.kinds() == ["GET manifest.json", "HEAD data", "GET data"]
    with Checkpoint.open(f"{bucket}/x") as checkpoint:
        object_server.requests.clear()
        assert checkpoint["model/w"][1500, 2] == 1_500_002
    (request,) = object_server.requests
    first, last = map(int, request.range.removeprefix("bytes=").split("-"))
    assert last - first < 4 * 2**20


WRITER = """
import sys, numpy as np
from helix_kernel.checkpoint import save

def peak():  # not getrusage, which begins at what the parent had
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

# Transposed, so that what is sent has to be copied: of other arrays the memory itself is sent.
state = {f"w{i}": np.full((1024, 1024), i, np.float64).T for i in range(int(sys.argv[2]))}
save(sys.argv[1] + "/first", {"x": np.ones(10)})
before = peak()
save(sys.argv[1] + "/step-00000001", state)
print(peak() - before)
"""


def writer(bucket, n_arrays):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, bucket, str(n_arrays)], stdout=subprocess.PIPE, text=True
    )


def test_a_save_needs_little_memory_beside_the_state_though_the_server_is_slow(object_server, bucket):
    object_server.before = lambda request: time.sleep(0.2 * ("part" in request.kind))
    process = writer(bucket, 20)
    output, _ = process.communicate()
    assert process.returncode == 0
    assert int(output) < 64 * 1024  # KiB; the state has 160 MiB


def test_killed_between_parts_nothing_is_seen_and_the_next_save_works(object_server, bucket):
    reached, leave = threading.Event(), threading.Event()

    def hang(request):
        if "partNumber=3" in request.query and "step-00000001" in request.path:
            reached.set()
            leave.wait(60)

    object_server.before = hang
    process = writer(bucket, 20)
    try:
        assert reached.wait(60)
        process.kill()
        process.communicate()
    finally:
        leave.set()
    object_server.behave()
    assert keys(bucket)[1:] == ["first/manifest.json"]
    manager = CheckpointManager(bucket)
    assert manager.steps() == []
    manager.save(1, state(1))
    assert manager.load()["step"] == 1


def test_a_failed_upload_is_aborted_and_leaves_nothing(object_server, bucket):
    object_server.before = lambda request: 403 if "partNumber=2" in request.query else None
    with pytest.raises(CheckpointError, match=rf"cannot write checkpoint {bucket}/x: permission denied: "):
        save(f"{bucket}/x", STATE)
    assert "DELETE upload" in object_server.kinds()
    assert "PUT manifest.json" not in object_server.kinds()
    assert keys(bucket) == []


def test_a_pack_whose_manifest_is_refused_is_kept_for_it_may_have_come(object_server, bucket):
    object_server.before = lambda request: 403 if request.kind == "PUT manifest.json" else None
    with pytest.raises(CheckpointError, match="permission denied"):
        save(f"{bucket}/step-00000001", state(1))
    assert [key[:24] for key in keys(bucket)] == ["step-00000001/data-00000"]
    assert CheckpointManager(bucket).steps() == []


def test_a_manifest_whose_answer_was_lost_is_a_saved_step(object_server, bucket):
    lost = []

    def lose(request):
        if request.kind == "PUT manifest.json" and not lost:
            lost.append(request)
            return 500
        return None

    object_server.after = lose
    save(f"{bucket}/step-00000001", state(1))
    assert object_server.kinds().count("PUT manifest.json") == 2
    assert load(f"{bucket}/step-00000001")["step"] == 1


def actions(address):
    """What users do, each with an address that fails."""
    yield lambda: save(f"{address}/x" if isinstance(address, str) else address, {"w": np.ones(3)})
    yield lambda: load(address)
    yield lambda: CheckpointManager(address).steps()
    yield lambda: CheckpointManager(address).save(1, {"w": np.ones(3)})
    yield lambda: resolve(address)


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("no bucket", r"s3://nowhere.*: there is no such bucket: make it, or check its name"),
        ("no permission", r"s3://b.*: permission denied: the credentials must allow"),
        ("refused", r"S3Store.*: no answer from the server: check the network and the endpoint"),
        ("silent", r"S3Store.*: no answer from the server( in time)?: check the network"),
    ],
)
def test_trouble_is_one_line_that_names_the_place_and_what_to_do(object_server, bucket, trouble, message):
    retry = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}
    client = {"allow_http": True, "timeout": "400ms"}
    leave = threading.Event()
    if trouble == "no permission":
        object_server.before = lambda request: 403
    elif trouble == "silent":
        object_server.before = lambda request: leave.wait(60) and 403
    endpoint = "http://127.0.0.1:9" if trouble == "refused" else object_server.url
    address = {"no bucket": "s3://nowhere/run", "no permission": bucket}.get(
        trouble, S3Store("b", prefix="run", endpoint=endpoint, client_options=client, retry_config=retry)
    )
    try:
        for action in actions(address):
            started = time.monotonic()
            with pytest.raises(CheckpointError, match=message) as caught:
                action()
            assert "\n" not in str(caught.value)
            assert time.monotonic() - started < 10
    finally:
        leave.set()


def test_a_checkpoint_is_read_over_plain_http_and_not_written(object_server, bucket):
    save(f"{bucket}/step-00000001", STATE)
    url = f"{object_server.url}/{bucket.removeprefix('s3://')}/step-00000001"
    assert np.array_equal(load(url)["model"]["w"], STATE["model"]["w"])
    with pytest.raises(
        CheckpointError, match=rf"cannot write checkpoint {url}2: what is reached by plain http can"
    ):
        save(f"{url}2", {"x": np.ones(3)})
