"""`python -m helpers.run`: the series, or a grid of runs; it is in `helpers.runs.command`."""

import sys

from helpers import hosts

if __name__ == "__main__":
    hosts.leave_unless_ready()

from helpers.runs.command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
