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
from helpers.photographs.cache import build_cache, cache_key, cache_side
from helpers.photographs.layout import walk
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
        OSError, ValueError: what the points share, or what one of them left, cannot be read.
        Exception: what `execute` raises for the shared notebooks.
    """
    with chosen(workers, scheduler) as spread:
        folder = share(grid, report, execute)
        points = name_points(grid.name, grid.axes)
        missing, failed = lay_out_all(grid, points, folder)
        done_before = len(points) - len(missing) - len(failed)
        report(f"{len(points)} points, {done_before} of them done before")
        for point, reason in failed.items():
            report(f"{point}: {reason}")
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
    """Whether what the points share is here, and what it was made from is as it was then.

    What is damaged, or of another format, is not: it is made again.
    """
    if not all((folder / name).exists() for name in SHARED):
        return False
    try:
        cache = workspace.read_json(folder / "cache.json", "02_preprocess.ipynb")
        if not (workspace.data_folder() / cache["file"]).exists():
            return False
        record = workspace.read_json(folder / "grid.json", MAKER)
        content = digest_sources(grid.shared, folder)
    except ValueError:
        return False
    return record.get("shared") == grid.shared and record.get("content") == content


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
    """The SHA-256 of a file, or of the names and contents of all files that `walk` finds there."""
    if path.is_dir():
        found = (place / name for place, names in walk(path) for name in names)
        names = sorted(file for file in found if file.is_file())
        lines = [f"{file.relative_to(path)} {digest(file)}" for file in names]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    if not path.exists():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# one point


def lay_out_all(
    grid: Grid, points: dict[str, dict], shared: Path
) -> tuple[list[str], dict[str, str]]:
    """Lay out every point that is not done.

    Args:
        grid: what they belong to.
        points: the values of the axes, by the point's name.
        shared: the grid's folder.

    Returns:
        The points to run, in order; and why others cannot be laid out, by their name.
    """
    # each cache once, whatever else the points that take it differ in
    build = functools.cache(functools.partial(build_for, shared))
    missing = []
    failed = {}
    for point, values in points.items():
        try:
            if lay_out(grid, point, values, shared, build):
                missing.append(point)
        except (OSError, ValueError) as error:  # too little room, say: the others go on
            failed[point] = reason_of(error)
    return missing, failed


def lay_out(
    grid: Grid, point: str, values: dict, shared: Path, build: Callable[[int, float], dict]
) -> bool:
    """Lay out in its folder what a point needs, unless it is done.

    Args:
        grid: what it belongs to.
        point: its name.
        values: those of the axes.
        shared: the grid's folder.
        build: `build_for` of that folder.

    Returns:
        False where it is done: its files whole, and all that shaped it the same as now.

    Raises:
        OSError, ValueError: its cache cannot be made, or its folder not be written.
    """
    folder = workspace.run_folder(point)
    cache = workspace.read_json(shared / "cache.json", "02_preprocess.ipynb")
    key = cache.get("key")
    parameters = grid.parameters | values | {"run": point}
    # the same photographs in another size, or seen in part: a cache more, or its own
    has_its_own = "image_size" in grid.axes or "recipe" in grid.axes
    if has_its_own:
        view = RECIPES[parameters["recipe"]].view
        key = key_for(shared, parameters["image_size"], view)
    shaped_by = {
        "parameters": parameters | {"weights": weights_key(parameters.get("weights", "none"))},
        "split": digest(shared / "split.csv"),
        "cache": key,
        "training": TRAINING_VERSION,
    }
    with workspace.locked(folder / "point"):
        if is_whole(folder) and read_point(folder).get("shaped_by") == shaped_by:
            return False
        if has_its_own:  # read now: a point that is done needs no photograph
            cache = build(parameters["image_size"], view)
        record = {"notebook": str(grid.notebook), "parameters": parameters, "shaped_by": shaped_by}
        workspace.write_json(folder / "point.json", record)
        for name in ("dataset.json", "split.csv"):
            with workspace.replacing(folder / name) as beside:
                shutil.copyfile(shared / name, beside)
        workspace.write_json(folder / "cache.json", cache)
    return True


def key_for(shared: Path, image_size: int, view: float) -> str:
    """The key of the cache that `build_for` makes; no photograph is read."""
    dataset = workspace.read_json(shared / "dataset.json", "01_download.ipynb")
    return cache_key(dataset, read_split(shared / "split.csv"), cache_side(image_size, view))


def build_for(shared: Path, image_size: int, view: float) -> dict:
    """Make the cache of a grid's photographs for this size and view; the content of cache.json."""
    dataset = workspace.read_json(shared / "dataset.json", "01_download.ipynb")
    split = read_split(shared / "split.csv")
    return build_cache(dataset, split, image_size=image_size, view=view)


def reason_of(error: Exception) -> str:
    """The first line of what an error says."""
    return str(error).splitlines()[0] if str(error) else repr(error)


def read_point(folder: Path) -> dict:
    return workspace.read_json(folder / "point.json", MAKER)


def digest_left(folder: Path) -> dict[str, str]:
    """A digest of each file that a point leaves, and of its control; "" where one is missing."""
    return {name: digest(folder / name) for name in (*LEFT, CONTROL)}


def is_whole(folder: Path) -> bool:
    """Whether a point ended well here, and what it left is as it was then.

    One whose record is damaged, or of another format, did not: it is run again.
    """
    if not (folder / "point.json").exists():
        return False
    try:
        left = read_point(folder).get("left")
    except ValueError:
        return False
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
            reason = reason_of(error)
        outcome = {"failed": reason} if reason else {"left": digest_left(folder)}
        workspace.write_json(folder / "point.json", record | outcome)
    return reason
