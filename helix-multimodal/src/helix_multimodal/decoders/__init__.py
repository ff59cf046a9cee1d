"""From tokens back to a kind of data."""
