"""What the tests of bench/ share: a program run as a reader runs it, on one core."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.conftest import PROJECT

sys.path.insert(0, str(PROJECT / "bench"))
import record  # noqa: E402


def one_core() -> None:
    """Two threads that spin wait long for each other where other programs run."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])


@pytest.fixture
def start(folders) -> Callable[..., subprocess.CompletedProcess]:
    """Start a program of bench/ with these options; it need not end well."""

    def start(program: str, *options: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, f"bench/{program}.py", *options],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            preexec_fn=one_core,
        )

    return start


@pytest.fixture
def run_program(start, tmp_path) -> Callable[..., dict]:
    """Run a program, which must end well; returns the results that it leaves."""

    def run_program(program: str, *options: str) -> dict:
        done = start(program, *options, "--out", str(tmp_path / "results"))
        assert done.returncode == 0, done.stdout + done.stderr
        return record.read(program, tmp_path / "results")

    return run_program
