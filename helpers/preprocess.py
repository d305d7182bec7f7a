"""The command `python -m helpers.preprocess`: see `helpers.photographs.split`, which does it."""

import sys

from helpers.photographs.split import main

if __name__ == "__main__":
    sys.exit(main())
