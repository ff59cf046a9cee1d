"""Parameter update rules that torch does not have, and options of those it has. Imports no torch."""
