"""`python -m helpers.train`, alone or under torchrun; what it does is in `helpers.runs.train`."""

import sys

from helpers import hosts

if __name__ == "__main__":
    hosts.leave_unless_ready()

from helpers.runs.train import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
