"""Train the network of notebook 04: the loop, the predictions, and what a run leaves.

On several GPUs, for a run that has its photographs and split (01 and 02), with the parameters of notebook 04:
`torchrun --nproc-per-node=N -m helpers.train -- --run NAME [--params FILE] [-p NAME VALUE]...`
(without the `--` torchrun takes `--run` for an option of its own).
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from tqdm.auto import tqdm

from helpers import workspace
from helpers.model import AttnVGG
from helpers.photographs.table import check_classes
from helpers.training import processes
from helpers.training.augment import IMAGENET_MEAN, IMAGENET_STD, Draws, draw, transform, warp_masks
from helpers.training.batches import Photographs
from helpers.training.checkpoint import Progress, split_key, training_key
from helpers.training.loss import focal_loss, mask_loss
from helpers.training.settings import (
    RECIPES,
    Settings,
    make_optimiser,
    make_schedule,
    naming_what_fits,
)


class Fitted(NamedTuple):
    """What `fit` returns: the network of the best epoch in eval mode, its config, history and timing."""

    network: AttnVGG
    config: dict
    history: pd.DataFrame
    timing: dict


def fit(
    settings: Settings,
    split: pd.DataFrame,
    photographs: Photographs,
    *,
    report: Callable[[str], None] = print,
    progress: Path | None = None,
) -> Fitted:
    """Train on the kept rows of the split "train"; keep the epoch of the best validation AUC.

    `report` takes a line an epoch. Order, augmentation and dropout follow from seed and epoch alone, so that a killed
    training goes on from the last whole epoch, which the file `progress` holds, as if it had not been cut (on the CPU
    bit for bit), if settings, photographs, split and code are the same. Under `distributed.started` each process takes
    its share of every batch, and all return the same. Raises ValueError where train or val lacks a class or train the
    masks asked for, FloatingPointError where the loss is not finite, MemoryError where a batch does not fit.
    """
    first = processes.place()[0] == 0
    with (
        workspace.locked(progress) if progress and first else nullcontext()
    ):  # two would write one file in turn
        return _fit(settings, split, photographs, report, progress)


def _fit(
    settings: Settings,
    split: pd.DataFrame,
    photographs: Photographs,
    report: Callable,
    progress: Path | None,
):
    recipe, device = RECIPES[settings.recipe], photographs.device
    precision = workspace.choose_precision(device, settings.precision)
    used = used_rows(split)
    truth, has_mask = (
        used["target"].to_numpy(),
        (used["mask"] != "").to_numpy(),
    )  # [N], row n is photograph n
    train, val = (np.flatnonzero(used["split"] == name) for name in ("train", "val"))
    check_classes(truth[train], "train")
    check_classes(truth[val], "val")
    if any(settings.mask_weights) and settings.mask_target == "otsu":
        photographs, has_mask = photographs.guessed(), np.ones(len(used), dtype=bool)
    if any(settings.mask_weights) and not has_mask[train].any():
        raise ValueError(
            "mask_weight_pool3 or mask_weight_pool4 is set, but no training photograph has a mask: set "
            "`masks` in 01_download.ipynb, mask_target to 'otsu', or both weights to 0"
        )
    loss_of = functools.partial(focal_loss, alpha=settings.alpha, gamma=settings.gamma)
    targets, masked = (
        torch.tensor(one, dtype=torch.float32, device=device) for one in (truth, has_mask)
    )

    workspace.seed_everything(settings.seed)
    network = AttnVGG(
        attention=settings.attention,
        dropout=settings.dropout,
        weights=None if settings.weights == "none" else settings.weights,
    )
    network = network.to(device, memory_format=torch.channels_last)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if recipe.normalise == "dataset":
        pixels = (
            photographs.take(train[:: max(1, len(train) // 500)])[0].float() / 255
        )  # some 500 photographs
        mean, std = (
            tuple(values.tolist())
            for values in (pixels.mean(dim=(0, 1, 2)), pixels.std(dim=(0, 1, 2)))
        )
    config = {
        "format": workspace.FORMAT,
        "classes": 1,
        **dataclasses.asdict(settings),
        "view": recipe.view,
        "mean": mean,
        "std": std,
        "colour_order": "rgb",
        "split": split_key(split),
    }  # all that rebuilding the network and feeding it need
    epoch_rows = np.repeat(train, np.where(truth[train] == 1, recipe.melanoma_times, 1))
    steps = math.ceil(len(epoch_rows) / settings.batch_size)  # batches an epoch
    number, count = processes.place()
    if len(epoch_rows) // steps < count:
        raise ValueError(
            f"a batch of {len(epoch_rows) // steps} has not one photograph for each of {count} "
            "processes: raise batch_size, or start fewer"
        )
    network, forward = processes.replicate(network)
    optimiser = make_optimiser(network, settings)
    schedule = make_schedule(optimiser, settings, steps)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    forward = torch.compile(forward) if settings.compile_model else forward

    parts = {"network": network, "optimiser": optimiser, "schedule": schedule, "scaler": scaler}
    keeper = Progress(progress, training_key(settings, used, photographs, precision))
    state = {"history": [], "best": {"val_auc": -1.0}, "seconds": 0.0}
    if found := keeper.load():
        for name, part in parts.items():
            part.load_state_dict(found.pop(name))
        state = found
        report(
            f"goes on after epoch {len(state['history'])} of {settings.epochs}, which {progress.name} holds"
        )
    history, best, before, started = (
        state["history"],
        state["best"],
        state["seconds"],
        time.perf_counter(),
    )
    processes.same(len(history), "the epoch to go on after")
    for epoch in range(len(history) + 1, settings.epochs + 1):
        generator = torch.Generator().manual_seed(settings.seed * 100_003 + epoch)
        torch.manual_seed(settings.seed * 100_003 + epoch + 1_000_000_007 * number)  # dropout
        order = epoch_rows[torch.randperm(len(epoch_rows), generator=generator).numpy()]
        batches = np.array_split(np.arange(len(order)), steps)  # every row once, sizes within 1
        shares = [processes.share(places) for places in batches]  # this process's places in order
        network.train()
        logits = []
        stream = tqdm(
            photographs.stream([order[places] for places in shares]),
            f"epoch {epoch}",
            steps,
            leave=False,
            disable=workspace.headless(),
        )
        with naming_what_fits(settings, device):
            for places, own, (pixels, masks) in zip(batches, shares, stream, strict=True):
                draws = draw(
                    len(places), recipe.augmentation, generator
                )  # all processes draw the same
                draws = Draws(*(one[own - places[0]] for one in draws))
                images = transform(pixels, draws, settings.image_size, mean=mean, std=std)
                row = torch.from_numpy(order[own]).to(device, non_blocking=True)
                with torch.autocast(
                    device.type, dtype=precision, enabled=precision != torch.float32
                ):
                    output = forward(images)
                logit = output.logits.float().squeeze(1)  # [B]
                loss = loss_of(logit, targets[row]) * processes.weight(len(own), len(places))
                if any(settings.mask_weights):
                    wanted = warp_masks(masks, draws, settings.image_size)  # [B, 1, H, W]
                    wanted = 1 - wanted if settings.mask_target == "background" else wanted
                    loss = loss + (
                        mask_loss(output[1:], wanted, masked[row], settings.mask_weights)
                        * processes.weight(*(has_mask[order[one]].sum() for one in (own, places)))
                    )
                optimiser.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()
                scaler.step(optimiser)
                scaler.update()
                schedule.step()
                logits.append(logit.detach())  # no host sync within an epoch
        processes.copy_buffers(network)
        logits = processes.gather(torch.cat(logits), np.concatenate(shares), len(order))
        own = processes.share(np.arange(len(val)))
        val_logits = processes.gather(
            predict(network, photographs, val[own], config, precision), own, len(val)
        )
        lost = torch.cat([logits, val_logits]).isfinite().logical_not()
        if lost.any():
            keeper.close()
            batch = min(
                steps,
                np.searchsorted([places[-1] for places in batches], lost.float().argmax().item())
                + 1,
            )
            raise FloatingPointError(
                f"epoch {epoch}, batch {batch} of {steps}: the loss is not finite; lower "
                "learning_rate, or set precision fp32. Kept: the epochs before, if any"
            )
        history.append(
            {
                "epoch": epoch,
                "train_loss": loss_of(logits, targets[order].cpu()).item(),
                "train_auc": float(roc_auc_score(truth[order], logits)),
                "val_loss": loss_of(val_logits, targets[val].cpu()).item(),
                "val_auc": float(roc_auc_score(truth[val], val_logits)),
                "learning_rate": schedule.get_last_lr()[0],
            }
        )
        report(
            f"epoch {epoch:2d}/{settings.epochs}  "
            + "  ".join(
                f"{name} {history[-1][name]:.3f}"
                for name in ("train_loss", "train_auc", "val_loss", "val_auc")
            )
        )
        if history[-1]["val_auc"] > best["val_auc"]:
            best = {
                **history[-1],
                "state": {name: one.clone() for name, one in network.state_dict().items()},
            }
        seconds = before + time.perf_counter() - started
        if number == 0:
            keeper.save(
                {name: part.state_dict() for name, part in parts.items()}
                | {"history": history, "best": best, "seconds": seconds}
            )
    keeper.close()
    seconds = before + time.perf_counter() - started
    network.load_state_dict(best["state"])
    timing = {
        "device": str(device),
        "precision": str(precision).removeprefix("torch."),
        "seconds": seconds,
        "images_per_second": settings.epochs * len(epoch_rows) / seconds,
        "peak_memory_bytes": torch.cuda.max_memory_allocated(device)
        if device.type == "cuda"
        else None,
    }
    return Fitted(network.eval(), {**config, "epoch": best["epoch"]}, pd.DataFrame(history), timing)


def used_rows(split: pd.DataFrame) -> pd.DataFrame:
    """The rows of `split.csv` that are in the cache: row n of this table is photograph n of `Photographs`."""
    return split[split["kept"] == 1].reset_index(drop=True)


@torch.no_grad()
def predict(
    network: AttnVGG,
    photographs: Photographs,
    rows: np.ndarray,
    config: dict,
    precision: torch.dtype,
    *,
    batch_size: int = 64,
) -> Tensor:
    """Logits of these rows of the cache, in evaluation mode: float32 [len(rows)] on the CPU."""
    network.eval()
    found = []
    for part in range(0, len(rows), batch_size):
        images, _ = photographs.evaluation(rows[part : part + batch_size], config)
        with torch.autocast(
            images.device.type, dtype=precision, enabled=precision != torch.float32
        ):
            found.append(network(images).logits.float().squeeze(1))
    return torch.cat(found).cpu() if found else torch.empty(0)


def predict_held_out(
    fitted: Fitted, split: pd.DataFrame, photographs: Photographs, precision: str = "auto"
) -> pd.DataFrame:
    """`predictions.csv` for val and test, without its last column, `probability`, which needs a calibration."""
    used = used_rows(split)
    held = used[used["split"] != "train"]
    precision = workspace.choose_precision(photographs.device, precision)
    logits = predict(fitted.network, photographs, held.index.to_numpy(), fitted.config, precision)
    return (
        held[["image_id", "split", "source", "group", "target"]]
        .assign(logit=logits.numpy())
        .reset_index(drop=True)
    )
