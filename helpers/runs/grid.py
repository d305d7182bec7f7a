"""A grid of runs: every combination of some parameters' values, and a comparison of them as pairs.

Photographs, split and cache are made once, in runs/NAME/. Each point of the grid is a run of its
own, runs/NAME-attention=none-seed=0/, with copies of them and `point.json`: what shaped it, and
what it left. A point that is done is not run again, unless something that shaped it is another now.
"""

import functools
import hashlib
import itertools
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from helpers import workspace
from helpers.photographs.cache import build_cache
from helpers.photographs.split import read_split
from helpers.runs import compare
from helpers.runs.series import run_notebook
from helpers.runs.workers import chosen
from helpers.training.checkpoint import TRAINING_VERSION, weights_key
from helpers.training.control import CONTROL
from helpers.training.settings import RECIPES

SHARED = ("dataset.json", "split.csv", "cache.json")
# what a point leaves; where 04 trains a control, its files lie in the folder CONTROL beside these
LEFT = (
    "split.csv",
    "model.pt",
    "history.csv",
    "predictions.csv",
    "metrics.json",
    "timing.json",
)
MAKER = "helpers.run --grid"  # named where one of its files cannot be read

Execute = Callable[[Path, dict, Path], object]  # runs a notebook with parameters in a folder


class Grid(NamedTuple):
    """What to run."""

    name: str
    axes: dict[str, list]  # parameter -> its values
    first: Sequence[Path]  # the notebooks that make photographs, split and cache, once
    shared: dict  # their parameters
    notebook: Path  # the one that each point runs
    parameters: dict  # its parameters, where no axis gives another value


def name_points(name: str, axes: dict[str, list]) -> dict[str, dict]:
    """The values of each combination of the axes, by the name of its run.

    Args:
        name: of the grid; each run's name starts with it.
        axes: parameter -> its values. A path stands in a name by its last part.

    Raises:
        ValueError: two points would have the same name, or one that no run can have.

    >>> name_points("g", {"attention": ["none"], "seed": [0, 1]})["g-attention=none-seed=1"]
    {'attention': 'none', 'seed': 1}
    """
    points = {}
    for values in itertools.product(*axes.values()):
        parts = [f"{axis}={compare.label(value)}" for axis, value in zip(axes, values, strict=True)]
        point = "-".join([name, *parts])
        workspace.check_run_name(point)
        if point in points:
            raise ValueError(
                f"two points of the grid would be the run {point!r}: give each value once, and "
                "files that differ in more than their folder"
            )
        points[point] = dict(zip(axes, values, strict=True))
    return points


def run_grid(
    grid: Grid,
    *,
    workers: int = 0,
    scheduler: str = "",
    report: Callable[[str], None] = print,
    execute: Execute = run_notebook,
) -> dict[str, str]:
    """Run what is missing, then compare what is done.

    Args:
        grid: the points, and what they share.
        workers: so many points at a time, in processes of this machine; 0: in this one.
        scheduler: the address of a Dask scheduler, on whose workers they run, or "".
        report: takes a line a point.
        execute: runs one notebook and raises where it fails.

    Returns:
        The reason of each point that failed, by its name.

    Raises:
        ConnectionError: no scheduler answers.
        Exception: what `execute` raises for the shared notebooks.
    """
    with chosen(workers, scheduler) as spread:
        folder = share(grid, report, execute)
        points = name_points(grid.name, grid.axes)
        missing = [point for point in points if lay_out(grid, point, points[point], folder)]
        report(f"{len(points)} points, {len(points) - len(missing)} of them done before")
        failed = {}
        started = time.perf_counter()
        ended = spread(functools.partial(run_point, execute=execute), missing)
        for number, (point, reason) in enumerate(ended, start=1):
            if reason:
                failed[point] = reason
            seconds = time.perf_counter() - started
            report(f"[{number}/{len(missing)}] {point}: {reason or 'done'} ({seconds:.0f} s)")
    done = {point: values for point, values in points.items() if point not in failed}
    if done:
        compare.write(grid.name, done, failed)
        report(f"{len(done)} points compared: {folder / 'compare.md'}")
    return failed


# what all points share


def share(grid: Grid, report: Callable[[str], None], execute: Execute) -> Path:
    """The grid's folder, with photographs, split and cache.

    They are made unless they are there, with these parameters and of the same photographs.
    """
    folder = workspace.run_folder(grid.name)
    record = folder / "grid.json"
    with workspace.locked(folder / "point"):
        if record.exists() and shared_is_current(grid, folder):
            return folder
        record.unlink(missing_ok=True)
        for notebook in grid.first:
            report(f"{notebook.stem}, for all points")
            execute(notebook, grid.shared | {"run": grid.name}, folder)
        content = digest_sources(grid.shared, folder)
        workspace.write_json(record, {"shared": grid.shared, "content": content})
    return folder


def shared_is_current(grid: Grid, folder: Path) -> bool:
    """Whether what the points share is here, and what it was made from is as it was then."""
    if not all((folder / name).exists() for name in SHARED):
        return False
    cache = workspace.read_json(folder / "cache.json", "02_preprocess.ipynb")
    if not (workspace.data_folder() / cache["file"]).exists():
        return False
    record = workspace.read_json(folder / "grid.json", MAKER)
    content = digest_sources(grid.shared, folder)
    return record["shared"] == grid.shared and record.get("content") == content


def digest_sources(shared: dict, folder: Path) -> dict[str, str]:
    """A digest of each file and folder that 01 and 02 read, by its place.

    Args:
        shared: the parameters of 01 and 02, of which some name a file.
        folder: of the run; its dataset.json names the photographs, masks and table.
    """
    dataset = workspace.read_json(folder / "dataset.json", "01_download.ipynb")
    named = [shared.get(name) for name in ("dataset", "masks", "ids", "pairs")]
    files = [Path(value) for value in named if value and Path(value).is_file()]
    places = [dataset.get(name) for name in ("csv", "folder", "masks_folder")]
    # a place in the data folder may be written relative to it
    files += [workspace.data_folder() / place for place in places if place]
    return {str(file): digest(file) for file in files}


def digest(path: Path) -> str:
    """The SHA-256 of a file, or of the names and contents of all files in a folder."""
    if path.is_dir():
        names = sorted(file for file in path.rglob("*") if file.is_file())
        lines = [f"{file.relative_to(path)} {digest(file)}" for file in names]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    if not path.exists():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# one point


def lay_out(grid: Grid, point: str, values: dict, shared: Path) -> bool:
    """Lay out in its folder what a point needs, unless it is done.

    Args:
        grid: what it belongs to.
        point: its name.
        values: those of the axes.
        shared: the grid's folder.

    Returns:
        False where it is done: its files whole, and all that shaped it the same as now.
    """
    folder = workspace.run_folder(point)
    cache = workspace.read_json(shared / "cache.json", "02_preprocess.ipynb")
    parameters = grid.parameters | values | {"run": point}
    # the same photographs in another size, or seen in part: a cache more, or its own
    if "image_size" in grid.axes or "recipe" in grid.axes:
        dataset = workspace.read_json(shared / "dataset.json", "01_download.ipynb")
        split = read_split(shared / "split.csv")
        view = RECIPES[parameters["recipe"]].view
        cache = build_cache(dataset, split, image_size=parameters["image_size"], view=view)
    shaped_by = {
        "parameters": parameters | {"weights": weights_key(parameters.get("weights", "none"))},
        "split": digest(shared / "split.csv"),
        "cache": cache.get("key"),
        "training": TRAINING_VERSION,
    }
    with workspace.locked(folder / "point"):
        if is_whole(folder) and read_point(folder).get("shaped_by") == shaped_by:
            return False
        record = {"notebook": str(grid.notebook), "parameters": parameters, "shaped_by": shaped_by}
        workspace.write_json(folder / "point.json", record)
        for name in ("dataset.json", "split.csv"):
            with workspace.replacing(folder / name) as beside:
                shutil.copyfile(shared / name, beside)
        workspace.write_json(folder / "cache.json", cache)
    return True


def read_point(folder: Path) -> dict:
    return workspace.read_json(folder / "point.json", MAKER)


def digest_left(folder: Path) -> dict[str, str]:
    """A digest of each file that a point leaves, and of its control; "" where one is missing."""
    return {name: digest(folder / name) for name in (*LEFT, CONTROL)}


def is_whole(folder: Path) -> bool:
    """Whether a point ended well here, and what it left is as it was then."""
    if not (folder / "point.json").exists():
        return False
    left = read_point(folder).get("left")
    return left is not None and left == digest_left(folder)


def run_point(point: str, execute: Execute = run_notebook) -> str:
    """Run one point that is laid out, unless another process just did.

    Returns:
        The reason of a failure, or "".
    """
    folder = workspace.run_folder(point)
    with workspace.locked(folder / "point"):
        if is_whole(folder):
            return ""
        record = read_point(folder)
        reason = ""
        try:
            execute(Path(record["notebook"]), record["parameters"], folder)
            absent = [name for name in LEFT if not (folder / name).exists()]
            if absent:
                reason = f"it ended without leaving {', '.join(absent)}"
        except Exception as error:  # whatever a point raises, the others go on
            reason = str(error).splitlines()[0] if str(error) else repr(error)
        outcome = {"failed": reason} if reason else {"left": digest_left(folder)}
        workspace.write_json(folder / "point.json", record | outcome)
    return reason
