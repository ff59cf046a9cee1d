"""``python -m helix_kernel.cli``: the `helix` command, of this Python's environment for certain."""

from helix_kernel.cli import main

main()
