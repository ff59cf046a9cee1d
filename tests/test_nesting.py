"""Dotted and nested names."""

from __future__ import annotations

from helix_kernel.nesting import flatten, nest


def test_nesting_and_flattening_are_inverse():
    flat = {"a.0.weight": 1, "a.1.weight": 2, "b": 3}
    assert nest(flat) == {"a": {"0": {"weight": 1}, "1": {"weight": 2}}, "b": 3}
    assert flatten(nest(flat)) == flat
