"""`mechvit cache-activations`, for a checkout."""

import sys

from mechvit.cli.main import main

if __name__ == "__main__":
    main(["cache-activations", *sys.argv[1:]])
