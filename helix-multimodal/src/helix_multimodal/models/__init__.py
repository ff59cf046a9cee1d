"""Pipelines: classification, retrieval, captioning and reconstruction over any kinds of data."""
