"""`python -m helpers.train`, alone or under torchrun; what it does is in `helpers.runs.train`."""

import sys

from helpers.runs.train import main

if __name__ == "__main__":
    sys.exit(main())
