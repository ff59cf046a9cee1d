"""Moving averages: version 0.2, which has better names."""
