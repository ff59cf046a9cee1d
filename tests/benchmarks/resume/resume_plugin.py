"""A plugin of somebody's own: the task's dataset and model as components of Helix."""

from __future__ import annotations

import helix_kernel
from helix_kernel import Component


@helix_kernel.hookimpl
def helix_datasets() -> list[Component]:
    """Bring the dataset."""
    return [Component(name="resume-rows", target="resume_data:Data")]


@helix_kernel.hookimpl
def helix_layers() -> list[Component]:
    """Bring the model."""
    return [Component(name="resume-model", target="resume_task:Model")]
