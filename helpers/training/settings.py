"""How to train: the recipes, the parameters that choose among them, and the optimiser and schedule that they make."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from helpers.training.augment import Augmentation


class Recipe(NamedTuple):
    """How to train: one row of RECIPES."""

    optimiser: str  # "adam", "adamw" or "sgd" (Nesterov momentum 0.9)
    learning_rate: float  # the highest
    weight_decay: float
    schedule: str  # "constant", "one_cycle" (30% of the steps up, then down) or "steps" (x0.1 every 10 epochs)
    augmentation: Augmentation
    view: float = 1.0  # share of the photograph's side that evaluation sees, in the middle
    melanoma_times: int = 1  # how often a melanoma stands in an epoch
    normalise: str = "imagenet"  # mean and standard deviation of ImageNet, or of the "dataset"


RECIPES = {
    "tutorial": Recipe(
        "adam", 1e-4, 0.0, "constant", Augmentation(rotation=10, horizontal_flip=True)
    ),
    "one_cycle": Recipe(
        "adamw",
        3e-4,
        0.05,
        "one_cycle",
        Augmentation(rotation=180, horizontal_flip=True, view=(0.7, 1.0), shift=True, colour=0.2),
    ),
    # Yan et al. 2019: the middle 0.8 of the photograph, of its 256 pixels a random 224
    "paper": Recipe(
        "sgd",
        1e-2,
        1e-4,
        "steps",
        Augmentation(
            quarter_turns=True,
            horizontal_flip=True,
            vertical_flip=True,
            view=(0.7, 0.7),
            shift=True,
        ),
        view=0.7,
        melanoma_times=4,
        normalise="dataset",
    ),
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
        least = {
            "seed": 0,
            "image_size": 32,
            "epochs": 1,
            "batch_size": 1,
            "learning_rate": 0,
            "gamma": 0,
            "dropout": 0,
            "mask_weight_pool3": 0,
            "mask_weight_pool4": 0,
        }
        good = {
            "attention is 'softmax', 'sigmoid' or 'none'": self.attention
            in ("softmax", "sigmoid", "none"),
            f"recipe is one of {', '.join(map(repr, RECIPES))}": self.recipe in RECIPES,
            "mask_target is 'lesion', 'background' or 'otsu'": self.mask_target
            in ("lesion", "background", "otsu"),
            "precision is 'auto', 'fp32', 'bf16' or 'fp16'": self.precision
            in ("auto", "fp32", "bf16", "fp16"),
            **{
                f"{name} is at least {low}": getattr(self, name) >= low
                for name, low in least.items()
            },
            "image_size is a multiple of 32": self.image_size % 32 == 0,
            "dropout is below 1": self.dropout < 1,
            "alpha is at most 1 (negative: none)": self.alpha <= 1,
            "attention is 'sigmoid' where mask_weight_pool3 or mask_weight_pool4 is set (a softmax map sums to 1 "
            "and cannot cover a lesion)": self.attention == "sigmoid" or not any(self.mask_weights),
        }
        for expected, holds in good.items():
            if not holds:
                raise ValueError(f"{expected}, not {getattr(self, expected.split()[0])!r}")

    @property
    def mask_weights(self) -> tuple[float, float]:
        return self.mask_weight_pool3, self.mask_weight_pool4


def make_optimiser(network: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    recipe = RECIPES[settings.recipe]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[
        recipe.optimiser
    ]
    options = {"momentum": 0.9, "nesterov": True} if recipe.optimiser == "sgd" else {"fused": True}
    options |= {
        "lr": settings.learning_rate or recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
    }
    return kind(network.parameters(), **options)


def make_schedule(optimiser: torch.optim.Optimizer, settings: Settings, steps: int):
    """The learning rate after each of `steps` batches an epoch."""
    schedules, kind = torch.optim.lr_scheduler, RECIPES[settings.recipe].schedule
    if kind == "one_cycle":
        return schedules.OneCycleLR(
            optimiser, optimiser.param_groups[0]["lr"], total_steps=settings.epochs * steps + 1
        )
    return schedules.StepLR(optimiser, step_size=10 * steps, gamma=0.1 if kind == "steps" else 1.0)


@contextmanager
def naming_what_fits(settings: Settings, device: torch.device) -> Iterator[None]:
    """Turn "out of memory" into a MemoryError that says what to set."""
    try:
        yield
    except (
        RuntimeError
    ) as error:  # torch.OutOfMemoryError is one; the CPU's allocator has no name of its own
        if not any(
            words in str(error)
            for words in ("out of memory", "can't allocate memory", "not enough memory")
        ):
            raise
        raise MemoryError(
            f"{settings.batch_size} photographs of {settings.image_size} pixels a step do not fit in the memory of "
            f"{device}: set batch_size to {max(1, settings.batch_size // 2)} or less, or lower image_size"
        ) from error
