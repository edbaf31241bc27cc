"""`mechvit benchmark`, for a checkout."""

import sys

from mechvit.cli.main import main

if __name__ == "__main__":
    main(["benchmark", *sys.argv[1:]])
