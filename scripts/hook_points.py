"""`mechvit hook-points`, for a checkout."""

import sys

from mechvit.cli.main import main

if __name__ == "__main__":
    main(["hook-points", *sys.argv[1:]])
