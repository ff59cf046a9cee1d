"""Conformance suites of the kinds that helix-topo brings."""
