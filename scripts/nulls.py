"""`mechvit nulls`, for a checkout."""

import sys

from mechvit.cli.main import main

if __name__ == "__main__":
    main(["nulls", *sys.argv[1:]])
