"""`python -m mechvit COMMAND`."""

from mechvit.cli.main import main

if __name__ == "__main__":
    main()
