"""Train the network of notebook 04: settings, recipes, the loop, predictions and the checkpoint."""

import dataclasses
import functools
import math
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers import metrics, workspace
from helpers.batches import Augmentation, Photographs, draw, transform, warp_masks
from helpers.loss import focal_loss, mask_loss
from helpers.model import AttnVGG

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Recipe(NamedTuple):
    """How to train: one row of RECIPES."""

    optimiser: str        # "adam", "adamw" or "sgd" (Nesterov momentum 0.9)
    learning_rate: float  # the highest
    weight_decay: float
    schedule: str         # "constant", "one_cycle" (30% of the steps up, then down) or "steps" (x0.1 every 10 epochs)
    augmentation: Augmentation
    view: float = 1.0     # share of the photograph's side that evaluation sees, in the middle
    melanoma_times: int = 1  # how often a melanoma stands in an epoch
    normalise: str = "imagenet"  # mean and standard deviation of ImageNet, or of the "dataset"


RECIPES = {
    "tutorial": Recipe("adam", 1e-4, 0.0, "constant", Augmentation(rotation=10, horizontal_flip=True)),
    "one_cycle": Recipe("adamw", 3e-4, 0.05, "one_cycle",
                        Augmentation(rotation=180, horizontal_flip=True, view=(0.7, 1.0), shift=True, colour=0.2)),
    # Yan et al. 2019: the middle 0.8 of the photograph, of its 256 pixels a random 224
    "paper": Recipe("sgd", 1e-2, 1e-4, "steps", Augmentation(
        quarter_turns=True, horizontal_flip=True, vertical_flip=True, view=(0.7, 0.7), shift=True),
        view=0.7, melanoma_times=4, normalise="dataset"),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The parameters of training, named as in the notebooks. Raises ValueError for a value out of range or at odds."""

    seed: int = 42
    image_size: int = 96
    attention: str = "softmax"
    weights: str = "none"
    recipe: str = "one_cycle"
    epochs: int = 8
    batch_size: int = 16
    learning_rate: float = 0.0
    alpha: float = -1.0
    gamma: float = 2.0
    dropout: float = 0.0
    mask_weight_pool3: float = 0.0
    mask_weight_pool4: float = 0.0
    mask_target: str = "lesion"
    device: str = "auto"
    precision: str = "auto"
    compile_model: bool = False

    def __post_init__(self):
        least = {"seed": 0, "image_size": 32, "epochs": 1, "batch_size": 1, "learning_rate": 0, "gamma": 0,
                 "dropout": 0, "mask_weight_pool3": 0, "mask_weight_pool4": 0}
        good = {"attention is 'softmax', 'sigmoid' or 'none'": self.attention in ("softmax", "sigmoid", "none"),
                f"recipe is one of {', '.join(map(repr, RECIPES))}": self.recipe in RECIPES,
                "mask_target is 'lesion' or 'background'": self.mask_target in ("lesion", "background"),
                "precision is 'auto', 'fp32', 'bf16' or 'fp16'": self.precision in ("auto", "fp32", "bf16", "fp16"),
                **{f"{name} is at least {low}": getattr(self, name) >= low for name, low in least.items()},
                "image_size is a multiple of 32": self.image_size % 32 == 0, "dropout is below 1": self.dropout < 1,
                "alpha is at most 1 (negative: none)": self.alpha <= 1,
                "attention is 'sigmoid' where mask_weight_pool3 or mask_weight_pool4 is set (a softmax map sums to 1 "
                "and cannot cover a lesion)": self.attention == "sigmoid" or not any(self.mask_weights)}
        for expected, holds in good.items():
            if not holds:
                raise ValueError(f"{expected}, not {getattr(self, expected.split()[0])!r}")

    @property
    def mask_weights(self) -> tuple[float, float]:
        return self.mask_weight_pool3, self.mask_weight_pool4


class Fitted(NamedTuple):
    """What `fit` returns: the network of the best epoch in eval mode, its config, history and timing."""

    network: AttnVGG
    config: dict
    history: pd.DataFrame
    timing: dict


def fit(settings: Settings, split: pd.DataFrame, photographs: Photographs,
        *, report: Callable[[str], None] = print) -> Fitted:
    """Train on the kept rows of the split "train"; keep the epoch of the best validation AUC.

    `report` takes a line an epoch. Order, augmentation and dropout follow from seed and epoch alone. Raises ValueError
    where train or val lacks a class or train the masks asked for, FloatingPointError where the loss is not finite.
    """
    recipe, device = RECIPES[settings.recipe], photographs.device
    precision = workspace.choose_precision(device, settings.precision)
    used = used_rows(split)
    truth, has_mask = used["target"].to_numpy(), (used["mask"] != "").to_numpy()        # [N], row n is photograph n
    train, val = (np.flatnonzero(used["split"] == name) for name in ("train", "val"))
    metrics.check_classes(truth[train], "train")
    metrics.check_classes(truth[val], "val")
    if any(settings.mask_weights) and not has_mask[train].any():
        raise ValueError("mask_weight_pool3 or mask_weight_pool4 is set, but no training photograph has a mask: set "
                         "`masks` in 01_download.ipynb, or both weights to 0")
    loss_of = functools.partial(focal_loss, alpha=settings.alpha, gamma=settings.gamma)
    targets, masked = (torch.tensor(one, dtype=torch.float32, device=device) for one in (truth, has_mask))

    workspace.seed_everything(settings.seed)
    network = AttnVGG(attention=settings.attention, dropout=settings.dropout,
                      weights=None if settings.weights == "none" else settings.weights)
    network = network.to(device, memory_format=torch.channels_last)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if recipe.normalise == "dataset":
        pixels = photographs.take(train[:: max(1, len(train) // 500)])[0].float() / 255  # some 500 photographs
        mean, std = (tuple(values.tolist()) for values in (pixels.mean(dim=(0, 1, 2)), pixels.std(dim=(0, 1, 2))))
    config = {"format": workspace.FORMAT, "classes": 1, **dataclasses.asdict(settings), "view": recipe.view,
              "mean": mean, "std": std, "colour_order": "rgb"}  # all that rebuilding the network and feeding it need
    epoch_rows = np.repeat(train, np.where(truth[train] == 1, recipe.melanoma_times, 1))
    steps = math.ceil(len(epoch_rows) / settings.batch_size)                            # batches an epoch
    optimiser = make_optimiser(network, settings)
    schedule = make_schedule(optimiser, settings, steps)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    forward = torch.compile(network) if settings.compile_model else network

    history, best, started = [], {"val_auc": -1.0}, time.perf_counter()
    for epoch in range(1, settings.epochs + 1):
        generator = torch.Generator().manual_seed(settings.seed * 100_003 + epoch)
        torch.manual_seed(settings.seed * 100_003 + epoch)                              # dropout
        order = epoch_rows[torch.randperm(len(epoch_rows), generator=generator).numpy()]
        batches = np.array_split(order, steps)                                          # every row once, sizes within 1
        network.train()
        logits = []
        stream = tqdm(photographs.stream(batches), f"epoch {epoch}", steps, leave=False, disable=workspace.headless())
        for rows, (pixels, masks) in zip(batches, stream, strict=True):
            draws = draw(len(rows), recipe.augmentation, generator)
            images = transform(pixels, draws, settings.image_size, mean=mean, std=std)
            row = torch.from_numpy(rows).to(device, non_blocking=True)
            with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
                output = forward(images)
            logit = output.logits.float().squeeze(1)                                    # [B]
            loss = loss_of(logit, targets[row])
            if any(settings.mask_weights):
                wanted = warp_masks(masks, draws, settings.image_size)                  # [B, 1, H, W]
                wanted = wanted if settings.mask_target == "lesion" else 1 - wanted
                loss = loss + mask_loss(output[1:], wanted, masked[row], settings.mask_weights)
            optimiser.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.step(optimiser)
            scaler.update()
            schedule.step()
            logits.append(logit.detach())                                               # no host sync within an epoch
        logits, val_logits = torch.cat(logits).cpu(), predict(network, photographs, val, config, precision)
        if not torch.cat([logits, val_logits]).isfinite().all():
            raise FloatingPointError(f"epoch {epoch}: loss is not finite; lower learning_rate, or set precision fp32")
        history.append({"epoch": epoch, "train_loss": loss_of(logits, targets[order].cpu()).item(),
                        "train_auc": metrics.roc_auc_score(truth[order], logits),
                        "val_loss": loss_of(val_logits, targets[val].cpu()).item(),
                        "val_auc": metrics.roc_auc_score(truth[val], val_logits),
                        "learning_rate": schedule.get_last_lr()[0]})
        report(f"epoch {epoch:2d}/{settings.epochs}  " + "  ".join(
            f"{name} {history[-1][name]:.3f}" for name in ("train_loss", "train_auc", "val_loss", "val_auc")))
        if history[-1]["val_auc"] > best["val_auc"]:
            best = {**history[-1], "state": {name: one.clone() for name, one in network.state_dict().items()}}
    seconds = time.perf_counter() - started
    network.load_state_dict(best["state"])
    timing = {"device": str(device), "precision": str(precision).removeprefix("torch."), "seconds": seconds,
              "images_per_second": settings.epochs * len(epoch_rows) / seconds,
              "peak_memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None}
    return Fitted(network.eval(), {**config, "epoch": best["epoch"]}, pd.DataFrame(history), timing)


def make_optimiser(network: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    recipe = RECIPES[settings.recipe]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[recipe.optimiser]
    options = {"momentum": 0.9, "nesterov": True} if recipe.optimiser == "sgd" else {"fused": True}
    options |= {"lr": settings.learning_rate or recipe.learning_rate, "weight_decay": recipe.weight_decay}
    return kind(network.parameters(), **options)


def make_schedule(optimiser: torch.optim.Optimizer, settings: Settings, steps: int):
    """The learning rate after each of `steps` batches an epoch."""
    schedules, kind = torch.optim.lr_scheduler, RECIPES[settings.recipe].schedule
    if kind == "one_cycle":
        return schedules.OneCycleLR(optimiser, optimiser.param_groups[0]["lr"], total_steps=settings.epochs * steps + 1)
    return schedules.StepLR(optimiser, step_size=10 * steps, gamma=0.1 if kind == "steps" else 1.0)


def used_rows(split: pd.DataFrame) -> pd.DataFrame:
    """The rows of `split.csv` that are in the cache: row n of this table is photograph n of `Photographs`."""
    return split[split["kept"] == 1].reset_index(drop=True)


@torch.no_grad()
def predict(network: AttnVGG, photographs: Photographs, rows: np.ndarray, config: dict, precision: torch.dtype,
            *, batch_size: int = 64) -> Tensor:
    """Logits of these rows of the cache, in evaluation mode: float32 [len(rows)] on the CPU."""
    network.eval()
    found = []
    for part in range(0, len(rows), batch_size):
        images, _ = photographs.evaluation(rows[part:part + batch_size], config)
        with torch.autocast(images.device.type, dtype=precision, enabled=precision != torch.float32):
            found.append(network(images).logits.float().squeeze(1))
    return torch.cat(found).cpu() if found else torch.empty(0)


def predict_held_out(fitted: Fitted, split: pd.DataFrame, photographs: Photographs,
                     precision: str = "auto") -> pd.DataFrame:
    """`predictions.csv` for val and test, without its last column, `probability`, which needs a calibration."""
    used = used_rows(split)
    held = used[used["split"] != "train"]
    precision = workspace.choose_precision(photographs.device, precision)
    logits = predict(fitted.network, photographs, held.index.to_numpy(), fitted.config, precision)
    return held[["image_id", "split", "source", "group", "target"]].assign(logit=logits.numpy()).reset_index(drop=True)


def save_checkpoint(path: Path, network: AttnVGG, config: dict) -> None:
    """Write `model.pt`, whole or not at all."""
    with workspace.replacing(path) as beside:
        torch.save({"state_dict": network.state_dict(), "config": config}, beside)


def load_checkpoint(path: Path, device: torch.device) -> tuple[AttnVGG, dict]:
    """The network of `model.pt` in evaluation mode on `device`, and its config; no pickled code is ever run.

    Raises FileNotFoundError that names 04_train.ipynb, and ValueError for a file that is not such a checkpoint.
    """
    try:
        content = torch.load(workspace.need(path, "04_train.ipynb"), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read as a checkpoint: run 04_train.ipynb again") from error
    config = content.get("config", {}) if isinstance(content, dict) else {}
    if config.get("format") != workspace.FORMAT:
        raise ValueError(f"{path} has format {config.get('format')}, not {workspace.FORMAT}: run 04_train.ipynb again")
    network = AttnVGG(config["classes"], attention=config["attention"], dropout=config["dropout"])
    network.load_state_dict(content["state_dict"])
    return network.to(device, memory_format=torch.channels_last).eval(), config
