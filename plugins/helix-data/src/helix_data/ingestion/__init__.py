"""Makes a folder of shards out of files: parallel, resumable, the same every time."""
