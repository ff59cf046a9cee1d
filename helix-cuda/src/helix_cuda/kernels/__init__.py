"""Kernels in Triton, a module for each op; imported only where Triton is."""
