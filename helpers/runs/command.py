"""Run the notebooks in order through papermill, with their parameters checked before any starts.

    python -m helpers.run [--run NAME] [--dataset sample|isic|kaggle|PATH] [--params FILE]
                          [-p NAME VALUE]... [--from 04] [--to 05] [--only 05]
                          [--grid NAME=VALUE,VALUE]... [--workers N] [--scheduler ADDRESS]

Exit 0: all ran. 1: a notebook failed, or files cannot be written. 2: a parameter or option is
unknown, of the wrong type, or contradicts another. 130: stopped by Ctrl-C (SIGINT) or SIGTERM.
"""

import argparse
import difflib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from helpers import workspace
from helpers.runs import grid
from helpers.runs.parameters import NOTEBOOKS, check, known_parameters, read_parameters
from helpers.runs.series import NotebookFailed, declared, run_series

OPTIONS = ("run", "dataset", "params", "from", "to", "only", "grid", "workers", "scheduler")


def main(arguments: Sequence[str] | None = None) -> int:
    """What `python -m helpers.run` does; may be called in a notebook's cell, too.

    Args:
        arguments: those of the command line; None takes `sys.argv`.

    Returns:
        The exit code.
    """
    options, unknown = read_options(arguments)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        refuse_options(options, unknown)
        notebooks = choose(options.first, options.only, options.last)
        known = known_parameters(NOTEBOOKS)
        named = [("run", options.run), ("dataset", options.dataset)]
        pairs = options.p + [(name, value) for name, value in named if value is not None]
        values = read_parameters(options.params, pairs, known)
        plan = None
        if options.grid:
            plan = read_grid(options.grid, values, options.p, known)
            notebooks = [*plan.first, plan.notebook]
        else:
            check(values, known)
    except ValueError as error:
        print(f"helpers.run: {error}", file=sys.stderr)
        return 2
    say_unused(options.p, notebooks)
    try:
        with unwatched():
            if plan:
                return run_points(plan, options)
            run_series(values, notebooks)
    except (NotebookFailed, ConnectionError, workspace.CannotWrite) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nStopped. The same command goes on: what is downloaded, cached or trained is not "
            "done again, but for the epoch under way.",
            file=sys.stderr,
        )
        return 130
    return 0


def run_points(plan: grid.Grid, options: argparse.Namespace) -> int:
    """Run a grid, and say which points failed; returns the exit code."""
    workers = options.workers or 0
    failed = grid.run_grid(plan, workers=workers, scheduler=options.scheduler)
    for point, reason in failed.items():
        print(f"\n{point} failed: {reason}", file=sys.stderr)
    return 1 if failed else 0


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


# the command line


def read_options(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the words that are none."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.run", description="Run the notebooks in order."
    )
    add = parser.add_argument
    add("--run", help="the run's name: a folder under runs/ (default: sample)")
    add("--dataset", help="sample, isic, kaggle, or a folder or zip in the Kaggle layout")
    add("--params", default="", metavar="FILE", help="parameters in YAML, see notebooks/params/")
    add("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter")
    add("--from", dest="first", metavar="04", help="start at this notebook")
    add("--to", dest="last", metavar="05", help="end with this notebook")
    add("--only", metavar="05", help="run this notebook alone")
    add(
        "--grid",
        action="append",
        default=[],
        metavar="NAME=V1,V2",
        help="run 04 for every combination of these values, and compare the runs",
    )
    add("--workers", type=int, metavar="N", help="N points of a grid at a time, on this machine")
    add(
        "--scheduler", default="", metavar="ADDRESS", help="points on the Dask cluster of tcp://..."
    )
    return parser.parse_known_args(arguments)


def refuse_options(options: argparse.Namespace, unknown: Sequence[str]) -> None:
    """Raises ValueError where an option is unknown, or contradicts another."""
    if unknown:
        names = {name: f"-p {name}" for name in known_parameters(NOTEBOOKS)}
        names |= {name: f"--{name}" for name in OPTIONS}
        near = difflib.get_close_matches(unknown[0].lstrip("-"), names, n=1)
        hint = f"did you mean {names[near[0]]}?" if near else "--help lists them"
        raise ValueError(f"there is no option {unknown[0]!r}; {hint}")
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
            f"--workers is at least 1, not {options.workers}, and for this machine: not beside "
            "--scheduler"
        )


def choose(first: str | None, only: str | None, last: str | None = None) -> list[Path]:
    """The notebooks to run, each named by how its file's name starts, such as "04".

    Args:
        first: start at this one.
        only: run this one alone.
        last: end with this one.

    Raises:
        ValueError: there is no such notebook, or one contradicts another.
    """
    if only and (first or last):
        raise ValueError(
            f"--only {only} runs one notebook, --from {first or ''} and --to {last or ''} several"
        )
    if only:
        return [NOTEBOOKS[place] for place in places(only)]
    start = places(first)[0] if first else 0
    end = places(last)[-1] if last else len(NOTEBOOKS) - 1
    if end < start:
        raise ValueError(f"there is no notebook from {first} to {last}")
    return NOTEBOOKS[start : end + 1]


def places(start: str) -> list[int]:
    """Where in the series the notebooks stand whose names start so.

    Raises:
        ValueError: there is none.
    """
    numbers = [n for n, notebook in enumerate(NOTEBOOKS) if notebook.name.startswith(start)]
    if not numbers:
        names = ", ".join(path.stem for path in NOTEBOOKS)
        raise ValueError(f"no notebook starts with {start!r}: {names}")
    return numbers


def say_unused(pairs: Sequence[tuple[str, str]], notebooks: Sequence[Path]) -> None:
    """Say which of the -p parameters have no effect, since no notebook that runs takes them."""
    taken = {name for notebook in notebooks for name in declared(notebook)}
    for name in dict.fromkeys(name for name, _ in pairs if name not in taken):
        numbers = ", ".join(notebook.stem for notebook in notebooks)
        print(f"helpers.run: -p {name} changes nothing: not used by {numbers}", file=sys.stderr)


# a grid


def read_grid(
    texts: Sequence[str], values: dict, pairs: Sequence[tuple[str, str]], known: dict
) -> grid.Grid:
    """The grid of `--grid NAME=VALUE,VALUE` texts, each point checked as a run's parameters are.

    Args:
        texts: what stands behind each --grid.
        values: the other parameters; of those that --params gave, the grid's take the place.
        pairs: the -p parameters, which may not name what the grid varies.
        known: of `known_parameters`.

    Raises:
        ValueError: it cannot be a grid, or a point's parameters contradict each other.
    """
    first = choose(None, "01") + choose(None, "02")
    (notebook,) = choose(None, "04")
    axes = read_axes(texts, pairs, known, notebook)
    if "run" not in values:
        raise ValueError(
            "--grid needs --run NAME: the runs of its points become NAME-attention=none-seed=0 "
            "and so on"
        )
    for point, chosen in grid.name_points(values["run"], axes).items():
        try:
            check(values | chosen, known)
        except ValueError as error:
            raise ValueError(f"{point}: {error}") from error
    merged = {name: default for name, (_, default) in known.items()} | values
    if "image_size" in axes:  # of the first cache; each point has the one of its own size
        merged["image_size"] = axes["image_size"][0]
    shared = {name: merged[name] for path in first for name in declared(path)}
    parameters = {name: merged[name] for name in declared(notebook)}
    shared.pop("seed", None)  # it shows there how batches are drawn, and makes nothing
    shared.pop("run")
    parameters.pop("run")
    return grid.Grid(values["run"], axes, first, shared, notebook, parameters)


def read_axes(
    texts: Sequence[str], pairs: Sequence[tuple[str, str]], known: dict, notebook: Path
) -> dict[str, list]:
    """The values of each parameter that a grid varies; raises ValueError as `read_grid`."""
    varied = declared(notebook)
    axes = {}
    for text in texts:
        name, _, listed = text.partition("=")
        if not name or not listed:
            raise ValueError(
                f"--grid {text!r}: expected NAME=VALUE,VALUE, such as attention=softmax,none"
            )
        axis = [read_parameters("", [(name, value)], known)[name] for value in listed.split(",")]
        if name == "run" or name not in varied:
            raise ValueError(
                f"--grid {name}: a grid varies what {notebook.stem} uses; its points share "
                f"photographs and split, to be compared as pairs. Start one for each {name}, under "
                "another --run"
            )
        if name in axes or name in dict(pairs):
            raise ValueError(
                f"--grid {name}: its values stand twice; name {name} once, and not with -p"
            )
        axes[name] = axis
    return axes
