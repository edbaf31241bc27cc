"""`mechvit look`, for a checkout."""

import sys

from mechvit.cli.main import main

if __name__ == "__main__":
    main(["look", *sys.argv[1:]])
