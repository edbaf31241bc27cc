"""`mechvit explore-attention`, for a checkout."""

import sys

from mechvit.cli.main import main

if __name__ == "__main__":
    main(["explore-attention", *sys.argv[1:]])
