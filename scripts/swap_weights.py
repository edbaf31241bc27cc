"""`mechvit swap-weights`, for a checkout."""

import sys

from mechvit.cli.main import main

if __name__ == "__main__":
    main(["swap-weights", *sys.argv[1:]])
