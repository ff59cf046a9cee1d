"""CPU backend for Helix: it looks what the processor can do, and offers no op yet."""

__version__ = "0.1.0"
