"""How to train: the recipes, and every parameter of the series once, with type, range and default.

A command, a file of parameters and a notebook are all checked here, so that a name means one thing
wherever it is written; the web edition prints the same table.
"""

import dataclasses
import difflib
import functools
import numbers
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Literal, NamedTuple, get_args, get_origin

import torch
from annotated_types import Ge, Le, Lt, MultipleOf
from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from torch import nn

from helpers import workspace
from helpers.training.augment import Augmentation

SMALLEST = 64  # pixels: with 32, pool-5 would be a single cell


class Recipe(NamedTuple):
    """How to train: one row of RECIPES."""

    optimiser: str  # "adam", "adamw" or "sgd" (Nesterov momentum 0.9)
    learning_rate: float  # the highest
    weight_decay: float
    # "constant", "one_cycle" (30% of the steps up, then down) or "steps" (x0.1 every 10 epochs)
    schedule: str
    augmentation: Augmentation
    view: float = 1.0  # share of the photograph's side that evaluation sees, in the middle
    melanoma_times: int = 1  # how often a melanoma stands in an epoch
    normalise: str = "imagenet"  # mean and standard deviation of ImageNet, or of the "dataset"
    small: float = 0.0  # share of the epochs, from the first, that see smaller pictures

    def side(self, epoch: int, settings: "Settings") -> int:
        """The side of the pictures that an epoch trains on, in pixels.

        The first epochs learn from small pictures nearly as well, at half of the cost (progressive
        learning: Tan and Le, EfficientNetV2, ICML 2021). They see two thirds of the side, but no
        fewer than SMALLEST pixels; the later ones, and all evaluation, see the whole.

        Args:
            epoch: from 1.
            settings: image_size and epochs count.

        >>> [RECIPES["one_cycle"].side(epoch, Settings(epochs=8)) for epoch in (1, 5, 6, 8)]
        [64, 64, 96, 96]
        """
        whole = settings.image_size
        if epoch > int(self.small * settings.epochs):
            return whole
        return min(whole, max(SMALLEST, round(whole * 2 / 3 / 32) * 32))


RECIPES = {
    "tutorial": Recipe(
        optimiser="adam",
        learning_rate=1e-4,
        weight_decay=0.0,
        schedule="constant",
        augmentation=Augmentation(rotation=10, horizontal_flip=True),
    ),
    "one_cycle": Recipe(
        optimiser="adamw",
        learning_rate=3e-4,
        weight_decay=0.05,
        schedule="one_cycle",
        augmentation=Augmentation(
            rotation=180,
            horizontal_flip=True,
            view=(0.7, 1.0),
            shift=True,
            colour=0.2,
        ),
        small=0.625,
    ),
    # Yan et al. 2019: the middle 0.8 of the photograph, of its 256 pixels a random 224. 02 stores
    # photographs so large that this part has as many pixels as the network takes.
    "paper": Recipe(
        optimiser="sgd",
        learning_rate=1e-2,
        weight_decay=1e-4,
        schedule="steps",
        augmentation=Augmentation(
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


class PathOr(NamedTuple):
    """Marks a parameter that is a path, or one of these words; with a colon, what begins so."""

    words: tuple[str, ...]

    def takes(self, value: str) -> bool:
        """Whether the value is one of the words, and so no path."""
        prefixes = tuple(word for word in self.words if word.endswith(":"))
        return value in self.words or value.startswith(prefixes)

    def in_words(self) -> str:
        """What is expected, in words."""
        quoted = [repr(word) for word in self.words]
        return " or ".join(["the path of a file or folder", *quoted])


OWN = "own"  # of `control`: 04 trains the run's own; so it is the name of no run


def name_of_one_folder(run: str) -> str:
    """Refuse, as `workspace` does, what would leave the folder of the runs; nothing is created."""
    workspace.check_run_name(run)
    if run == OWN:
        raise ValueError(
            f"run is {run!r}, which `control` has for the control that a run trains itself; "
            "expected another name"
        )
    return run


def name_of_a_control(run: str) -> str:
    """The name of another run, where "" stands for none and OWN for the control of a run's own."""
    try:
        return run if run in ("", OWN) else name_of_one_folder(run)
    except ValueError as error:
        raise ValueError(f"control: {error}") from None


def in_words(table: type) -> type:
    """Class decorator: what pydantic refuses is told as a ValueError, a plain sentence each."""
    create = table.__init__

    @functools.wraps(create)
    def __init__(self, /, **values):
        try:
            create(self, **values)
        except ValidationError as error:
            problems = [sentence(table, problem) for problem in error.errors()]
            raise ValueError("; ".join(problems)) from None

    table.__init__ = __init__
    return table


# pydantic's for every table here: "8" is no number and 8.0 no count, though 1 may stand for 1.0
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]


@in_words
@dataclass(frozen=True, kw_only=True, config=STRICT)
class Settings:
    """The parameters of training, named as in the notebooks.

    Raises:
        ValueError: a value is of another type, out of range, or at odds with another.

    >>> Settings(epochs=2).epochs
    2
    >>> Settings(epochs=0)
    Traceback (most recent call last):
    ValueError: epochs is 0, expected a whole number, at least 1
    """

    seed: Seed = Field(42, description="initialisation, batch order, augmentation")
    image_size: Annotated[int, Field(ge=32, multiple_of=32)] = Field(
        96, description="side of the network's input, in pixels"
    )
    attention: Literal["softmax", "sigmoid", "weighted", "none"] = Field(
        "softmax",
        description="how scores become a map; weighted: a sigmoid map whose vector is the weighted "
        "mean, so that where it looks counts and not how much; none: plain means in place of "
        "attention",
    )
    bypass: bool = Field(
        True,
        description="whether the classifier sees pool-5's mean, too; False: it sees the two "
        "attended vectors alone",
    )
    weights: Annotated[str, PathOr(("none", "imagenet"))] = Field(
        "none",
        description='"none", "imagenet" (torchvision downloads), or the path of a vgg16_bn '
        "checkpoint",
    )
    recipe: Literal[tuple(RECIPES)] = Field(
        "one_cycle", description="optimiser, schedule and augmentation: a row of RECIPES"
    )
    epochs: Positive = Field(8, description="times through the training photographs")
    batch_size: Positive = Field(16, description="photographs a step, over all processes")
    learning_rate: Weight = Field(0.0, description="the highest; 0 takes the recipe's")
    alpha: Annotated[float, Field(le=1)] = Field(
        -1.0, description="Lin's weight of the melanomas in the focal loss; negative: none"
    )
    gamma: Weight = Field(2.0, description="of the focal loss; 0 is cross-entropy")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="before the last layer")
    mask_weight_pool3: Weight = Field(
        0.0,
        description="Dice term on the pool-3 map; needs masks, and a sigmoid or weighted map",
    )
    mask_weight_pool4: Weight = Field(0.0, description="the same on the pool-4 map")
    mask_target: Literal["lesion", "background", "otsu"] = Field(
        "lesion",
        description="what the maps learn; background: the paper's control; otsu: a guess from the "
        "pixels, which needs no mask",
    )
    device: str = Field("auto", description="auto takes CUDA, then MPS, then the CPU")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="of the network's arithmetic; auto: the fastest that is safe"
    )
    compile_model: bool = Field(False, description="torch.compile: pays off in long runs on a GPU")

    @model_validator(mode="after")
    def masks_need_sigmoid(self):
        if any(self.mask_weights) and self.attention not in ("sigmoid", "weighted"):
            raise ValueError(
                f"attention is {self.attention!r}, expected 'sigmoid' or 'weighted' where "
                "mask_weight_pool3 or mask_weight_pool4 is set, as here "
                f"({self.mask_weight_pool3} and {self.mask_weight_pool4}): a softmax map sums to 1 "
                "and cannot cover a lesion"
            )
        return self

    @property
    def mask_weights(self) -> tuple[float, float]:
        return self.mask_weight_pool3, self.mask_weight_pool4


@in_words
@dataclass(frozen=True, kw_only=True, config=STRICT)
class Parameters(Settings):
    """Every parameter of the series: what `Settings` has, and what the other notebooks declare."""

    run: Annotated[str, AfterValidator(name_of_one_folder)] = Field(
        "sample", description="the run's folder under runs/"
    )
    dataset: Annotated[str, PathOr(("sample", "isic", "kaggle"))] = Field(
        "sample",
        description='"sample", "isic" (real photographs, no account), "kaggle", or a path to a '
        "folder (used in place) or zip in the Kaggle layout",
    )
    isic_query: str = Field(
        "",
        description="what to fetch from the ISIC Archive, in its query language; empty: "
        "dermoscopy under CC-0, with masks",
    )
    isic_count: Count = Field(
        0, description="photographs to fetch from the ISIC Archive at most; 0 is all"
    )
    kaggle_dataset: str = Field(
        "shonenkov/melanoma-merged-external-data-512x512-jpeg",
        description="owner/name or owner/name/version",
    )
    ids: Annotated[str, PathOr(("",))] = Field(
        "", description="a csv of image ids to keep; empty: all"
    )
    pairs: Annotated[str, PathOr(("",))] = Field(
        "", description="a csv of known duplicate pairs, two columns of image ids; empty: none"
    )
    masks: Annotated[str, PathOr(("auto", "", "kaggle:"))] = Field(
        "auto",
        description='a folder or zip of <image_id>_segmentation.png, or kaggle:owner/name; "auto": '
        "the folder of masks beside the table, else masks among the photographs; empty: none",
    )
    unusable: Share = Field(
        0.01,
        description="share of photographs that may be missing or damaged; they are listed and "
        "left out",
    )
    subsample: Count = Field(
        0, description="at most so many photographs, in whole groups; 0 is all"
    )
    benign: Count = Field(150, description="benign training rows to keep; 0 is all")
    split_seed: Seed = Field(
        42, description="draws the sample, the subsample, the split and the benign rows"
    )
    control: Annotated[str, AfterValidator(name_of_a_control)] = Field(
        OWN,
        description="the same network without attention, to compare with: own: 04 trains it; "
        'empty: none; else the name of a finished run with attention "none"',
    )
    photograph: Annotated[str, PathOr(("",))] = Field(
        "", description="an image file of your own; empty: a validation photograph"
    )
    posthoc: Positive = Field(
        24, description="test photographs for the slow post-hoc methods, drawn by seed"
    )

    @model_validator(mode="after")
    def control_is_another_run(self):
        if self.control == self.run:
            raise ValueError(f"control is {self.control!r}, the run itself; expected another run")
        return self


# what somebody may have typed for a value; a name that holds more (a table, a tensor, what
# dataset.json says) is the notebook's own and no parameter
TYPED = (str, bytes, numbers.Number, type(None), list, tuple, set, os.PathLike)
NAMES = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
LIMITS = (
    (Ge, "ge", "at least {}"),
    (Le, "le", "at most {}"),
    (Lt, "lt", "below {}"),
    (MultipleOf, "multiple_of", "a multiple of {}"),
)


def check_here(variables: Mapping[str, object]) -> Parameters:
    """The parameters of a notebook, whose `globals()` these are, after its cell of parameters.

    Args:
        variables: names and what they hold. Those that are no parameter's are passed over; a
            parameter that is not among them has its default.

    Raises:
        ValueError: a value is of another type, out of range, or at odds with another.

    >>> check_here({"epochs": 2, "unrelated": 1}).epochs
    2
    """
    typed = {}
    for field in dataclasses.fields(Parameters):
        if isinstance(variables.get(field.name, object), TYPED):
            typed[field.name] = variables[field.name]
    try:
        return Parameters(**typed)
    except ValueError as error:
        raise ValueError(
            f"{error}. Correct it in the cell of parameters, and run the notebook from there"
        ) from None


def training_parameters(settings: Settings) -> dict:
    """The parameters of training alone, by name, also where `settings` is a `Parameters`."""
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(Settings)}


def describe(table: type = Parameters) -> list[dict]:
    """A row for each parameter: `name`, `default`, `expected` (type and range) and `meaning`.

    >>> describe()[0]["expected"]
    'a whole number, at least 0, at most 4294967295'
    """
    return [
        {
            "name": name,
            "default": field.default,
            "expected": expected(table, name),
            "meaning": field.description,
        }
        for name, field in table.__pydantic_fields__.items()
    ]


def kind_of(name: str) -> type:
    """The type of a parameter's value: str, int, float or bool; a choice among words is str."""
    annotation = Parameters.__pydantic_fields__[name].annotation
    return str if get_origin(annotation) is Literal else annotation


def path_or(name: str) -> PathOr | None:
    """The words beside which a parameter is a path; None where it is none."""
    for mark in Parameters.__pydantic_fields__[name].metadata:
        if isinstance(mark, PathOr):
            return mark
    return None


def expected(table: type, name: str) -> str:
    """Type and range of a parameter in words, for an error and for the documentation."""
    field = table.__pydantic_fields__[name]
    if get_origin(field.annotation) is Literal:
        *others, last = map(repr, get_args(field.annotation))
        return f"{', '.join(others)} or {last}"
    path = path_or(name)
    if path:
        return path.in_words()
    words = [NAMES[field.annotation]]
    for kind, attribute, limit in LIMITS:
        for bound in field.metadata:
            if isinstance(bound, kind):
                words.append(limit.format(getattr(bound, attribute)))
    return ", ".join(words)


def sentence(table: type, problem: dict) -> str:
    """One of pydantic's problems: which parameter, what it holds, and what is expected."""
    if problem["type"] == "value_error":  # raised by a check of ours, in its own words
        return str(problem["ctx"]["error"])
    name = str(problem["loc"][0])
    known = list(table.__pydantic_fields__)
    if name not in known:
        return unknown(name, known)
    hint = in_quotes(kind_of(name), problem["input"])
    return f"{name} is {problem['input']!r}, expected {expected(table, name)}{hint}"


def in_quotes(kind: type, value: object) -> str:
    """What to do where a number, or nothing, came for text: it was written without quotes."""
    if kind is not str or isinstance(value, str):
        return ""
    return " in quotes; papermill's -r leaves a value text, its -p makes a number or None of it"


def unknown(name: object, known: list[str]) -> str:
    """That there is no such parameter, with the nearest name, or all of them if none is near."""
    near = difflib.get_close_matches(str(name), known, n=1)
    if near:
        return f"there is no parameter {name!r}; did you mean {near[0]!r}?"
    return f"there is no parameter {name!r}; there are: {', '.join(sorted(known))}"


def make_optimiser(network: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """The recipe's optimiser over all of the network's parameters."""
    recipe = RECIPES[settings.recipe]
    learning_rate = settings.learning_rate or recipe.learning_rate
    options = {"lr": learning_rate, "weight_decay": recipe.weight_decay}
    # fused: one pass over the weights, and fp16's scaler need not wait for a GPU
    if recipe.optimiser == "adam":
        return torch.optim.Adam(network.parameters(), fused=True, **options)
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(network.parameters(), fused=True, **options)
    optimiser = torch.optim.SGD(
        network.parameters(), momentum=0.9, nesterov=True, fused=True, **options
    )
    # PyTorch leaves a fused momentum uninitialised where the scaler passes over the first step
    for weight in network.parameters():
        optimiser.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    return optimiser


def make_schedule(
    optimiser: torch.optim.Optimizer, settings: Settings, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate after each of `steps` batches an epoch."""
    kind = RECIPES[settings.recipe].schedule
    if kind == "one_cycle":
        highest = optimiser.param_groups[0]["lr"]
        return torch.optim.lr_scheduler.OneCycleLR(
            optimiser, highest, total_steps=settings.epochs * steps + 1
        )
    factor = 0.1 if kind == "steps" else 1.0
    return torch.optim.lr_scheduler.StepLR(optimiser, step_size=10 * steps, gamma=factor)


@contextmanager
def naming_what_fits(settings: Settings, device: torch.device) -> Iterator[None]:
    """Turn "out of memory" into a MemoryError that says what to set."""
    # torch.OutOfMemoryError is a RuntimeError; the CPU's allocator has no name of its own, and
    # cuBLAS and cuDNN, which need room of theirs, have words of theirs
    signs = (
        "out of memory",
        "can't allocate memory",
        "not enough memory",
        "ALLOC_FAILED",
        "unable to find an engine",
    )
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in signs):
            raise
        raise MemoryError(
            f"{settings.batch_size} photographs of {settings.image_size} pixels a step do not fit "
            f"in the memory of {device}: set batch_size to {max(1, settings.batch_size // 2)} or "
            "less, or lower image_size"
        ) from error
