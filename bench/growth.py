"""What parts of the series take on the whole table, and on twice and four times as many rows.

For `full_table.py`. A part is a function that makes what it needs and returns the work that is
timed. Each size runs in a process of its own, on one core, so that its memory is its own.
"""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import loops
import numpy as np
import pandas as pd
import speed
import torch
from torch import Tensor

from helpers.audit import localisation
from helpers.photographs import lookalikes
from helpers.photographs.cache import cache_side
from helpers.scores.results import calibrate_and_summarise
from helpers.training.settings import Settings

SIDE = 224  # of the network's input, as in notebooks/params/full.yaml
AUDITED = 200  # one test photograph of so many is measured
# share of all pairs whose hashes are near, as among the real photographs of photographs-3737.csv
PROPOSED = 5e-5


def repeat(table: pd.DataFrame, times: float) -> pd.DataFrame:
    """The table several times, with image ids and groups of their own; below 1 its first rows."""
    copies = []
    for number in range(max(1, int(times))):
        ids = table["image_id"] + f"-{number}"
        groups = table["group"] + number * (table["group"].max() + 1)
        copies.append(table.assign(image_id=ids, group=groups))
    return pd.concat(copies, ignore_index=True)[: int(times * len(table))]


# the bootstrap


def bootstrap(table: pd.DataFrame) -> Callable[[], object]:
    """What notebook 04 says of its predictions of val and test, with all its intervals."""
    held_out = table[table["split"] != "train"]
    noise = np.random.default_rng(0).normal(size=len(held_out))
    predictions = held_out.assign(logit=held_out["target"] + noise)
    settings = Settings()
    return lambda: calibrate_and_summarise(predictions, table.assign(kept=1), settings)


# the look-alikes


def made_hashes(count: int) -> np.ndarray:
    """Hashes uint64 [N, 8, 4] of which PROPOSED of all pairs are near, 32 of 256 bits apart."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, (count, 8, 4), np.uint64, endpoint=False)
    pairs = round(PROPOSED * count * (count - 1) / 2)
    # a turned photograph is near another as it lies; each of its orientations to one at most
    places = rng.choice(7 * (count - 1), pairs, replace=False)
    second, orientation = 1 + places // 7, 1 + places % 7
    first = rng.integers(second)
    hashes[second, orientation] = hashes[first, 0]
    changed = rng.integers(0, 2**64, pairs, np.uint64, endpoint=False)
    hashes[second, orientation, rng.integers(4, size=pairs)] ^= changed
    return hashes


def made_thumbnails(count: int) -> np.ndarray:
    """Dark blobs on light skin under noise, uint8 [N, SIDE, SIDE] of `lookalikes`; 64 differ."""
    rng = np.random.default_rng(0)
    side = lookalikes.SIDE
    y, x = np.mgrid[:side, :side] / side - 0.5
    blobs = []
    for _ in range(64):
        across, down = rng.uniform(0.15, 0.35, 2)
        left, top = rng.uniform(-0.1, 0.1, 2)
        blob = np.exp(-(((x - left) / across) ** 2) - ((y - top) / down) ** 2)
        blobs.append((200 - 120 * blob + rng.normal(0, 4, blob.shape)).clip(0, 255))
    return np.array(blobs, np.uint8)[rng.integers(64, size=count)]


def look_alikes(table: pd.DataFrame) -> Callable[[], object]:
    """Every pair of photographs compared, and those with near hashes in their pixels."""
    made = made_thumbnails(len(table)), made_hashes(len(table))
    paths = [Path(image_id) for image_id in table["image_id"]]

    def work() -> pd.DataFrame:
        with mock.patch.object(lookalikes, "read_all", return_value=made):
            return lookalikes.find_lookalikes(paths, list(table["image_id"]))

    return work


# the audit


class Made:
    """Stands for `Photographs`: noise with an ellipse for a mask, of the cache's own size."""

    def take(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Pixels uint8 [B, S, S, 3] and masks uint8 [B, S, S]."""
        B, S = len(rows), cache_side(SIDE)
        pixels = torch.randint(256, (B, S, S, 3), dtype=torch.uint8)
        place = torch.linspace(-1, 1, S)
        lesion = place[:, None] ** 2 + 2 * place**2 < 0.3
        return pixels, (255 * lesion).byte().expand(B, S, S)


def made_maps(images: Tensor) -> dict[str, Tensor]:
    """Maps of images [B, 3, S, S] by name, of the shapes that a network gives: see `maps_of`."""
    B, _, H, W = images.shape
    maps = {}
    for name, cell in (("attention_pool3", 8), ("attention_pool4", 16)):
        scores = torch.randn(B, H // cell * (W // cell))
        maps[name] = scores.softmax(dim=1).view(B, 1, H // cell, W // cell)
    maps["grad_cam"] = torch.randn(B, 1, H // 16, W // 16).relu()
    maps["centre"] = localisation.centre((H, W))
    maps["uniform"] = torch.ones(1, 1, H, W)
    return maps


def yardsticks(table: pd.DataFrame) -> Callable[[], object]:
    """Every figure of five maps on one of AUDITED test photographs; the network is left out."""
    rows = np.flatnonzero(table["split"] == "test")
    rows = rows[: max(1, len(rows) // AUDITED)]
    config = {"image_size": SIDE, "view": 1.0, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    return lambda: localisation.measure(made_maps, Made(), table, config, rows=rows)


def by_class(table: pd.DataFrame) -> Callable[[], object]:
    """The audit's tables by class, of five maps on all test photographs, with all intervals."""
    test = table.loc[table["split"] == "test", ["group", "target"]]
    rng = np.random.default_rng(0)
    columns = [f"iou_{threshold:.2f}" for threshold in localisation.THRESHOLDS]
    parts = []
    for name in made_maps(torch.zeros(1, 3, 32, 32)):
        figures = {column: rng.random(len(test)) for column in (*localisation.FIGURES, *columns)}
        parts.append(test.assign(row=test.index, map=name, zero=False, **figures))
    measured = pd.concat(parts, ignore_index=True)

    def work() -> dict:
        return localisation.by_class(measured, localisation.choose_thresholds(measured))

    return work


# how they grow


class Part(NamedTuple):
    """A part, the sizes at which it is timed, in tables, and what is made for it."""

    make: Callable[[pd.DataFrame], Callable[[], object]]
    sizes: tuple[float, ...]
    made: str


PARTS = {
    "bootstrap": Part(
        bootstrap,
        (1, 2, 4),
        "the validation and test rows of the table, repeated with new ids and groups; made logits",
    ),
    "look-alikes": Part(
        look_alikes,
        (0.25, 0.5, 1),  # 2 and 4 would take hours
        f"made hashes and thumbnails in place of photographs: {PROPOSED:.3%} of all pairs are near",
    ),
    "audit, figures of maps": Part(
        yardsticks,
        (1, 2, 4),
        f"one of {AUDITED} test rows; made photographs, masks and five maps, {SIDE} pixels",
    ),
    "audit, tables by class": Part(
        by_class,
        (1, 2, 4),
        "all test rows of the table, repeated with new ids and groups; made figures of five maps",
    ),
}


def alone(name: str, part: Part, table: pd.DataFrame, times: float) -> dict:
    """Seconds, CPU seconds and memory of a part at one size, in a process that does nothing else.

    Returns:
        rows of the table; seconds and cpu_seconds of the work; bytes, the most that the process
        held for itself beyond what its imports did, and with_imports, all of it; None where there
        is no /proc.
    """
    speed.use_cores(1)
    peak = [0]
    watched = sys.platform == "linux"
    imports = 1024 * loops.kilobytes("/proc/self/status", "RssAnon") if watched else 0
    threading.Thread(target=loops.watch, args=[peak], daemon=True).start()
    rows = repeat(table, times)
    work = part.make(rows)
    started, used = time.perf_counter(), time.process_time()
    result = work()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - used
    loops.note(peak)  # with the result, which the watch may have missed
    del result
    return {
        "part": name,
        "times": times,
        "rows": len(rows),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "bytes": peak[0] - imports if watched else None,
        "with_imports": peak[0] if watched else None,
    }


def measure(table: pd.DataFrame, parts: dict[str, Part]) -> list[dict]:
    """A row of `alone` for each part and size, with its growth: what it is of the size before.

    At twice as many rows that is 2 where a part grows as they do, and 4 where as their square.

    Args:
        table: image_id, source, target, group and split of the whole table.
        parts: by name, such as PARTS.
    """
    table = table[["image_id", "source", "target", "group", "split"]]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["growth"])
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # where the server finds it
    measured = []
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        for name, part in parts.items():
            rows = []
            for times in part.sizes:
                rows.append(pool.submit(alone, name, part, table, times).result())
            for before, row in zip([None, *rows], rows, strict=False):
                for figure in ("cpu_seconds", "bytes"):
                    grown = before is not None and bool(before[figure])
                    row[f"{figure}_growth"] = row[figure] / before[figure] if grown else None
            measured += rows
    return measured
