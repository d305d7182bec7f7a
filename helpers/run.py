"""`python -m helpers.run`: the series, or a grid of runs; it is in `helpers.runs.command`."""

import sys

from helpers.runs.command import main

if __name__ == "__main__":
    sys.exit(main())
