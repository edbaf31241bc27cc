"""`mechvit train-sae`, for a checkout."""

import sys

from mechvit.cli.main import main

if __name__ == "__main__":
    main(["train-sae", *sys.argv[1:]])
