"""`mechvit compare-representations`, for a checkout."""

import sys

from mechvit.cli.main import main

if __name__ == "__main__":
    main(["compare-representations", *sys.argv[1:]])
