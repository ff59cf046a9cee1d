"""Conformance suites of the kinds that helix-train brings."""
