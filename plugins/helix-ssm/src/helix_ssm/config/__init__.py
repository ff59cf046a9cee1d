"""The options of every layer, a module a family, importing none: what configs are checked against."""
