"""Checkpoints on disk and on the hub: read, checked, written."""
