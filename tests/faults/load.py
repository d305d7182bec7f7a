"""Does the series carry the whole table? 01 and 02 over 60,487 rows and as many small photographs, through papermill.

    python tests/faults/load.py

Prints time, peak memory and open files of each notebook's processes, and ends with 1 where one is beyond its bound.
The photographs are 300 drawn ones of 24 pixels under 60,487 names, so that the rows count, not the pixels.
Needs the whole table in ATTENTION_TEST_DATA or ../shared/data; without it, it says so and ends with 0.
"""

import gzip
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import psutil

PROJECT = Path(__file__).resolve().parent.parent.parent
PICTURES = 300
BOUNDS = {
    "01": (60, 2.5, 250),
    "02": (80, 3.0, 250),
}  # seconds, GB and open files that are too many; on two cores
# 15 s, 1.6 GB, 96 and 18 s, 1.8 GB, 103 were measured


def write_folder(folder: Path, table: Path) -> int:
    """A folder in the Kaggle layout; returns its rows. A photograph is a hard link to one of the drawn ones."""
    photographs = folder / "512x512-dataset-melanoma" / "512x512-dataset-melanoma"
    photographs.mkdir(parents=True)
    (folder / "marking.csv").write_bytes(gzip.decompress(table.read_bytes()))
    rng, drawn = np.random.default_rng(0), folder.with_name("drawn")
    drawn.mkdir()
    for number in range(PICTURES):
        skin = np.full((24, 24, 3), (120, 150, 200)) + rng.normal(0, 20, (24, 24, 3))
        cv2.imwrite(str(drawn / f"{number}.jpg"), skin.clip(0, 255).astype(np.uint8))
    names = pd.read_csv(folder / "marking.csv", usecols=["image_id"], dtype=str)["image_id"]
    for row, name in enumerate(names):
        os.link(drawn / f"{row % PICTURES}.jpg", photographs / f"{name}.jpg")
    return len(names)


def watch(process: subprocess.Popen) -> tuple[float, float, int]:
    """Until it ends: seconds, and the most memory (GB resident) and open files of it and all that it started."""
    started, memory, files = time.perf_counter(), 0, 0
    while True:
        try:
            process.wait(timeout=0.1)
            return time.perf_counter() - started, memory / 1e9, files
        except subprocess.TimeoutExpired:
            found = []
            for one in (
                psutil.Process(process.pid),
                *psutil.Process(process.pid).children(recursive=True),
            ):
                try:
                    found.append(
                        (one.memory_info().rss, one.num_fds() if hasattr(one, "num_fds") else 0)
                    )
                except psutil.Error:  # it has just ended
                    continue
            if found:
                memory, files = (
                    max(most, sum(one))
                    for most, one in zip((memory, files), zip(*found, strict=True), strict=True)
                )


def main() -> int:
    data = Path(os.environ.get("ATTENTION_TEST_DATA") or PROJECT.parent / "shared" / "data")
    table = data / "marking-full.csv.gz"
    if not table.is_file():
        print(
            f"load: nothing was measured, the whole table is not in {data}; ATTENTION_TEST_DATA names another folder"
        )
        return 0
    failed = []
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        rows = write_folder(place / "set", table)
        variables = {
            **os.environ,
            "ATTENTION_DATA": str(place / "data"),
            "ATTENTION_RUNS": str(place / "runs"),
        }
        command = [
            sys.executable,
            "-m",
            "helpers.run",
            "--run",
            "load",
            "--dataset",
            str(place / "set"),
            "-p",
            "benign",
            "0",
            "-p",
            "image_size",
            "32",
            "--only",
        ]
        for notebook, bounds in BOUNDS.items():
            with subprocess.Popen(
                [*command, notebook],
                cwd=PROJECT,
                env=variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as process:
                found = watch(process)
                output = process.stdout.read()
            print(
                f"load: {notebook}, {rows:,} rows: {found[0]:.0f} s, {found[1]:.2f} GB, {found[2]} open files"
            )
            if process.returncode:
                print(output)
                return 1
            failed += [
                f"{notebook}: {one:.2f} {what}, expected less than {bound}"
                for one, bound, what in zip(
                    found, bounds, ("seconds", "GB", "open files"), strict=True
                )
                if one >= bound
            ]
    print("\n".join(failed) or "load: all within bounds")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
