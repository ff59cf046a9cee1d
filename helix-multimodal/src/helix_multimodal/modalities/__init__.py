"""Kinds of data: from a file to a sample, from a sample to a tensor, and the way back."""
