"""A run as one HTML file: curves, config, components, checkpoints, samples and what the loss cost."""

from helix_train.report.document import REPORT, render, write_report

__all__ = ["REPORT", "render", "write_report"]
