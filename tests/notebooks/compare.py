"""Compare the stored notebooks with this machine's: nbval re-runs the series and checks the cells
that must reproduce.

In one process and in the order of the files, since each notebook takes what the one before leaves;
in a temporary runs/ folder, so that a reader's runs stay as they are. Of notebooks/deeper/ the
quick one comes last; the others, which train or measure for minutes, are compared where they are
named, as are the solutions, which test_solutions.py runs on a small set. Further arguments go to
pytest.

    python -m tests.notebooks.compare [NOTEBOOK]... [pytest options]
"""

import os
import sys
import tempfile

import pytest

from helpers import workspace
from helpers.runs import parameters
from tests.conftest import PATIENCE

QUICK = workspace.PROJECT / "notebooks" / "deeper" / "leaks_and_shortcuts.ipynb"


class Patient:
    """A plugin of pytest: nbval waits long for what a cell showed, which its options do not say."""

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        item.output_timeout = PATIENCE


def main(arguments: list[str]) -> int:
    named = any(one.endswith(".ipynb") for one in arguments)
    notebooks = [] if named else [str(path) for path in [*parameters.NOTEBOOKS, QUICK]]
    with tempfile.TemporaryDirectory() as runs:
        half = max((os.cpu_count() or 1) // 2, 1)  # `make test` runs another part beside this one
        os.environ |= {
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(half)),
            "ATTENTION_HEADLESS": "1",
            "ATTENTION_RUNS": os.environ.get("ATTENTION_RUNS", runs),
        }
        return pytest.main(
            [
                "-p",
                "no:cacheprovider",
                "--nbval-lax",
                "--nbval-cell-timeout",
                str(2 * PATIENCE),
                "--nbval-kernel-startup-timeout",
                str(PATIENCE),
                *notebooks,
                *arguments,
            ],
            plugins=[Patient()],
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
