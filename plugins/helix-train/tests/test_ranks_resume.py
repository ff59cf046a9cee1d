"""Checkpoints of several ranks: exact at the same number of them, readable at any, by any way of training."""

from __future__ import annotations

import parallel_runs
import pytest
import ranks
import torch
import zarr

from helix_kernel.checkpoint import Checkpoint, load
from helix_kernel.checkpoint.as_zarr import zarr_store
from helix_kernel.nesting import flatten

DRAWING = {"model.dropout": 0.4, "data.draws": True, "model.dtype": "float32"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks-resume")


def launch(directory, world, jobs):
    outcomes = ranks.run(directory, world, parallel_runs.train_all, jobs)
    assert all(isinstance(outcome, dict) for outcome in outcomes), outcomes
    for outcome in outcomes:
        assert [found["error"] for found in outcome.values()] == [None] * len(jobs)
    return outcomes


def step(directory, name, number):
    return directory / name / "checkpoints" / f"step-{number:08d}"


def job(directory, name, parallel, **changes):
    return {"trainer.parallel": parallel, "trainer.out": str(directory / name), **changes}


def resumed(directory, name, parallel, source, **changes):
    return job(directory, name, parallel, **{"trainer.resume": str(source)}, **changes)


@pytest.fixture(scope="module")
def of_four(directory):
    """Runs of six steps with a checkpoint at three, and the same run again from there."""
    first = {
        f"{way} {kind}": job(directory, f"{way}-{kind}", way, **options)
        for way in ("ddp", "fsdp2")
        for kind, options in (("drawing", DRAWING), ("plain", {}))
    }
    again = {
        f"{way} again": resumed(
            directory, f"{way}-again", way, step(directory, f"{way}-drawing", 3), **DRAWING
        )
        for way in ("ddp", "fsdp2")
    }
    return launch(directory, 4, first | again)


@pytest.mark.parametrize("way", ["ddp", "fsdp2"])
def test_a_run_of_four_ranks_resumes_to_the_bit(of_four, way):
    records = of_four[0][f"{way} drawing"]["records"]
    assert of_four[0][f"{way} again"]["records"] == [record for record in records if record["step"] > 3]
    for outcome in of_four:
        whole, again = outcome[f"{way} drawing"], outcome[f"{way} again"]
        assert all(torch.equal(whole["weights"][name], again["weights"][name]) for name in whole["weights"])


@pytest.mark.parametrize("way", ["ddp", "fsdp2"])
def test_each_rank_writes_a_share_and_zarr_and_the_kernel_read_the_whole(directory, of_four, way):
    path = step(directory, f"{way}-plain", 6)
    assert sorted(file.name for file in path.iterdir()) == [
        *(f"data-{rank:05d}.bin" for rank in range(4)),
        "manifest.json",
    ]
    state = load(path, as_torch=True)
    group = zarr.open(zarr_store(path), mode="r")
    for name, tensor in of_four[0][f"{way} plain"]["weights"].items():
        assert torch.equal(flatten(state["model"])[name], tensor)
        found = torch.as_tensor(group[f"model/{name.replace('.', '/')}"][...])
        assert torch.equal(found, tensor)
    assert set(state["rng"]) == {f"rank-{rank}" for rank in range(4)}
    assert not torch.equal(state["rng"]["rank-0"]["torch"], state["rng"]["rank-1"]["torch"])
    with Checkpoint.open(path) as checkpoint:
        checkpoint.verify()


@pytest.fixture(scope="module")
def elsewhere(directory, of_four):
    """What one, two and three ranks make of the checkpoints of four, and four of those of one."""
    found = {}
    for world, ways in ((1, ("none",)), (2, ("ddp", "fsdp2")), (3, ("ddp", "fsdp2"))):
        jobs = {}
        for way in ways:
            for source in ("ddp", "fsdp2"):
                plain, name = step(directory, f"{source}-plain", 3), f"{source}-to-{way}-{world}"
                more = {"trainer.accumulate": 4 // world} if world != 3 else {}
                jobs[f"{source} to {way}"] = resumed(directory, name, way, plain, **more)
                stop = {"trainer.steps": 3}
                jobs[f"{source} read by {way}"] = resumed(directory, f"{name}-read", way, plain, **stop)
        found[world] = launch(directory, world, jobs)
    alone = step(directory, "ddp-to-none-1", 6)
    jobs = {
        way: resumed(directory, f"{way}-from-one", way, alone, **{"trainer.steps": 6})
        for way in ("ddp", "fsdp2")
    }
    found[4] = launch(directory, 4, jobs)
    return found


@pytest.mark.parametrize("source", ["ddp", "fsdp2"])
@pytest.mark.parametrize(("world", "way"), [(1, "none"), (2, "ddp"), (2, "fsdp2"), (3, "ddp"), (3, "fsdp2")])
def test_what_four_ranks_wrote_is_read_by_fewer_to_the_bit(directory, elsewhere, world, way, source):
    saved = flatten(load(step(directory, f"{source}-plain", 3), as_torch=True)["model"])
    for outcome in elsewhere[world]:
        found = outcome[f"{source} read by {way}"]["weights"]
        assert found.keys() == saved.keys()
        assert all(torch.equal(found[name], saved[name]) for name in saved)
    shown = elsewhere[world][0][f"{source} read by {way}"]["shown"]
    assert f"note: of 4 ranks are now {world}, whose random numbers begin anew" in shown


@pytest.mark.parametrize("source", ["ddp", "fsdp2"])
@pytest.mark.parametrize(("world", "way"), [(1, "none"), (2, "ddp"), (2, "fsdp2")])
def test_fewer_ranks_go_on_with_the_same_rows(of_four, elsewhere, world, way, source):
    whole = [record for record in of_four[0][f"{source} plain"]["records"] if record["step"] > 3]
    found = elsewhere[world][0][f"{source} to {way}"]["records"]
    assert len(found) == len(whole) == 4
    for record, expected in zip(found, whole, strict=True):
        assert record == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("way", ["ddp", "fsdp2"])
def test_what_one_process_wrote_is_read_by_four(elsewhere, way):
    written = elsewhere[1][0]["ddp to none"]["weights"]
    for outcome in elsewhere[4]:
        assert all(torch.equal(outcome[way]["weights"][name], written[name]) for name in written)
