"""Train the network of notebook 04: set up, one epoch after another, keep the best.

On several GPUs, for a run that has its photographs and split (01 and 02):
`torchrun --nproc-per-node=N -m helpers.train -- --run NAME [--params FILE] [-p NAME VALUE]...`
(without the `--` torchrun takes `--run` for an option of its own).
"""

import functools
import math
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers import workspace
from helpers.model import AttnVGG
from helpers.photographs.table import check_classes
from helpers.training import checkpoint, processes
from helpers.training.augment import IMAGENET_MEAN, IMAGENET_STD, draw, transform, warp_masks
from helpers.training.batches import Photographs
from helpers.training.loss import focal_loss, mask_loss
from helpers.training.settings import (
    RECIPES,
    Recipe,
    Settings,
    make_optimiser,
    make_schedule,
    naming_what_fits,
    training_parameters,
)

# of the bar, which counts in pixels that pass
BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} to go"
# seconds from one saving to the next on a GPU, whose epochs may be shorter than the saving
PAUSE = 30.0


class Batch(NamedTuple):
    """What one step learns from.

    Where several processes train one network, each has its share of every batch; a loss is the sum
    over the share, divided by the size of the whole.
    """

    images: Tensor  # [B, 3, H, W], normalised
    targets: Tensor  # [B], 0 or 1
    masks: Tensor | None  # [B, 1, H, W], 0 to 1: what the maps are to learn; None if nothing
    masked: Tensor  # [B], 1 where there is a mask, else 0
    places: slice  # where these photographs stand in the order of the epoch
    size: int  # photographs in the whole batch
    size_masked: int  # of them with a mask


# of the network's output and the batch, to be added to the loss of a step
ExtraLoss = Callable[[NamedTuple, Batch], Tensor]
# of the epoch that has ended, the network in evaluation mode, and the config of model.pt
AfterEpoch = Callable[[int, nn.Module, dict], None]


@dataclass
class Training:
    """A training under way: what it works with, and what every epoch changes."""

    settings: Settings
    config: dict  # all that rebuilding the network and feeding it need
    photographs: Photographs
    rows: np.ndarray  # of an epoch; one may stand in it several times
    val: np.ndarray  # rows of validation
    truth: np.ndarray  # [N], row n is photograph n
    has_mask: np.ndarray  # [N]
    precision: torch.dtype
    network: nn.Module
    forward: Callable[[Tensor], NamedTuple]  # the network, compiled or replicated
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    extra_loss: ExtraLoss | None = None
    history: list[dict] = field(default_factory=list)  # a row an epoch
    best: dict = field(default_factory=lambda: {"val_auc": -1.0})  # its row, and the weights
    seconds: float = 0.0
    bar: tqdm | None = None  # of `work`, while the epochs run

    @property
    def facts(self) -> dict:
        """What this training follows from, as `checkpoint.facts_of` has it."""
        return self.config["made_from"]

    @property
    def recipe(self) -> Recipe:
        return RECIPES[self.settings.recipe]

    @property
    def on_cpu(self) -> bool:
        return self.photographs.device.type == "cpu"

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return math.ceil(len(self.rows) / self.settings.batch_size)

    def parts(self) -> dict:
        """What changes from step to step and has a state of its own."""
        return {
            "network": self.network,
            "optimiser": self.optimiser,
            "schedule": self.schedule,
            "scaler": self.scaler,
        }


class Fitted(NamedTuple):
    """What `fit` returns."""

    network: nn.Module  # of the best epoch, in evaluation mode
    config: dict  # of model.pt
    history: pd.DataFrame  # a row an epoch
    timing: dict


def fit(
    settings: Settings,
    split: pd.DataFrame,
    photographs: Photographs,
    *,
    report: Callable[[str], None] = print,
    progress: Path | None = None,
    network: nn.Module | None = None,
    extra_loss: ExtraLoss | None = None,
    after_epoch: AfterEpoch | None = None,
) -> Fitted:
    """Train on the kept rows of the split "train"; keep the epoch of the best validation AUC.

    Order, augmentation and dropout follow from seed and epoch alone. A killed training therefore
    goes on from the last whole epoch as if it had not been cut, on the CPU bit for bit. On a GPU,
    where epochs may be short, from one that ended at most PAUSE seconds before the last.

    Args:
        settings: how to train.
        split: of split.csv.
        photographs: its kept rows, in their order.
        report: takes a line an epoch.
        progress: the file that holds the last whole epoch; None keeps none.
        network: to be trained, in place and from the weights it has, instead of a new AttnVGG. It
            returns a named tuple as AttnVGG does; where masks are taught, maps after the logits.
        extra_loss: is added to the loss of each step: of the network's output and the `Batch`.
        after_epoch: is called after each epoch that is trained here, to look at the network and not
            to change it; `pictures.film.camera` is one. Of several processes the first calls it.

    Raises:
        ValueError: train or val lacks a class, or train the masks asked for; or the photographs are
            stored in fewer pixels than the network takes.
        FloatingPointError: the loss is not finite.
        MemoryError: a batch does not fit.
        CannotWrite: the disk takes no more.
    """
    if progress and extra_loss:
        raise ValueError(
            "progress is not kept with an extra_loss: whether the next start has the same cannot "
            "be told. Leave out one of them"
        )
    keeps = progress is not None and processes.first()
    # two would write the file in turn
    with letting_go(), workspace.locked(progress) if keeps else nullcontext():
        return run_epochs(
            settings, split, photographs, report, progress, network, extra_loss, after_epoch
        )


@contextmanager
def letting_go() -> Iterator[None]:
    """After an error that a second try may mend, hold nothing that the first try had in memory.

    A notebook keeps its last error, an error the functions that it passed, and these their network
    and their batch: a second try would find the memory full. All functions that have ended are
    emptied; another error keeps them, for a debugger.
    """
    try:
        yield
    except (MemoryError, FloatingPointError, KeyboardInterrupt) as error:
        while error is not None:
            traceback.clear_frames(error.__traceback__)
            error = error.__context__
        raise


def run_epochs(
    settings: Settings,
    split: pd.DataFrame,
    photographs: Photographs,
    report: Callable[[str], None],
    progress: Path | None,
    network: nn.Module | None,
    extra_loss: ExtraLoss | None,
    after_epoch: AfterEpoch | None,
) -> Fitted:
    """What `fit` does."""
    with naming_what_fits(settings, photographs.device):
        training = set_up(settings, split, photographs, network, extra_loss)
    compare_sizes(training, report)
    if progress:
        resume(training, progress, report)
    saved = -math.inf
    with progress_bar(training) as training.bar:
        for epoch in range(len(training.history) + 1, settings.epochs + 1):
            started = time.perf_counter()
            with naming_what_fits(settings, photographs.device):
                logits, targets = train_epoch(training, epoch)
                val_logits = validate(training)
                keep_the_best(training, epoch, logits, targets, val_logits)
                ended = time.perf_counter()
                training.seconds += ended - started
                training.bar.clear()  # a terminal's stands where the line is to come
                report(line_of(training))
                if after_epoch is not None and processes.first():
                    after_epoch(epoch, training.network, training.config)
                is_due = training.on_cpu or epoch == settings.epochs or ended - saved >= PAUSE
                if progress and processes.first() and is_due:
                    checkpoint.save_progress(progress, training.facts, state_of(training))
                    saved = ended
    return finish(training)


def progress_bar(training: Training) -> tqdm:
    """The bar of a training, whose epochs count by `work`: the first ones may be cheaper."""
    epochs = training.settings.epochs
    total = sum(sum(work(training, epoch)) for epoch in range(1, epochs + 1))
    done = sum(sum(work(training, epoch)) for epoch in range(1, len(training.history) + 1))
    return workspace.progress("training", total=total, initial=done, bar_format=BAR)


def work(training: Training, epoch: int) -> tuple[int, int]:
    """What an epoch and its validation cost, in pixels that pass the network.

    A photograph that is learned from passes it three times: the way back costs twice the way there.
    """
    settings = training.settings
    side = training.recipe.side(epoch, settings)
    return 3 * side**2 * len(training.rows), settings.image_size**2 * len(training.val)


def set_up(
    settings: Settings,
    split: pd.DataFrame,
    photographs: Photographs,
    network: nn.Module | None = None,
    extra_loss: ExtraLoss | None = None,
) -> Training:
    """Everything that the first epoch needs. Raises ValueError as `fit`."""
    device = photographs.device
    recipe = RECIPES[settings.recipe]
    used = used_rows(split)
    truth = used["target"].to_numpy()
    train = np.flatnonzero(used["split"] == "train")
    val = np.flatnonzero(used["split"] == "val")
    check_classes(truth[train], "train")
    check_classes(truth[val], "val")
    photographs, has_mask = masks_to_learn(settings, used, photographs)

    # what is trained starts from the seed alone, whatever was drawn before
    workspace.seed_everything(settings.seed)
    precision = workspace.choose_precision(device, settings.precision)
    given = network
    if network is None:
        network = new_network(settings)
    network = network.to(device, memory_format=torch.channels_last)
    facts = checkpoint.facts_of(settings, used, photographs, precision, given)
    config = config_of(settings, network, checkpoint.split_key(split), facts)
    if recipe.normalise == "dataset":
        config["mean"], config["std"] = colours(photographs, train)

    # "paper" shows a melanoma four times an epoch
    rows = np.repeat(train, np.where(truth[train] == 1, recipe.melanoma_times, 1))
    steps = math.ceil(len(rows) / settings.batch_size)
    processes.check_batch(len(rows) // steps)
    forward = processes.replicate(network)
    optimiser = make_optimiser(network, settings)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    return Training(
        settings=settings,
        config=config,
        photographs=photographs,
        rows=rows,
        val=val,
        truth=truth,
        has_mask=has_mask,
        precision=precision,
        network=network,
        # batches of two sizes, a graph each; one graph for any size would be slower for both
        forward=torch.compile(forward, dynamic=False) if settings.compile_model else forward,
        optimiser=optimiser,
        schedule=make_schedule(optimiser, settings, steps),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == torch.float16),
        extra_loss=extra_loss,
    )


def train_epoch(training: Training, epoch: int) -> tuple[Tensor, Tensor]:
    """Once through the training photographs, in an order of this epoch's own.

    Returns:
        The logits that the steps were taken from, and their targets: [n] each, on the CPU.
    """
    settings = training.settings
    device = training.photographs.device
    # order and augmentation of an epoch follow from its number, so that a training can go on at it
    seed = settings.seed * 100_003 + epoch
    generator = torch.Generator().manual_seed(seed)
    processes.seed_dropout(seed)
    shuffled = torch.randperm(len(training.rows), generator=generator).numpy()
    order = training.rows[shuffled]
    logits = torch.zeros(len(order), device=device)

    training.network.train()
    side = training.recipe.side(epoch, settings)
    training.bar.set_description_str(f"epoch {epoch} of {settings.epochs}")
    for batch in batches_of(training, order, side, generator):
        with autocast(device, training.precision):
            output = training.forward(batch.images)
        logit = output.logits.float().squeeze(1)  # [B]
        loss = focal_loss(
            logit, batch.targets, alpha=settings.alpha, gamma=settings.gamma, reduction="sum"
        )
        loss = loss / batch.size

        # the maps learn the lesion's place, where somebody drew it
        if batch.masks is not None:
            dice = mask_loss(
                output[1:], batch.masks, batch.masked, settings.mask_weights, reduction="sum"
            )
            loss = loss + dice / max(1, batch.size_masked)
        if training.extra_loss is not None:
            loss = loss + training.extra_loss(output, batch)

        # the scaler keeps small gradients of fp16 from becoming 0; else it changes nothing
        training.optimiser.zero_grad(set_to_none=True)
        training.scaler.scale(loss).backward()
        training.scaler.step(training.optimiser)
        training.scaler.update()
        training.schedule.step()
        logits[batch.places] = logit.detach()  # nothing waits for a GPU within an epoch
        training.bar.update(3 * side**2 * batch.size)  # as in `work`
    targets = torch.from_numpy(training.truth[order]).float()
    return processes.total(logits).cpu(), targets


def validate(training: Training) -> Tensor:
    """Logits of the validation photographs in evaluation mode: [V], on the CPU."""
    processes.copy_buffers(training.network)
    own = processes.share(len(training.val))
    logits = torch.zeros(len(training.val))
    logits[own] = predict(
        training.network,
        training.photographs,
        training.val[own],
        training.config,
        training.precision,
        batch_size=batch_to_predict(training.settings.batch_size),
    )
    training.bar.update(training.settings.image_size**2 * len(training.val))
    return processes.total(logits).cpu()


def keep_the_best(
    training: Training, epoch: int, logits: Tensor, targets: Tensor, val_logits: Tensor
) -> None:
    """Add the epoch's row to the history, and keep its weights if none validated better.

    Raises:
        FloatingPointError: a logit is not finite; the message names the first such batch.
    """
    check_finite(training, epoch, logits, val_logits)
    settings = training.settings
    loss_of = functools.partial(focal_loss, alpha=settings.alpha, gamma=settings.gamma)
    val_targets = torch.from_numpy(training.truth[training.val]).float()
    row = {
        "epoch": epoch,
        "train_loss": loss_of(logits, targets).item(),
        "train_auc": float(roc_auc_score(targets, logits)),
        "val_loss": loss_of(val_logits, val_targets).item(),
        "val_auc": float(roc_auc_score(val_targets, val_logits)),
        "learning_rate": training.schedule.get_last_lr()[0],
    }
    training.history.append(row)
    if row["val_auc"] > training.best["val_auc"]:
        weights = {
            name: tensor.detach().to("cpu", copy=True)
            for name, tensor in training.network.state_dict().items()
        }
        training.best = {**row, "state": weights}


def finish(training: Training) -> Fitted:
    """The network of the best epoch, with what describes it."""
    settings = training.settings
    device = training.photographs.device
    training.network.load_state_dict(training.best["state"])
    photographs = settings.epochs * len(training.rows)
    timing = {
        "device": str(device),
        "precision": str(training.precision).removeprefix("torch."),
        "seconds": training.seconds,
        "images_per_second": photographs / training.seconds,
        "peak_memory_bytes": None,
    }
    if device.type == "cuda":
        timing["peak_memory_bytes"] = torch.cuda.max_memory_allocated(device)
    config = {**training.config, "epoch": training.best["epoch"]}
    return Fitted(training.network.eval(), config, pd.DataFrame(training.history), timing)


# what these are made of


def batches_of(
    training: Training, order: np.ndarray, side: int, generator: torch.Generator
) -> Iterator[Batch]:
    """The batches of an epoch, each drawn anew: every row once, sizes within 1.

    Args:
        training: whose photographs, recipe and settings these are.
        order: rows.
        side: of the images, in pixels.
        generator: draws the augmentation.
    """
    settings, config = training.settings, training.config
    device = training.photographs.device
    wholes = np.array_split(np.arange(len(order)), training.steps)
    shares = [whole[processes.share(len(whole))] for whole in wholes]
    stream = training.photographs.stream([order[share] for share in shares])
    for whole, share, (pixels, masks) in zip(wholes, shares, stream, strict=True):
        draws = draw(len(whole), training.recipe.augmentation, generator)
        draws = draws.of(processes.share(len(whole)))  # all processes draw the same
        images = transform(pixels, draws, side, mean=config["mean"], std=config["std"])
        wanted = None
        if any(settings.mask_weights):
            wanted = warp_masks(masks, draws, side)  # [B, 1, H, W]
            if settings.mask_target == "background":
                wanted = 1 - wanted
        targets = torch.from_numpy(training.truth[order[share]]).float()
        masked = torch.from_numpy(training.has_mask[order[share]]).float()
        yield Batch(
            images=images,
            targets=workspace.send(targets, device),
            masks=wanted,
            masked=workspace.send(masked, device),
            places=slice(share[0], share[-1] + 1),
            size=len(whole),
            size_masked=int(training.has_mask[order[whole]].sum()),
        )


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Compute in half precision where that was chosen."""
    return torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32)


def masks_to_learn(
    settings: Settings, used: pd.DataFrame, photographs: Photographs
) -> tuple[Photographs, np.ndarray]:
    """The photographs with the masks that the maps learn, and which of them have one [N].

    Raises:
        ValueError: masks are to be learned, and no training photograph has one.
    """
    has_mask = (used["mask"] != "").to_numpy()
    if not any(settings.mask_weights):
        return photographs, has_mask
    if settings.mask_target == "otsu":
        return photographs.guessed(), np.ones(len(used), dtype=bool)
    if not has_mask[used["split"] == "train"].any():
        raise ValueError(
            "mask_weight_pool3 or mask_weight_pool4 is set, but no training photograph has a "
            "mask: set `masks` in 01_download.ipynb, mask_target to 'otsu', or both weights to 0"
        )
    return photographs, has_mask


def new_network(settings: Settings) -> AttnVGG:
    """The network of notebook 03, as its parameters have it."""
    weights = None if settings.weights == "none" else settings.weights
    return AttnVGG(
        attention=settings.attention,
        dropout=settings.dropout,
        weights=weights,
        bypass=settings.bypass,
    )


def config_of(settings: Settings, network: nn.Module, split_key: str, facts: dict) -> dict:
    """All that rebuilding the network and feeding it need, and what shaped it."""
    config = {
        "format": workspace.FORMAT,
        "network": type(network).__name__,
        "classes": 1,
        **training_parameters(settings),
        "view": RECIPES[settings.recipe].view,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "colour_order": "rgb",
        "split": split_key,
        "made_from": facts,
    }
    if isinstance(network, AttnVGG):  # one that was brought may be of another kind than settings
        config["attention"] = network.attention
        config["dropout"] = network.dropout.p
        config["bypass"] = network.bypass
    return config


def colours(photographs: Photographs, train: np.ndarray) -> tuple[tuple, tuple]:
    """Mean and standard deviation of red, green and blue over the training photographs.

    Of a thousand or more, 500 to 750 that are evenly chosen stand for all.
    """
    some = train[:: max(1, len(train) // 500)]
    pixels = photographs.take(some)[0].float() / 255  # [n, S, S, 3]
    mean, std = pixels.mean(dim=(0, 1, 2)), pixels.std(dim=(0, 1, 2))
    return tuple(mean.tolist()), tuple(std.tolist())


def compare_sizes(training: Training, report: Callable[[str], None]) -> None:
    """Notice where 02 stored the photographs for another size or recipe than is trained now.

    A view of fewer pixels than the network takes is enlarged, and of one of more than twice as many
    most are skipped, which leaves edges that are not there: that is reported.

    Raises:
        ValueError: whole photographs have fewer pixels than the network takes.
    """
    settings = training.settings
    stored = training.photographs.side
    seen = round(stored * training.recipe.view)
    if settings.image_size <= seen <= 2 * settings.image_size:
        return
    what = "enlarged" if seen < settings.image_size else "thinned out"
    message = (
        f"the photographs are {what}: 02_preprocess.ipynb stored {stored} pixels a side, of which "
        f"recipe {settings.recipe!r} shows {seen} (view {training.recipe.view}), and the network "
        f"takes {settings.image_size}. Run 02_preprocess.ipynb again with image_size "
        f"{settings.image_size} and recipe {settings.recipe!r}, and then 04_train.ipynb"
    )
    if stored < settings.image_size:
        raise ValueError(message)
    report(message)


def resume(training: Training, progress: Path, report: Callable[[str], None]) -> None:
    """Go on from the last whole epoch that the file holds, if it is of this training."""
    if processes.first():
        message = checkpoint.set_aside(progress, training.facts)
        if message:
            report(message)
    processes.wait()
    state = checkpoint.load_progress(progress, training.facts)
    if state is not None:
        for name, part in training.parts().items():
            part.load_state_dict(state[name])
        training.history = state["history"]
        training.best = state["best"]
        training.seconds = state["seconds"]
        report(
            f"goes on after epoch {len(training.history)} of {training.settings.epochs}, which "
            f"{progress.name} holds"
        )
    processes.agree(len(training.history), "the epoch to go on after")


def state_of(training: Training) -> dict:
    """All that `resume` needs."""
    states = {name: part.state_dict() for name, part in training.parts().items()}
    return {
        **states,
        "history": training.history,
        "best": training.best,
        "seconds": training.seconds,
    }


def line_of(training: Training) -> str:
    """The last epoch's figures, for `report`."""
    row = training.history[-1]
    figures = [f"{name} {row[name]:.3f}" for name in list(row)[1:5]]
    return "  ".join([f"epoch {row['epoch']:2d}/{training.settings.epochs}", *figures])


def check_finite(training: Training, epoch: int, logits: Tensor, val_logits: Tensor) -> None:
    """Raises FloatingPointError, with the first batch whose answers are not all finite."""
    lost = ~torch.cat([logits, val_logits]).isfinite()
    if not lost.any():
        return
    batch = training.steps  # the last step's network answers validation
    for number, places in enumerate(np.array_split(np.arange(len(logits)), training.steps), 1):
        if lost[places].any():
            batch = number
            break
    raise FloatingPointError(
        f"epoch {epoch}, batch {batch} of {training.steps}: the loss is not finite; lower "
        "learning_rate, or set precision fp32. Kept: the epochs before, if any"
    )


# predictions


def used_rows(split: pd.DataFrame) -> pd.DataFrame:
    """The rows of `split.csv` that are in the cache.

    Row n of this table is photograph n of `Photographs`.
    """
    return split[split["kept"] == 1].reset_index(drop=True)


@torch.no_grad()
def predict(
    network: nn.Module,
    photographs: Photographs,
    rows: np.ndarray,
    config: dict,
    precision: torch.dtype,
    *,
    batch_size: int = 64,
    with_bar: bool = False,
) -> Tensor:
    """Logits of these rows of the cache, in evaluation mode.

    Args:
        network: as AttnVGG.
        photographs: to take the rows from.
        rows: numbers of photographs.
        config: of model.pt: what the network is fed with.
        precision: of its arithmetic.
        batch_size: photographs at a time; changes nothing but memory and time.
        with_bar: shows one; a training, which asks after each epoch, has its own.

    Returns:
        float32 [len(rows)], on the CPU.
    """
    network.eval()
    logits = []
    parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    seen = photographs.stream_evaluation(parts, config)
    if with_bar:
        seen = workspace.progress("predicted", seen, len(parts))
    for images, _ in seen:
        with autocast(images.device, precision):
            logits.append(network(images).logits.float().squeeze(1))
    return torch.cat(logits).cpu() if logits else torch.empty(0)


def batch_to_predict(batch_size: int) -> int:
    """Photographs that surely fit where a step of `batch_size` does, which keeps more of each.

    >>> batch_to_predict(8), batch_to_predict(128)
    (16, 64)
    """
    return min(64, 2 * batch_size)


def predict_held_out(
    fitted: Fitted, split: pd.DataFrame, photographs: Photographs, precision: str = "auto"
) -> pd.DataFrame:
    """`predictions.csv` for val and test, without its last column, `probability`.

    That one needs a calibration, which notebook 04 comes to.
    """
    used = used_rows(split)
    held = used[used["split"] != "train"]
    logits = predict(
        fitted.network,
        photographs,
        held.index.to_numpy(),
        fitted.config,
        workspace.choose_precision(photographs.device, precision),
        batch_size=batch_to_predict(fitted.config["batch_size"]),
        with_bar=True,
    )
    columns = ["image_id", "split", "source", "group", "target"]
    return held[columns].assign(logit=logits.numpy()).reset_index(drop=True)
