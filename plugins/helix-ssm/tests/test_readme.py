"""The README's example runs, and does what the README says."""

from __future__ import annotations

import re
from pathlib import Path

import torch

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_example_runs_and_its_ways_agree():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    torch.testing.assert_close(names["prompt"], names["logits"][:, :15], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(names["token"], names["logits"][:, 15], rtol=1e-4, atol=1e-5)


def test_every_layer_is_in_the_table():
    from helix_ssm import plugin

    for component in plugin.helix_layers():
        assert f"`{component.name}`" in README
