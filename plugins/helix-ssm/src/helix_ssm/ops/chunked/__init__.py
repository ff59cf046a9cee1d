"""The backend `torch-chunked`: fast forms of the ops in plain PyTorch, for any device."""

from helix_ssm.ops.chunked.backend import ChunkedBackend

__all__ = ["ChunkedBackend"]
