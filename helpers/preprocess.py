"""The command `python -m helpers.preprocess`: see `helpers.photographs.split`, which does it."""

import sys

from helpers import hosts

if __name__ == "__main__":
    hosts.leave_unless_ready()

from helpers.photographs.split import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
