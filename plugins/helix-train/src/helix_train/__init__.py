"""Training for Helix: trainer, losses, optimizers and schedules."""

__version__ = "0.1.0"
