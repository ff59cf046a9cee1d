"""The words of the document on resuming."""

INTRODUCTION = """\
The task is the same for all: a byte language model (embedding, GRU, dropout, projection), AdamW, a cosine
schedule with warm-up, clipping of the gradient's norm, two micro-batches a step, an exponential moving
average of the weights, and a map-style dataset that crops with torch's generator, masks with NumPy's and
replaces a byte with Python's. An epoch has 5 steps, a run 12; a checkpoint is written every 3. The run is
killed by SIGKILL in the second micro-batch of a step (the eighth; the fifth where the table says *first
epoch*), which is in the middle of an epoch and of a step, and resumed from its last checkpoint. It is
compared with a run of the same trainer that never stopped: the bytes of each micro-batch after the
checkpoint, the losses, and what the last checkpoint holds of weights, optimizer, EMA and learning rate.
*Exact* is: all of that is equal to the bit. Where the number of workers changes, the run that never stopped
has the first number.
"""

NOTES = """\
*Rows made* are those that the dataset had made when the first micro-batch after the resume was trained on: a
batch has four, and the HF Trainer fetches a step's micro-batches and one more before it trains on the first.
They are counted, so they depend on no machine; seconds are from the start of a process that has imported
everything, medians of three, with a dataset whose batch takes 5 ms.

## How each is used

- **helix**: `helix train` with a config; the dataset and the model come from a plugin in the benchmark's
  folder. A dataset of Helix is asked for a batch by its number, and the generators are seeded from seed and
  number before each; whoever brings an iterator instead of that has to give it a number first.
- **Lightning**: `Trainer`, `ModelCheckpoint(every_n_train_steps)`, `ckpt_path`, `EMAWeightAveraging`,
  `seed_everything(workers=True)`. Its checkpoints hold no state of the random generators; an earlier attempt
  at that (fault-tolerant training) was [given
  up](https://github.com/Lightning-AI/lightning/issues/18780), and a plain loader that stops in the middle of
  an epoch [is warned about](https://github.com/Lightning-AI/pytorch-lightning/issues/19764). Without the
  generators' states the model's own dropout draws other numbers too.
- **Lightning, StatefulDataLoader**: torchdata's loader, whose state [Lightning
  saves](https://github.com/Lightning-AI/pytorch-lightning/pull/19361). The order of rows is its; what a
  dataset draws is not.
- **own code**: the dataset has `state_dict` and `load_state_dict` for its generators, as [torchdata
  documents](https://pytorch.org/data/0.8/stateful_dataloader_tutorial.html)
  for transforms that draw, and a callback keeps those of the training process. It is the best that we found
  to write; somebody else may find better.
- **HF Trainer**: `resume_from_checkpoint`, with the default that skips what was trained on. It loads the
  generators' states after it has fetched the first batches of the resumed step, which [a pull
  request](https://github.com/huggingface/transformers/pull/46628) describes for datasets that draw; it was
  closed. The Trainer has no EMA; the one here is a callback that its user writes.
  `ignore_data_skip=True` is documented to train on other data, so only its cost is measured. An option for a
  stateful loader exists in Accelerate, and none in the Trainer's arguments.

## What this does not show

One process on a CPU; no GPU kernel that adds in another order, no change of the number of ranks. Generators
other than the global ones (a bare `numpy.random.default_rng()`) are out of Helix's reach. Each trainer is
compared with itself: the numbers of one say nothing about another's losses.
"""
