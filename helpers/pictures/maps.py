"""Attention maps as pictures, for notebooks 05 to 07: laid rightly on photographs, in own scale.

A map is smaller than its photograph and has a scale of its own; what is drawn here says so.
Photographs are arrays [N, H, W, 3] from 0 to 1, maps are tensors [N, 1, h, w] on the CPU as the
network made them. Figures are returned, neither shown nor saved; their sizes follow from what they
are given.
"""

import hashlib
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from helpers import workspace
from helpers.model import NORMALIZATIONS, AttnVGG, Output
from helpers.pictures.style import BLUE, COLOUR_MAP, GREY, VERMILION
from helpers.training.batches import Photographs

SHARE = 0.7  # of a map in the mixture where it is largest, in figures whose opacity follows it
WITHIN = 0.98  # share of the area whose contributions lie within the scale of their colours
# of contributions: white where nothing is added, blue towards benign, vermilion towards melanoma
SIGNED = LinearSegmentedColormap.from_list("signed", [BLUE, "white", VERMILION])
# by class, and by whether the network calls it melanoma
VERDICTS = {
    (1, True): "found",
    (1, False): "missed",
    (0, True): "false alarm",
    (0, False): "cleared",
}


def draw_rows(used: pd.DataFrame, split: str, target: int, count: int, seed: int) -> np.ndarray:
    """Draw photographs of one side and class by seed; none is chosen.

    Args:
        used: a table with the columns split and target.
        split: the side, "train", "val" or "test".
        target: the class, 1 for melanoma.
        count: how many at most; asking for more keeps those drawn before.
        seed: of the draw.

    Returns:
        Row numbers in `used`.

    Raises:
        ValueError: the table has no such side.

    >>> used = pd.DataFrame({"split": ["val", "val", "test"], "target": [0, 0, 1]})
    >>> sorted(draw_rows(used, "val", 0, 8, seed=1).tolist())
    [0, 1]
    """
    sides = set(used["split"])
    if split not in sides:
        raise ValueError(f"split is one of {', '.join(sorted(sides))}, not {split!r}")
    rows = np.flatnonzero((used["split"] == split) & (used["target"] == target))
    return np.random.default_rng(seed).permutation(rows)[:count]


def draw_outcomes(
    table: pd.DataFrame,
    threshold: float,
    count: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Draw photographs of each outcome (of VERDICTS) by seed; none is chosen.

    Each photograph's lot follows from the seed and its image_id alone, not from the table's order
    or the other photographs: runs on one split show the same ones wherever they agree.

    Args:
        table: a row a photograph, with the columns image_id, target and probability.
        threshold: a probability from here on is called melanoma.
        count: how many of each outcome at most.
        seed: of the draw.

    Returns:
        Row numbers in `table` by outcome.
    """
    lots = [hashlib.sha256(f"{seed} {name}".encode()).digest() for name in table["image_id"]]
    outcomes = outcomes_of(table["target"], table["probability"], threshold)
    rows = {verdict: [] for verdict in VERDICTS.values()}
    for row in sorted(range(len(table)), key=lots.__getitem__):
        rows[outcomes[row]].append(row)
    return {verdict: np.array(numbers[:count], int) for verdict, numbers in rows.items()}


def outcomes_of(targets: np.ndarray, probabilities: np.ndarray, threshold: float) -> list[str]:
    """What calling `probability >= threshold` melanoma makes of each photograph.

    >>> outcomes_of([1, 1, 0, 0], [0.5, 0.4, 0.5, 0.4], threshold=0.5)
    ['found', 'missed', 'false alarm', 'cleared']
    """
    outcomes = []
    for target, probability in zip(targets, probabilities, strict=True):
        outcomes.append(VERDICTS[int(target), bool(probability >= threshold)])
    return outcomes


def headings(targets: np.ndarray, probabilities: np.ndarray, threshold: float) -> list[str]:
    """A title for each photograph: the truth, the probability, and what the threshold made of it.

    A map below it explains the same call if it was given the same threshold, as a logit
    (`attribution.logit_threshold`), and if the probabilities are of the pass that made the map.

    >>> headings([1], [0.25], threshold=0.5)
    ['melanoma\\np = 0.25\\nmissed']
    """
    titles = []
    outcomes = outcomes_of(targets, probabilities, threshold)
    for target, probability, outcome in zip(targets, probabilities, outcomes, strict=True):
        truth = "melanoma" if target else "benign"
        titles.append(f"{truth}\np = {probability:.2f}\n{outcome}")
    return titles


@torch.no_grad()
def evaluate(
    network: AttnVGG,
    photographs: Photographs,
    rows: np.ndarray,
    config: dict,
    *,
    batch: int = 64,
) -> Output:
    """Logits and maps of these rows of the cache, a batch at a time.

    Args:
        network: in evaluation mode.
        photographs: the cache.
        rows: numbers of its rows, at least one.
        config: of the network's checkpoint.
        batch: rows that pass at once.

    Returns:
        Logits [N, classes] and maps [N, 1, h, w] in float32 on the CPU; maps are None where the
        network has none.

    Raises:
        ValueError: there are no rows.
    """
    if len(rows) == 0:
        raise ValueError("rows names no photograph, expected at least one")
    logits = []
    pool3_maps = []
    pool4_maps = []
    for start in workspace.progress("looked at", range(0, len(rows), batch)):
        images, _ = photographs.evaluation(rows[start : start + batch], config)
        output = network(images)
        logits.append(output.logits.cpu())
        if output.pool3_map is not None:
            pool3_maps.append(output.pool3_map.cpu())
            pool4_maps.append(output.pool4_map.cpu())
    if not pool3_maps:
        return Output(torch.cat(logits), None, None)
    return Output(torch.cat(logits), torch.cat(pool3_maps), torch.cat(pool4_maps))


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge maps bilinearly so that the centre of each cell stays where it is.

    Args:
        maps: [N, 1, h, w].
        size: (H, W).

    Returns:
        [N, 1, H, W].

    >>> upsample(torch.tensor([[[[0.0, 1.0]]]]), (1, 4))
    tensor([[[[0.0000, 0.2500, 0.7500, 1.0000]]]])
    """
    return functional.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def min_max(maps: Tensor) -> Tensor:
    """Each map [..., h, w] stretched to 0 .. 1.

    A constant map (equal but for rounding) has no pattern: all zeros.

    >>> min_max(torch.tensor([[2.0, 3.0, 6.0]]))
    tensor([[0.0000, 0.2500, 1.0000]])
    """
    low = maps.amin(dim=(-2, -1), keepdim=True)
    high = maps.amax(dim=(-2, -1), keepdim=True)
    flat = high - low <= 1e-6 * torch.maximum(high.abs(), low.abs())
    span = torch.where(flat, 1.0, high - low)
    return torch.where(flat, 0.0, (maps - low) / span)


def own_scale(maps: Tensor, attention: str) -> tuple[Tensor, str]:
    """Maps [N, 1, h, w] in a scale that can be read, and its unit.

    Args:
        maps: as the network or Grad-CAM made them.
        attention: "softmax" or "none", whose map of equal shares sums to 1, too: times the number
            of positions, so that a flat map is 1 everywhere. "sigmoid" or "weighted": as they are.
            "grad_cam": as they are, too; that is what a cell adds to the logit of the class called,
            to first order, on averaged gradients.

    Raises:
        ValueError: another word.

    >>> own_scale(torch.full((1, 1, 1, 2), 0.5), "softmax")
    (tensor([[[[1., 1.]]]]), 'weight / uniform weight')
    """
    if attention in ("softmax", "none"):
        h, w = maps.shape[-2:]
        return maps * (h * w), "weight / uniform weight"
    if attention == "grad_cam":
        return maps, "logit per cell"
    if attention in NORMALIZATIONS:
        return maps, "weight, 0 to 1"
    known = ", ".join(map(repr, (*NORMALIZATIONS, "none", "grad_cam")))
    raise ValueError(f"attention is one of {known}, not {attention!r}")


def overlay(
    photographs: np.ndarray,
    maps: Tensor,
    *,
    share: float = 0.4,
    follow_map: bool = False,
    colour_map: str = COLOUR_MAP,
) -> np.ndarray:
    """Photographs under their coloured maps: (1 - share) photograph + share map.

    Args:
        photographs: [N, H, W, 3], 0 to 1.
        maps: [N, 1, H, W], 0 to 1.
        share: of the map in the mixture.
        follow_map: whether each pixel has `share` times its map's value in place of `share`, so
            that the photograph is left as it is where the map is 0.
        colour_map: matplotlib's name of it.

    Returns:
        [N, H, W, 3], 0 to 1.

    Raises:
        ValueError: photographs and maps differ in number or size.

    >>> overlay(np.ones((2, 8, 8, 3)), torch.zeros(2, 1, 8, 8)).shape
    (2, 8, 8, 3)
    """
    N, *size = photographs.shape[:3]
    if tuple(maps.shape) != (N, 1, *size):
        raise ValueError(
            "expected photographs [N, H, W, 3] and maps [N, 1, H, W] of one size, not "
            f"{list(photographs.shape)} and {list(maps.shape)}: upsample the maps first"
        )
    values = maps[:, 0].numpy()  # [N, H, W]
    coloured = plt.get_cmap(colour_map)(values)[..., :3]  # [N, H, W, 3]
    opacity = share * values[..., None] if follow_map else share
    mixed = (1 - opacity) * photographs + opacity * coloured
    return mixed.clip(0, 1)  # rounding may leave 1.0000001


def attention_figure(
    photographs: np.ndarray,
    pool3: Tensor | None,
    pool4: Tensor | None,
    titles: list[str],
    *,
    attention: str,
    grad_cam: Tensor | None = None,
    outlines: Tensor | None = None,
    panel: float = 1.0,
) -> Figure:
    """The tutorial's rows for N photographs: input, pool-3, pool-4 (and Grad-CAM).

    Each map is stretched from min to max, and covers the photograph the more the larger it is;
    below it stands its range in its own units.

    Args:
        photographs: [N, H, W, 3], 0 to 1.
        pool3, pool4: maps [N, 1, h, w]; None are left out.
        titles: one for each photograph.
        attention: of the network that made the maps, as in `own_scale`.
        grad_cam: maps [N, 1, h, w], or None.
        outlines: masks [N, 1, H, W], 0 to 1, drawn as lines.
        panel: a panel's width in inches.
    """
    rows = {"photograph": photographs}
    notes = {}
    kinds = {"pool-3": attention, "pool-4": attention, "Grad-CAM": "grad_cam"}
    for (name, kind), maps in zip(kinds.items(), (pool3, pool4, grad_cam), strict=True):
        if maps is None:
            continue
        own, _ = own_scale(maps, kind)
        large = upsample(maps, photographs.shape[1:3])
        row = f"{name}\nmin to max"
        rows[row] = overlay(photographs, min_max(large), share=SHARE, follow_map=True)
        digits = ".2g" if kind == "grad_cam" else ".3g"  # .0056 is as wide as 12.3
        notes[row] = [f"{grid.min():.2f} to {grid.max():{digits}}" for grid in own]
    return grid_figure(rows, titles, notes=notes, outlines=outlines, panel=panel)


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
    """A row for each entry, a column for each title, all panels in one frame.

    Maps keep their cells and share one colour bar a row, from 0 to 1 or, if it is larger, the row's
    largest value.

    Args:
        rows: pictures [N, H, W, 3] or maps [N, h, w] by name; the first row gives the frame.
        titles: N of them.
        notes: words below each panel of a row.
        units: of a row's colours.
        ranges: what the two ends of a row's colours stand for, where it is something else, or where
            a row of pictures is to have a bar.
        outlines: masks [N, 1, H, W], 0 to 1, drawn as lines.
        panel: a panel's width in inches.
    """
    notes = notes or {}
    units = units or {}
    ranges = ranges or {}
    N = len(titles)
    H, W = next(iter(rows.values())).shape[1:3]
    height = panel * H / W
    size = (panel * N + 1, height * len(rows) + 0.3 * len(notes) + 0.6)
    figure, axes = plt.subplots(len(rows), N, squeeze=False, layout="compressed", figsize=size)
    for panels, (name, pictures) in zip(axes, rows.items(), strict=True):
        low, high = ranges.get(name, (0, max(1, pictures.max())))
        colours = ScalarMappable(Normalize(low, high), COLOUR_MAP)
        draw_row(panels, pictures, colours, notes.get(name, [""] * N), (H, W))
        panels[0].set_ylabel(name, fontsize=9)
        if pictures.ndim == 3 or name in ranges:
            bar = figure.colorbar(colours, ax=list(panels), pad=0.01)
            letters = int(14 * max(1, height))  # as many as the row is high
            bar.set_label(textwrap.fill(units.get(name, ""), letters), fontsize=8)
            bar.ax.tick_params(labelsize=8)
        if outlines is not None:
            draw_outlines(panels, outlines, panel)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    return figure


def contribution_figure(
    photographs: np.ndarray,
    signed: dict[str, Tensor],
    titles: list[str],
    *,
    outlines: Tensor | None = None,
    panel: float = 1.3,
) -> Figure:
    """What each position adds to the logit: a row of photographs, and one for each signed map.

    Maps of several resolutions share one scale. A cell's colour is what it adds for each square of
    the finest map that it covers, so that equal colours over equal areas add equally much; white
    adds nothing. The scale ends where WITHIN of all such squares lie, so that one strong cell does
    not blanch all others; what is beyond has the colour of the end. Below each panel stands what
    the whole map adds.

    Args:
        photographs: [N, H, W, 3], 0 to 1.
        signed: maps [N, 1, h, w] by name, of `evidence.Contributions.signed`.
        titles: one for each photograph.
        outlines: masks [N, 1, H, W], 0 to 1, drawn as lines.
        panel: a panel's width in inches.

    Raises:
        ValueError: there is no map.
    """
    if not signed:
        raise ValueError("signed holds no map, expected one or more of [N, 1, h, w] by name")
    finest = max(grid[0].numel() for grid in signed.values())
    rows = {"photograph": photographs}
    notes = {}
    squares = []
    for name, grid in signed.items():
        row = f"through\n{name}"
        covered = finest // grid[0].numel()  # squares of the finest map in a cell
        rows[row] = (grid / covered)[:, 0].numpy()  # [N, h, w]
        notes[row] = [f"adds {added:+.2f}" for added in grid.sum(dim=(1, 2, 3)).tolist()]
        squares.append(np.abs(rows[row]).repeat(covered))
    end = np.quantile(np.concatenate(squares), WITHIN) or 1.0
    N = len(titles)
    H, W = photographs.shape[1:3]
    height = panel * H / W
    size = (panel * N + 1.2, (height + 0.2) * len(rows) + 0.5)
    figure, axes = plt.subplots(len(rows), N, squeeze=False, layout="compressed", figsize=size)
    colours = ScalarMappable(Normalize(-end, end), SIGNED)
    for panels, (row, pictures) in zip(axes, rows.items(), strict=True):
        draw_row(panels, pictures, colours, notes.get(row, [""] * N), (H, W))
        panels[0].set_ylabel(row, fontsize=9)
        if outlines is not None:
            draw_outlines(panels, outlines, panel, colour="black" if row in notes else VERMILION)
        for axis in panels:
            axis.spines[:].set(visible=row in notes, color=GREY, linewidth=0.5)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    bar = figure.colorbar(colours, ax=axes[1:].ravel().tolist(), pad=0.01, extend="both")
    bar.set_label("logit added: benign below 0, melanoma above", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


def draw_row(
    panels: np.ndarray,
    pictures: np.ndarray,
    colours: ScalarMappable,
    notes: list[str],
    frame: tuple[int, int],
) -> None:
    """One row of `grid_figure`: pictures [N, H, W, 3], or maps [N, h, w] in their colours.

    frame: (H, W), into which all are stretched.
    """
    H, W = frame
    for axis, picture, note in zip(panels, pictures, notes, strict=True):
        if picture.ndim == 3:
            axis.imshow(picture, extent=(0, W, H, 0))
        else:
            axis.imshow(
                picture,
                extent=(0, W, H, 0),
                cmap=colours.cmap,
                norm=colours.norm,
                interpolation="nearest",
            )
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)  # no frame around photographs
        axis.set_xlabel(note, fontsize=8)


def draw_outlines(
    panels: np.ndarray,
    masks: Tensor,
    width: float,
    colour: str = VERMILION,
) -> None:
    """The border of each mask [N, 1, H, W], 0 to 1, in its panel; an empty one has none."""
    H, W = masks.shape[-2:]
    x = np.arange(W) + 0.5  # centres of the pixels
    y = np.arange(H) + 0.5
    for axis, mask in zip(panels, masks[:, 0].cpu(), strict=True):
        if mask.min() < 0.5 < mask.max():
            axis.contour(x, y, mask, levels=[0.5], colors=colour, linewidths=width)


def agreement(first: Tensor, second: Tensor) -> tuple[float, float]:
    """How far maps follow those of the same photograph, and how far any other's.

    Args:
        first, second: [N, 1, h, w].

    Returns:
        The mean of Pearson's correlation over the N pairs of one photograph, and over the
        N (N - 1) pairs of two, NaN where N is 1. A constant map correlates with none: 0.

    >>> maps = torch.tensor([[[[0.0, 1.0]]], [[[1.0, 0.0]]]])
    >>> own, other = agreement(maps, maps)
    >>> round(own, 3), round(other, 3)
    (1.0, -1.0)
    """
    N = len(first)
    first = standardise(first)  # [N, P]
    second = standardise(second)
    own = (first * second).sum()
    every = first.sum(dim=0) @ second.sum(dim=0)  # over all N * N pairs
    others = (every - own) / (N * (N - 1)) if N > 1 else torch.tensor(torch.nan)
    return (own / N).item(), others.item()


def standardise(maps: Tensor) -> Tensor:
    """Maps [N, 1, h, w] as vectors [N, P] of mean 0 and length 1, so that products correlate."""
    vectors = maps.double().flatten(1)
    return functional.normalize(vectors - vectors.mean(dim=1, keepdim=True), dim=1)
