"""The task by Lightning: runs the jobs on standard input, and leaves what each ends with."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from resume_task import (
    ACCUMULATE,
    BATCH_SIZE,
    CLIP_NORM,
    EMA_DECAY,
    LEARNING_RATE,
    WARM_UP,
    Job,
    Model,
    Rows,
    loss_of,
)
from serving import serve
from torch.utils.data import DataLoader


class Module(lightning.LightningModule):
    """The model, its loss, optimizer and schedule."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.model = Model()
        self.steps = steps

    def training_step(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the loss of a micro-batch."""
        return loss_of(self.model, rows)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return AdamW, and a linear warm-up before half a cosine, counted in steps."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=LEARNING_RATE)
        warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / WARM_UP, total_iters=WARM_UP)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps - WARM_UP)
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm_up, cosine], [WARM_UP])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class StatefulRows(Rows):
    """What torchdata documents for transforms that draw: the worker's generators are its state."""

    def state_dict(self) -> dict[str, Any]:
        """Return the generators of the process that makes the rows."""
        return generators()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put them back."""
        set_generators(state)


class MainGenerators(Callback):
    """Keeps the generators of the training process, which Lightning's checkpoints leave out.

    They go back in place after the loader has begun: it draws from them. Without workers the dataset's
    state is theirs.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.saved: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return them as they are."""
        return generators()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep them until training goes on."""
        self.saved = state if self.workers else None

    def on_train_batch_start(self, *_: Any) -> None:
        """Put them back before the first batch is trained on."""
        if self.saved is not None:
            set_generators(self.saved)
            self.saved = None


def generators() -> dict[str, Any]:
    """Return the state of the three global generators."""
    return {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "random": random.getstate()}


def set_generators(state: dict[str, Any]) -> None:
    """Put back what `generators` returned."""
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])
    random.setstate(state["random"])


def main(job: Job) -> None:
    """Train, and write down weights, average, optimizer and learning rate of the last checkpoint."""
    lightning.seed_everything(0, workers=True, verbose=False)
    folder = Path(job.out) / "checkpoints"
    callbacks: list[Callback] = [
        EMAWeightAveraging(decay=EMA_DECAY),
        ModelCheckpoint(dirpath=folder, every_n_train_steps=job.checkpoint_every, save_top_k=-1),
    ]
    if job.variant == "own":
        callbacks.append(MainGenerators(job.workers))
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=job.steps,
        accumulate_grad_batches=ACCUMULATE,
        gradient_clip_val=CLIP_NORM,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    # Its own state holds generators beside tensors, so the file is trusted to be more than weights.
    trainer.fit(
        Module(job.steps),
        loader(job),
        ckpt_path=newest(folder) if job.resume else None,
        weights_only=False if job.resume else None,
    )
    write_end(Path(job.out), newest(folder))


def loader(job: Job) -> DataLoader:
    """Return the loader of a variant."""
    own = {"draws": job.draws, "epoch_batches": job.epoch_batches, "row_seconds": job.row_seconds}
    dataset = StatefulRows(**own) if job.variant == "own" else Rows(**own)
    kind = DataLoader
    if job.variant:  # imported only here, since the import changes torch's own samplers
        from torchdata import stateful_dataloader

        kind = stateful_dataloader.StatefulDataLoader
    return kind(dataset, batch_size=BATCH_SIZE, shuffle=True, num_workers=job.workers)


def newest(folder: Path) -> Path:
    """Return the checkpoint of the latest step; of several, such as ``step=6-v1``, the youngest."""

    def age(path: Path) -> tuple[int, int]:
        step = path.stem.rpartition("step=")[2].partition("-")[0]
        return int(step), path.stat().st_mtime_ns

    return max(folder.glob("*.ckpt"), key=age)


def write_end(out: Path, checkpoint: Path) -> None:
    """Write the end of a run in the form that the comparison reads."""
    saved = torch.load(checkpoint, weights_only=False)
    optimizer = saved["optimizer_states"][0]
    end = {
        "weights": saved["current_model_state"],
        "EMA": saved["state_dict"],
        "optimizer": {f"{i}.{k}": v for i, slots in optimizer["state"].items() for k, v in slots.items()},
        "learning rate": {"": torch.tensor(optimizer["param_groups"][0]["lr"], dtype=torch.float64)},
    }
    torch.save(end, out / "end.pt")


if __name__ == "__main__":
    serve(main)
