"""`mechvit COMMAND`: one file a command, each with its options and its `main`."""
