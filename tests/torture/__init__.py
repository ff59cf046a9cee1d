"""What is done to checkpoints to find out whether they can be lost; `python -m torture --help` runs it."""
