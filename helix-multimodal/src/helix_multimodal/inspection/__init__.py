"""What the command `helix inspect` says of files."""
