"""Attention maps as pictures, for notebooks 05 and 06: one palette, maps laid rightly on photographs, their own scale.

Photographs are arrays [N, H, W, 3] from 0 to 1, maps are tensors [N, 1, h, w] on the CPU as the network made them.
Figures are returned, neither shown nor saved; their sizes follow from what they are given.
"""

import hashlib
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from helpers.model import AttnVGG, Output
from helpers.pictures.style import COLOUR_MAP, VERMILION
from helpers.training.batches import Photographs

VERDICTS = {
    (1, True): "found",
    (1, False): "missed",
    (0, True): "false alarm",
    (0, False): "cleared",
}


def draw_rows(used: pd.DataFrame, split: str, target: int, count: int, seed: int) -> np.ndarray:
    """Row numbers in `used` of at most `count` photographs of one side and class, drawn by seed, none chosen.

    Asking for more keeps those drawn before. Raises ValueError for an unknown side.
    """
    if split not in set(used["split"]):
        raise ValueError(f"split is one of {', '.join(sorted(set(used['split'])))}, not {split!r}")
    rows = np.flatnonzero((used["split"] == split) & (used["target"] == target))
    return np.random.default_rng(seed).permutation(rows)[:count]


def draw_outcomes(
    table: pd.DataFrame, threshold: float, count: int, seed: int
) -> dict[str, np.ndarray]:
    """Row numbers in `table` of at most `count` photographs of each outcome (of VERDICTS), drawn by seed, none chosen.

    Each photograph's lot follows from the seed and its image_id alone, not from the table's order or the other
    photographs: runs on one split show the same ones wherever they agree. Columns: image_id, target, probability.
    """
    lots = [hashlib.sha256(f"{seed} {name}".encode()).digest() for name in table["image_id"]]
    called, found = (
        table["probability"] >= threshold,
        {verdict: [] for verdict in VERDICTS.values()},
    )
    for row in sorted(range(len(table)), key=lots.__getitem__):
        found[VERDICTS[int(table["target"].iloc[row]), bool(called.iloc[row])]].append(row)
    return {verdict: np.array(rows[:count], int) for verdict, rows in found.items()}


@torch.no_grad()
def evaluate(
    network: AttnVGG, photographs: Photographs, rows: np.ndarray, config: dict, *, batch: int = 64
) -> Output:
    """Logits and maps of these rows of the cache, in float32 on the CPU; maps are None where the network has none."""
    parts = [
        network(photographs.evaluation(rows[start : start + batch], config)[0])
        for start in range(0, len(rows), batch)
    ]
    return Output(
        *(
            None if stack[0] is None else torch.cat(stack).cpu()
            for stack in zip(*parts, strict=True)
        )
    )


def headings(targets: np.ndarray, probabilities: np.ndarray, threshold: float) -> list[str]:
    """The truth, the probability, and what calling `probability >= threshold` melanoma made of it, for each."""
    return [
        f"{'melanoma' if target else 'benign'}\np = {value:.2f}\n{VERDICTS[int(target), bool(value >= threshold)]}"
        for target, value in zip(targets, probabilities, strict=True)
    ]


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [N, 1, h, w] enlarged to [N, 1, H, W] with size = (H, W), bilinear: each cell's centre stays where it is."""
    return functional.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def min_max(maps: Tensor) -> Tensor:
    """Each map [..., h, w] stretched to 0 .. 1. A constant map (equal but for rounding) has no pattern: all zeros."""
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    flat = high - low <= 1e-6 * torch.maximum(high.abs(), low.abs())
    return torch.where(flat, 0.0, (maps - low) / torch.where(flat, 1.0, high - low))


def own_scale(maps: Tensor, attention: str) -> tuple[Tensor, str]:
    """Maps and their unit: a "softmax" map times its number of positions (1: a flat map), a "sigmoid" map as is.

    "grad_cam": as is too, what a cell adds to the logit of the class called, to first order, on averaged gradients.
    """
    if attention == "softmax":
        return maps * (maps.shape[-2] * maps.shape[-1]), "weight / uniform weight"
    return maps, "logit per cell" if attention == "grad_cam" else "weight, 0 to 1"


def overlay(
    photographs: np.ndarray, maps: Tensor, *, share: float = 0.4, colour_map: str = COLOUR_MAP
) -> np.ndarray:
    """(1 - share) photograph + share coloured map: photographs [N, H, W, 3], maps [N, 1, H, W] 0 to 1 -> [N, H, W, 3].

    Raises ValueError where photographs and maps differ in number or size.
    """
    if (*photographs.shape[:1], 1, *photographs.shape[1:]) != (*maps.shape, 3):
        raise ValueError(
            "expected photographs [N, H, W, 3] and maps [N, 1, H, W] of one size, not "
            f"{list(photographs.shape)} and {list(maps.shape)}: upsample the maps first"
        )
    coloured = plt.get_cmap(colour_map)(maps[:, 0].numpy())[..., :3]
    return ((1 - share) * photographs + share * coloured).clip(0, 1)  # rounding may leave 1.0000001


def attention_figure(
    photographs: np.ndarray,
    pool3: Tensor | None,
    pool4: Tensor | None,
    titles: list[str],
    *,
    attention: str,
    grad_cam: Tensor | None = None,
    own_rows: bool = False,
    outlines: Tensor | None = None,
    panel: float = 1.0,
) -> Figure:
    """The tutorial's rows for N photographs: input, pool-3, pool-4 (and Grad-CAM), each map stretched from min to max.

    Below each map stands its range in its own units; own_rows adds a row a map in these units, with one colour bar.
    outlines: masks [N, 1, H, W], 0 to 1, drawn as lines. Maps that are None are left out. panel: as in `grid_figure`.
    """
    rows, notes, units, ranges = {"photograph": photographs}, {}, {}, {}
    for name, maps, kind in (
        ("pool-3", pool3, attention),
        ("pool-4", pool4, attention),
        ("Grad-CAM", grad_cam, "grad_cam"),
    ):
        if maps is not None:
            own, unit = own_scale(maps, kind)
            digits = ".2g" if kind == "grad_cam" else ".3g"  # .0056 is as wide as 12.3
            rows[f"{name}\nmin to max"] = overlay(
                photographs, min_max(upsample(maps, photographs.shape[1:3]))
            )
            notes[f"{name}\nmin to max"] = [
                f"{one.min():.2f} to {one.max():{digits}}" for one in own
            ]
            if own_rows:
                rows[f"{name}\nown scale"], units[f"{name}\nown scale"] = own[:, 0].numpy(), unit
                if kind == "grad_cam":  # a logit knows no 1 to compare with
                    ranges[f"{name}\nown scale"] = (0, own.max().item() or 1)
    return grid_figure(
        rows, titles, notes=notes, units=units, ranges=ranges, outlines=outlines, panel=panel
    )


def grid_figure(
    rows: dict[str, np.ndarray],
    titles: list[str],
    *,
    notes: dict[str, list[str]] | None = None,
    units: dict[str, str] | None = None,
    ranges: dict[str, tuple[float, float]] | None = None,
    outlines: Tensor | None = None,
    panel: float = 1.45,
) -> Figure:
    """A row for each entry, a column for each title: pictures [N, H, W, 3] or maps [N, h, w], all in one frame.

    Maps keep their cells and share one colour bar a row, from 0 to 1 or, if it is larger, the row's largest value.
    notes: words below each panel of a row. units: of a row's colours. ranges: what their two ends stand for, where it
    is something else, or where a row of pictures is to have a bar. panel: a panel's width in inches.
    """
    H, W = next(iter(rows.values())).shape[1:3]
    notes, units, ranges, N = notes or {}, units or {}, ranges or {}, len(titles)
    size = (panel * N + 1, panel * H / W * len(rows) + 0.3 * len(notes) + 0.6)
    figure, axes = plt.subplots(len(rows), N, squeeze=False, layout="compressed", figsize=size)
    for places, (name, pictures) in zip(axes, rows.items(), strict=True):
        maps = pictures.ndim == 3
        colours = ScalarMappable(
            Normalize(*ranges.get(name, (0, max(1, pictures.max())))), COLOUR_MAP
        )
        scale = (
            {"cmap": COLOUR_MAP, "norm": colours.norm, "interpolation": "nearest"} if maps else {}
        )
        for number, (axis, picture) in enumerate(zip(places, pictures, strict=True)):
            axis.imshow(picture, extent=(0, W, H, 0), **scale)
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel(notes[name][number] if name in notes else "", fontsize=8)
            if outlines is not None and outlines[number].min() < 0.5 < outlines[number].max():
                axis.contour(
                    np.arange(W) + 0.5,
                    np.arange(H) + 0.5,
                    outlines[number, 0],
                    levels=[0.5],
                    colors=VERMILION,
                    linewidths=panel,
                )
        places[0].set_ylabel(name, fontsize=9)
        if maps or name in ranges:
            bar = figure.colorbar(colours, ax=list(places), pad=0.01)
            bar.set_label(
                textwrap.fill(units.get(name, ""), int(14 * max(1, panel * H / W))), fontsize=8
            )
            bar.ax.tick_params(labelsize=8)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    return figure


def agreement(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Mean correlation of maps [N, 1, h, w] with `second` of the same photograph and of the others (constant: 0)."""
    N = len(first)
    first, second = (
        functional.normalize(
            maps - maps.mean(dim=1, keepdim=True), dim=1
        )  # [N, P], mean 0, length 1
        for maps in (first.double().flatten(1), second.double().flatten(1))
    )
    own = (first * second).sum()
    return (own / N).item(), ((first.sum(dim=0) @ second.sum(dim=0) - own) / (N * (N - 1))).item()
