"""One notebook, and all of them in order, executed by papermill into the folder of a run.

What the command line and the points of a grid have in common.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from helpers import workspace
from helpers.runs.parameters import no_template

FIRST_FIGURE = "before_and_after.png"
# seconds that a kernel has to start, and the last outputs of a cell to arrive: to be slow is no
# error, and a kernel that dies is noticed at once. A cell itself has no limit
PATIENCE = 600


class NotebookFailed(Exception):
    """A notebook did not end; the message names it, the cell, the error and the stored notebook."""


class ThisPython(AsyncKernelManager):
    """Starts the Python that runs this, whatever kernels of that name others have installed."""

    def __init__(self, **options):
        no_installed = KernelSpecManager(kernel_dirs=[])
        super().__init__(kernel_spec_manager=no_installed, **options)


def declared(notebook: Path) -> list[str]:
    """The names in a notebook's cell of parameters."""
    return list(papermill.inspect_notebook(no_template(notebook)))


def run_notebook(notebook: Path, values: dict, folder: Path) -> float:
    """Execute one notebook, with its own folder as working folder, and store it as it ran.

    Args:
        notebook: what to execute; it stays as it is.
        values: parameters by name; those that the notebook does not declare are passed over.
        folder: where the executed notebook goes, under the same name.

    Returns:
        Seconds.

    Raises:
        NotebookFailed: a cell raised, or the kernel died, or did not start.
        CannotWrite: the stored notebook cannot be written.
    """
    stored = folder / notebook.name
    names = declared(notebook)
    progress_bar = {"desc": notebook.stem, "leave": False} if sys.stderr.isatty() else False
    started = time.perf_counter()
    try:
        with workspace.saying_what_to_do(stored):
            papermill.execute_notebook(
                no_template(notebook),
                no_template(stored),
                {name: value for name, value in values.items() if name in names},
                cwd=str(notebook.parent),
                kernel_name="python3",
                kernel_manager_class=ThisPython,
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
            "image_size. A disk that dropped out stops it, too: set ATTENTION_DATA to another.\n"
            f"The notebook up to there: {stored}"
        ) from None
    except NoSuchKernel:
        raise NotebookFailed(
            f"{notebook.name} was not started: the Python that runs this has no ipykernel. Type "
            f"{sys.executable} -m pip install ipykernel, or `make lab` in {workspace.PROJECT}, "
            "which sets up an environment with everything"
        ) from None
    except RuntimeError as error:
        raise NotebookFailed(
            f"{notebook.name} was not started: {error}. What {sys.executable} -m ipykernel says "
            "may tell why"
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
    before = drawn_at(folder)
    total = 0.0
    for number, notebook in enumerate(notebooks, start=1):
        print(f"[{number}/{len(notebooks)}] {notebook.stem} ...", end=" ", flush=True)
        seconds = run_notebook(notebook, values, folder)
        total += seconds
        print(f"{seconds:.1f} s", flush=True)
    print(f"All {len(notebooks)} ran in {total:.0f} s. Read them in order:")
    for notebook in notebooks:
        print(f"  {folder / notebook.name}")
    drawn = drawn_at(folder)
    figures = [name for name in drawn if drawn[name] != before.get(name)]
    if figures:
        first = FIRST_FIGURE if FIRST_FIGURE in figures else figures[0]
        print(f"First figure to open: {folder / 'figures' / first}")


@contextmanager
def unwatched() -> Iterator[None]:
    """While it lasts, kernels that are started know that nobody watches, and SIGTERM is Ctrl-C.

    A scheduler ends a command by SIGTERM. Python lets only the main thread change signals.
    """
    said_before = "ATTENTION_HEADLESS" in os.environ
    os.environ.setdefault("ATTENTION_HEADLESS", "1")
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = None
    if in_main_thread:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
        if not said_before:
            del os.environ["ATTENTION_HEADLESS"]


def drawn_at(folder: Path) -> dict[str, int]:
    """When each figure of a run was written, in nanoseconds, by its name in alphabetical order."""
    figures = sorted((folder / "figures").glob("*.png"))
    return {path.name: path.stat().st_mtime_ns for path in figures}
