"""A plugin for the tests: small, torch-free, with an option of every type that a config can hold."""
