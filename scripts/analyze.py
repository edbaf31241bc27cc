"""`mechvit analyze`, for a checkout."""

import sys

from mechvit.cli.main import main

if __name__ == "__main__":
    main(["analyze", *sys.argv[1:]])
