"""Reading, checking and writing checkpoints, from disk and from the hub."""
