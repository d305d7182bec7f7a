"""A grid of runs: every combination of some parameters' values, and a comparison of them as pairs.

Photographs, split and cache are made once, in runs/NAME/; each point of the grid is a run of its own,
runs/NAME-attention=none-seed=0/, with copies of them and `point.json`: what was asked for, and what it left. A point
that is done is not run again. Points run one after another, or on Dask workers as processes of their own.
"""

import contextlib
import hashlib
import itertools
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from helpers import workspace
from helpers.photographs.cache import build_cache
from helpers.photographs.split import read_split
from helpers.runs import compare

SHARED = ("dataset.json", "split.csv", "cache.json")
LEFT = (
    "split.csv",
    "model.pt",
    "history.csv",
    "predictions.csv",
    "metrics.json",
    "timing.json",
)  # by a point


class Grid(NamedTuple):
    """What to run. `execute(notebook, parameters, folder)` runs one notebook and raises where it fails."""

    name: str
    axes: dict[str, list]  # parameter -> its values
    first: Sequence[Path]  # the notebooks that make photographs, split and cache, once
    shared: dict  # their parameters
    notebook: Path  # the one that each point runs
    parameters: dict  # its parameters, where no axis gives another value
    execute: Callable[[Path, dict, Path], object]


def name_points(name: str, axes: dict[str, list]) -> dict[str, dict]:
    """The values of each combination of the axes, by the name of its run. A path stands there by its last part.

    Raises ValueError where two points would have the same name.
    """
    points = {}
    for values in itertools.product(*axes.values()):
        point = "-".join(
            [
                name,
                *(f"{axis}={compare.label(one)}" for axis, one in zip(axes, values, strict=True)),
            ]
        )
        if point in points:
            raise ValueError(
                f"two points of the grid would be the run {point!r}: give each value once, and files "
                "that differ in more than their folder"
            )
        points[point] = dict(zip(axes, values, strict=True))
    return points


def run_grid(
    grid: Grid, *, workers: int = 0, scheduler: str = "", report: Callable[[str], None] = print
) -> dict:
    """Run what is missing, then compare what is done; returns the reason of each point that failed, by its name.

    Without workers or scheduler they run one after another in this process. `report` takes a line a point. Raises
    ConnectionError where no scheduler answers, and what `execute` raises for the shared notebooks.
    """
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(connect(workers, scheduler)) if workers or scheduler else None
        folder, points = share(grid, report), name_points(grid.name, grid.axes)
        missing = [
            point for point, values in points.items() if prepare(grid, point, values, folder)
        ]
        started = time.perf_counter()
        report(f"{len(points)} points, {len(points) - len(missing)} of them done before")
        ended = (
            on_dask(client, missing)
            if client
            else ((point, run_point(point, grid.execute)) for point in missing)
        )
        failed = {}
        for number, (point, reason) in enumerate(ended, start=1):
            failed |= {point: reason} if reason else {}
            report(
                f"[{number}/{len(missing)}] {point}: {reason or 'done'} ({time.perf_counter() - started:.0f} s)"
            )
    done = {point: values for point, values in points.items() if point not in failed}
    if done:
        compare.write(grid.name, done, failed)
        report(f"{len(done)} points compared: {folder / 'compare.md'}")
    return failed


# one run


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def share(grid: Grid, report: Callable[[str], None]) -> Path:
    """Photographs, split and cache in the grid's folder, made unless they are there with these parameters."""
    folder = workspace.run_folder(grid.name)
    record = folder / "grid.json"
    with workspace.locked(folder / "point"):
        if all((folder / name).exists() for name in SHARED) and record.exists():
            found = workspace.read_json(record, "helpers.run --grid")
            cache = workspace.read_json(folder / "cache.json", "02_preprocess.ipynb")
            if found["shared"] == grid.shared and Path(cache["file"]).exists():
                return folder
        record.unlink(missing_ok=True)
        for notebook in grid.first:
            report(f"{notebook.stem}, for all points")
            grid.execute(notebook, grid.shared | {"run": grid.name}, folder)
        workspace.write_json(record, {"shared": grid.shared})
    return folder


def prepare(grid: Grid, point: str, values: dict, shared: Path) -> bool:
    """Lay out what a point needs; False where it is done: its files whole, its parameters and its split these."""
    folder, split = workspace.run_folder(point), digest(shared / "split.csv")
    wish = {
        "notebook": str(grid.notebook),
        "parameters": grid.parameters | values | {"run": point},
        "split": split,
    }
    with workspace.locked(folder / "point"):
        if whole(folder) and all(
            read_point(folder)[key] == wish[key] for key in ("parameters", "split")
        ):
            return False
        workspace.write_json(folder / "point.json", wish)
        for name in SHARED:
            with workspace.replacing(folder / name) as beside:
                shutil.copyfile(shared / name, beside)
        if (
            "image_size" in grid.axes
        ):  # the photographs once more in another size; a cache that is there is used again
            dataset = workspace.read_json(folder / "dataset.json", "01_download.ipynb")
            workspace.write_json(
                folder / "cache.json",
                build_cache(
                    dataset, read_split(folder / "split.csv"), image_size=values["image_size"]
                ),
            )
    return True


def read_point(folder: Path) -> dict:
    return workspace.read_json(folder / "point.json", "helpers.run --grid")


def sizes(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_size for name in LEFT}


def whole(folder: Path) -> bool:
    """Whether a point ended well here and left all its files, as long as they were then."""
    try:
        return read_point(folder).get("left") == sizes(folder)
    except FileNotFoundError:
        return False


def run_point(point: str, execute: Callable[[Path, dict, Path], object]) -> str:
    """Run one point that is laid out, unless another process just did; returns the reason of a failure, or ""."""
    folder = workspace.run_folder(point)
    with workspace.locked(folder / "point"):
        if whole(folder):
            return ""
        wish = read_point(folder)
        try:
            execute(Path(wish["notebook"]), wish["parameters"], folder)
            outcome = {"left": sizes(folder)}
        except Exception as error:  # whatever a point raises, the others go on
            outcome = {"failed": str(error).splitlines()[0] if str(error) else repr(error)}
        workspace.write_json(folder / "point.json", wish | outcome)
    return outcome.get("failed", "")


# on Dask workers


@contextlib.contextmanager
def connect(workers: int, scheduler: str) -> Iterator:
    """A Dask client: of the scheduler at this address, or of so many workers on this machine, each with its GPU."""
    from distributed import (
        Client,
        Nanny,
        Scheduler,
        SpecCluster,
    )  # takes a second, which other runs need not wait

    if scheduler:
        try:
            client = Client(scheduler, timeout=10)
        except (OSError, ValueError) as error:
            raise ConnectionError(f"no Dask scheduler answers at {scheduler}: {error}") from error
        with client:
            yield client
        return
    gpus = (
        os.environ.get("CUDA_VISIBLE_DEVICES")
        or ",".join(map(str, range(torch.cuda.device_count())))
    ).split(",")
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, os.cpu_count() // workers))
    here = {"host": "127.0.0.1", "dashboard": False}
    worker = here | {"nthreads": 1, "memory_limit": None, "silence_logs": logging.ERROR}
    each = [
        {
            "cls": Nanny,
            "options": worker
            | {
                "env": {
                    "OMP_NUM_THREADS": threads,
                    "CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)],
                }
            },
        }
        for number in range(workers)
    ]
    # a LocalCluster is this with equal workers; these differ in their GPU
    with (
        SpecCluster(
            workers=dict(enumerate(each)),
            scheduler={"cls": Scheduler, "options": here},
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def on_dask(client, points: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Run points that are laid out on the client's workers; yields each with the reason of its failure, or "".

    A worker needs this Python and these folders, and nothing of the package. Dask gives the point of a worker that dies
    to another one, three times at most. A point is `subprocess.run` of `helpers.run --point`, with the worker's own
    environment and our folders.
    """
    from distributed import as_completed

    if not points:
        return
    ours = {
        "ATTENTION_DATA": workspace.data_folder(),
        "ATTENTION_HEADLESS": "1",
        "ATTENTION_RUNS": workspace.run_folder(points[0]).parent,
    }
    start = [
        "sh",
        "-c",
        'exec env "$@" $PPID',
        "sh",  # adds the process id of the worker, for `child`
        *(f"{name}={value}" for name, value in ours.items()),
        sys.executable,
        "-m",
        "helpers.run",
    ]
    futures = {
        client.submit(
            subprocess.run,
            [*start, "--point", point],
            cwd=str(workspace.PROJECT),
            pure=False,
            capture_output=True,
            text=True,
        ): point
        for point in points
    }
    for future in as_completed(futures):
        point = futures[future]
        if error := future.exception():  # its workers died, or cannot start it
            yield point, f"{type(error).__name__}: {' '.join(str(error).split())}"
            continue
        folder, ended = workspace.run_folder(point), future.result()
        said = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        reason = (
            read_point(folder).get("failed") or f"its process ended with {ended.returncode}: {said}"
        )
        yield point, "" if whole(folder) else reason


def child(point: str, worker: int, execute: Callable[[Path, dict, Path], object]) -> int:
    """What a worker starts: `run_point` in a process that ends when the worker does. Returns the exit code."""

    def watch() -> None:
        while os.getppid() == worker:
            time.sleep(1)
        os._exit(1)  # the kernel that it started sees that, and ends too

    threading.Thread(target=watch, daemon=True).start()
    return 1 if run_point(point, execute) else 0
