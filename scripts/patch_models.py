"""`mechvit patch-models`, for a checkout."""

import sys

from mechvit.cli.main import main

if __name__ == "__main__":
    main(["patch-models", *sys.argv[1:]])
