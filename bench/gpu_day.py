"""Everything that waits for a GPU, in one go of at most 25 minutes; what is done is not done again.

    python bench/gpu_day.py [--parts NAME...] [--dataset ZIP --masks ZIP] [--weights FILE]
        [--minutes N] [--small] [--work FOLDER] [--out FOLDER]

A step's speed and memory in each precision, compiled and without what batch norm takes away again;
made JPEGs to an AUC; a training that is killed and goes on; the tests that need a real GPU;
`speed.py`; and, where `--dataset` names them, `real_photographs.py` at 224 pixels. Each part is
written to `gpu_day.json` when it ends. `--small` rehearses all this on a CPU, where no figure means
anything.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import loops
import record
import speed
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from helpers import workspace
from helpers.model import AttnVGG
from helpers.training.batches import open_prepared
from helpers.training.loop import fit, predict_held_out
from helpers.training.loss import focal_loss
from helpers.training.settings import Settings, make_optimiser

BENCH = Path(__file__).resolve().parent


@dataclass
class Day:
    """What the parts share."""

    device: torch.device
    small: bool
    work: Path  # made photographs, runs, networks
    out: Path
    dataset: str
    masks: str
    weights: str
    until: float  # on the clock of time.monotonic

    @property
    def left(self) -> float:
        """Seconds."""
        return self.until - time.monotonic()

    @property
    def side(self) -> int:
        return 32 if self.small else 224

    @property
    def count(self) -> int:
        """Photographs that are made: as many as the tutorial's set has."""
        return 60 if self.small else 11_479

    @property
    def batch_size(self) -> int:
        return 8 if self.small else 100

    def run(self, *words: str) -> str:
        """A command of this project; what it printed.

        Raises:
            RuntimeError: it failed; its last lines.
            subprocess.TimeoutExpired: it took longer than is left.
        """
        done = subprocess.run(
            [sys.executable, *words],
            cwd=workspace.PROJECT,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=max(1.0, self.left),
        )
        if done.returncode:
            raise RuntimeError("\n".join((done.stdout + done.stderr).splitlines()[-15:]))
        return done.stdout

    def environment(self) -> dict[str, str]:
        """That of a command: data and runs go to the folder of this day."""
        folders = {"ATTENTION_DATA": str(self.work / "data"), "ATTENTION_RUNS": str(self.work)}
        return {**os.environ, **folders, "ATTENTION_HEADLESS": "1"}


# a step alone


class Variant(NamedTuple):
    """How a step is taken."""

    precision: str
    compiled: bool = False
    biases: bool = True  # of the convolutions, which batch norm takes away again


VARIANTS = {
    "fp32": Variant("fp32"),
    "fp16": Variant("fp16"),
    "bf16": Variant("bf16"),
    "fp16, no biases": Variant("fp16", biases=False),
    "bf16, no biases": Variant("bf16", biases=False),
    "fp16, compiled": Variant("fp16", compiled=True),
    "bf16, compiled": Variant("bf16", compiled=True),
}


def without_biases(network: AttnVGG) -> AttnVGG:
    """The network, its convolutions' biases folded into what batch norm subtracts.

    In evaluation it answers the same; in training batch norm subtracts the batch's own mean, and a
    bias with it.
    """
    layers = list(network.backbone)
    for convolution, norm in zip(layers, layers[1:], strict=False):
        if isinstance(convolution, nn.Conv2d):
            with torch.no_grad():
                norm.running_mean -= convolution.bias
            convolution.bias = None
    return network


def steps(day: Day) -> dict:
    """Photographs a second and peak memory of a step, by variant; what is not here is left out."""
    figures = {}
    for name, variant in VARIANTS.items():
        try:
            workspace.choose_precision(day.device, variant.precision)
        except ValueError as error:  # a GPU without bf16
            figures[name] = {"not_here": str(error)}
            continue
        if day.small and (variant.compiled or variant.precision == "fp16"):
            continue  # minutes each on a CPU
        figures[name] = measure(day, variant)
    return figures


def measure(day: Day, variant: Variant) -> dict:
    """A variant's rate, and the most bytes that lay on the GPU (None on a CPU)."""
    B, S = day.batch_size, day.side
    precision = workspace.choose_precision(day.device, variant.precision)
    torch.manual_seed(0)
    network = AttnVGG().to(day.device, memory_format=torch.channels_last).train()
    if not variant.biases:
        without_biases(network)
    optimiser = make_optimiser(network, Settings(recipe="tutorial"))
    scaler = torch.amp.GradScaler(day.device.type, enabled=precision == torch.float16)
    forward = torch.compile(network, dynamic=False) if variant.compiled else network
    images = torch.randn(B, 3, S, S).to(day.device, memory_format=torch.channels_last)
    targets = (torch.arange(B) % 2.0).to(day.device)
    given = (forward, images, targets, optimiser, scaler, precision, focal_loss)
    on_gpu = day.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(day.device)
    repeats = 2 if day.small else 30
    for _ in range(2 if day.small else 5):  # chooses kernels, and compiles
        loops.mixed_step(*given)
    speed.wait_for(day.device)
    started = time.perf_counter()
    for _ in range(repeats):
        loops.mixed_step(*given)
    speed.wait_for(day.device)
    rate = repeats * B / (time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated(day.device) if on_gpu else None
    return {"photographs_per_second": rate, "peak_memory_bytes": peak}


# a whole training


def prepared(day: Day, run: str) -> Path:
    """The folder of a run that 01 and 02 have prepared, of photographs that are made once."""
    made = day.work / f"made-{day.count}"
    if not (made / "marking.csv").exists():
        loops.make_photographs(made, day.count)
    folder = day.work / run
    if not (folder / "cache.json").exists():
        options = ("-p", "image_size", str(day.side), "-p", "benign", "0", "--to", "02")
        day.run("-m", "helpers.run", "--run", run, "--dataset", str(made), *options)
    return folder


def learn(day: Day) -> dict:
    """Made JPEGs to the AUC of two epochs: seconds of each, and the memory that training took."""
    started = time.perf_counter()
    folder = prepared(day, "learn")
    ready = time.perf_counter()
    os.environ.update(day.environment())  # places in the run's files start at its data folder
    split, photographs = open_prepared(folder, day.device)
    settings = Settings(
        image_size=day.side, epochs=2, batch_size=day.batch_size, compile_model=not day.small
    )
    fitted = fit(settings, split, photographs)
    test = predict_held_out(fitted, split, photographs)
    test = test[test["split"] == "test"]
    return fitted.timing | {
        "photographs": len(split),
        "resident": photographs.resident,
        "seconds_to_make_and_prepare": ready - started,
        "seconds_to_train": time.perf_counter() - ready,
        "auc": float(roc_auc_score(test["target"], test["logit"])),
        "melanomas": int(test["target"].sum()),
    }


def kill_and_resume(day: Day) -> dict:
    """A training that is killed after its first epoch, and what the same command says then."""
    folder = prepared(day, "killed")
    words = ["-m", "helpers.train", "--", "--run", folder.name]
    for name, value in (("image_size", day.side), ("epochs", 3), ("batch_size", day.batch_size)):
        words += ["-p", name, str(value)]
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=workspace.PROJECT,
        env=day.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("epoch  1/"):
            break
    while process.poll() is None and not (folder / "progress.pt").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    lines = day.run(*words).splitlines()
    return {
        "killed": process.returncode == -signal.SIGKILL,
        "goes_on": any("goes on after epoch" in line for line in lines),
        "finished": (folder / "model.pt").exists(),
        "said": [line for line in lines if "epoch" in line],
    }


# other programs

LONG = ("-m", "long or not long")


def real_device(day: Day) -> dict:
    """The tests that need a real GPU: their last line. RuntimeError where one fails."""
    return {"said": day.run("-m", "pytest", "tests/gpu", "-k", "real", *LONG).splitlines()[-1]}


def speed_table(day: Day) -> dict:
    """`speed.py`, which leaves a file of its own."""
    few = ("--count", "40", "--image-size", "32", "--batch-size", "4", "--rounds", "1")
    day.run(str(BENCH / "speed.py"), "--out", str(day.out), *(few if day.small else ()))
    return {"file": "speed.json"}


def real_photographs(day: Day) -> dict:
    """`real_photographs.py` at 224 pixels, which leaves files of its own.

    Raises:
        ValueError: no photographs were named.
    """
    if not (day.dataset and day.masks):
        raise ValueError("real photographs need --dataset and --masks: name their zips or folders")
    words = ["--dataset", day.dataset, "--masks", day.masks, "--seeds", "0"]
    words += ["--networks", "no attention", "softmax", "sigmoid, with masks"]
    words += ["--keep", str(day.work / "real"), "--out", str(day.out)]
    chosen = {"image_size": day.side, "epochs": 2, "batch_size": day.batch_size, "benign": 0}
    if day.weights:
        chosen["weights"] = day.weights
    for name, value in chosen.items():
        words += ["-p", name, str(value)]
    return {"said": day.run(str(BENCH / "real_photographs.py"), *words).splitlines()[-1]}


# the quick ones first: what is lost when the time is up is what took longest
PARTS: dict[str, Callable[[Day], dict]] = {
    "steps": steps,
    "real_device": real_device,
    "learn": learn,
    "kill_and_resume": kill_and_resume,
    "speed": speed_table,
    "real_photographs": real_photographs,
}


def do(day: Day, name: str) -> dict:
    """A part: what it found, or why it found nothing; and its seconds."""
    started = time.monotonic()
    if day.left <= 0:
        return {"failed": "no time was left"}
    try:
        found = PARTS[name](day)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {time.monotonic() - started:.0f} s: the time was up"}
    except (RuntimeError, ValueError, MemoryError, OSError) as error:  # the others are done still
        return {"failed": f"{type(error).__name__}: {error}"}
    return {"found": found, "seconds": time.monotonic() - started}


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="not all of them")
    add("--dataset", default="", help="photographs for real_photographs.py")
    add("--masks", default="", help="their masks")
    add("--weights", default="", help="of the backbone, for the same")
    add("--minutes", type=float, default=25, help="after which no part goes on")
    add("--small", action="store_true", help="a rehearsal: few and small photographs")
    add("--work", type=Path, help="where made photographs and networks are kept")
    add("--out", type=Path, default=record.RESULTS, help="not data/results/")
    return parser.parse_args()


def main() -> int:
    options = read_options()
    device = workspace.choose_device()
    if device.type != "cuda" and not options.small:
        print("there is no CUDA here: --small rehearses on this machine", file=sys.stderr)
        return 2
    out = options.out.absolute()
    work = options.work or Path(tempfile.gettempdir()) / "attention-gpu-day"
    day = Day(
        device=device,
        small=options.small,
        work=work.absolute(),
        out=out,
        dataset=str(Path(options.dataset).absolute()) if options.dataset else "",
        masks=str(Path(options.masks).absolute()) if options.masks else "",
        weights=str(Path(options.weights).absolute()) if options.weights else "",
        until=time.monotonic() + 60 * options.minutes,
    )
    day.work.mkdir(parents=True, exist_ok=True)
    before = record.read("gpu_day", out)
    parts = before["figures"]["parts"] if before else {}
    for name in options.parts:
        if "found" in parts.get(name, {}):
            print(f"{name}: done before", flush=True)
            continue
        parts[name] = do(day, name)
        print(f"{name}: {parts[name]}", flush=True)
        write(day, parts)
    return 0 if all("found" in parts[name] for name in options.parts) else 1


def write(day: Day, parts: dict) -> None:
    """Leave what is known so far."""
    record.write(
        "gpu_day",
        {"parts": parts, "small": day.small, "image_size": day.side, "batch_size": day.batch_size},
        seeds=[Settings().seed],
        data=record.photographs_of("made by the program", map(str, range(day.count)), 0),
        weights="none",
        device=day.device,
        folder=day.out,
    )


if __name__ == "__main__":
    sys.exit(main())
