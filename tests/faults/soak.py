"""Fifty sample runs of 01, 02 and 04 in one kernel: does its memory, do its open files grow?

    python -m tests.faults.soak [RUNS]

The drawn sample, 60 photographs of it in 32 pixels, one epoch, one run folder; every cell as a
reader's kernel runs it. Prints a line for every fifth run, and ends with 1 where the last ten runs
take more than those from 11 to 20.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from jupyter_client.manager import start_new_kernel
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from helpers import workspace
from helpers.runs.series import declared
from tests.conftest import PATIENCE

NOTEBOOKS = workspace.PROJECT / "notebooks"
VALUES = {"subsample": 60, "benign": 0, "image_size": 32, "epochs": 1, "device": "cpu"}
GROWTH = 1.05  # times the memory that is allowed
FILES = 4  # more open files that are


def cells(name: str) -> list[str]:
    """The code of a notebook with those of VALUES that it declares."""
    path = NOTEBOOKS / f"{name}.ipynb"
    names = declared(path)
    values = {name: value for name, value in VALUES.items() if name in names}
    notebook = parameterize_notebook(load_notebook_node(str(path)), values)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def run_often(runs: int, folder: str) -> tuple[list[float], list[int]]:
    """Memory (MB) and open files of one kernel after each run; a line for every fifth."""
    variables = {
        "ATTENTION_DATA": f"{folder}/data",
        "ATTENTION_RUNS": f"{folder}/runs",
        "ATTENTION_HEADLESS": "1",
    }
    manager, client = start_new_kernel(
        kernel_name="python3",
        env={**os.environ, **variables},
        cwd=str(NOTEBOOKS),
        extra_arguments=["--log-level=50"],
    )
    kernel = psutil.Process(manager.provisioner.pid)
    code = [*cells("01_download"), *cells("02_preprocess"), *cells("04_train")]
    memory = []
    files = []
    started = time.perf_counter()
    for run in range(1, runs + 1):
        for cell in code:
            reply = client.execute_interactive(
                cell, output_hook=lambda message: None, timeout=PATIENCE
            )
            assert reply["content"]["status"] == "ok", reply["content"]
        memory.append(kernel.memory_info().rss / 1e6)
        files.append(kernel.num_fds())
        if run % 5 == 0:
            seconds = (time.perf_counter() - started) / run
            print(
                f"run {run:3d}: {memory[-1]:6.0f} MB, {files[-1]} open files, "
                f"{seconds:.1f} s a run",
                flush=True,
            )
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    return memory, files


def main(runs: int = 50) -> int:
    """0 where nothing grew; at least 30 runs."""
    with tempfile.TemporaryDirectory() as folder:
        memory, files = run_often(runs, folder)
        left = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    early = np.mean(memory[10:20])
    late = np.mean(memory[-10:])
    print(
        f"soak: {runs} runs; memory {early:.0f} MB in runs 11 to 20, {late:.0f} MB in the last ten "
        f"({late / early - 1:+.1%}); open files {files[10]} and {files[-1]}; {left / 1e6:.0f} MB "
        "on disk"
    )
    return 0 if late <= GROWTH * early and files[-1] <= files[10] + FILES else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
