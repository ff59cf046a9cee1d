"""Implementations of op contracts by the kernels of the library, an op and its gradient a module."""
