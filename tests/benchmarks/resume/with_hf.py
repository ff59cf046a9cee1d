"""The task by Hugging Face's Trainer: runs the jobs on standard input, and leaves what each ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
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
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint


class WithLoss(nn.Module):
    """The model as the Trainer wants it: returns its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()

    def forward(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the loss of a micro-batch."""
        return {"loss": loss_of(self.model, rows)}


class EMA(TrainerCallback):
    """An average of the weights; the Trainer has none, so its user saves and loads it beside a checkpoint."""

    def __init__(self, checkpoint: str | None) -> None:
        self.checkpoint = checkpoint
        self.average: AveragedModel | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: nn.Module, **_: Any) -> None:
        """Begin with the weights, or with the average of the checkpoint."""
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
        if self.checkpoint:
            self.average.load_state_dict(torch.load(Path(self.checkpoint) / "ema.pt"))

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: nn.Module, **_: Any) -> None:
        """Take the new weights into the average."""
        self.average.update_parameters(model)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the average into the checkpoint that was just written."""
        torch.save(
            self.average.state_dict(),
            Path(args.output_dir) / f"checkpoint-{state.global_step}" / "ema.pt",
        )


def main(job: Job) -> None:
    """Train, and write down weights, average, optimizer and learning rate of the last checkpoint."""
    folder = Path(job.out) / "checkpoints"
    checkpoint = get_last_checkpoint(str(folder)) if job.resume else None
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=job.steps,
        save_steps=job.checkpoint_every,
        per_device_train_batch_size=BATCH_SIZE,
        gradient_accumulation_steps=ACCUMULATE,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine",
        warmup_steps=WARM_UP,
        max_grad_norm=CLIP_NORM,
        dataloader_num_workers=job.workers,
        dataloader_pin_memory=False,
        ignore_data_skip=job.variant == "ignore-data-skip",
        remove_unused_columns=False,
        seed=0,
        data_seed=0,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    set_seed(0)
    trainer = Trainer(
        WithLoss(),
        arguments,
        data_collator=lambda rows: {"rows": torch.stack(rows)},
        train_dataset=Rows(draws=job.draws, epoch_batches=job.epoch_batches, row_seconds=job.row_seconds),
        callbacks=[EMA(checkpoint)],
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    write_end(Path(job.out), Path(get_last_checkpoint(str(folder))))


def write_end(out: Path, checkpoint: Path) -> None:
    """Write the end of a run in the form that the comparison reads."""
    optimizer = torch.load(checkpoint / "optimizer.pt")
    end = {
        "weights": safetensors.torch.load_file(checkpoint / "model.safetensors"),
        "EMA": torch.load(checkpoint / "ema.pt"),
        "optimizer": {f"{i}.{k}": v for i, slots in optimizer["state"].items() for k, v in slots.items()},
        "learning rate": {"": torch.tensor(optimizer["param_groups"][0]["lr"], dtype=torch.float64)},
    }
    torch.save(end, out / "end.pt")


if __name__ == "__main__":
    serve(main)
