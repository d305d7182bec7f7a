"""Run the notebooks in order through papermill, with their parameters checked before anything starts.

    python -m helpers.run [--run NAME] [--dataset sample|kaggle|PATH] [--params FILE] [-p NAME VALUE]...
                          [--from 04] [--to 05] [--only 05]
                          [--grid NAME=VALUE,VALUE]... [--workers N] [--scheduler ADDRESS]

Exit 0: all ran. 1: a notebook failed, or files cannot be written. 2: a parameter or option is unknown, of the wrong
type, or contradicts another. 130: stopped by Ctrl-C (SIGINT) or SIGTERM.
"""

import argparse
import difflib
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from helpers import workspace
from helpers.runs import grid
from helpers.runs.parameters import NOTEBOOKS, check, known_parameters, read_parameters

OPTIONS = ("run", "dataset", "params", "from", "to", "only", "grid", "workers", "scheduler")
FIRST_FIGURE = "attention_malignant.png"


class NotebookFailed(Exception):
    """A notebook of the series did not end; the message names it, the cell, the error and the stored notebook."""


def run_notebook(notebook: Path, values: dict, folder: Path) -> float:
    """Execute one notebook into `folder` with those of the values that it declares; returns seconds.

    Raises NotebookFailed.
    """
    stored, started = folder / notebook.name, time.perf_counter()
    declared = known_parameters([notebook])
    with workspace.saying_what_to_do(stored):
        try:
            papermill.execute_notebook(
                str(notebook),
                str(stored),
                {name: value for name, value in values.items() if name in declared},
                cwd=str(notebook.parent),
                kernel_name="python3",
                log_output=False,
                extra_arguments=[
                    "--log-level=50"
                ],  # a kernel on this machine need not warn of its transport
                progress_bar={"desc": notebook.stem, "leave": False}
                if sys.stderr.isatty()
                else False,
            )
        except PapermillExecutionError as error:
            reason = " ".join(f"{error.ename}: {error.evalue}".split())
            raise NotebookFailed(
                f"{notebook.name} failed in cell {error.exec_count}: {reason}\n"
                f"The notebook up to there, with the whole error: {stored}"
            ) from None
        except (DeadKernelError, CellTimeoutError) as error:
            raise NotebookFailed(
                f"{notebook.name} was stopped: {' '.join(str(error).split())}. Out of memory? Lower "
                f"batch_size or image_size.\nThe notebook up to there: {stored}"
            ) from None
    return time.perf_counter() - started


def run_series(values: dict, notebooks: Sequence[Path]) -> None:
    """Execute the notebooks in order, a line each, and say where to look. Raises NotebookFailed."""
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
    figures = sorted(
        (folder / "figures").glob("*.png"), key=lambda path: (path.name != FIRST_FIGURE, path.name)
    )
    if figures:
        print(f"First figure to open: {figures[0]}")


def read_grid(
    texts: Sequence[str], values: dict, pairs: Sequence[tuple[str, str]], known: dict
) -> grid.Grid:
    """The grid of `--grid NAME=VALUE,VALUE` texts over `values`, each point checked as the parameters of one run are.

    Values of `--params` give way to the grid's. Raises ValueError for what cannot be a grid, before anything starts.
    """
    first, notebook = choose(None, "01") + choose(None, "02"), choose(None, "04")[0]
    makes, trains = known_parameters(first), known_parameters([notebook])
    axes = {}
    for text in texts:
        name, _, listed = text.partition("=")
        if not name or not listed:
            raise ValueError(
                f"--grid {text!r}: expected NAME=VALUE,VALUE, such as attention=softmax,none"
            )
        axis = [read_parameters("", [(name, value)], known)[name] for value in listed.split(",")]
        if name == "run" or name not in trains:
            raise ValueError(
                f"--grid {name}: a grid varies what {notebook.stem} uses; its points share photographs "
                f"and split, to be compared as pairs. Start one for each {name}, under another --run"
            )
        if name in axes or name in dict(pairs):
            raise ValueError(
                f"--grid {name}: its values stand twice; name {name} once, and not with -p"
            )
        axes[name] = axis
    if "run" not in values:
        raise ValueError(
            "--grid needs --run NAME: the runs of its points become NAME-attention=none-seed=0 and so on"
        )
    merged = {name: default for name, (_, default) in known.items()} | values
    for point, chosen in grid.name_points(values["run"], axes).items():
        try:
            check(values | chosen, known)
        except ValueError as error:
            raise ValueError(f"{point}: {error}") from error
    if "image_size" in axes:
        merged["image_size"] = axes["image_size"][
            0
        ]  # of the first cache; the others are made for their points
    shared, parameters = (
        {name: merged[name] for name in names if name != "run"} for names in (makes, trains)
    )
    shared.pop(
        "seed", None
    )  # it shows there how batches are drawn; what is made does not depend on it
    return grid.Grid(values["run"], axes, first, shared, notebook, parameters, run_notebook)


def choose(first: str | None, only: str | None, last: str | None = None) -> list[Path]:
    """The notebooks from the one whose name starts with `first` to `last`, or `only` that one. Raises ValueError."""
    for start in filter(None, (first, only, last)):
        if not any(notebook.name.startswith(start) for notebook in NOTEBOOKS):
            raise ValueError(
                f"no notebook starts with {start!r}: {', '.join(path.stem for path in NOTEBOOKS)}"
            )
    if only:
        return [notebook for notebook in NOTEBOOKS if notebook.name.startswith(only)]
    chosen = [
        path
        for path in NOTEBOOKS
        if path.name >= (first or "") and path.name[: len(last or "")] <= (last or "")
    ]
    if not chosen:
        raise ValueError(f"there is no notebook from {first} to {last}")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.run", description="Run the notebooks in order."
    )
    parser.add_argument("--run", help="the run's name: a folder under runs/ (default: sample)")
    parser.add_argument(
        "--dataset", help="sample, kaggle, or the path of a folder or zip in the Kaggle layout"
    )
    parser.add_argument(
        "--params", default="", metavar="FILE", help="parameters in YAML, as in notebooks/params/"
    )
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="one parameter"
    )
    parser.add_argument("--from", dest="first", metavar="04", help="start at this notebook")
    parser.add_argument("--to", dest="last", metavar="05", help="end with this notebook")
    parser.add_argument("--only", metavar="05", help="run this notebook alone")
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="NAME=V1,V2",
        help="run 04 for every combination of these values, and compare the runs",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="so many points of a grid at a time, on this machine",
    )
    parser.add_argument(
        "--scheduler", default="", metavar="ADDRESS", help="points on the Dask cluster of tcp://..."
    )
    parser.add_argument(
        "--point", nargs=2, help=argparse.SUPPRESS
    )  # a Dask worker starts it: a run, the worker's pid
    options, unknown = parser.parse_known_args(arguments)
    os.environ.setdefault("ATTENTION_HEADLESS", "1")  # the kernels inherit it: nobody watches
    logging.getLogger("papermill").setLevel(logging.ERROR)
    if options.point:
        return grid.child(options.point[0], int(options.point[1]), run_notebook)
    named = [
        (name, value)
        for name in ("run", "dataset")
        if (value := getattr(options, name)) is not None
    ]
    try:
        known = known_parameters(NOTEBOOKS)
        if unknown:
            names = {name: f"-p {name}" for name in known} | {name: f"--{name}" for name in OPTIONS}
            near = difflib.get_close_matches(unknown[0].lstrip("-"), names, n=1)
            raise ValueError(
                f"there is no option {unknown[0]!r}; "
                + (f"did you mean {names[near[0]]}?" if near else "--help lists them")
            )
        values = read_parameters(options.params, [*options.p, *named], known)
        notebooks = choose(options.first, options.only, options.last)
        if not options.grid and (options.workers is not None or options.scheduler):
            raise ValueError(
                "--workers and --scheduler say where the points of a --grid run; there is no --grid"
            )
        if options.grid and (options.first or options.only or options.last):
            raise ValueError(
                "--grid runs 01 and 02 once and 04 for each point: leave --from, --to and --only out"
            )
        if options.workers is not None and (options.workers < 1 or options.scheduler):
            raise ValueError(
                "--workers is at least 1, and for this machine: not beside --scheduler"
            )
        plan = read_grid(options.grid, values, options.p, known) if options.grid else None
        if not plan:
            check(values, known)
    except (ValueError, workspace.CannotWrite) as error:
        print(f"helpers.run: {error}", file=sys.stderr)
        return 1 if isinstance(error, OSError) else 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler ends it as Ctrl-C does
    try:
        if plan:
            failed = grid.run_grid(plan, workers=options.workers or 0, scheduler=options.scheduler)
            print(
                "".join(f"\n{point} failed: {reason}" for point, reason in failed.items()),
                file=sys.stderr,
            )
            return 1 if failed else 0
        run_series(values, notebooks)
    except (NotebookFailed, ConnectionError, workspace.CannotWrite) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nStopped. The same command goes on: what is downloaded, cached or trained is not done again, but "
            "for the epoch under way.",
            file=sys.stderr,
        )
        return 130
    return 0
