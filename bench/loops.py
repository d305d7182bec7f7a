"""The three training loops that `speed.py` sets side by side, and their photographs.

The tutorial's is written out as it is printed, with the names put in that it lacks, and with what
each line costs. The peer's is what torchvision's own reference training does: workers, pinned
memory, mixed precision, no waiting. Ours is `helpers`. All train the same `AttnVGG` on the same
photographs, with the same turns, flips, batch size and learning rate. Colours stay as they are
stored, since that changes no speed.
"""

import contextlib
import math
import multiprocessing
import os
import re
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import record
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.ops import sigmoid_focal_loss
from torchvision.transforms import v2

from helpers import workspace
from helpers.photographs.cache import build_cache
from helpers.photographs.sample import make_sample
from helpers.photographs.split import make_split
from helpers.training import augment, batches
from helpers.training.loop import fit
from helpers.training.settings import RECIPES, Settings

MEAN = augment.IMAGENET_MEAN
STD = augment.IMAGENET_STD
RATE = 1e-4


class TutorialPhotographs(Dataset):
    """Photographs [3, S, S] and targets, already on the device, as the tutorial gives them."""

    def __init__(
        self, paths: list[Path], targets: np.ndarray, image_size: int, device: torch.device
    ):
        self.paths, self.targets, self.device = paths, targets, device
        self.transform = transforms.Compose(
            [
                # turns all 512 x 512 pixels, of which a fifth are kept at 224
                transforms.RandomRotation(10),
                transforms.RandomHorizontalFlip(),  # copies them once more
                transforms.Resize(image_size),  # only here they become few
                transforms.CenterCrop(image_size),  # cuts nothing off a square: a copy
                transforms.ToTensor(),  # float32: four bytes a pixel in place of one
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = cv2.imread(str(self.paths[index]))  # decodes the JPEG in full, again in every epoch
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # a pass over 512 x 512 x 3 bytes
        # on one core, while the others and the GPU wait
        image = self.transform(Image.fromarray(image))
        target = torch.tensor(float(self.targets[index]))
        # One small transfer a photograph, that Python waits for. Worse: a process that was forked
        # cannot use CUDA, so this line rules out the loader's workers, and nothing is read while
        # the network trains.
        return image.to(self.device), target.to(self.device)


def tutorial_loader(
    paths: list[Path], targets: np.ndarray, image_size: int, batch_size: int, device: torch.device
) -> DataLoader:
    photographs = TutorialPhotographs(paths, targets, image_size, device)
    # no workers, no pinned memory
    return DataLoader(photographs, batch_size=batch_size, shuffle=True)


def tutorial_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Focal loss whose "alpha" multiplies both classes alike: a gradient a quarter as large."""
    # -log p_t
    crossed = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (0.25 * (1 - torch.exp(-crossed)) ** 2 * crossed).mean()


def tutorial_step(
    network: nn.Module, images: Tensor, targets: Tensor, optimiser
) -> tuple[Tensor, Tensor]:
    """Loss and logits [B] of one step."""
    optimiser.zero_grad()
    logits = network(images)[0].squeeze(1)  # float32, channels first: the chip's fast units idle
    loss = tutorial_loss(logits, targets)
    loss.backward()
    optimiser.step()
    return loss, logits


def tutorial_epoch(network: nn.Module, loader: Iterable, optimiser) -> tuple[float, float]:
    """The epoch's loss, a mean over batches, and what is printed as its AUC: the last batch's."""
    network.train()
    losses, auc = [], math.nan
    for images, targets in loader:  # the GPU waits until a batch is decoded
        loss, logits = tutorial_step(network, images, targets, optimiser)
        losses.append(loss.item())  # and Python until the GPU is done: a wait a batch
        try:  # noqa: SIM105 - as it is printed
            auc = roc_auc_score(targets.cpu().numpy(), torch.sigmoid(logits).detach().cpu().numpy())
        except ValueError:  # of a batch of one class (today's scikit-learn gives NaN)
            pass
    return float(np.mean(losses)), auc


class PeerPhotographs(Dataset):
    """Photographs [3, S, S] and targets on the CPU; first made small, then turned and flipped."""

    def __init__(self, paths: list[Path], targets: np.ndarray, image_size: int):
        self.paths, self.targets = paths, targets
        self.transform = v2.Compose(
            [
                v2.Resize(image_size),
                v2.CenterCrop(image_size),
                v2.RandomRotation(10, v2.InterpolationMode.BILINEAR),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = Image.open(self.paths[index]).convert("RGB")
        return self.transform(image), torch.tensor(float(self.targets[index]))


def peer_loader(
    paths: list[Path], targets: np.ndarray, image_size: int, batch_size: int, device: torch.device
) -> DataLoader:
    return DataLoader(
        PeerPhotographs(paths, targets, image_size),
        batch_size=batch_size,
        shuffle=True,
        num_workers=record.cores(),
        pin_memory=device.type == "cuda",
        persistent_workers=True,
    )


def peer_batches(loader: Iterable, device: torch.device) -> Iterable[tuple[Tensor, Tensor]]:
    """The loader's batches, sent to the device without waiting."""
    for images, targets in loader:
        yield (
            workspace.send(images, device).contiguous(memory_format=torch.channels_last),
            workspace.send(targets, device),
        )


def mixed_step(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    optimiser,
    scaler,
    precision: torch.dtype,
    loss_of: Callable = sigmoid_focal_loss,
) -> Tensor:
    """The loss of one step in mixed precision; with our loss and optimiser, the step of `fit`."""
    with torch.autocast(images.device.type, dtype=precision, enabled=precision != torch.float32):
        logits = network(images)[0].squeeze(1)
    loss = loss_of(logits.float(), targets, alpha=-1, gamma=2, reduction="mean")
    optimiser.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    scaler.step(optimiser)
    scaler.update()
    return loss.detach()


def peer_epoch(
    network: nn.Module,
    loader: Iterable,
    optimiser,
    scaler,
    precision: torch.dtype,
    device: torch.device,
    report: Callable[[str], None] = str,
) -> None:
    network.train()
    for number, (images, targets) in enumerate(peer_batches(loader, device)):
        loss = mixed_step(network, images, targets, optimiser, scaler, precision)
        if number % 10 == 0:
            report(f"batch {number}: loss {loss.item():.4f}")  # the only wait


def build(dataset: dict, split: pd.DataFrame, image_size: int, place: Path) -> tuple[dict, float]:
    """Our cache, built anew on all cores: the content of cache.json, and the seconds that it took.

    place: a folder for these caches alone, since what lies there is deleted first. From here on it
    is this process's data folder, where the cache is looked for.
    """
    shutil.rmtree(place, ignore_errors=True)
    os.environ["ATTENTION_DATA"] = str(place)
    started = time.perf_counter()
    cache = build_cache(dataset, split, image_size=image_size)
    return cache, time.perf_counter() - started


def our_batches(
    settings: Settings, photographs: batches.Photographs, rows: np.ndarray
) -> Iterable[Tensor]:
    """Our augmented batches of these rows of the cache, as `fit` makes them."""
    generator = torch.Generator().manual_seed(0)
    augmentation = RECIPES[settings.recipe].augmentation
    order = rows[torch.randperm(len(rows), generator=generator).numpy()]
    parts = np.array_split(order, math.ceil(len(rows) / settings.batch_size))
    for part, (pixels, _) in zip(parts, photographs.stream(parts), strict=True):
        draws = augment.draw(len(part), augmentation, generator)
        yield augment.transform(pixels, draws, settings.image_size, mean=MEAN, std=STD)


def our_epoch(settings: Settings, split: pd.DataFrame, photographs: batches.Photographs) -> float:
    """Seconds of the second epoch of a real `fit`, with its two validation photographs."""
    ends = []

    def note(line: str) -> None:
        if line.startswith("epoch"):
            ends.append(time.perf_counter())

    fit(settings, split, photographs, report=note)
    return ends[1] - ends[0]


def convolutions(
    backbone: nn.Sequential, images: Tensor, precision: torch.dtype
) -> Callable[[], None]:
    """A step of the 13 convolutions alone, both ways, on random numbers of their size."""
    jobs = []
    for layer in backbone.to(precision):
        if isinstance(layer, nn.Conv2d):
            first = layer.in_channels == 3  # nobody asks for the photographs' gradient
            entering = torch.randn_like(images, dtype=precision, requires_grad=not first)
            wanted = [layer.weight] if first else [layer.weight, entering]
            jobs.append((layer, entering, wanted))
            images = layer(entering).detach()  # for its shape
        elif isinstance(layer, nn.MaxPool2d):
            images = layer(images)

    def step() -> None:
        for layer, entering, wanted in jobs:
            output = layer(entering)
            torch.autograd.grad(output, wanted, output.detach())

    return step


def make_photographs(folder: Path, count: int) -> None:
    """`count` photographs of 512 x 512 pixels in the Kaggle layout.

    They are the sample's, enlarged, under a sensor's noise. Noise (standard deviation 2.5) and
    quality (88, the Kaggle set's) match real ones in size and decoding time.
    """
    small = folder.with_name("small")
    large = folder / "photographs"
    make_sample(small, count=count)
    large.mkdir(parents=True)

    def enlarge(path: Path) -> None:
        rng = np.random.default_rng(zlib.crc32(path.stem.encode()))
        pixels = cv2.resize(cv2.imread(str(path)), (512, 512), interpolation=cv2.INTER_CUBIC)
        noise = 2.5 * rng.standard_normal((512, 512, 1), dtype=np.float32)
        noisy = (pixels + noise).clip(0, 255).astype(np.uint8)
        _, encoded = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 88])
        (large / path.name).write_bytes(encoded)

    with ThreadPoolExecutor(record.cores()) as pool:
        list(pool.map(enlarge, small.rglob("*.jpg")))
    shutil.copy(small / "marking.csv", folder)


def choose(dataset: dict, count: int, batch_size: int, *, epoch: int = 0) -> pd.DataFrame:
    """`count` rows as a split of their own: two in val, whole batches less one row in train.

    A reader's batches are not all of one size either, which a compiled network must bear.

    Args:
        dataset: the content of dataset.json.
        count: of the rows; row n is photograph n of their cache.
        batch_size: of training.
        epoch: how many val and train may hold (0: all). The others stand in test: in the cache,
            where no network sees them.

    Raises:
        ValueError: that is less than a batch.
    """
    table = make_split(dataset).assign(kept=1, split="test").sample(frac=1, random_state=0)
    first = table.groupby("target").head(2)  # for val and for train
    split = pd.concat([first, table.drop(first.index)])[:count].reset_index(drop=True)
    most = epoch or len(split)
    whole = (most - 2) // batch_size * batch_size
    if not whole:
        raise ValueError(
            f"{most} photographs are not a batch of {batch_size} and two: raise --count"
        )
    val = split.groupby("target").head(1).index
    split.loc[val, "split"] = "val"
    split.loc[split.index.difference(val)[: whole - 1], "split"] = "train"
    return split


def watch(peak: list[int]) -> None:
    """`note`, again and again. Nothing where there is no /proc."""
    while sys.platform == "linux":
        note(peak)
        time.sleep(0.02)


def note(peak: list[int]) -> None:
    """Keep in `peak` the most bytes that this process and its workers hold for themselves.

    Left out: pages of mapped files, which the kernel drops when it must, and the batches that
    workers hand over.
    """
    with contextlib.suppress(OSError, TypeError):  # a worker that ended meanwhile
        held = kilobytes("/proc/self/status", "RssAnon")
        for worker in multiprocessing.active_children():
            held += kilobytes(f"/proc/{worker.pid}/smaps_rollup", "Private_Dirty")
        peak[0] = max(peak[0], 1024 * held)


def kilobytes(path: str, name: str) -> int:
    """The number behind a name in a file of /proc."""
    text = Path(path).read_text(encoding="utf-8")
    return int(re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)[1])
