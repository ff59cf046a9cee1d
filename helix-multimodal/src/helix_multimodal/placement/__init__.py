"""Where a pipeline runs, and in batches of what size: from measured time and memory."""
