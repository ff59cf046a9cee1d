"""How well two sequences, or sets, of tokens belong together."""
