"""Learning-rate schedules: plain functions of the step. Nothing here imports torch."""
