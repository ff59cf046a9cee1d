"""The options of every component, importing neither torch nor numpy: what configs are checked against."""
