"""Moving averages: version 0.1."""
