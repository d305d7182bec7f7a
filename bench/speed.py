"""How fast is training here? Ours, the tutorial's loop and a peer's, side by side in one run.

    python bench/speed.py [--photographs FOLDER_OR_ZIP] [--image-size N] [--batch-size N]
                          [--count N] [--rounds N] [--out FOLDER]

Prints a table, and what larger sets would cost at these rates. README.md beside this file says what
each figure is. Without a GPU the sizes are small: minutes on two cores.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import loops
import numpy as np
import pandas as pd
import record
import torch

from helpers import model, workspace
from helpers.photographs.cache import cache_side
from helpers.photographs.sources import find_dataset
from helpers.training.batches import Photographs
from helpers.training.loss import focal_loss
from helpers.training.settings import Settings, make_optimiser

CORES = record.cores()
NAMES = ("ours", "tutorial", "peer")
FIGURES = {
    "cache": "cache, one core",
    "batches": "batches alone",
    "step": "step alone",
    "end_to_end": "end to end",
}
LARGER = (1_000_000, 10_000_000)  # what so many photographs would cost


class Job(NamedTuple):
    """What the loops are measured on."""

    dataset: dict
    split: pd.DataFrame
    settings: Settings
    place: Path  # of our caches

    @property
    def device(self) -> torch.device:
        return workspace.choose_device(self.settings.device)

    @property
    def precision(self) -> torch.dtype:
        return workspace.choose_precision(self.device)

    @property
    def rows(self) -> np.ndarray:
        """Those of an epoch."""
        return np.flatnonzero(self.split["split"] == "train")

    def given(self) -> tuple:
        """What the tutorial's and the peer's loaders take: paths, targets, side, batch, device."""
        rows = self.rows
        folder = Path(self.dataset["folder"])
        paths = [folder / name for name in self.split["path"].iloc[rows]]
        targets = self.split["target"].to_numpy()[rows]
        return paths, targets, self.settings.image_size, self.settings.batch_size, self.device

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Random numbers [B, 3, S, S] and targets [B] on the device."""
        B, S = self.settings.batch_size, self.settings.image_size
        images = torch.randn(B, 3, S, S, device=self.device)
        return images, torch.arange(B, device=self.device) % 2.0

    def network(self, layout: torch.memory_format) -> model.AttnVGG:
        return model.AttnVGG().to(self.device, memory_format=layout)

    def scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)


def use_cores(count: int) -> None:
    """Let OpenCV and PyTorch use so many."""
    cv2.setNumThreads(count)
    torch.set_num_threads(count)


def rate(job: Job, count: int, work: Callable, *arguments) -> float:
    """Photographs a second of work that handles `count`."""
    wait_for(job.device)
    started = time.perf_counter()
    work(*arguments)
    wait_for(job.device)
    return count / (time.perf_counter() - started)


def wait_for(device: torch.device) -> None:
    """Until the device is done, since Python runs ahead of a GPU."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def one_core(job: Job, items: torch.utils.data.Dataset) -> float:
    """Items a second of one core."""
    count = min(len(items), 64)
    use_cores(1)
    speed = rate(job, count, lambda: [items[number] for number in range(count)])
    use_cores(CORES)
    return speed


def steps(job: Job, step: Callable, *arguments) -> float:
    """Photographs a second of steps alone."""
    repeats = 3 if job.device.type == "cpu" else 20
    count = repeats * job.settings.batch_size
    return rate(job, count, lambda: [step(*arguments) for _ in range(repeats)])


def use_up(batches: Iterable) -> None:
    """Take all batches and keep none."""
    deque(batches, maxlen=0)


def tutorial(job: Job) -> dict[str, Callable[[], float]]:
    """What measures each figure of the tutorial's loop once."""
    paths, targets, side, *_ = given = job.given()
    network = job.network(torch.contiguous_format)
    adam = torch.optim.Adam(network.parameters(), lr=loops.RATE)
    loader = loops.tutorial_loader(*given)
    items = loops.TutorialPhotographs(paths, targets, side, torch.device("cpu"))
    count = len(job.rows)
    return {
        "cache": partial(one_core, job, items),
        "batches": partial(rate, job, count, use_up, loader),
        "step": partial(steps, job, loops.tutorial_step, network, *job.batch(), adam),
        "end_to_end": partial(rate, job, count, loops.tutorial_epoch, network, loader, adam),
    }


def peer(job: Job) -> dict[str, Callable[[], float]]:
    """The same of a well-kept loop."""
    network = job.network(torch.channels_last)
    adam = torch.optim.Adam(network.parameters(), lr=loops.RATE)
    loader = loops.peer_loader(*job.given())
    images, labels = job.batch()
    images = images.contiguous(memory_format=torch.channels_last)
    learning = (adam, job.scaler(), job.precision)
    epoch = (loops.peer_epoch, network, loader, *learning, job.device)
    count = len(job.rows)
    return {
        "cache": partial(one_core, job, loader.dataset),
        "batches": lambda: rate(job, count, use_up, loops.peer_batches(loader, job.device)),
        "step": partial(steps, job, loops.mixed_step, network, images, labels, *learning),
        "end_to_end": partial(rate, job, count, *epoch),
    }


def ours(job: Job, photographs: Photographs) -> dict[str, Callable[[], float]]:
    """The same of the package's loop."""
    split, settings = job.split, job.settings
    side = settings.image_size
    network = job.network(torch.channels_last)
    optimiser = make_optimiser(network, settings)
    forward = torch.compile(network, dynamic=False) if settings.compile_model else network
    images, labels = job.batch()
    images = images.contiguous(memory_format=torch.channels_last)
    learning = (optimiser, job.scaler(), job.precision, focal_loss)
    count = len(job.rows)

    def build() -> float:
        return len(split) / CORES / loops.build(job.dataset, split, side, job.place)[1]

    def batches() -> float:
        return rate(job, count, use_up, loops.our_batches(settings, photographs, job.rows))

    return {
        "cache": build,
        "batches": batches,
        "step": partial(steps, job, loops.mixed_step, forward, images, labels, *learning),
        "end_to_end": lambda: count / loops.our_epoch(settings, split, photographs),
    }


def convolutions(job: Job) -> dict[str, Callable[[], float]]:
    """The network's 13 convolutions alone, the ceiling of a step."""
    backbone = job.network(torch.channels_last).backbone
    images = job.batch()[0].contiguous(memory_format=torch.channels_last)
    return {"step": partial(steps, job, loops.convolutions(backbone, images, job.precision))}


def contenders(job: Job) -> dict[str, dict[str, Callable[[], float]]]:
    """What measures each figure of each loop once; on a GPU also of ours, compiled."""
    cache, _ = loops.build(job.dataset, job.split, job.settings.image_size, job.place)
    photographs = Photographs(cache, job.device)
    found = {
        "ours": ours(job, photographs),
        "tutorial": tutorial(job),
        "peer": peer(job),
        "convolutions": convolutions(job),
    }
    if job.device.type != "cpu":
        compiled = replace(job.settings, compile_model=True)
        found["ours_compiled"] = ours(job._replace(settings=compiled), photographs)
    return found


def measure(found: dict[str, dict], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Of each figure all rounds of each loop; they take turns, so that what disturbs meets all.

    Each goes once unmeasured, but for end_to_end: there ours leaves its first epoch out, and the
    others are warm by then.
    """
    values = {}
    for figure in FIGURES:
        values[figure] = {name: [] for name, rates in found.items() if figure in rates}
        unmeasured = 0 if figure == "end_to_end" else 1
        for number in range(unmeasured + rounds):
            for name, kept in values[figure].items():
                # as torchvision's reference asks for
                torch.backends.cudnn.benchmark = name == "peer"
                speed = found[name][figure]()
                if number >= unmeasured:
                    kept.append(speed)
    return values


def alone(name: str, job: Job, kind: str) -> dict:
    """Peak memory in bytes of one loop, in a process that does nothing else.

    Of ours also the seconds a photograph of building the cache and of an epoch.
    """
    peak = [0]
    multiprocessing.set_start_method(kind, force=True)  # of a loader's workers: the usual one
    threading.Thread(target=loops.watch, args=[peak], daemon=True).start()
    use_cores(CORES)
    seconds, resident = {}, 0
    if name == "ours":
        side = job.settings.image_size
        built = [loops.build(job.dataset, job.split, side, job.place) for _ in range(5)]
        photographs = Photographs(built[-1][0], job.device)
        resident = photographs.pixels.nbytes if photographs.resident else 0
        seconds["cache"] = float(np.median([took for _, took in built])) / len(job.split)
        epoch = loops.our_epoch(job.settings, job.split, photographs)
        seconds["epoch"] = epoch / len(job.rows)
    else:
        loop = {"tutorial": tutorial, "peer": peer}[name](job)
        loop["end_to_end"]()
    gpu = None
    if job.device.type == "cuda":
        gpu = torch.cuda.max_memory_allocated(job.device) - resident
    return seconds | {"host": peak[0] or None, "gpu": gpu}


def memory_and_growth(job: Job, count: int) -> tuple[dict, list[dict]]:
    """`peak_memory` and `growth`; each from a fresh process, which finds its imports done."""
    context = multiprocessing.get_context("forkserver")
    kind = multiprocessing.get_start_method()
    context.set_forkserver_preload(["loops"])
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # where the server finds it
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:

        def run(name: str, size: int) -> dict:
            split = loops.choose(job.dataset, size, job.settings.batch_size)
            return pool.submit(alone, name, job._replace(split=split), kind).result()

        growth = []
        for size in (count // 4, count // 2, count):
            growth.append({"photographs": size, **run("ours", size)})
        few = 3 * job.settings.batch_size + 2
        each = {"ours": growth[0], "tutorial": run("tutorial", few), "peer": run("peer", few)}
    of = "gpu" if growth[0]["gpu"] else "host"
    return {"of": of} | {name: peak[of] for name, peak in each.items()}, growth


def with_ratios(row: dict) -> dict:
    """A row and what ours is of the tutorial's and of the peer's."""
    ratios = {"ratio": None, "ratio_to_peer": None}
    if row["ours"]:
        ratios["ratio"] = row["ours"] / row["tutorial"]
        ratios["ratio_to_peer"] = row["ours"] / row["peer"]
    return row | ratios


def figures_of(job: Job, count: int, rounds: int) -> dict:
    """Everything that is measured."""
    values = measure(contenders(job), rounds)
    if job.device.type == "cuda":
        torch.cuda.empty_cache()
    memory, growth = memory_and_growth(job, count)
    figures = {}
    for figure in FIGURES:
        medians = {name: float(np.median(speeds)) for name, speeds in values[figure].items()}
        if figure == "step":
            figures["convolutions"] = medians.pop("convolutions")
        figures[figure] = with_ratios(medians)
    share = {}
    for name in figures["step"]:
        if not name.startswith("ratio"):
            share[name] = figures["end_to_end"][name] / figures["step"][name]
    more = {"peak_memory": with_ratios(memory), "growth": growth, "rounds": values}
    return figures | {"share_of_step": share} | more


def line(title: str, cells: Iterable[str]) -> str:
    """A line of the printed table."""
    return title.ljust(24) + "".join(f"{cell:>14s}" for cell in cells)


def row_of(title: str, row: dict, columns: list[str], shape: str, factor: float = 1) -> str:
    """A line of a row's columns and ratios; what could not be measured is left blank."""
    cells = []
    for name in columns:
        value = row.get(name)
        cells.append(format(value * factor, shape) if value else "")
    for name in ("ratio", "ratio_to_peer"):
        value = row.get(name)
        cells.append(format(value, ".2f") if value else "")
    return line(title, cells).rstrip()


def table(figures: dict) -> str:
    """The figures as a table to read."""
    columns = [name for name in (*NAMES, "ours_compiled") if name in figures["step"]]
    lines = [line("photographs a second", [*columns, "ours/tutorial", "ours/peer"])]
    for key, title in FIGURES.items():
        lines.append(row_of(title, figures[key], columns, ",.1f"))
    lines.append(row_of("  of step alone", figures["share_of_step"], columns, ".0%"))
    lines.append(line("13 convolutions alone", [f"{figures['convolutions']:,.1f}"]))
    memory, growth = figures["peak_memory"], figures["growth"]
    of = memory["of"]
    lines.append(row_of(f"peak memory, MB ({of})", memory, columns, ",.0f", 1e-6))
    lines.append("")
    lines.append(line("ours with photographs", [f"{row['photographs']:,d}" for row in growth]))
    lines.append(line("cache, ms each", [f"{1e3 * row['cache']:,.3f}" for row in growth]))
    lines.append(line("epoch, ms each", [f"{1e3 * row['epoch']:,.3f}" for row in growth]))
    for where in sorted({"host", of}):
        peaks = [f"{1e-6 * row[where]:,.0f}" if row[where] else "" for row in growth]
        lines.append(line(f"peak memory, MB ({where})", peaks))
    return "\n".join(lines)


def project(figures: dict, parameters: dict, count: int) -> str:
    """What `count` photographs would cost at these rates."""
    side = cache_side(parameters["image_size"])
    jpegs = count * parameters["jpeg_bytes"] / 1e9
    cache = count * side * side * 3 / 1e9
    building = count / figures["cache"]["ours"] / CORES / 3600
    hours = []
    for name in NAMES:
        hours.append(f"{name} {count / figures['end_to_end'][name] / 3600:,.1f} h")
    return (
        f"{count:,d} photographs: {jpegs:,.0f} GB of JPEGs; a cache of {count:,d} x {side} x "
        f"{side} x 3 bytes = {cache:,.0f} GB, built in {building:,.2f} h on {CORES} cores; "
        f"an epoch: {', '.join(hours)}"
    )


def usual_batch(device: torch.device) -> int:
    """Photographs a step: 16 on a CPU, 100 on a GPU, 64 on one that has no room for all loops."""
    if device.type == "cpu":
        return 16
    if device.type == "cuda" and torch.cuda.mem_get_info(device)[1] < 20e9:
        return 64
    return 100


def options_of(device: torch.device) -> argparse.Namespace:
    gpu = device.type != "cpu"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    kaggle = "in the Kaggle layout; without, some are made"
    add("--photographs", metavar="FOLDER_OR_ZIP", help=kaggle)
    side = "side of the network's input: 224 on a GPU, else 96"
    add("--image-size", type=int, default=224 if gpu else 96, help=side)
    size = "16; on a GPU 100, or 64 where it has less than 20 GB"
    add("--batch-size", type=int, default=usual_batch(device), help=size)
    count = "photographs: 8192 on a GPU; else 512, a quarter of them in an epoch"
    add("--count", type=int, default=8192 if gpu else 512, help=count)
    add("--rounds", type=int, default=3, help="of each figure, whose median counts")
    add("--out", type=Path, default=record.RESULTS, help="not data/results/")
    return parser.parse_args()


def main() -> None:
    started = time.perf_counter()
    device = workspace.choose_device()
    gpu = device.type != "cpu"
    options = options_of(device)
    side, batch_size = options.image_size, options.batch_size
    settings = Settings(recipe="tutorial", epochs=2, image_size=side, batch_size=batch_size)
    use_cores(CORES)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(options.photographs or f"{place}/made").absolute()
        if not options.photographs:
            loops.make_photographs(folder, options.count)
        dataset = find_dataset(str(folder), masks="")
        count = min(options.count, dataset["rows"])
        epoch = count if gpu else count // 4
        split = loops.choose(dataset, count, options.batch_size, epoch=epoch)
        job = Job(dataset, split, settings, Path(place) / "caches")
        figures = figures_of(job, count, options.rounds)
    parameters = {
        "image_size": options.image_size,
        "batch_size": options.batch_size,
        "count": count,
        "rounds": options.rounds,
        "jpeg_bytes": round(dataset["bytes"] / dataset["rows"]),
        "epoch": len(job.rows),
    }
    figures |= {
        "parameters": parameters,
        "printed": table(figures),
        "projected": [project(figures, parameters, size) for size in LARGER],
        "seconds": time.perf_counter() - started,
    }
    name = Path(options.photographs).name if options.photographs else "made by the program"
    melanomas = int(split["target"].sum())
    path = record.write(
        "speed",
        figures,
        seeds=[settings.seed],
        data=record.photographs_of(name, split["image_id"], melanomas),
        weights="none",
        device=device,
        folder=options.out,
    )
    print(figures["printed"], *figures["projected"], "", sep="\n")
    print(f"{figures['seconds']:.0f} s; {path}")


if __name__ == "__main__":
    main()
