"""What each of several processes does in the tests of distributed checkpoints, and how they are started."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
import warnings
from datetime import timedelta

import torch
from torch import distributed
from torch.distributed.checkpoint import FileSystemWriter, async_save
from torch.distributed.checkpoint import save as torch_save
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from helix_kernel.checkpoint import layout
from helix_train.distributed_checkpoint import (
    HelixSavePlanner,
    HelixStorageWriter,
    load_sharded,
    pack_of_rank,
    save_sharded,
    storage_writer,
)

START_S, COLLECTIVE_S = 120, 60
PRELOADED = [
    "torch._dynamo",  # DTensor imports it at its first use
    "torch.distributed.fsdp",
    "torch.distributed.checkpoint.state_dict",
    "helix_train.distributed_checkpoint",
]


def run(directory, world, work, *args):
    """Run ``work(*args)`` as each rank of a group and return, by rank, what it returned.

    A process that died is its exit code, one that raised is the text of what it raised.
    """
    context = multiprocessing.get_context("forkserver")  # forks from a process that has loaded torch
    context.set_forkserver_preload(PRELOADED)
    store = directory / f"store-{time.monotonic_ns()}"  # a file, so that no port can be taken by another
    pipes = [context.Pipe(duplex=False) for _ in range(world)]
    processes = [
        context.Process(target=_rank, args=(rank, world, str(store), pipes[rank][1], work, args))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for _, sender in pipes:
        sender.close()
    deadline = time.monotonic() + START_S
    try:
        return [_outcome(*pair, deadline) for pair in zip(processes, (r for r, _ in pipes), strict=True)]
    finally:
        for process in processes:
            process.kill()
            process.join()
            process.close()


def _outcome(process, receiver, deadline):
    if not receiver.poll(max(0.0, deadline - time.monotonic())):
        return "timed out"
    try:
        return pickle.loads(receiver.recv_bytes())
    except EOFError:  # it died
        process.join(5)
        return process.exitcode


def _rank(rank, world, store, sender, work, args):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    try:
        distributed.init_process_group(
            "gloo",
            init_method=f"file://{store}",
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=COLLECTIVE_S),
        )
        outcome = work(*args)
    except BaseException:  # noqa: BLE001 - torch raises such, and the test is to see it
        outcome = traceback.format_exc()
    sender.send_bytes(pickle.dumps(outcome))
    sender.close()
    if distributed.is_initialized():
        distributed.destroy_process_group()


def tensors():
    """The whole tensors that are sharded: the same on every rank and in the test itself."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "rows": (10, 3),
        "columns": (4, 10),
        "few": (3, 5),
        "vector": (7,),
        "grid": (9, 7),
        "twice": (10, 2),
        "hybrid": (6, 2),
        "replicated": (3, 2),
        "plain": (2, 3),
        "scalar": (),
        "empty": (0, 4),
        "cube": (5, 6, 7),
    }
    found = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    found["columns"] = found["columns"].bfloat16()
    found["grid"] = found["grid"].double()
    found["vector"] = torch.arange(7)
    return found


def sharded(whole, world, *, other=False):
    """Distribute the tensors over all ranks; `other` parts them along other axes."""
    line = init_device_mesh("cpu", (world,))
    square = init_device_mesh("cpu", (2, 2)) if world == 4 else None
    on_line = {"rows": 0, "columns": 1, "few": 0, "vector": 0, "empty": 0, "cube": 1}
    if other:
        on_line |= {"rows": 1, "columns": 0, "cube": 2, "grid": 1, "twice": 0, "hybrid": 0}
    state = {name: distribute_tensor(whole[name], line, [Shard(axis)]) for name, axis in on_line.items()}
    state["replicated"] = distribute_tensor(whole["replicated"], line, [Replicate()])
    if not other:
        two = {"grid": [Shard(0), Shard(1)], "twice": [Shard(0), Shard(0)], "hybrid": [Replicate(), Shard(0)]}
        for name, placements in two.items():
            state[name] = distribute_tensor(whole[name], square or line, placements if square else [Shard(0)])
    return {name: state.get(name, whole[name].clone()) for name in whole}


def same_bits(left, right):
    left, right = (t.to_local() if isinstance(t, DTensor) else t for t in (left, right))
    if (left.shape, left.dtype) != (right.shape, right.dtype):
        return False
    return torch.equal(*(t.contiguous().reshape(-1).view(torch.uint8) for t in (left, right)))


def written_by(state, world):
    """What the tests save: tensors nested and tied, and values."""
    values = {"step": 7, "lr": 0.1, "betas": (0.9, 0.999), "names": ["a", None], "last": float("nan")}
    return {"model": {"tensors": state, "blocks.0.weight": state["rows"]}, "run": values, "world": world}


def write(path, by_torch, chunk_bytes):
    layout.CHUNK_BYTES = chunk_bytes
    rank, world = distributed.get_rank(), distributed.get_world_size()
    state = written_by(sharded(tensors(), world), world)
    if rank == 1:
        state["only"] = {"one": torch.ones(3)}
    os.chdir(path.parent if rank == 0 else "/")
    save_sharded(path.name, state, attributes={"rank": rank})
    torch_save(state["model"]["tensors"], storage_writer=FileSystemWriter(by_torch))


def write_compressed(path):
    """Save tensors compressed, each parted along its first axis; and one that every rank holds whole."""
    line = init_device_mesh("cpu", (distributed.get_world_size(),))
    whole = compressible()
    state = {name: distribute_tensor(tensor, line, [Shard(0)]) for name, tensor in whole.items()}
    state["whole"] = whole["weights"]
    save_sharded(path, {"tensors": state, "step": 7}, compression="bitshuffle-lz4")


def compressible():
    """Whole tensors: shrinking everywhere, nowhere, and only in what some ranks hold."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(-(2**62), 2**62, (1000, 16), generator=generator)
    mostly = noise.clone()
    mostly[:900] = 0
    barely = noise.clone()
    barely[:10] = 0
    weights = torch.randn(1001, 304, generator=generator)
    return {
        "zeros": torch.zeros(999, 33),
        "noise": noise,
        "mostly": mostly,
        "barely": barely,
        "weights": weights,
    }


def write_in_background(path):
    """Let torch's own async save copy the tensors, then change them while it writes."""
    state = sharded(tensors(), distributed.get_world_size())
    writing = async_save(
        {"tensors": state, "step": 7}, storage_writer=HelixStorageWriter(path), planner=HelixSavePlanner()
    )
    for tensor in state.values():
        (tensor.to_local() if isinstance(tensor, DTensor) else tensor).zero_()
    writing.result()


def read(path, other):
    """Read into zeros, parted anew, and return which tensors are not what they should be."""
    world = distributed.get_world_size()
    expected = sharded(tensors(), world, other=other)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in tensors().items()}
    state = written_by(sharded(zeros, world, other=other), None)
    state["run"] = None
    load_sharded(path, state)
    found = state["model"]["tensors"]
    return (
        [name for name in found if not same_bits(found[name], expected[name])],
        state["run"],
        state["world"],
    )


class TinyModel(torch.nn.Module):
    """Layers whose sizes no number of ranks divides, and tied weights."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(7, 5)
        self.second = torch.nn.Linear(5, 7, bias=False)
        self.third = torch.nn.Linear(7, 3)

    def forward(self, x):
        return self.third(self.second(torch.tanh(self.first(x))))


def trained_state(steps, *, seed=0):
    torch.manual_seed(seed)
    model = TinyModel().to(torch.bfloat16)
    fully_shard(model, mesh=init_device_mesh("cpu", (distributed.get_world_size(),)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01 if seed == 0 else 0.5)
    train(model, optimizer, range(steps))
    return model, optimizer


def train(model, optimizer, steps):
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(4, 7, generator=generator, dtype=torch.bfloat16)).square().mean().backward()
        optimizer.step()


def full(model, optimizer):
    """The state of a model and its optimizer as whole tensors, by name."""
    model_state, optimizer_state = get_state_dict(model, optimizer)
    nested = {f"model.{name}": tensor for name, tensor in model_state.items()}
    for name, slots in optimizer_state["state"].items():
        nested |= {f"optimizer.{name}.{slot}": tensor for slot, tensor in slots.items()}
    return {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in nested.items()}


def save_model(path):
    model, optimizer = trained_state(2)
    model_state, optimizer_state = get_state_dict(model, optimizer)
    save_sharded(path, {"model": model_state, "optimizer": optimizer_state})
    saved = full(model, optimizer)
    train(model, optimizer, range(2, 4))
    return saved, full(model, optimizer)


def load_model(path):
    model, optimizer = trained_state(1, seed=1)
    model_state, optimizer_state = get_state_dict(model, optimizer)
    load_sharded(path, {"model": model_state, "optimizer": optimizer_state})
    set_state_dict(model, optimizer, model_state_dict=model_state, optim_state_dict=optimizer_state)
    loaded = full(model, optimizer)
    train(model, optimizer, range(2, 4))
    return loaded, full(model, optimizer), optimizer.param_groups[0]["lr"]


def save_until(path, dying):
    """Save, but one rank is killed when its pack is half written."""
    rank, world = distributed.get_rank(), distributed.get_world_size()

    def write_and_die(pack, parts):
        pack_of_rank.write_pack(pack, parts[: len(parts) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    if rank == dying:
        storage_writer.write_pack = write_and_die
    return error_of(save_sharded, path, sharded(tensors(), world))


def fail(path, missing):
    """Everything that goes wrong on one rank, one after the other: what all of them say."""
    rank, world = distributed.get_rank(), distributed.get_world_size()
    state = sharded(tensors(), world)
    write_pack = storage_writer.write_pack

    def full_disk(pack, parts):
        write_pack(pack, parts[:1])
        raise OSError(28, "No space left on device")

    if rank == 2:
        storage_writer.write_pack = full_disk
    told = {"full disk": error_of(save_sharded, path, state)}
    if rank == 2:
        storage_writer.write_pack = lambda pack, parts: write_pack(pack.parent / "unseen" / pack.name, parts)
    told["not shared"] = error_of(save_sharded, path, state)
    storage_writer.write_pack = write_pack
    told["value"] = error_of(save_sharded, path, {**state, "run": {"loss": rank // 3}})
    told["kind"] = error_of(save_sharded, path, {**state, "run": {"at": object() if rank == 3 else None}})
    told["shape"] = error_of(save_sharded, path, {**state, "plain": torch.zeros(2 + rank)})
    told["misfit"] = error_of(load_sharded, missing, {"rows": torch.zeros(10, 4)})
    told["missing"] = error_of(load_sharded, f"{missing}-nowhere", {"rows": state["rows"]})
    return told


def load_damaged(path):
    return error_of(load_sharded, path, written_by(sharded(tensors(), distributed.get_world_size()), 0))


def error_of(call, *args):
    try:
        call(*args)
    except Exception as error:  # noqa: BLE001 - the test is to see any
        return f"{type(error).__name__}: {error}"
    return None
