"""`python -m helpers.preprocess`: the split of a table alone. What it does is in `helpers.photographs.split`."""

import sys

from helpers.photographs.split import main

if __name__ == "__main__":
    sys.exit(main())
