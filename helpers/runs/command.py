"""Run the notebooks in order through papermill, with their parameters checked before any starts.

    python -m helpers.run [--run NAME] [--dataset sample|isic|kaggle|PATH] [--params FILE]
                          [-p NAME VALUE]... [--from 04] [--to 05] [--only 05]
                          [--grid NAME=VALUE,VALUE]... [--workers N] [--scheduler ADDRESS]

It runs the notebooks that it is told to and no others: where the first of them needs a part that
has not run, it says so. (A notebook that is opened by itself makes such a part first.)

Exit 0: all ran. 1: a notebook failed or has nothing to start from, or files cannot be read or
written.
2: a parameter or option is unknown, of the wrong type, changes nothing, or contradicts another.
130: stopped by Ctrl-C (SIGINT) or SIGTERM.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import workspace
from helpers.runs import estimate
from helpers.runs.earlier import NotMade, refuse
from helpers.runs.parameters import (
    NOTEBOOKS,
    Once,
    check,
    known_parameters,
    no_option,
    read_parameters,
    refuse_idle,
    say_passed_over,
    split_pairs,
)
from helpers.runs.series import NotebookFailed, declared, run_series, unwatched

if TYPE_CHECKING:  # imported where a grid is asked for: it brings torchvision and scikit-learn
    from helpers.runs.grid import Grid

OPTIONS = ("run", "dataset", "params", "from", "to", "only", "grid", "workers", "scheduler")


def main(arguments: Sequence[str] | None = None) -> int:
    """What `python -m helpers.run` does; may be called in a notebook's cell, too.

    Args:
        arguments: those of the command line; None takes `sys.argv`.

    Returns:
        The exit code.
    """
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        workspace.start_command()
        pairs, words = split_pairs(sys.argv[1:] if arguments is None else arguments)
        options, unknown = read_options(words)
        refuse_options(options, unknown)
        notebooks = choose(options.first, options.only, options.last)
        known = known_parameters(NOTEBOOKS)
        named = [("run", options.run), ("dataset", options.dataset)]
        pairs += [(name, value) for name, value in named if value is not None]
        file = options.params or ""
        values = read_parameters(file, pairs, known)
        plan = None
        if options.grid:
            plan = read_grid(options.grid, values, pairs, known)
            notebooks = [*plan.first, plan.notebook]
            points = points_of(plan)
        else:
            points = [{}]
        chosen = [check(values | point, known) for point in points]
        refuse_unused([name for name, _ in pairs], notebooks)
        refuse_idle([name for name, _ in pairs], chosen)
    except ValueError as error:
        print(f"helpers.run: {error}", file=sys.stderr)
        return 2
    say_passed_over(file, [name for path in notebooks for name in declared(path)])
    try:
        with unwatched():
            if plan:
                return run_points(plan, options)
            refuse(notebooks[0].stem, values.get("run", "sample"))
            stems = [path.stem for path in notebooks]
            expected = estimate.how_long(stems, chosen[0])
            if expected.words:
                print(expected.words, flush=True)
            if notebooks == NOTEBOOKS and not options.params:
                advice = estimate.shorter(stems, chosen[0])
                if advice:
                    print(advice, flush=True)
            run_series(values, notebooks, expected.seconds)
    except (NotebookFailed, NotMade, OSError, ValueError) as error:
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


def run_points(plan: "Grid", options: argparse.Namespace) -> int:
    """Run a grid, and say which points failed; returns the exit code."""
    from helpers.runs import grid

    workers = options.workers or 0
    failed = grid.run_grid(plan, workers=workers, scheduler=options.scheduler or "")
    for point, reason in failed.items():
        print(f"\n{point} failed: {reason}", file=sys.stderr)
    return 1 if failed else 0


# the command line


def read_options(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the words that are none."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.run", description="Run the notebooks in order.", allow_abbrev=False
    )

    def add(name: str, **options) -> None:
        parser.add_argument(name, **{"action": Once, **options})

    add("--run", help="the run's name: a folder under runs/ (default: sample)")
    add("--dataset", help="sample, isic, kaggle, or a folder or zip in the Kaggle layout")
    add("--params", metavar="FILE", help="parameters in YAML, see notebooks/params/")
    add("-p", nargs=2, metavar=("NAME", "VALUE"), help="a parameter; may be given several times")
    add("--from", dest="first", metavar="04", help="start at this notebook")
    add("--to", dest="last", metavar="05", help="end with this notebook")
    add("--only", metavar="05", help="run this notebook alone")
    add(
        "--grid",
        action="append",
        metavar="NAME=V1,V2",
        help="run 04 for every combination of these values, and compare the runs",
    )
    add("--workers", type=int, metavar="N", help="N points of a grid at a time, on this machine")
    add("--scheduler", metavar="ADDRESS", help="points on the Dask cluster of tcp://...")
    return parser.parse_known_args(words)


def refuse_options(options: argparse.Namespace, unknown: Sequence[str]) -> None:
    """Raises ValueError where an option is unknown, or contradicts another."""
    if unknown:
        raise ValueError(no_option(unknown, OPTIONS, known_parameters(NOTEBOOKS)))
    if options.params == "":
        raise ValueError("--params is empty: name a file of parameters, or leave it out")
    if not options.grid and (options.workers is not None or options.scheduler is not None):
        raise ValueError(
            "--workers and --scheduler say where the points of a --grid run; there is no --grid"
        )
    if options.grid and {options.first, options.only, options.last} != {None}:
        raise ValueError(
            "--grid runs 01 and 02 once and 04 for each point: leave --from, --to and --only out"
        )
    if options.workers is not None and (options.workers < 1 or options.scheduler is not None):
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
    if only is not None and (first, last) != (None, None):
        raise ValueError(
            f"--only {only} runs one notebook, --from {first or ''} and --to {last or ''} several"
        )
    if only is not None:
        return [NOTEBOOKS[place_of(only)]]
    start = 0 if first is None else place_of(first)
    end = len(NOTEBOOKS) - 1 if last is None else place_of(last)
    if end < start:
        raise ValueError(f"there is no notebook from {first} to {last}")
    return NOTEBOOKS[start : end + 1]


def place_of(notebook: str) -> int:
    """Where in the series a notebook stands, named by its number, or by how its file's name starts.

    Raises:
        ValueError: there is none, or more than one.
    """
    start = Path(notebook).name  # a path, too, as a shell completes it
    if start.isdecimal():
        start = f"{int(start):02}"
    found = [place for place, path in enumerate(NOTEBOOKS) if path.name.startswith(start)]
    if not start or len(found) != 1:
        names = ", ".join(path.stem for path in NOTEBOOKS)
        raise ValueError(f"no notebook of its own starts with {notebook!r}: {names}")
    return found[0]


def refuse_unused(names: Sequence[str], notebooks: Sequence[Path]) -> None:
    """Raises ValueError where a parameter that was typed changes nothing.

    A value of a file may be for other notebooks; one that was typed was meant for these.
    """
    taken = {name for notebook in notebooks for name in declared(notebook)}
    unused = []
    for name in dict.fromkeys(names):
        if name not in taken:
            takers = ", ".join(path.stem for path in NOTEBOOKS if name in declared(path))
            unused.append(f"{name} changes nothing, it is for {takers}")
    if unused:
        numbers = ", ".join(path.stem for path in notebooks)
        raise ValueError(
            f"{'; '.join(unused)}. This command runs {numbers}: let those run, too, or leave "
            "out what is for them"
        )


# a grid


def points_of(plan: "Grid") -> list[dict]:
    """The values of the axes at each point of a grid."""
    from helpers.runs import grid

    return list(grid.name_points(plan.name, plan.axes).values())


def read_grid(
    texts: Sequence[str], values: dict, pairs: Sequence[tuple[str, str]], known: dict
) -> "Grid":
    """The grid of `--grid NAME=VALUE,VALUE` texts, each point checked as a run's parameters are.

    Args:
        texts: what stands behind each --grid.
        values: the other parameters; of those that --params gave, the grid's take the place.
        pairs: the -p parameters, which may not name what the grid varies.
        known: of `known_parameters`.

    Raises:
        ValueError: it cannot be a grid, or a point's parameters contradict each other.
    """
    from helpers.runs import grid

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
    merged = {name: default for name, (_, default) in known.items()}
    merged |= {"control": ""} | values  # none at each point, unless asked for
    for name in ("image_size", "recipe"):  # of the first cache; each point has one of its own
        if name in axes:
            merged[name] = axes[name][0]
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
