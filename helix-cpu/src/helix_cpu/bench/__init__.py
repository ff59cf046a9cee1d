"""What `helix bench` measures: our kernels beside what a user would otherwise run, on this machine."""
