"""How fast is training here? Ours, the tutorial's loop and a peer's, side by side, in one run on one machine.

    python bench/speed.py [--photographs FOLDER_OR_ZIP] [--image-size N] [--batch-size N] [--count N] [--out FILE]
    python bench/speed.py --project 1e6 1e7 [--out FILE]

Prints a table and leaves `runs/bench.json`; the second form works out from that file what larger sets would cost.
README.md beside this file says what each figure is. Without a GPU the sizes are small: minutes on two cores.
"""

import argparse
import multiprocessing
import os
import platform
import shlex
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["ATTENTION_HEADLESS"] = "1"

import cv2  # noqa: E402
import loops  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402

from helpers import model, workspace  # noqa: E402
from helpers.photographs import sources  # noqa: E402
from helpers.photographs.cache import cache_side  # noqa: E402
from helpers.training import batches  # noqa: E402
from helpers.training.loss import focal_loss  # noqa: E402
from helpers.training.settings import Settings, make_optimiser  # noqa: E402

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
NAMES = ("ours", "tutorial", "peer")
FIGURES = {
    "cache": "cache, one core",
    "batches": "batches alone",
    "step": "step alone",
    "end_to_end": "end to end",
}


def use_cores(count: int) -> None:
    cv2.setNumThreads(count)
    torch.set_num_threads(count)


def contenders(
    dataset: dict, split: pd.DataFrame, settings: Settings, names: tuple[str, ...]
) -> dict[str, dict]:
    """For each loop of `names` and each of its figures, what measures it once, in photographs a second.

    "ours_compiled" stands for `compile_model`; "convolutions" for the network's 13 alone, the ceiling of a step.
    """
    device, size, batch_size = (
        workspace.choose_device(settings.device),
        settings.image_size,
        settings.batch_size,
    )
    precision = workspace.choose_precision(device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    rows, found = np.flatnonzero(split["split"] == "train"), {}
    paths = [Path(dataset["folder"]) / name for name in split["path"].iloc[rows]]
    given = (paths, split["target"].to_numpy()[rows], size, batch_size, device)
    images = torch.randn(batch_size, 3, size, size, device=device)
    labels, last = (
        torch.arange(batch_size, device=device) % 2.0,
        images.contiguous(memory_format=torch.channels_last),
    )

    def new(layout: torch.memory_format) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        network = model.AttnVGG().to(device, memory_format=layout)
        return network, torch.optim.Adam(network.parameters(), lr=loops.RATE)

    def rate(count: int, work: Callable, *arguments) -> float:
        """Photographs a second of work that handles `count`; waits for the device, since Python runs ahead of a GPU."""
        wait = (lambda: None) if device.type == "cpu" else getattr(torch, device.type).synchronize
        wait()
        started = time.perf_counter()
        work(*arguments)
        wait()
        return count / (time.perf_counter() - started)

    def one_core(items: torch.utils.data.Dataset) -> float:
        use_cores(1)
        speed = rate(
            min(len(items), 64), lambda: [items[number] for number in range(min(len(items), 64))]
        )
        use_cores(CORES)
        return speed

    def steps(step: Callable, *arguments) -> Callable[[], float]:
        repeats = 3 if device.type == "cpu" else 20
        return partial(
            rate, repeats * batch_size, lambda: [step(*arguments) for _ in range(repeats)]
        )

    if "tutorial" in names:
        (network, adam), loader = new(torch.contiguous_format), loops.tutorial_loader(*given)
        found["tutorial"] = {
            "cache": partial(one_core, loops.TutorialPhotographs(*given[:3], torch.device("cpu"))),
            "batches": partial(rate, len(rows), deque, loader, 0),  # a deque of length 0 keeps none
            "step": steps(loops.tutorial_step, network, images, labels, adam),
            "end_to_end": partial(rate, len(rows), loops.tutorial_epoch, network, loader, adam),
        }
    if "peer" in names:
        (network, fast), workers = new(torch.channels_last), loops.peer_loader(*given)
        found["peer"] = {
            "cache": partial(one_core, workers.dataset),
            "batches": lambda: rate(len(rows), deque, loops.peer_batches(workers, device), 0),
            "step": steps(loops.mixed_step, network, last, labels, fast, scaler, precision),
            "end_to_end": partial(
                rate, len(rows), loops.peer_epoch, network, workers, fast, scaler, precision, device
            ),
        }

    def ours(wanted: Settings) -> dict:
        photographs = batches.Photographs(loops.build(dataset, split, size)[0], device)
        optimiser = make_optimiser(network := new(torch.channels_last)[0], wanted)
        forward = torch.compile(network) if wanted.compile_model else network
        return {
            "cache": lambda: len(split) / CORES / loops.build(dataset, split, size)[1],
            "batches": lambda: rate(
                len(rows), deque, loops.our_batches(wanted, photographs, rows), 0
            ),
            "step": steps(
                loops.mixed_step, forward, last, labels, optimiser, scaler, precision, focal_loss
            ),
            "end_to_end": lambda: len(rows) / loops.our_epoch(wanted, split, photographs),
        }

    found |= {
        name: ours(replace(settings, compile_model=name != "ours"))
        for name in names
        if name.startswith("ours")
    }
    if "convolutions" in names:
        backbone = new(torch.channels_last)[0].backbone
        found["convolutions"] = {"step": steps(loops.convolutions(backbone, last, precision))}
    return found


def measure(found: dict[str, dict], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Of each figure all rounds of each loop, which take turns: what disturbs the machine meets them all.

    Each goes once unmeasured, but for end_to_end: there ours leaves its first epoch out, and the others are warm.
    """
    values = {
        figure: {name: [] for name, one in found.items() if figure in one} for figure in FIGURES
    }
    for figure, rates in values.items():
        for number in range(figure == "end_to_end", rounds + 1):
            for name, kept in rates.items():
                torch.backends.cudnn.benchmark = (
                    name == "peer"
                )  # as torchvision's reference asks for
                kept += [found[name][figure]()][:number]  # all rounds but the one of number 0
    return values


def alone(name: str, dataset: dict, split: pd.DataFrame, settings: Settings, kind: str) -> dict:
    """Peak memory in bytes of one loop, in a process that does nothing else; of ours seconds a photograph, too."""
    peak, found, device = [0], {}, workspace.choose_device(settings.device)
    multiprocessing.set_start_method(kind, force=True)  # of a loader's workers: the usual one
    threading.Thread(target=loops.watch, args=[peak], daemon=True).start()
    use_cores(CORES)
    if name == "ours":
        built = [loops.build(dataset, split, settings.image_size) for _ in range(5)]
        photographs = batches.Photographs(built[-1][0], device)
        found = {
            "cache": np.median([seconds for _, seconds in built]) / len(split),
            "epoch": loops.our_epoch(settings, split, photographs)
            / int((split["split"] == "train").sum()),
            "resident": photographs.pixels.nbytes if photographs.resident else 0,
        }
    else:
        contenders(dataset, split, settings, (name,))[name]["end_to_end"]()
    gpu = (
        torch.cuda.max_memory_allocated(device) - found.get("resident", 0)
        if device.type == "cuda"
        else None
    )
    return found | {"host": peak[0] or None, "gpu": gpu}


def memory_and_growth(dataset: dict, settings: Settings, count: int) -> tuple[dict, list[dict]]:
    """`peak_memory` and `growth` of bench.json; each from a fresh process, which finds its imports done."""
    context, kind = multiprocessing.get_context("forkserver"), multiprocessing.get_start_method()
    context.set_forkserver_preload(["loops"])
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # where the server finds it
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:

        def run(name: str, size: int) -> dict:
            split = loops.choose(dataset, size, settings.batch_size)
            return pool.submit(alone, name, dataset, split, settings, kind).result()

        growth = [
            {"photographs": size, **run("ours", size)} for size in (count // 4, count // 2, count)
        ]
        found = {"ours": growth[0]} | {
            name: run(name, 3 * settings.batch_size + 2) for name in NAMES[1:]
        }
    of = "gpu" if growth[0]["gpu"] else "host"
    return {"of": of, **{name: one[of] for name, one in found.items()}}, growth


def table(bench: dict) -> str:
    def line(title: str, cells: list, form: str = "s", factor: float = 1) -> str:
        return title.ljust(24) + "".join(
            f"{format(cell * factor, form) if cell else '':>14s}" for cell in cells
        )

    def figure(title: str, row: dict, form: str, factor: float = 1) -> str:
        found = [(row.get(name), form, factor) for name in columns]
        found += [(row[name], ".2f", 1) for name in ("ratio", "ratio_to_peer") if row.get(name)]
        return line(title, [format(cell * by, how) if cell else "" for cell, how, by in found])

    growth, of = bench["growth"], bench["peak_memory"]["of"]
    columns = [name for name in (*NAMES, "ours_compiled") if name in bench["step"]]
    return "\n".join(
        [
            line("photographs a second", [*columns, "ours/tutorial", "ours/peer"]),
            *(figure(title, bench[key], ",.1f") for key, title in FIGURES.items()),
            figure("  of step alone", bench["share_of_step"], ".0%"),
            line("13 convolutions alone", [bench["convolutions"]], ",.1f"),
            figure(f"peak memory, MB ({of})", bench["peak_memory"], ",.0f", 1e-6),
            "",
            line("ours with photographs", [row["photographs"] for row in growth], ",d"),
            line("cache, ms each", [row["cache"] for row in growth], ",.3f", 1e3),
            line("epoch, ms each", [row["epoch"] for row in growth], ",.3f", 1e3),
            *(
                line(f"peak memory, MB ({of})", [row[of] for row in growth], ",.0f", 1e-6)
                for of in sorted({"host", of})
            ),
        ]
    )


def project(bench: dict, count: int) -> str:
    """What `count` photographs would cost at the rates of bench.json."""
    side, cores = cache_side(bench["parameters"]["image_size"]), bench["machine"]["cores"]
    epoch = ", ".join(f"{name} {count / bench['end_to_end'][name] / 3600:,.1f} h" for name in NAMES)
    return (
        f"{count:,d} photographs: {count * bench['parameters']['jpeg_bytes'] / 1e9:,.0f} GB of JPEGs; a cache of "
        f"{count:,d} x {side} x {side} x 3 bytes = {count * side * side * 3 / 1e9:,.0f} GB, built in "
        f"{count / bench['cache']['ours'] / cores / 3600:,.2f} h on {cores} cores; an epoch: {epoch}"
    )


def chip(device: torch.device) -> str:
    lines = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if sys.platform == "linux"
        else []
    )
    cpu = next(
        (line.split(": ")[1] for line in lines if line.startswith("model name")),
        platform.processor(),
    )
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--photographs",
        metavar="FOLDER_OR_ZIP",
        help="in the Kaggle layout; without, some are made",
    )
    parser.add_argument(
        "--image-size", type=int, help="side of the network's input: 224 on a GPU, else 96"
    )
    parser.add_argument("--batch-size", type=int, help="100 on a GPU, else 16")
    parser.add_argument(
        "--count",
        type=int,
        help="photographs: 8192 on a GPU; else 512, a quarter of them in an epoch",
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each figure, whose median counts")
    parser.add_argument("--out", type=Path, metavar="FILE", help="instead of runs/bench.json")
    parser.add_argument(
        "--project",
        type=float,
        nargs="+",
        metavar="COUNT",
        help="say, from FILE, what so many cost",
    )
    options, started = parser.parse_args(), time.perf_counter()
    out = (
        options.out
        or Path(os.environ.get("ATTENTION_RUNS") or workspace.PROJECT / "runs") / "bench.json"
    )
    if options.project:
        print(
            "\n".join(
                project(workspace.read_json(out, "bench/speed.py"), int(count))
                for count in options.project
            )
        )
        return
    gpu = (device := workspace.choose_device()).type != "cpu"
    size, batch_size = (
        options.image_size or (224 if gpu else 96),
        options.batch_size or (100 if gpu else 16),
    )
    settings = Settings(recipe="tutorial", epochs=2, image_size=size, batch_size=batch_size)
    use_cores(CORES)
    with tempfile.TemporaryDirectory() as place:
        folder, count = (
            Path(options.photographs or f"{place}/made").absolute(),
            options.count or (8192 if gpu else 512),
        )
        if not options.photographs:
            loops.make_photographs(folder, count)
        dataset = sources.find_dataset(str(folder), masks="")
        os.environ["ATTENTION_DATA"] = place  # for the caches; what was unpacked stays
        count = min(count, dataset["rows"])
        split = loops.choose(dataset, count, batch_size, epoch=count if gpu else count // 4)
        names = (*NAMES, "convolutions", "ours_compiled")[: 4 + gpu]
        rounds = measure(contenders(dataset, split, settings, names), options.rounds)
        torch.cuda.empty_cache()
        memory, growth = memory_and_growth(dataset, settings, count)
    bench = {
        figure: {name: np.median(one) for name, one in rounds[figure].items()} for figure in FIGURES
    }
    share = {name: speed / bench["step"][name] for name, speed in bench["end_to_end"].items()}
    for row in (*bench.values(), memory):
        row |= {
            key: row["ours"] / row[other] if row["ours"] else None
            for key, other in (("ratio", "tutorial"), ("ratio_to_peer", "peer"))
        }
    workspace.write_json(
        out,
        bench := bench
        | {
            "convolutions": bench["step"].pop("convolutions"),
            "share_of_step": share,
            "peak_memory": memory,
            "growth": growth,
            "rounds": rounds,
            "machine": {
                "chip": chip(device),
                "cores": CORES,
                "device": device.type,
                "torch": torch.__version__,
                "precision": str(workspace.choose_precision(device)).removeprefix("torch."),
            },
            "parameters": {
                "image_size": size,
                "batch_size": batch_size,
                "count": count,
                "rounds": options.rounds,
                "photographs": options.photographs or "made",
                "jpeg_bytes": round(dataset["bytes"] / dataset["rows"]),
                "epoch": int((split["split"] == "train").sum()),
            },
            "command": shlex.join(["python", "bench/speed.py", *sys.argv[1:]]),
            "seconds": time.perf_counter() - started,
        },
    )
    print(f"{table(bench)}\n\n{bench['seconds']:.0f} s; {out}")


if __name__ == "__main__":
    main()
