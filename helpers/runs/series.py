"""One notebook, and all of them in order, executed by papermill into the folder of a run.

What the command line and the points of a grid have in common.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from helpers import workspace

FIRST_FIGURE = "attention_malignant.png"
# seconds that a kernel has to start, and the last outputs of a cell to arrive: to be slow is no
# error, and a kernel that dies is noticed at once. A cell itself has no limit
PATIENCE = 600


class NotebookFailed(Exception):
    """A notebook did not end; the message names it, the cell, the error and the stored notebook."""


def declared(notebook: Path) -> list[str]:
    """The names in a notebook's cell of parameters."""
    return list(papermill.inspect_notebook(str(notebook)))


def run_notebook(notebook: Path, values: dict, folder: Path) -> float:
    """Execute one notebook, with its own folder as working folder, and store it as it ran.

    Args:
        notebook: what to execute; it stays as it is.
        values: parameters by name; those that the notebook does not declare are passed over.
        folder: where the executed notebook goes, under the same name.

    Returns:
        Seconds.

    Raises:
        NotebookFailed: a cell raised, or the kernel died.
        CannotWrite: the stored notebook cannot be written.
    """
    stored = folder / notebook.name
    names = declared(notebook)
    progress_bar = {"desc": notebook.stem, "leave": False} if sys.stderr.isatty() else False
    started = time.perf_counter()
    try:
        with workspace.saying_what_to_do(stored):
            papermill.execute_notebook(
                str(notebook),
                str(stored),
                {name: value for name, value in values.items() if name in names},
                cwd=str(notebook.parent),
                kernel_name="python3",
                log_output=False,
                # a kernel on this machine need not warn of its transport
                extra_arguments=["--log-level=50"],
                progress_bar=progress_bar,
                start_timeout=PATIENCE,
                iopub_timeout=PATIENCE,
            )
    except PapermillExecutionError as error:
        reason = " ".join(f"{error.ename}: {error.evalue}".split())
        raise NotebookFailed(
            f"{notebook.name} failed in cell {error.exec_count}: {reason}\n"
            f"The notebook up to there, with the whole error: {stored}"
        ) from None
    except (DeadKernelError, CellTimeoutError) as error:
        reason = " ".join(str(error).split())
        raise NotebookFailed(
            f"{notebook.name} was stopped: {reason}. Out of memory? Lower batch_size or "
            f"image_size.\nThe notebook up to there: {stored}"
        ) from None
    return time.perf_counter() - started


def run_series(values: dict, notebooks: Sequence[Path]) -> None:
    """Execute notebooks in order, a line each, and say where to look.

    Args:
        values: parameters by name; `run` names the folder.
        notebooks: their paths.

    Raises:
        NotebookFailed: one did not end; those after it are not started.
        CannotWrite: the run's folder, or a notebook in it, cannot be written.
    """
    folder = workspace.run_folder(values.get("run", "sample"))
    total = 0.0
    for number, notebook in enumerate(notebooks, start=1):
        print(f"[{number}/{len(notebooks)}] {notebook.stem} ...", end=" ", flush=True)
        seconds = run_notebook(notebook, values, folder)
        total += seconds
        print(f"{seconds:.1f} s", flush=True)
    print(f"All {len(notebooks)} ran in {total:.0f} s. Read them in order:")
    for notebook in notebooks:
        print(f"  {folder / notebook.name}")
    figures = sorted(path.name for path in (folder / "figures").glob("*.png"))
    if figures:
        first = FIRST_FIGURE if FIRST_FIGURE in figures else figures[0]
        print(f"First figure to open: {folder / 'figures' / first}")
