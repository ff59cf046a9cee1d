"""Conformance suites of the kinds that this distribution brings."""
