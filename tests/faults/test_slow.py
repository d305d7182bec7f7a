"""A machine that is slow, on purpose: kernels that start late, and outputs that come late.

Real kernels that sleep. Waits of other tests are for events, up to PATIENCE of tests/conftest.py.
"""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from helpers import workspace
from helpers.runs import series
from tests.conftest import PATIENCE
from tests.runs.toys import write_notebook

# the cell has ended when its output is yet to be sent
LATE = """
import sys, time
sys.stdout.flush_timeout = sys.stderr.flush_timeout = 0
sys.stdout.pub_thread.schedule(lambda: time.sleep(6))
"late"
"""
SLEEPS = """
import sys, time
if any("ipykernel" in word for word in sys.orig_argv):
    time.sleep(65)
"""


def shown(path: Path) -> str:
    """The value of the last cell of an executed notebook."""
    (output,) = nbformat.read(path, as_version=4).cells[-1].outputs
    return output.data["text/plain"]


def test_outputs_that_come_late_are_waited_for(folders, tmp_path):
    """papermill alone gives up after four seconds."""
    notebook = write_notebook(tmp_path / "toys" / "late.ipynb", "seed: int = 5", LATE)
    series.run_notebook(notebook, {}, tmp_path)
    assert shown(tmp_path / "late.ipynb") == "'late'"


@pytest.mark.long
def test_the_comparison_of_stored_outputs_waits_for_late_ones(folders, tmp_path):
    """nbval alone gives up after five seconds."""
    notebook = write_notebook(tmp_path / "toys" / "late.ipynb", "seed: int = 5", LATE)
    compared = subprocess.run(
        [sys.executable, "-m", "tests.notebooks.compare", notebook, "--rootdir", tmp_path],
        cwd=workspace.PROJECT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert compared.returncode == 0 and "2 passed" in compared.stdout, compared.stdout


@pytest.mark.long
def test_a_kernel_that_starts_late_is_waited_for(folders, tmp_path, monkeypatch):
    """papermill alone gives up after a minute."""
    (tmp_path / "sitecustomize.py").write_text(SLEEPS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    notebook = write_notebook(tmp_path / "toys" / "slow.ipynb", "seed: int = 5", "seed")
    series.run_notebook(notebook, {}, tmp_path)
    assert shown(tmp_path / "slow.ipynb") == "5"
