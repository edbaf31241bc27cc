"""`mechvit export-figures`, for a checkout."""

import sys

from mechvit.cli.main import main

if __name__ == "__main__":
    main(["export-figures", *sys.argv[1:]])
