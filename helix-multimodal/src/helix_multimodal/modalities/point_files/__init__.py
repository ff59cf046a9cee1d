"""Readers and writers of files of points, a module a format."""
