"""Conformance suites of the kinds that helix-data brings."""
