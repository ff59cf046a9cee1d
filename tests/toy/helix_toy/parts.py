"""What the toy components build: objects that keep the arguments they were called with."""

from __future__ import annotations

from pathlib import Path

from helix_kernel.errors import ArgumentError
from helix_toy.config import Window


class Block:
    def __init__(
        self,
        *,
        d_model,
        d_state=16,
        rate=0.1,
        mode="fast",
        label="block",
        active=True,
        sizes=(1, 2),
        pair=(1, 0.5),
        limits=None,
        window=Window(),  # noqa: B008 - frozen
        maximum=None,
        either="auto",
        where=Path("here"),
    ):
        self.arguments = {name: value for name, value in locals().items() if name != "self"}


class Stack:
    def __init__(self, n_layers=2, d_model=8, block=None, head=None, extras=None):
        self.blocks = [block(d_model=d_model) for _ in range(n_layers)]
        self.head = head
        self.extras = [extra(d_model=d_model) for extra in extras or ()]


class Range:
    def __init__(self, low=0, high=1):
        self.low, self.high = low, high


def scale(factor: float, *, offset: int = 0, tags: list[str] | None = None):
    """Return what it was given: a component without a config class."""
    return {"factor": factor, "offset": offset, "tags": tags}


def anything(**options):
    """Return what it was given, whatever it is."""
    return options


def loose(table={"inner": []}, make=list):  # noqa: B006 - a default that could be changed is the point
    """Return what it was given, of types that nobody says, one of which no file can hold."""
    return make(table)


def refuse():
    raise ArgumentError("refused")


def crash():
    raise RuntimeError("crashed")
