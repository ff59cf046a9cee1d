"""Folders of files as batches of several kinds of data about the same things."""
