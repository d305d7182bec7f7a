"""Does a map look at the lesion? For notebook 06: maps against masks on photographs.

Five figures of merit, each of maps [N, 1, H, W] (0 or more) on masks of the same shape (lesion
where at least 0.5): `hits`, `energy`, `iou`, `concentration`, `pixel_auc`; each raises ValueError
for maps below 0 or NaN, and for maps and masks of two shapes. Then the maps that they are measured
on, those that have learned nothing included; tables of both, by class; and how they move from seed
to seed.
"""

import glob
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional

from helpers import workspace
from helpers.audit.attribution import grad_cam
from helpers.model import LAST_RELU, AttnVGG
from helpers.pictures.maps import upsample
from helpers.scores.bootstrap import as_columns, independent_pairs, interval, mean, side
from helpers.training import batches
from helpers.training.augment import (
    LUMA,
    Augmentation,
    Draws,
    denormalise,
    draw,
    plain,
    transform,
    warp_masks,
)
from helpers.training.batches import Photographs

FIGURES = ("hits", "energy", "iou", "concentration", "pixel_auc")
# of which validation chooses one; at 0 all is kept
THRESHOLDS = tuple(step / 20 for step in range(20))
SIGMA = 0.25  # of the centred Gaussian, in sides of the photograph
SHIFT = 0.6  # side of the shifted crops, in sides of the photograph
SAME = 1e-6  # what differs by less is equal: computers round
# facts of `checkpoint.facts_of` by which runs may differ that `audits_beside` sets side by side
MAY_DIFFER = ("seed", "device", "precision", "torch")
HALF = 0.5  # of a map's range, or of the scale 0 to 1 of a sigmoid: above it a cell is activated
POOLS = {"pool3": 8, "pool4": 16}  # pixels: the side of a cell of each attention map
CLASSES = {"melanoma": 1, "benign": 0}  # by target
DIFFERENCE = "melanoma less benign"
AUDIT_FORMAT = 2  # of audit.json: since 2 its figures are by class


def flatten(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Maps and masks as the figures compare them, pixel by pixel.

    Args:
        maps: [N, 1, H, W], 0 or more.
        masks: the same shape; lesion where at least 0.5.

    Returns:
        Maps float64 [N, H*W], a constant one (zeros too) as ones: it looks everywhere alike; and
        where the lesion is, bool [N, H*W]. Both on the CPU.

    Raises:
        ValueError: for maps below 0 or NaN, and for maps and masks of two shapes.
    """
    if maps.shape != masks.shape or not (maps >= 0).all():
        raise ValueError(
            f"maps {list(maps.shape)}, masks {list(masks.shape)}: expected one shape, "
            "maps of 0 or more"
        )
    values = maps.detach().cpu().double().flatten(1)
    lesion = masks.cpu().flatten(1) >= 0.5
    high = values.amax(dim=1, keepdim=True)
    low = values.amin(dim=1, keepdim=True)
    constant = high - low <= SAME * high
    return torch.where(constant, 1.0, values), lesion


def where_seen(figures: Tensor, lesion: Tensor) -> Tensor:
    """Figures [N], NaN where the mask (bool [N, H*W]) is empty: nothing could have been found."""
    return torch.where(lesion.any(dim=1), figures, torch.nan)


def hits(maps: Tensor, masks: Tensor) -> Tensor:
    """Pointing game: does the map's maximum lie on the lesion?

    Of a map with several equal maxima (one in bfloat16 has hundreds), the share that does.
    Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016.

    Args:
        maps: [N, 1, H, W], 0 or more; a constant map has its maximum everywhere.
        masks: the same shape; lesion where at least 0.5.

    Returns:
        float64 [N], 0 to 1; NaN where the mask is empty.

    >>> maps = torch.tensor([[0.0, 0.4], [0.4, 0.2]]).view(1, 1, 2, 2)
    >>> masks = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    >>> hits(maps, masks).tolist()
    [0.5]
    """
    values, lesion = flatten(maps, masks)
    maxima = values >= (1 - SAME) * values.amax(dim=1, keepdim=True)
    return where_seen((maxima & lesion).sum(dim=1).double() / maxima.sum(dim=1), lesion)


def energy(maps: Tensor, masks: Tensor) -> Tensor:
    """Energy-based pointing game: the share of the map's sum that lies on the lesion.

    Wang et al., "Score-CAM", CVPR workshops 2020. A uniform map gets the lesion's share of the
    area.

    Args:
        maps: [N, 1, H, W], 0 or more; a constant map counts as ones.
        masks: the same shape; lesion where at least 0.5.

    Returns:
        float64 [N], 0 to 1; NaN where the mask is empty.

    >>> maps = torch.tensor([[0.0, 0.5], [0.25, 0.25]]).view(1, 1, 2, 2)
    >>> masks = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    >>> energy(maps, masks).tolist()
    [0.75]
    """
    values, lesion = flatten(maps, masks)
    return where_seen((values * lesion).sum(dim=1) / values.sum(dim=1), lesion)


def overlap(maps: Tensor, masks: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Intersection over union of the lesion and of where the map is high, at several thresholds.

    Args:
        maps: [N, 1, H, W], 0 or more; each is stretched so that its smallest value is 0 and its
            largest 1, and kept where it is at least the threshold. A constant map is kept whole.
        masks: the same shape; lesion where at least 0.5.
        thresholds: 0 to 1.

    Returns:
        float64 [N, thresholds], 0 to 1; NaN where the mask is empty.
    """
    values, lesion = flatten(maps, masks)
    low = values.amin(dim=1, keepdim=True)
    spread = values.amax(dim=1, keepdim=True) - low
    columns = []
    for threshold in thresholds:
        kept = values - low >= threshold * spread  # [N, H*W]
        ious = (kept & lesion).sum(dim=1).double() / (kept | lesion).sum(dim=1)
        columns.append(where_seen(ious, lesion))
    return torch.stack(columns, dim=1)


def iou(maps: Tensor, masks: Tensor) -> Tensor:
    """Intersection over union of the lesion and of the upper half of the map's range.

    The map is binarised half way from its smallest to its largest value, as Yan et al. do
    ("Melanoma recognition via visual attention", IPMI 2019).

    Args:
        maps: [N, 1, H, W], 0 or more; a constant map is kept whole.
        masks: the same shape; lesion where at least 0.5.

    Returns:
        float64 [N], 0 to 1; NaN where the mask is empty.

    >>> maps = torch.tensor([[0.1, 0.9], [0.6, 0.2]]).view(1, 1, 2, 2)
    >>> masks = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    >>> round(iou(maps, masks).item(), 4)
    0.3333
    """
    return overlap(maps, masks, [0.5])[:, 0]


def concentration(maps: Tensor, masks: Tensor) -> Tensor:
    """How small an area holds half of the map's sum: small where the map is focused.

    A point of the Lorenz curve (Lorenz, Publications of the American Statistical Association,
    1905) with pixels in place of people. The pixel in which the half is reached counts in part,
    so that a uniform map has 0.5.

    Args:
        maps: [N, 1, H, W], 0 or more; a constant map counts as ones.
        masks: the same shape; what they hold does not matter here.

    Returns:
        float64 [N]: a share of the area, above 0, at most 0.5.

    >>> maps = torch.tensor([[0.0, 0.75], [0.25, 0.0]]).view(1, 1, 2, 2)
    >>> round(concentration(maps, torch.zeros(1, 1, 2, 2)).item(), 4)  # 2/3 of one pixel of four
    0.1667
    """
    values, _ = flatten(maps, masks)
    ranked = values.sort(dim=1, descending=True).values
    before = ranked.cumsum(dim=1) - ranked  # the sum of the larger pixels
    missing = values.sum(dim=1, keepdim=True) / 2 - before  # what the half still needs
    used = (missing / ranked).clamp(0, 1)  # the share of each pixel that it takes
    return torch.where(ranked > 0, used, 0.0).mean(dim=1)


def pixel_auc(maps: Tensor, masks: Tensor) -> Tensor:
    """AUC of pixels: does the map rank what is lesion above what is not?

    The share of the pairs of a pixel on the lesion and one beside it in which that on the lesion
    has the larger value, ties half (Hanley and McNeil, Radiology 1982; of saliency maps: Bylinskii
    et al., IEEE TPAMI 2019). It does not depend on the map's scale, nor on a threshold.

    Args:
        maps: [N, 1, H, W], 0 or more; a constant map gets 0.5.
        masks: the same shape; lesion where at least 0.5.

    Returns:
        float64 [N], 0 to 1; NaN where the mask is empty or covers all: there is no pair.

    >>> maps = torch.tensor([[0.1, 0.9], [0.2, 0.2]]).view(1, 1, 2, 2)
    >>> masks = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    >>> pixel_auc(maps, masks).tolist()
    [0.875]
    """
    values, lesion = flatten(maps, masks)
    ranks = torch.from_numpy(rankdata(values.numpy(), axis=1))  # ties share theirs
    inside = lesion.sum(dim=1).double()
    outside = values.shape[1] - inside
    # the rank-sum statistic of Mann and Whitney counts the pairs without forming them
    right = (ranks * lesion).sum(dim=1) - inside * (inside + 1) / 2
    return right / (inside * outside)


def localise(maps: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """All five FIGURES of maps on masks.

    Args:
        maps: [N, 1, H, W], 0 or more; a constant one counts as ones.
        masks: the same shape; lesion where at least 0.5.

    Returns:
        By name, each float64 [N]. On an empty mask all but concentration are NaN; where the mask
        covers all, pixel_auc is.

    Raises:
        ValueError: for maps below 0 or NaN, and for maps and masks of two shapes.
    """
    return {
        "hits": hits(maps, masks),
        "energy": energy(maps, masks),
        "iou": iou(maps, masks),
        "concentration": concentration(maps, masks),
        "pixel_auc": pixel_auc(maps, masks),
    }


def activated(maps: Tensor) -> dict[str, Tensor]:
    """How large the activated regions of maps are: the share of the area above three levels.

    Args:
        maps: [N, 1, H, W], 0 or more.

    Returns:
        Each float64 [N], 0 to 1. In `region` the map is in the upper half of its own range, as a
        picture stretched from its smallest to its largest value shows it; a constant map is there
        everywhere. In `above_mean` it exceeds its own mean; under softmax, whose maps sum to 1, a
        level that is the same for every photograph, a cell's equal share. Nowhere for a constant
        map. In `above_half` it is at least HALF on its own scale, which under sigmoid goes from 0
        to 1.

    >>> regions = activated(torch.tensor([[0.0, 0.9], [0.45, 0.05]]).view(1, 1, 2, 2))
    >>> {name: share.item() for name, share in regions.items()}
    {'region': 0.5, 'above_mean': 0.5, 'above_half': 0.25}
    """
    values = maps.detach().cpu().double().flatten(1)
    low = values.amin(dim=1, keepdim=True)
    high = values.amax(dim=1, keepdim=True)
    level = values.mean(dim=1, keepdim=True)
    constant = high - low <= SAME * high.abs()
    regions = {
        "region": (values - low >= HALF * (high - low)) | constant,
        "above_mean": values > (1 + SAME) * level,
        "above_half": values >= HALF,
    }
    return {name: inside.double().mean(dim=1) for name, inside in regions.items()}


def centre(size: tuple[int, int]) -> Tensor:
    """A Gaussian in the middle of the photograph: the map of who always looks there.

    Args:
        size: (H, W).

    Returns:
        [1, 1, H, W], of standard deviation SIGMA of the height and of the width.
    """
    sides = []
    for count in size:
        from_middle = (torch.arange(count) + 0.5) / count - 0.5
        sides.append(torch.exp(-(from_middle**2) / (2 * SIGMA**2)))
    return torch.outer(*sides)[None, None]


def sobel(images: Tensor, config: dict) -> Tensor:
    """Edges: the length of Sobel's gradient of the grey photographs.

    Args:
        images: [B, 3, H, W], normalised.
        config: of the network, with mean and std of that normalisation.

    Returns:
        float64 [B, 1, H, W], 0 or more.
    """
    grey = denormalise(images, mean=config["mean"], std=config["std"]) @ np.array(LUMA)  # [B, H, W]
    edges = []
    for picture in grey:
        across = cv2.Sobel(picture, cv2.CV_64F, 1, 0)
        down = cv2.Sobel(picture, cv2.CV_64F, 0, 1)
        edges.append(np.hypot(across, down))
    return torch.from_numpy(np.stack(edges))[:, None]


def dark(images: Tensor, config: dict) -> Tensor:
    """`otsu`'s guess at the lesion in the photographs as they were before normalisation.

    Args:
        images: [B, 3, H, W], normalised.
        config: of the network, with mean and std of that normalisation.

    Returns:
        [B, 1, H, W], 0 or 1.
    """
    colours = denormalise(images, mean=config["mean"], std=config["std"])  # [B, H, W, 3], 0 to 1
    shown = (255 * colours).round().astype(np.uint8)
    guesses = np.stack([batches.otsu(picture) for picture in shown])  # [B, H, W], 0 or 255
    return torch.from_numpy(guesses)[:, None] / 255


def untrained(network: AttnVGG, seed: int = 0) -> AttnVGG:
    """A network of the same shape and on the same device, as `AttnVGG` starts without weights."""
    with torch.random.fork_rng(devices=[]):  # the weights are drawn on the CPU
        torch.default_generator.manual_seed(seed)
        fresh = AttnVGG(attention=network.attention, bypass=network.bypass)
    return fresh.to(network.classifier.weight.device, memory_format=torch.channels_last).eval()


def ceilings(masks: Tensor) -> dict[str, Tensor]:
    """The best that a map of coarse cells can be: the mask itself, in cells of each pool's size.

    Args:
        masks: [B, 1, S, S], 0 to 1, S a multiple of 16.

    Returns:
        ceiling_pool3 [B, 1, S/8, S/8] and ceiling_pool4 [B, 1, S/16, S/16]: how much of each cell
        is lesion.
    """
    lesion = (masks >= 0.5).float()
    return {f"ceiling_{pool}": functional.avg_pool2d(lesion, cell) for pool, cell in POOLS.items()}


def maps_of(
    network: AttnVGG,
    images: Tensor,
    *,
    threshold: float = 0.0,
    with_activation: bool = False,
) -> dict[str, Tensor]:
    """The network's maps and the two that see nothing, by name.

    "activation" is where block 5 is active, whatever for: the mean over the channels that Grad-CAM
    weighs. Where Grad-CAM looks like it, its weights, and so the class that it explains, have added
    little.

    Args:
        images: [B, 3, H, W], normalised.
        threshold: of `attribution.logit_threshold`: which call Grad-CAM explains.
        with_activation: whether the activation is among them; it costs no pass of its own.

    Returns:
        attention_pool3 and attention_pool4 (where there is attention), grad_cam, centre, uniform,
        and activation where asked for: each [B or 1, 1, h, w], in its own size and scale.
    """
    channels = []
    handle = network.backbone[LAST_RELU].register_forward_hook(
        lambda layer, inputs, output: channels.append(output.detach())
    )
    try:
        cam, output = grad_cam(network, images, threshold=threshold)
    finally:
        handle.remove()
    maps = {
        "attention_pool3": output.pool3_map,
        "attention_pool4": output.pool4_map,
        "grad_cam": cam,
        "centre": centre(images.shape[-2:]),
        "uniform": torch.ones(1, 1, *images.shape[-2:]),
    }
    if with_activation:
        maps["activation"] = channels[-1].float().mean(dim=1, keepdim=True)
    return {name: grid for name, grid in maps.items() if grid is not None}


@torch.no_grad()
def unlearned(stranger: AttnVGG, images: Tensor, config: dict) -> dict[str, Tensor]:
    """Maps that see the photograph and have learned nothing, by name.

    Args:
        stranger: an `untrained` network.
        images: [B, 3, H, W], normalised.
        config: of the network, with mean and std of that normalisation.

    Returns:
        sobel (edges), otsu (dark parts), random_pool3 and random_pool4 (the stranger's attention,
        where it has any): each [B, 1, h, w], in its own size and scale.
    """
    output = stranger(images)
    maps = {
        "sobel": sobel(images, config),
        "otsu": dark(images, config),
        "random_pool3": output.pool3_map,
        "random_pool4": output.pool4_map,
    }
    return {name: grid for name, grid in maps.items() if grid is not None}


def shifted(count: int, seed: int = 0) -> Draws:
    """Crops of SHIFT of the side, one a photograph, so that no lesion is central by habit.

    Each lies in a corner of its photograph, which `seed` draws.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = draw(count, Augmentation(view=(SHIFT, SHIFT), shift=True), generator)
    offsets = draws.geometry[:, :, 2]  # a view: x and y, drawn from anywhere
    offsets.copy_((1 - SHIFT) * offsets.sign())  # to the corner
    return draws


def seen_through(
    photographs: Photographs,
    rows: np.ndarray,
    draws: Draws,
    config: dict,
) -> tuple[Tensor, Tensor]:
    """Images [B, 3, S, S] on the device and masks [B, 1, S, S] on the CPU, through these draws.

    A photograph without a mask gets an empty one.
    """
    pixels, masks = photographs.take(rows)
    side = config["image_size"]
    images = transform(pixels, draws, side, mean=config["mean"], std=config["std"])
    if masks is None:
        masks = torch.zeros(pixels.shape[:3])
    return images, warp_masks(masks, draws, side).cpu()


def describe(maps: Tensor, masks: Tensor) -> dict[str, np.ndarray]:
    """The columns of `measure` for maps [B, 1, h, w] of any size, on masks [B, 1, S, S]."""
    large = upsample(maps, masks.shape[-2:])
    columns = localise(large, masks) | activated(large)
    columns["mean"] = maps.mean(dim=(1, 2, 3))
    columns["zero"] = maps.amax(dim=(1, 2, 3)) <= 0
    ious = overlap(large, masks, THRESHOLDS)  # [B, thresholds]
    for threshold, column in zip(THRESHOLDS, ious.T, strict=True):
        columns[f"iou_{threshold:.2f}"] = column
    return {name: values.numpy() for name, values in columns.items()}


def measure(
    look: Callable[[Tensor], dict[str, Tensor]],
    photographs: Photographs,
    used: pd.DataFrame,
    config: dict,
    *,
    rows: np.ndarray,
    draws: Draws | None = None,
    batch_size: int = 32,
    with_ceilings: bool = False,
) -> pd.DataFrame:
    """The figures of every map on every photograph, a row each.

    Args:
        look: gives the maps of normalised images [B, 3, S, S] by name, each [B or 1, 1, h, w];
            such as `maps_of`.
        photographs: the cache.
        used: its rows: group and target.
        config: of the network: image_size, view, mean, std.
        rows: those to measure.
        draws: what the network sees of each of these rows; without them, what it sees when it is
            evaluated.
        batch_size: photographs at a time.
        with_ceilings: whether the masks' own `ceilings` are measured as further maps.

    Returns:
        Columns row, group, target, map, FIGURES, region, above_mean and above_half (of
        `activated`), iou_0.00 ... (of THRESHOLDS), mean (of the map in its own size and scale),
        zero (nothing is above 0). Where a photograph has no mask, or cropping left none of it, the
        figures that need one are NaN.

    Raises:
        ValueError: where there are no rows.
    """
    if len(rows) == 0:
        raise ValueError("rows is empty: expected at least one photograph to measure maps on")
    if draws is None:
        draws = plain(len(rows), config["view"])
    parts = []
    for start in workspace.progress("measured", range(0, len(rows), batch_size)):
        part = slice(start, start + batch_size)
        seen = Draws(draws.geometry[part], draws.colour[part])
        images, masks = seen_through(photographs, rows[part], seen, config)
        about = used.loc[rows[part], ["group", "target"]]
        looked = look(images)
        if with_ceilings:
            looked = looked | ceilings(masks)
        for name, maps in looked.items():
            maps = maps.cpu().expand(len(images), -1, -1, -1)
            parts.append(about.assign(row=rows[part], map=name, **describe(maps, masks)))
    return pd.concat(parts, ignore_index=True)


def choose_thresholds(validation: pd.DataFrame) -> dict[str, float]:
    """For each map the threshold at which it overlaps the lesions best.

    Args:
        validation: rows of `measure`, of validation photographs, so that none is chosen on those
            that it is reported on.

    Returns:
        By map, the one of THRESHOLDS with the largest mean IoU, the lowest where tied. Maps
        without any mask are left out.
    """
    columns = [f"iou_{threshold:.2f}" for threshold in THRESHOLDS]
    means = validation.groupby("map")[columns].mean().dropna()
    best = means.to_numpy().argmax(axis=1)
    return {name: THRESHOLDS[number] for name, number in zip(means.index, best, strict=True)}


def paired(measured: pd.DataFrame, figure: str, first: str, second: str) -> dict | None:
    """A figure of one map less that of another, on the same photographs.

    Args:
        measured: rows of `measure`.
        figure: its column, such as "energy".
        first: the map.
        second: that which it is compared with.

    Returns:
        value, low, high, n: the mean difference with its 95% interval over groups (NaN where they
        are too few); None where no photograph has the figure of both.
    """
    wide = measured.pivot(index=["row", "group"], columns="map", values=figure)
    wide = wide.reindex(columns=[first, second]).dropna().reset_index()
    if wide.empty:
        return None
    return interval(mean(wide[first] - wide[second]), wide["group"])


def with_interval(figure: str, values: pd.Series, groups: pd.Series) -> dict:
    """`figure`: the mean of the values; `<figure>_low`, `<figure>_high`: its 95% interval.

    NaN is left out (pixel_auc has one where the mask covers all). None where nothing is left, and
    for the ends where the groups are too few.
    """
    values = values.dropna()
    if values.empty:
        return as_columns(figure, None)
    return as_columns(figure, interval(mean(values), groups.loc[values.index], share=True))


def localisation(measured: pd.DataFrame, thresholds: dict[str, float] | None = None) -> dict:
    """`localisation` of audit.json: each map's figures over the photographs with a mask.

    Args:
        measured: rows of `measure`.
        thresholds: of `choose_thresholds`.

    Returns:
        By map: n (photographs), zero (of them, maps of zeros), each of FIGURES as a mean with
        `<figure>_low` and `<figure>_high`, its 95% interval over groups, None where these are too
        few. With a map's threshold also that, and iou_best as a figure. Empty where no photograph
        has a mask.
    """
    thresholds = thresholds or {}
    located = {}
    for name, rows in measured.dropna(subset=["energy"]).groupby("map", sort=False):
        located[name] = {"n": len(rows), "zero": int(rows["zero"].sum())}
        columns = {figure: figure for figure in FIGURES}
        if name in thresholds:
            located[name]["threshold"] = thresholds[name]
            columns["iou_best"] = f"iou_{thresholds[name]:.2f}"
        for figure, column in columns.items():
            located[name].update(with_interval(figure, rows[column], rows["group"]))
    return located


def class_gap(rows: pd.DataFrame, figure: str) -> dict | None:
    """A figure's mean over melanomas less its mean over benign lesions, of one map.

    Args:
        rows: of `measure`, of one map.
        figure: a column of it; where it is NaN the photograph is left out.

    Returns:
        value, low, high and n, as `bootstrap.interval`; None where one class has no photograph.
    """
    kept = rows.dropna(subset=[figure])
    if kept["target"].nunique() < 2:
        return None
    on_melanoma = mean(kept[figure], kept["target"] == 1)
    on_benign = mean(kept[figure], kept["target"] == 0)
    return interval(
        lambda weights: on_melanoma(weights) - on_benign(weights),
        kept["group"],
        independent=independent_pairs(kept["target"], kept["group"]),
    )


def by_class(measured: pd.DataFrame, thresholds: dict[str, float] | None = None) -> dict:
    """`localisation` of all photographs, of melanomas, of benign lesions, and the difference.

    A map may lie on one class and beside the other; the mean over both hides it.

    Args:
        measured: rows of `measure`.
        thresholds: of `choose_thresholds`.

    Returns:
        By "all", "melanoma" and "benign": what `localisation` gives for these photographs. By
        DIFFERENCE: for each map each of FIGURES as `class_gap` has it, with its interval. Each is
        empty where no photograph of its kind has a mask.
    """
    located = {"all": localisation(measured, thresholds)}
    for name, target in CLASSES.items():
        located[name] = localisation(measured[measured["target"] == target], thresholds)
    located[DIFFERENCE] = {}
    seen = measured.dropna(subset=["energy"])
    for name, rows in seen.groupby("map", sort=False):
        figures = {}
        for figure in FIGURES:
            figures.update(as_columns(figure, class_gap(rows, figure)))
        located[DIFFERENCE][name] = figures
    return located


def read_audit(folder: Path) -> dict:
    """The audit.json of a run's folder.

    Raises:
        FileNotFoundError: it is not there; notebook 06 makes it.
        ValueError: it is damaged, or of an edition whose figures are not by class.
    """
    return workspace.read_json(folder / "audit.json", "06_audit.ipynb", version=AUDIT_FORMAT)


def audits_beside(folder: Path) -> list[dict]:
    """The audit.json of a run, and of the runs beside it whose names begin with its own.

    A grid names its runs so. Only those count that were trained from the same settings and
    photographs with another seed, one of each seed, on whatever machine. One of an earlier edition
    is left out, and said to be.

    Args:
        folder: of the run.
    """

    def trained_from(audit: dict) -> dict:
        facts = audit.get("made_from") or {}
        return {name: value for name, value in facts.items() if name not in MAY_DIFFER}

    own = read_audit(folder)
    by_seed = {own.get("seed"): own}
    for path in sorted(folder.parent.glob(f"{glob.escape(folder.name)}*/audit.json")):
        try:
            audit = read_audit(path.parent)
        except ValueError as error:
            print("left out:", error)
            continue
        if trained_from(audit) == trained_from(own):
            by_seed.setdefault(audit.get("seed"), audit)
    return list(by_seed.values())


def over_seeds(audits: Sequence[dict], figure: str = "energy") -> pd.DataFrame:
    """How a figure of each map moves from training to training, beside what photographs explain.

    An interval over groups covers which photographs fell into the test split; it says nothing of
    training again. Where the seeds lie further apart than the interval is wide, one run's map is
    no property of the method.

    Args:
        audits: for each seed the content of audit.json, or what `by_class` gives.
        figure: one of FIGURES.

    Returns:
        By class (all, melanoma, benign, DIFFERENCE) and map: mean, smallest and largest over the
        seeds; low and high, the ends of one training's 95% interval over groups, on average over
        the seeds (NaN where one has none); seeds, how many have the figure.

    Raises:
        ValueError: there are none, or the figure is not one of FIGURES.

    >>> first = {"all": {"centre": {"energy": 0.2, "energy_low": 0.1, "energy_high": 0.3}}}
    >>> second = {"all": {"centre": {"energy": 0.4, "energy_low": 0.3, "energy_high": 0.5}}}
    >>> over_seeds([first, second]).round(2).loc[("all", "centre")].to_dict()
    {'mean': 0.3, 'smallest': 0.2, 'largest': 0.4, 'low': 0.2, 'high': 0.4, 'seeds': 2.0}
    """
    if not audits or figure not in FIGURES:
        raise ValueError(
            f"{len(audits)} audits and the figure {figure!r}: expected one audit or more, and a "
            f"figure of {', '.join(FIGURES)}"
        )
    ends = (figure, f"{figure}_low", f"{figure}_high")
    rows = []
    for audit in audits:
        for kind, maps in audit.get("localisation", audit).items():
            for name, figures in maps.items():
                rows.append([kind, name, *(figures[end] for end in ends)])
    table = pd.DataFrame(rows, columns=["class", "map", "value", "low", "high"])
    table = table.astype({"value": float, "low": float, "high": float}).dropna(subset=["value"])
    groups = table.groupby(["class", "map"], sort=False)
    summary = groups["value"].agg(["mean", "min", "max"])
    summary.columns = ["mean", "smallest", "largest"]
    for end in ("low", "high"):
        summary[end] = groups[end].agg(lambda column: column.mean(skipna=False))
    return summary.assign(seeds=groups.size())


def switches(
    audits: Sequence[dict],
    name: str = "attention_pool3",
    figure: str = "energy",
) -> pd.DataFrame:
    """On which class a map lies on the lesion more, in each seed.

    Where that is the same class in no two trainings, the place of the map is a habit of one
    network; where it is plain in each, the place tells the verdict.

    Args:
        audits: for each seed the content of audit.json, or what `by_class` gives.
        name: the map.
        figure: one of FIGURES.

    Returns:
        A row for each audit: seed (of audit.json, else its number), melanoma, benign, difference
        with low and high (its 95% interval over groups), and lies: "less on melanomas", "more on
        melanomas", "cannot be told", "too few to tell", or "not measured".
    """
    words = {
        "below": "less on melanomas",
        "above": "more on melanomas",
        "around": "cannot be told",
        "too few": "too few to tell",
    }
    rows = []
    for number, audit in enumerate(audits):
        located = audit.get("localisation", audit)
        row = {"seed": audit.get("seed", number)}
        for kind in CLASSES:
            row[kind] = located[kind].get(name, {}).get(figure)
        found = located[DIFFERENCE].get(name, {})
        row["difference"] = found.get(figure)
        row["low"] = found.get(f"{figure}_low")
        row["high"] = found.get(f"{figure}_high")
        gap = {end: np.nan if row[end] is None else row[end] for end in ("low", "high")}
        row["lies"] = "not measured" if row["difference"] is None else words[side(gap)]
        rows.append(row)
    return pd.DataFrame(rows).set_index("seed")
