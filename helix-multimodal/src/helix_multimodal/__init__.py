"""Five kinds of data as one: files in, tensors, encoders, fusion, alignment, models, and files out."""

__version__ = "0.1.0"
