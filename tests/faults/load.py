"""Does the series carry the whole table? 01 and 02 over 60,487 rows, through papermill.

    python -m tests.faults.load

Prints time, peak memory and open files of each notebook's processes, and ends with 1 where memory
or files are beyond their bound; the time is of this machine and has none. The photographs are 300
drawn ones of 24 pixels under 60,487 names, so that the rows count, not the pixels. Needs the whole
table in ATTENTION_TEST_DATA or ../shared/data; without it, it says so and ends with 0.
"""

import gzip
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import psutil

PROJECT = Path(__file__).resolve().parent.parent.parent
PICTURES = 300


class Taken(NamedTuple):
    """What a notebook and all that it starts take."""

    seconds: float
    gigabytes: float  # resident
    open_files: int


# too much; on two cores 15 s, 1.6 GB, 96 and 18 s, 1.8 GB, 103 were measured
BOUNDS = {"01": Taken(math.inf, 2.5, 250), "02": Taken(math.inf, 3.0, 250)}


def write_folder(folder: Path, table: Path) -> int:
    """A folder in the Kaggle layout; returns its rows. Photographs are hard links to drawn ones."""
    photographs = folder / "512x512-dataset-melanoma" / "512x512-dataset-melanoma"
    photographs.mkdir(parents=True)
    (folder / "marking.csv").write_bytes(gzip.decompress(table.read_bytes()))
    rng = np.random.default_rng(0)
    drawn = folder.with_name("drawn")
    drawn.mkdir()
    for number in range(PICTURES):
        skin = np.full((24, 24, 3), (120, 150, 200)) + rng.normal(0, 20, (24, 24, 3))
        cv2.imwrite(str(drawn / f"{number}.jpg"), skin.clip(0, 255).astype(np.uint8))
    names = pd.read_csv(folder / "marking.csv", usecols=["image_id"], dtype=str)["image_id"]
    for row, name in enumerate(names):
        os.link(drawn / f"{row % PICTURES}.jpg", photographs / f"{name}.jpg")
    return len(names)


def watch(process: subprocess.Popen) -> Taken:
    """What a process takes until it ends."""
    started = time.perf_counter()
    most_memory = most_files = 0
    while process.poll() is None:
        memory = files = 0
        try:
            parent = psutil.Process(process.pid)
            for member in (parent, *parent.children(recursive=True)):
                memory += member.memory_info().rss
                files += member.num_fds() if hasattr(member, "num_fds") else 0
        except psutil.Error:  # one of them has just ended
            pass
        most_memory = max(most_memory, memory)
        most_files = max(most_files, files)
        time.sleep(0.1)
    return Taken(time.perf_counter() - started, most_memory / 1e9, most_files)


def run_notebook(number: str, place: Path) -> tuple[int, Taken, str]:
    """One notebook through the command: its exit code, what it took, and what it printed."""
    variables = {"ATTENTION_DATA": str(place / "data"), "ATTENTION_RUNS": str(place / "runs")}
    values = {"run": "load", "dataset": str(place / "set"), "benign": 0, "image_size": 32}
    (place / "load.yaml").write_text(json.dumps(values))
    command = [sys.executable, "-m", "helpers.run", "--params", str(place / "load.yaml")]
    with (
        (place / "printed").open("w+") as printed,
        subprocess.Popen(
            [*command, "--only", number],
            cwd=PROJECT,
            env={**os.environ, **variables},
            stdout=printed,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        taken = watch(process)
        printed.seek(0)
        return process.returncode, taken, printed.read()


def main() -> int:
    """The exit code: 1 where a notebook failed or took too much."""
    data = Path(os.environ.get("ATTENTION_TEST_DATA") or PROJECT.parent / "shared" / "data")
    table = data / "marking-full.csv.gz"
    if not table.is_file():
        print(
            f"load: nothing was measured, the whole table is not in {data}; ATTENTION_TEST_DATA "
            "names another folder"
        )
        return 0
    too_much = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        rows = write_folder(place / "set", table)
        for number, bounds in BOUNDS.items():
            code, taken, printed = run_notebook(number, place)
            print(
                f"load: {number}, {rows:,} rows: {taken.seconds:.0f} s, {taken.gigabytes:.2f} GB, "
                f"{taken.open_files} open files"
            )
            if code:
                print(printed)
                return 1
            for what, value, bound in zip(Taken._fields, taken, bounds, strict=True):
                if value >= bound:
                    too_much.append(f"{number}: {value:.2f} {what}, expected less than {bound}")
    print("\n".join(too_much) or "load: all within bounds")
    return 1 if too_much else 0


if __name__ == "__main__":
    sys.exit(main())
