"""Run the command line with ``python -m adsbridge``."""

from adsbridge.cli import main

if __name__ == "__main__":
    main()
