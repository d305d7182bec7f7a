"""Train the network of notebook 04: settings, recipes, the loop, predictions and the checkpoint."""

import dataclasses
import math
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
from helpers.loss import dice_loss, focal_loss
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
    # the tutorial: light augmentation, a constant rate
    "tutorial": Recipe("adam", 1e-4, 0.0, "constant", Augmentation(rotation=10, horizontal_flip=True)),
    # strong augmentation and a rate that rises and falls
    "one_cycle": Recipe("adamw", 3e-4, 0.05, "one_cycle",
                        Augmentation(rotation=180, horizontal_flip=True, view=(0.7, 1.0), shift=True, colour=0.2)),
    # Yan et al. 2019: the middle 0.8 of the photograph, of its 256 pixels a random 224
    "paper": Recipe("sgd", 1e-2, 1e-4, "steps",
                    Augmentation(quarter_turns=True, horizontal_flip=True, vertical_flip=True, view=(0.7, 0.7),
                                 shift=True),
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
        choices = {"attention": ("softmax", "sigmoid", "none"), "recipe": tuple(RECIPES),
                   "mask_target": ("lesion", "background"), "precision": ("auto", "fp32", "bf16", "fp16")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is one of {', '.join(map(repr, allowed))}, not {getattr(self, name)!r}")
        checks = {"image_size": (self.image_size >= 32 and self.image_size % 32 == 0, "a multiple of 32"),
                  "epochs": (self.epochs >= 1, "at least 1"), "batch_size": (self.batch_size >= 1, "at least 1"),
                  "learning_rate": (self.learning_rate >= 0, "0 (the recipe's) or more"),
                  "dropout": (0 <= self.dropout < 1, "at least 0 and below 1"),
                  "alpha": (self.alpha <= 1, "at most 1 (negative: none)"), "gamma": (self.gamma >= 0, "at least 0"),
                  "mask_weight_pool3": (self.mask_weight_pool3 >= 0, "at least 0"),
                  "mask_weight_pool4": (self.mask_weight_pool4 >= 0, "at least 0")}
        for name, (good, expected) in checks.items():
            if not good:
                raise ValueError(f"{name} is {expected}, not {getattr(self, name)!r}")
        if self.supervised and self.attention != "sigmoid":
            raise ValueError("mask_weight_pool3 and mask_weight_pool4 need attention 'sigmoid', not "
                             f"{self.attention!r}: a softmax map sums to 1 and cannot cover a lesion; set attention to "
                             "'sigmoid', or both weights to 0")

    @property
    def supervised(self) -> bool:
        return self.mask_weight_pool3 > 0 or self.mask_weight_pool4 > 0


class Fitted(NamedTuple):
    """What `fit` returns: the network of the best epoch in eval mode, its config, history and timing."""

    network: AttnVGG
    config: dict
    history: pd.DataFrame
    timing: dict


def fit(settings: Settings, split: pd.DataFrame, photographs: Photographs,
        *, report: Callable[[str], None] = print) -> Fitted:
    """Train on the kept rows of the split "train"; keep the epoch of the best validation AUC.

    `report` takes one line an epoch. Batch order, augmentation and dropout of an epoch follow from seed and epoch
    alone. Raises ValueError where a class is missing in train or val, or masks are asked for and absent, and
    FloatingPointError where the loss is not finite.
    """
    recipe, device = RECIPES[settings.recipe], photographs.device
    precision = workspace.choose_precision(device, settings.precision)
    used = used_rows(split)
    train, val = (np.flatnonzero(used["split"] == name) for name in ("train", "val"))
    for name, rows in {"train": train, "val": val}.items():
        metrics.check_classes(used["target"].to_numpy()[rows], name)
    masked = torch.tensor((used["mask"] != "").to_numpy(), dtype=torch.float32, device=device)
    if settings.supervised and not masked[train].any():
        raise ValueError("mask_weight_pool3 or mask_weight_pool4 is set, but no training photograph has a mask: set "
                         "`masks` in 01_download.ipynb, or both weights to 0")
    targets = torch.tensor(used["target"].to_numpy(), dtype=torch.float32, device=device)

    workspace.seed_everything(settings.seed)
    network = AttnVGG(attention=settings.attention, dropout=settings.dropout,
                      weights=None if settings.weights == "none" else settings.weights)
    network = network.to(device, memory_format=torch.channels_last)
    config = describe(settings, photographs, train)
    optimiser = make_optimiser(network, settings)
    epoch_rows = np.concatenate([train] + [train[used["target"].to_numpy()[train] == 1]] * (recipe.melanoma_times - 1))
    steps = math.ceil(len(epoch_rows) / settings.batch_size)                            # batches an epoch
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
        losses, logits = [], []
        for rows, (pixels, masks) in tqdm(zip(batches, photographs.stream(batches), strict=True), total=steps,
                                          desc=f"epoch {epoch}", leave=False, disable=workspace.headless()):
            draws = draw(len(rows), recipe.augmentation, generator)
            images = transform(pixels, draws, settings.image_size, mean=config["mean"], std=config["std"])
            row = torch.from_numpy(rows).to(device, non_blocking=True)
            with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
                output = forward(images)
            logit = output.logits.float().squeeze(1)                                    # [B]
            loss = classification = focal_loss(logit, targets[row], alpha=settings.alpha, gamma=settings.gamma)
            if settings.supervised:
                seen = warp_masks(masks, draws, settings.image_size)                    # [B, 1, H, W]
                loss = loss + mask_loss(output, seen, masked[row], settings)
            optimiser.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.step(optimiser)
            scaler.update()
            schedule.step()
            losses.append(classification.detach() * len(rows))                          # no host sync within an epoch
            logits.append(logit.detach())
        train_loss = torch.stack(losses).sum().item() / len(order)
        if not math.isfinite(train_loss):
            raise FloatingPointError(f"the loss of epoch {epoch} is {train_loss}: lower learning_rate "
                                     f"({optimiser.param_groups[0]['lr']:.1e} now), or set precision to 'fp32'")
        val_logits = predict(network, photographs, val, config, precision)              # [len(val)]
        history.append({
            "epoch": epoch, "train_loss": train_loss,
            "train_auc": metrics.roc_auc_score(used["target"].to_numpy()[order], torch.cat(logits).cpu()),
            "val_loss": focal_loss(val_logits, targets[val].cpu(), alpha=settings.alpha, gamma=settings.gamma).item(),
            "val_auc": metrics.roc_auc_score(used["target"].to_numpy()[val], val_logits),
            "learning_rate": schedule.get_last_lr()[0]})
        report(f"epoch {epoch:2d}/{settings.epochs}  " + "  ".join(
            f"{name} {history[-1][name]:.3f}" for name in ("train_loss", "train_auc", "val_loss", "val_auc")))
        if history[-1]["val_auc"] > best["val_auc"]:
            state = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
            best = {"val_auc": history[-1]["val_auc"], "epoch": epoch, "state": state}
    seconds = time.perf_counter() - started
    network.load_state_dict(best["state"])
    timing = {"device": str(device), "precision": str(precision).removeprefix("torch."), "seconds": seconds,
              "images_per_second": settings.epochs * len(epoch_rows) / seconds,
              "peak_memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None}
    return Fitted(network.eval(), {**config, "epoch": best["epoch"]}, pd.DataFrame(history), timing)


def mask_loss(output, masks: Tensor, masked: Tensor, settings: Settings) -> Tensor:
    """The weighted Dice terms of both maps, averaged over the photographs that have a mask (masked [B], 0 or 1)."""
    wanted = masks if settings.mask_target == "lesion" else 1 - masks
    terms = (settings.mask_weight_pool3 * dice_loss(output.pool3_map, wanted)
             + settings.mask_weight_pool4 * dice_loss(output.pool4_map, wanted))        # [B]
    return (terms * masked).sum() / masked.sum().clamp(min=1)


def describe(settings: Settings, photographs: Photographs, train: np.ndarray) -> dict:
    """The config that a checkpoint carries: all that is needed to rebuild the network and to feed it."""
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if RECIPES[settings.recipe].normalise == "dataset":
        pixels = photographs.pixels[np.sort(train)[:: max(1, len(train) // 500)]]       # some 500 photographs
        pixels = torch.as_tensor(np.asarray(pixels) if isinstance(pixels, np.ndarray) else pixels).float() / 255
        mean, std = (tuple(values.tolist()) for values in (pixels.mean(dim=(0, 1, 2)), pixels.std(dim=(0, 1, 2))))
    names = ("attention", "dropout", "image_size", "weights", "recipe", "seed",
             "mask_weight_pool3", "mask_weight_pool4", "mask_target")
    return {"format": workspace.FORMAT, "classes": 1, **{name: getattr(settings, name) for name in names},
            "view": RECIPES[settings.recipe].view, "mean": mean, "std": std, "colour_order": "rgb"}


def make_optimiser(network: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    recipe = RECIPES[settings.recipe]
    rate = settings.learning_rate or recipe.learning_rate
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(network.parameters(), rate, momentum=0.9, nesterov=True,
                               weight_decay=recipe.weight_decay)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimiser]
    return kind(network.parameters(), rate, weight_decay=recipe.weight_decay, fused=True)


def make_schedule(optimiser: torch.optim.Optimizer, settings: Settings, steps: int):
    """The learning rate after each of `steps` batches an epoch."""
    schedules = torch.optim.lr_scheduler
    kind = RECIPES[settings.recipe].schedule
    if kind == "one_cycle":
        return schedules.OneCycleLR(optimiser, optimiser.param_groups[0]["lr"], total_steps=settings.epochs * steps + 1)
    if kind == "steps":
        return schedules.StepLR(optimiser, step_size=10 * steps, gamma=0.1)
    return schedules.LambdaLR(optimiser, lambda step: 1.0)


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
    rows = np.flatnonzero(used["split"] != "train")
    table = used.loc[rows, ["image_id", "split", "source", "group", "target"]].reset_index(drop=True)
    precision = workspace.choose_precision(photographs.device, precision)
    return table.assign(logit=predict(fitted.network, photographs, rows, fitted.config, precision).numpy())


def save_checkpoint(path: Path, network: AttnVGG, config: dict) -> None:
    """Write `model.pt`, whole or not at all."""
    with workspace.replacing(path) as beside:
        torch.save({"state_dict": network.state_dict(), "config": config}, beside)


def load_checkpoint(path: Path, device: torch.device) -> tuple[AttnVGG, dict]:
    """The network of `model.pt` in evaluation mode on `device`, and its config; no pickled code is ever run.

    Raises FileNotFoundError that names 04_train.ipynb, and ValueError for a file that is not such a checkpoint.
    """
    content = torch.load(workspace.need(path, "04_train.ipynb"), map_location="cpu", weights_only=True)
    config = content.get("config", {}) if isinstance(content, dict) else {}
    if config.get("format") != workspace.FORMAT:
        raise ValueError(f"{path} has format {config.get('format')}, expected {workspace.FORMAT}: run 04_train.ipynb "
                         "again")
    network = AttnVGG(config["classes"], attention=config["attention"], dropout=config["dropout"])
    network.load_state_dict(content["state_dict"])
    return network.to(device, memory_format=torch.channels_last).eval(), config
