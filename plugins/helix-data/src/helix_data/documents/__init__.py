"""Documents out of files of any format, in a fixed order, and what is wrong with the rest."""
