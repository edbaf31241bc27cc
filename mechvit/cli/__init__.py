"""The `mechvit` command: one file per sub-command, each with its options and its `main`."""
