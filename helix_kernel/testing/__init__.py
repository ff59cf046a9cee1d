"""Conformance suites: what each kind of component must do, as pytest classes to subclass."""
