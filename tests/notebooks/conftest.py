"""What tests of notebooks share: one run of the whole series on a small set."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.photographs.sample import make_sample
from tests.conftest import PATIENCE

PROJECT = Path(__file__).resolve().parents[2]


def series(environment, *arguments, folder=PROJECT):
    """`python -m helpers.run` as a reader types it."""
    return subprocess.run(
        [sys.executable, "-m", "helpers.run", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
    )


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder with 60 drawn photographs of 64 pixels, the environment that runs there, and the
    run's output.
    """
    folder = tmp_path_factory.mktemp("series")
    make_sample(folder / "small", seed=5, count=60, side=64)
    environment = {"ATTENTION_DATA": str(folder / "data"), "ATTENTION_RUNS": str(folder / "runs")}
    started = time.monotonic()
    done = series(
        environment,
        "--run",
        "small",
        "--dataset",
        "small",
        "-p",
        "image_size",
        "64",
        "-p",
        "epochs",
        "1",
        "-p",
        "attention",
        "sigmoid",
        "-p",
        "mask_weight_pool4",
        "0.1",
        "-p",
        "benign",
        "20",
        "-p",
        "posthoc",
        "6",
        folder=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"\nthe series on 60 photographs: {time.monotonic() - started:.0f} s")
    return folder, environment, done.stdout
