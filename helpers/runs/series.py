"""One notebook, and all of them in order, executed by papermill into the folder of a run.

What the command line and the points of a grid have in common.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import load_notebook_node

from helpers import workspace
from helpers.runs import estimate
from helpers.runs.parameters import no_template

FIRST_FIGURE = "before_and_after.png"
LONGEST = 3  # cells that are named at the end
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


class Cell(NamedTuple):
    """A cell of code that ran."""

    duration: float  # seconds
    notebook: str
    number: int  # as the notebook shows it
    heading: str  # of the section in which it stands


def run_notebook(
    notebook: Path,
    values: dict,
    folder: Path,
    *,
    title: str = "",
    expected: float = 0.0,
) -> float:
    """Execute one notebook, with its own folder as working folder, and store it as it ran.

    In a terminal there is a bar meanwhile: of the seconds that it is expected to take or, where
    that is not known, of its cells.

    Args:
        notebook: what to execute; it stays as it is.
        values: parameters by name; those that the notebook does not declare are passed over.
        folder: where the executed notebook goes, under the same name.
        title: of the bar; "" is the notebook's name.
        expected: seconds that it takes; 0 where that is not known.

    Returns:
        Seconds.

    Raises:
        NotebookFailed: a cell raised, or the kernel died, or did not start.
        CannotWrite: the stored notebook cannot be written.
    """
    stored = folder / notebook.name
    names = declared(notebook)
    title = title or notebook.stem
    watched = sys.stderr.isatty()
    cells_bar = {"desc": title, "leave": False} if watched and not expected else False
    started = time.perf_counter()
    with (
        saying_why(notebook, stored),
        workspace.saying_what_to_do(stored),
        estimate.clock(title, expected, hidden=not watched),
    ):
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
            progress_bar=cells_bar,
            start_timeout=PATIENCE,
            iopub_timeout=PATIENCE,
        )
    return time.perf_counter() - started


@contextmanager
def saying_why(notebook: Path, stored: Path) -> Iterator[None]:
    """Turns what papermill and its kernel raise into NotebookFailed, with what to do.

    Args:
        notebook: what is executed.
        stored: where it goes as it ran.
    """
    try:
        yield
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


def run_series(
    values: dict,
    notebooks: Sequence[Path],
    expected: Mapping[str, float] | None = None,
) -> None:
    """Execute notebooks in order, a line each, and say where to look and where the time went.

    Args:
        values: parameters by name; `run` names the folder.
        notebooks: their paths.
        expected: seconds that each takes, by its name without the ending; what is not known is
            left out.

    Raises:
        NotebookFailed: one did not end; those after it are not started.
        CannotWrite: the run's folder, or a notebook in it, cannot be written.
    """
    folder = workspace.run_folder(values.get("run", "sample"))
    before = drawn_at(folder)
    watched = sys.stderr.isatty()  # a bar stands in the notebook's line until it has run
    taken = {}
    for number, notebook in enumerate(notebooks, start=1):
        title = f"[{number}/{len(notebooks)}] {notebook.stem}"
        likely = (expected or {}).get(notebook.stem, 0.0)
        if likely:
            title += f" ({estimate.in_words(likely)})"
        if not watched:
            print(f"{title} ...", end=" ", flush=True)
        taken[folder / notebook.name] = run_notebook(
            notebook, values, folder, title=title, expected=likely
        )
        if watched:
            print(f"{title} ...", end=" ")
        print(f"{taken[folder / notebook.name]:.1f} s", flush=True)
    say_where_the_time_went(taken)
    drawn = drawn_at(folder)
    figures = [name for name in drawn if drawn[name] != before.get(name)]
    if figures:
        first = FIRST_FIGURE if FIRST_FIGURE in figures else figures[0]
        print(f"First figure to open: {folder / 'figures' / first}")


def say_where_the_time_went(taken: Mapping[Path, float]) -> None:
    """Print what share of the time each notebook took, and which cells were the longest.

    Args:
        taken: seconds, by the path of the executed notebook, in order.
    """
    total = sum(taken.values())
    print(f"All {len(taken)} ran in {total:.0f} s. Read them in order:")
    for path, seconds in taken.items():
        print(f"  {seconds:5.0f} s {seconds / total:4.0%}  {path}")
    cells = [cell for path in taken for cell in cells_of(path)]
    print("The longest cells:")
    for cell in sorted(cells, reverse=True)[:LONGEST]:
        share = cell.duration / total
        where = f"{cell.notebook}, cell {cell.number}: {cell.heading}"
        print(f"  {cell.duration:5.0f} s {share:4.0%}  {where}")


def cells_of(path: Path) -> list[Cell]:
    """The cells of an executed notebook that ran, as papermill timed them."""
    cells = []
    heading = ""
    for cell in load_notebook_node(str(path)).cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if line.startswith("#"):
                    heading = line.lstrip("# ")
        seconds = cell.metadata.get("papermill", {}).get("duration")
        if cell.cell_type == "code" and seconds is not None:
            cells.append(Cell(seconds, path.stem, cell.execution_count, heading))
    return cells


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
