"""`mechvit browse-features`, for a checkout."""

import sys

from mechvit.cli.main import main

if __name__ == "__main__":
    main(["browse-features", *sys.argv[1:]])
