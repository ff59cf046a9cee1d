"""Ranks that each hold the whole model and average its gradients: ``trainer.parallel = "ddp"``."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from helix_kernel.errors import HelixError
from helix_train.ranks.several import SeveralRanks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

_BUCKET_BYTES = 25 * 2**20
_SHOWN = 3


class DataParallel(SeveralRanks):
    """A rank whose gradients are joined by torch's DistributedDataParallel.

    Where the model is run by ``extend``, chunk by chunk, which DistributedDataParallel does not see, the
    gradients are averaged here instead, after the backward pass of the last micro-batch.

    Every rank goes on with the buffers of rank 0 after each step.
    """

    _wrapped: DistributedDataParallel | None = None

    def prepare(self, model: torch.nn.Module, *, streams: bool) -> torch.nn.Module:
        """Return the model in a wrapper; see `Ranks.prepare`.

        Raises:
            HelixError: The ranks have built different models.
        """
        self._require_alike(model)
        self._model = model
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if streams:
            return model
        self._arrived: set[str] = set()
        for name, parameter in self._trained.items():
            parameter.register_post_accumulate_grad_hook(self._noting(name))  # type: ignore[no-untyped-call]
        self._wrapped = _with_fixed_buckets(model)
        return self._wrapped

    @contextmanager
    def accumulating(self, *, last: bool) -> Iterator[None]:
        """Join gradients and buffers in the last micro-batch; see `Ranks.accumulating`.

        Raises:
            HelixError: A parameter had no part in the loss.
        """
        if self._wrapped is None:
            yield
        else:
            self._arrived.clear()
            with nullcontext() if last else self._wrapped.no_sync():
                yield
        if last:
            if self._wrapped is None:
                self._average_gradients()
            else:
                self._require_gradients()
            self._share_buffers()

    def _noting(self, name: str) -> Callable[[Tensor], None]:
        return lambda _: self._arrived.add(name)

    def _require_gradients(self) -> None:
        absent = [name for name in self._trained if name not in self._arrived]
        if absent:
            more = f" and {len(absent) - _SHOWN} more" if len(absent) > _SHOWN else ""
            raise HelixError(
                f"no gradient came to {', '.join(absent[:_SHOWN])}{more}, for which trainer.parallel='ddp' "
                "would wait; let every weight have a part in the loss, or freeze it by requires_grad_(False)"
            )

    @torch.no_grad()
    def _average_gradients(self) -> None:
        """Average gradients over ranks; one that some ranks lack counts as zeros there."""
        has = torch.tensor([p.grad is not None for p in self._trained.values()], dtype=torch.float64)
        anywhere = self._of_all(has).amax(dim=0).tolist()
        own = [p for p, wanted in zip(self._trained.values(), anywhere, strict=True) if wanted]
        for parameter in own:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([p.grad for p in own if p.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            distributed.all_reduce(flat)
            flat /= self.world_size
            parts = torch.split(flat, [gradient.numel() for gradient in bucket])
            for gradient, mean in zip(bucket, parts, strict=True):
                gradient.copy_(mean.view_as(gradient))


class _Pass(torch.nn.Module):
    """A forward pass of a model; or, of no inputs, a zero with gradients of zeros for all weights."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any, **options: Any) -> Any:
        if inputs:
            return self.model(*inputs, **options)
        sums = [parameter.sum() for parameter in self.model.parameters() if parameter.requires_grad]
        return sum((total.real if total.is_complex() else total).float() * 0 for total in sums)


def _with_fixed_buckets(model: torch.nn.Module) -> DistributedDataParallel:
    """Wrap a model so that gradients are summed in the same order from the first step on.

    In which buckets gradients go, and with that the order in which three or more ranks sum an element, torch
    decides anew after the first backward pass. A run that resumes would so round its first step otherwise.
    Hence that pass is one over nothing but zeros, which comes before all steps.
    """
    wrapped = DistributedDataParallel(
        _Pass(model), forward_sync_buffers=False, init_sync=False, gradient_as_bucket_view=True
    )
    wrapped().backward()
    wrapped.zero_grad(set_to_none=True)
    return wrapped


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield tensors in lists of one dtype and at most some size, in an order that depends on nothing else."""
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_dtype.setdefault(tensor.dtype, []).append(tensor)
    for alike in by_dtype.values():
        bucket: list[Tensor] = []
        for tensor in alike:
            if bucket and sum(other.nbytes for other in bucket) + tensor.nbytes > _BUCKET_BYTES:
                yield bucket
                bucket = []
            bucket.append(tensor)
        yield bucket
