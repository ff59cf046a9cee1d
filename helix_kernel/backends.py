"""Backends: who implements an op for a type of device, and the choice among them.

The choice is made for the whole process, with PyTorch's own dispatcher, and can be taken back.
"""

from __future__ import annotations

from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from helix_kernel._shortcut import CPU_KERNELS
from helix_kernel.errors import ArgumentError, UnknownNameError, did_you_mean
from helix_kernel.ops import NAMESPACE, reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import torch

AUTO = "auto"
REFERENCE = "reference"
ANY_DEVICE = "any"


@attrs.frozen
class Probe:
    """Whether a backend can work on this machine.

    Args:
        available: Whether it can.
        reason: What was found, or what is missing.
        devices: The devices it would use, in words.
    """

    available: bool
    reason: str
    devices: tuple[str, ...] = ()


@attrs.frozen
class Memory:
    """Memory of a device, in bytes.

    Args:
        total: All that it has.
        available: What an allocation could still get.
    """

    total: int
    available: int


class Backend(Protocol):
    """What a backend must be. `probe` and `memory` import what they need; `ops` may be empty.

    An implementation takes the op's arguments by position, as its contract's schema lists them,
    and returns what the contract's reference would. It may return ``NotImplemented`` for arguments
    that it does not support: the next backend, and in the end the reference, is called instead.
    Gradients are ops of their own, ``<op>_backward``; one that is missing is the reference's.

    A backend may have an attribute ``withheld`` too, a mapping of names of ops to reasons: those that it
    implements but does not offer in `ops` on this machine, since its own check found them wrong.
    """

    @property
    def device_type(self) -> str:
        """Type of the devices served, as in ``torch.device``; ``"any"`` for the CPU and the accelerator."""

    @property
    def priority(self) -> int:
        """Rank among the backends that serve an op: the highest comes first.

        One below 0, as of an interpreter, serves only where it is named, and not for ``"auto"``.
        """

    @property
    def ops(self) -> Mapping[str, Callable[..., Any]]:
        """Implementations by name of op."""

    def probe(self) -> Probe:
        """Look whether this machine has what the backend needs."""

    def memory(self, index: int = 0) -> Memory | None:
        """Return the memory of a device, or None where it cannot be told."""


@attrs.frozen
class Offer:
    """What one backend brought to a selection.

    Args:
        device_types: Types of the devices that it serves here.
        priority: Its rank.
        probe: What its probe said.
        ops: Names of the ops that it implements.
        withheld: Why it does not offer others that it has, by name of op.
    """

    device_types: tuple[str, ...]
    priority: int
    probe: Probe
    ops: frozenset[str]
    withheld: Mapping[str, str] = MappingProxyType({})

    @property
    def serves_unnamed(self) -> bool:
        """Whether ``"auto"`` stands for it."""
        return self.probe.available and self.priority >= 0


@attrs.frozen
class Service:
    """Who serves an op on a type of device.

    Args:
        op: Name of the op.
        device_type: Type of the device.
        chain: The backends that are asked, in order, the last one being ``"reference"``.
        passed_over: Why each other backend does not serve.
    """

    op: str
    device_type: str
    chain: tuple[str, ...]
    passed_over: Mapping[str, str]

    @property
    def serving(self) -> str:
        """The backend that is asked first, or ``"reference"``."""
        return self.chain[0]


@attrs.frozen
class Selection:
    """A choice of backends, in force or not, and the reasons for it.

    Args:
        requested: The names that were asked for.
        chosen: The backends chosen, the most wanted first.
        offers: What each known backend brought, by name.
    """

    requested: tuple[str, ...]
    chosen: tuple[str, ...]
    offers: Mapping[str, Offer]

    @property
    def device_types(self) -> tuple[str, ...]:
        """The types of device for which some chosen backend serves; always the CPU."""
        served = (kind for name in self.chosen for kind in self.offers[name].device_types)
        return tuple(dict.fromkeys(["cpu", *served]))

    def services(self, ops: Iterable[str]) -> list[Service]:
        """Say for each op, on each type of device, who serves it and why the others do not."""
        return [self.service(op, device_type) for op in ops for device_type in self.device_types]

    def service(self, op: str, device_type: str) -> Service:
        """Say who serves an op on a type of device, and why the others do not."""
        chain = tuple(name for name in self.chosen if self._why_not(name, op, device_type) is None)
        reasons = {name: self._why_not(name, op, device_type) for name in self.offers}
        passed_over = {name: reason for name, reason in reasons.items() if reason is not None}
        passed_over |= {
            name: f"asked where {chain[0]} declines (priority {self.offers[name].priority})"
            for name in chain[1:]
        }
        return Service(op, device_type, (*chain, REFERENCE), passed_over)

    def as_dict(self) -> dict[str, Any]:
        """Return the record that checkpoints and benchmark tables keep: plain values only."""
        return {
            "requested": list(self.requested),
            "chosen": {name: sorted(self.offers[name].ops) for name in self.chosen},
        }

    def _why_not(self, name: str, op: str, device_type: str) -> str | None:
        offer = self.offers[name]
        if not offer.probe.available:
            return f"not available: {offer.probe.reason}"
        if op not in offer.ops:
            return f"withheld: {offer.withheld[op]}" if op in offer.withheld else "does not implement it"
        if device_type not in offer.device_types:
            return f"serves {' and '.join(offer.device_types)} only"
        if name in self.chosen:
            return None
        if AUTO in self.requested:
            return f"serves only where it is named (priority {offer.priority})"
        return f"not among the backends asked for: {list(self.requested)}"


class BackendSelector:
    """Chooses, for the whole process, which of the known backends serve ops.

    Args:
        backends: The backends by name.
    """

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self.backends = dict(backends)

    def use(self, names: Sequence[str]) -> Selection:
        """Put a choice into force, in place of the one before.

        Args:
            names: ``["auto"]`` for every available backend by priority, from 0, ``["reference"]`` for
                none, or names, the most wanted first; ``"auto"`` after names stands for the rest.

        Returns:
            The selection, now in force.

        Raises:
            UnknownNameError: No backend has that name.
            ArgumentError: A backend that is named is not available here, or no name is given.
        """
        selection = self.select(names)
        _PROCESS.replace(_Registration(selection, self.backends))
        return selection

    @contextmanager
    def using(self, names: Sequence[str]) -> Iterator[Selection]:
        """Put a choice into force until the block ends; then the one before comes back."""
        selection = self.select(names)
        before = _PROCESS.replace(_Registration(selection, self.backends))
        try:
            yield selection
        finally:
            _PROCESS.replace(before)

    def select(self, names: Sequence[str]) -> Selection:
        """Make a choice without putting it into force; raises as `use` does."""
        requested = tuple(names)
        self._check(requested)
        offers = {name: _offer(backend) for name, backend in self.backends.items()}
        ranked = sorted(offers, key=lambda name: (-offers[name].priority, name))
        chosen: dict[str, None] = {}
        for name in requested:
            if name == AUTO:
                chosen |= dict.fromkeys(other for other in ranked if offers[other].serves_unnamed)
            elif name != REFERENCE:
                if not offers[name].probe.available:
                    raise ArgumentError(f"backend {name!r} is not available: {offers[name].probe.reason}")
                chosen[name] = None
        return Selection(requested, tuple(chosen), offers)

    def _check(self, names: tuple[str, ...]) -> None:
        known = [AUTO, REFERENCE, *self.backends]
        for name in names:
            if name not in known:
                raise UnknownNameError(
                    f"no backend is named {name!r}; known are {known}.{did_you_mean(name, known)}"
                )
        if not names or (REFERENCE in names and len(names) > 1):
            raise ArgumentError(
                f"backends are {list(names)}, allowed is ['auto'], ['reference'] or names of backends"
            )


def current() -> Selection | None:
    """Return the selection in force, or None where none was made: then references serve all ops."""
    registration = _PROCESS.registration
    return None if registration is None else registration.selection


class _Registration:
    """A selection and what it registers with the dispatcher.

    Args:
        selection: The choice.
        backends: The backends, by name, from which it was made.
    """

    def __init__(self, selection: Selection, backends: Mapping[str, Backend]) -> None:
        self.selection = selection
        self._backends = {name: backends[name] for name in selection.chosen}
        self._library: torch.library.Library | None = None

    def enter(self) -> None:
        """Register a kernel for each op and type of device that some backend serves."""
        ops = sorted({op for backend in self._backends.values() for op in backend.ops})
        if not ops:
            return
        import torch

        self._library = torch.library.Library(NAMESPACE, "IMPL")  # type: ignore[no-untyped-call]  # torch
        for service in self.selection.services(ops):
            implementations = [self._backends[name].ops[service.op] for name in service.chain[:-1]]
            if implementations:
                kernel = _chained(service.op, implementations)
                self._library.impl(service.op, kernel, service.device_type.upper())  # type: ignore[no-untyped-call]  # torch
                if service.device_type == "cpu":
                    CPU_KERNELS[service.op] = kernel

    def leave(self) -> None:
        """Take the kernels back; what was registered under them serves again."""
        if self._library is not None:
            CPU_KERNELS.clear()
            self._library._destroy()  # type: ignore[no-untyped-call]  # noqa: SLF001 - else when collected
            self._library = None


@attrs.define
class _Process:
    """The one registration in force: PyTorch's dispatcher has one table for the process."""

    registration: _Registration | None = None

    def replace(self, registration: _Registration | None) -> _Registration | None:
        """Put a registration into force, and return the one before."""
        before = self.registration
        if before is not None:
            before.leave()
        self.registration = registration
        if registration is not None:
            registration.enter()
        return before


_PROCESS = _Process()


def _offer(backend: Backend) -> Offer:
    probe = backend.probe()
    anywhere = probe.available and backend.device_type == ANY_DEVICE
    device_types = _present_device_types() if anywhere else (backend.device_type,)
    withheld = getattr(backend, "withheld", {}) if probe.available else {}
    return Offer(
        device_types, backend.priority, probe, frozenset(backend.ops), MappingProxyType(dict(withheld))
    )


def _present_device_types() -> tuple[str, ...]:
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return ("cpu",) if accelerator is None else ("cpu", accelerator.type)


def _chained(op: str, implementations: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """Ask each implementation in turn, and in the end the op's reference."""

    def kernel(*args: Any) -> Any:
        for implementation in implementations:
            results = implementation(*args)
            if results is not NotImplemented:
                return results
        return reference(op)(*args)

    return kernel
