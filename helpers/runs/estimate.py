"""About how long notebooks take here: estimated before they start, and a clock while they run.

bench/running_times.py measured each notebook of the series on one machine, and `step_seconds` on
the same. That step, timed here, tells how fast this machine is beside it.
"""

import dataclasses
import functools
import itertools
import json
import math
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn
from tqdm.auto import tqdm

from helpers import workspace
from helpers.runs.parameters import read_parameters
from helpers.training.settings import RECIPES, Parameters

# how long each notebook takes on the sample, as bench/running_times.py measured it
TIMES = workspace.PROJECT / "data" / "results" / "running_times.json"
CALIBRATION = 1.5  # seconds that steps are timed for
# parameters that take the sample through the series sooner, and the seconds from which on they are
# pointed at
SHORT = workspace.PROJECT / "notebooks" / "params" / "short.yaml"
PATIENCE = 900
TRAINS = ("04_train", "08_mend")  # as many epochs as `epochs` says, on image_size
SEES = ("05_visualize_attention", "06_audit", "07_evidence")  # image_size
COUNTED = ("epochs", "image_size")
# parameters that do not change how long it takes; a device and a precision are timed themselves
SAME_TIME = (
    *("run", "seed", "split_seed", "photograph", "device", "precision", "isic_query"),
    *("isic_count", "kaggle_dataset", "unusable", "learning_rate", "alpha", "gamma", "bypass"),
)


class Estimate(NamedTuple):
    """How long some notebooks take."""

    seconds: dict[str, float]  # here, by notebook; empty where that is not known
    words: str  # a sentence or more; empty where nothing was measured


def how_long(notebooks: Sequence[str], parameters: Parameters) -> Estimate:
    """About how long these notebooks take here, with these parameters.

    Takes some two seconds where a step has to be timed.

    Args:
        notebooks: their paths below notebooks/, without the ending.
        parameters: of the run.
    """
    if not TIMES.is_file():
        return Estimate({}, "")
    measured = json.loads(TIMES.read_text(encoding="utf-8"))
    figures = measured["figures"]
    if not figures.keys() >= set(notebooks):
        return Estimate({}, "")
    machine = measured["machine"]
    where = f"{machine['cores']} cores of {machine['processor']}"
    try:
        device = workspace.choose_device(parameters.device)
    except ValueError:  # a notebook that computes on it says so
        return Estimate({}, "")
    if "step_seconds" not in machine or not device.type == machine["device"] == "cpu":
        there = sum(figures[name]["seconds"] for name in notebooks)
        return Estimate(
            {},
            f"With the sample and the default parameters this takes {in_words(there)} on {where}, "
            f"where it was measured. How long it takes here (device {device.type}) is not known.",
        )
    precision = workspace.choose_precision(device, parameters.precision)
    slower = step_seconds(precision) / machine["step_seconds"]
    seconds = {}
    for name in notebooks:
        computing = computing_seconds(figures[name], machine["cores"])
        waiting = figures[name]["seconds"] - computing
        seconds[name] = waiting + computing * slower * load(name, parameters)
    words = (
        f"With the sample this takes {in_words(sum(seconds.values()))} here: an estimate, from the "
        f"times on {where} and a step of training, which takes {slower:.1f} times as long here."
    )
    others = not_counted(parameters)
    if others:
        words += f" This run has another {', '.join(others)}: how that changes it is not known."
        seconds = {}
    return Estimate(seconds, words)


def shorter(notebooks: Sequence[str], parameters: Parameters) -> str:
    """A sentence on SHORT where the whole series takes long here; "" where it does not.

    Nor where the run has other epochs or pictures than the default ones.

    Args:
        notebooks: those of the series, as in `how_long`.
        parameters: of the run.
    """
    usual = Parameters()
    if any(getattr(parameters, name) != getattr(usual, name) for name in COUNTED):
        return ""
    if sum(how_long(notebooks, parameters).seconds.values()) <= PATIENCE:
        return ""
    values = read_parameters(str(SHORT), [], vars(parameters))
    there = how_long(notebooks, dataclasses.replace(parameters, **values))
    file = SHORT.relative_to(workspace.PROJECT).as_posix()
    return (
        f"With --params {file} (make tutorial PARAMS={file}) it takes "
        f"{in_words(sum(there.seconds.values()))}, on {values['image_size']} pixels in place of "
        f"{parameters.image_size} and for {values['epochs']} epochs in place of "
        f"{parameters.epochs}: README says what that keeps."
    )


def computing_seconds(figures: dict, cores: int) -> float:
    """Of the seconds that a notebook took, those in which all cores computed at once.

    The rest is what one core does alone, such as imports and figures, or waiting: it takes about as
    long on any machine.

    Args:
        figures: seconds, and processor_seconds of all cores together, 0 where they are not known.
        cores: of the machine.

    >>> computing_seconds({"seconds": 100, "processor_seconds": 180}, cores=2)
    80.0
    """
    seconds, processor = figures["seconds"], figures["processor_seconds"]
    if cores == 1 or not processor:
        return seconds
    return min(seconds, max(0, processor - seconds) / (cores - 1))


def load(notebook: str, parameters: Parameters) -> float:
    """How many times as much a notebook computes with these parameters as with the default ones.

    >>> load("04_train", Parameters(epochs=16, image_size=192))
    8.0
    """
    usual = Parameters()
    if notebook in TRAINS:
        return training_pixels(parameters) / training_pixels(usual)
    if notebook in SEES:
        return (parameters.image_size / usual.image_size) ** 2
    return 1.0


def training_pixels(parameters: Parameters) -> int:
    """What all epochs see of a photograph: the first see a smaller picture of it (`Recipe.side`).

    >>> training_pixels(Parameters(image_size=64, epochs=2)) == 2 * 64**2
    True
    """
    recipe = RECIPES[parameters.recipe]
    epochs = range(1, parameters.epochs + 1)
    return sum(recipe.side(epoch, parameters) ** 2 for epoch in epochs)


def not_counted(parameters: Parameters) -> list[str]:
    """The parameters that are not the default ones, and of which `load` knows nothing.

    >>> not_counted(Parameters(dataset="isic", epochs=2, seed=3))
    ['dataset']
    """
    usual = vars(Parameters())
    chosen = [name for name, value in vars(parameters).items() if value != usual[name]]
    return [name for name in chosen if name not in (*COUNTED, *SAME_TIME)]


@functools.cache
def step_seconds(precision: torch.dtype) -> float:
    """Seconds of a training step of a small network of VGG's kind, on this machine's CPU.

    The median of the steps that end within CALIBRATION, without the first, which sets things up; at
    least one. What is drawn at random afterwards is not changed by it.

    Args:
        precision: of the network's arithmetic.
    """
    with torch.random.fork_rng(devices=[]):
        layers = []
        for entering, leaving in itertools.pairwise((3, 64, 128, 256, 512)):
            convolution = nn.Conv2d(entering, leaving, 3, padding=1)
            layers += [convolution, nn.BatchNorm2d(leaving), nn.ReLU(), nn.MaxPool2d(2)]
        network = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        images = torch.rand(8, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    taken = []
    started = time.perf_counter()
    while not taken or time.perf_counter() - started < CALIBRATION:
        step_started = time.perf_counter()
        with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
            answer = network(images).float().mean()
        answer.backward()
        network.zero_grad()
        taken.append(time.perf_counter() - step_started)
    return statistics.median(taken[1:] or taken)


def in_words(seconds: float) -> str:
    """Tens of seconds, or whole minutes from one and a half on.

    >>> in_words(14.2), in_words(150)
    ('about 20 seconds', 'about 2 minutes')
    """
    if seconds < 90:
        return f"about {10 * math.ceil(seconds / 10)} seconds"
    return f"about {seconds / 60:.0f} minutes"


@contextmanager
def clock(what: str, seconds: float, *, hidden: bool) -> Iterator[None]:
    """A bar that fills with time: full after these seconds, gone when the block ends.

    For what cannot tell how far it is, such as another process.

    Args:
        what: takes so long.
        seconds: that the block is expected to take; 0 where that is not known: there is no bar.
        hidden: there is none either.
    """
    if hidden or not seconds:
        yield
        return
    bar = tqdm(total=seconds, desc=what, bar_format="{desc} {bar} {elapsed}", leave=False)
    over = threading.Event()
    started = time.perf_counter()

    def tick() -> None:
        while not over.wait(1):
            bar.n = min(seconds, time.perf_counter() - started)
            bar.refresh()

    ticking = threading.Thread(target=tick, daemon=True)
    ticking.start()
    try:
        yield
    finally:
        over.set()
        ticking.join()
        bar.n = seconds  # a notebook keeps a bar that is not full, in red
        bar.close()
