"""The toy manifest: a plugin as a third party would write it."""

from __future__ import annotations

import helix_kernel
from helix_kernel import Component, Kind


@helix_kernel.hookimpl
def helix_kinds():
    return [Kind(name="gadget", plural="gadgets", section="gadget", default="range")]


@helix_kernel.hookimpl
def helix_layers():
    parts = "helix_toy.parts"
    return [
        Component(
            name="block",
            target=f"{parts}:Block",
            config="helix_toy.config:BlockConfig",
            summary="one of everything",
            aliases=("brick",),
            deprecated={"blok": "1.1"},
        ),
        Component(name="stack", target=f"{parts}:Stack", config="helix_toy.config:StackConfig"),
        Component(name="scale", target=f"{parts}:scale"),
        Component(name="anything", target=f"{parts}:anything"),
        Component(name="loose", target=f"{parts}:loose"),
        Component(name="refuse", target=f"{parts}:refuse"),
        Component(name="crash", target=f"{parts}:crash"),
        Component(name="absent", target="no_such_package.module:Thing", requires=("no-such-package",)),
        Component(name="nameless", target=f"{parts}:NoSuchThing"),
    ]


@helix_kernel.hookimpl
def helix_gadgets():
    return [Component(name="range", target="helix_toy.parts:Range", config="helix_toy.config:RangeConfig")]
