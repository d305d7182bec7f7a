"""Does a map look at the lesion? For notebook 06: maps against masks on test photographs, and the tutorial's claims."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional

from helpers.audit.attribution import grad_cam
from helpers.model import AttnVGG
from helpers.scores.bootstrap import interval, mean
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
THRESHOLDS = tuple(
    step / 20 for step in range(20)
)  # of which validation chooses one; at 0 all is kept
SIGMA = 0.25  # of the centred Gaussian, in sides of the photograph
SHIFT = 0.6  # side of the shifted crops, in sides of the photograph
BOUNDS = ("value", "low", "high")
SAME = 1e-6  # what differs by less is equal: computers round


def overlap(maps: Tensor, masks: Tensor, thresholds: Sequence[float]) -> Tensor:
    """IoU of masks and of where maps, stretched from min to max, are at least each threshold: [N, thresholds].

    Maps and masks as in `localise`; a constant map is kept whole, an empty mask gives NaN.
    """
    maps, masks = maps.detach().cpu().double().flatten(1), masks.cpu().flatten(1) >= 0.5  # [N, H*W]
    low, high = maps.amin(dim=1, keepdim=True), maps.amax(dim=1, keepdim=True)
    above, spread = maps - low, torch.where(high - low <= SAME * high, 0.0, high - low)
    kept = [above >= threshold * spread for threshold in thresholds]
    found = torch.stack(
        [(one & masks).sum(dim=1).double() / (one | masks).sum(dim=1) for one in kept], dim=1
    )
    return torch.where(masks.any(dim=1, keepdim=True), found, torch.nan)


def localise(maps: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """FIGURES of maps [N, 1, H, W], 0 or more, on masks [N, 1, H, W] (lesion where at least 0.5), each float64 [N].

    hits: share of the map's (tied) maxima in the mask (the pointing game of Zhang et al., ECCV 2016). energy: share of
    its sum in the mask. iou: of the mask and where the map is at least half way from its min to its max (Yan et al.,
    IPMI 2019). concentration: the smallest share of the area that holds half of its sum. pixel_auc: share of the pairs
    of a pixel inside and one outside where that inside has the larger value, ties half. A constant map, zeros too,
    counts as ones. On an empty mask all but concentration are NaN, without an outside pixel_auc is. Raises ValueError
    for other shapes or values.
    """
    if maps.shape != masks.shape or not (maps >= 0).all():
        raise ValueError(
            f"maps {list(maps.shape)}, masks {list(masks.shape)}: expected one shape, maps of 0 or more"
        )
    iou = overlap(maps, masks, [0.5])[:, 0]
    maps, masks = (
        maps.detach().cpu().double().flatten(1),
        (masks.cpu().flatten(1) >= 0.5).double(),
    )  # [N, H*W]
    masks[masks.sum(dim=1) == 0] = torch.nan
    high = maps.amax(dim=1, keepdim=True)
    constant = high - maps.amin(dim=1, keepdim=True) <= SAME * high
    maps, high = (torch.where(constant, 1.0, values) for values in (maps, high))
    maxima, inside, total = (maps >= (1 - SAME) * high).double(), masks.sum(dim=1), maps.sum(dim=1)
    ranked = maps.sort(dim=1, descending=True).values
    missing = total[:, None] / 2 - (ranked.cumsum(dim=1) - ranked)  # of the half, before each pixel
    ranks = (torch.from_numpy(rankdata(maps.numpy(), axis=1)) * masks).sum(
        dim=1
    )  # ties share theirs
    return {
        "hits": (maxima * masks).sum(dim=1) / maxima.sum(dim=1),
        "energy": (maps * masks).sum(dim=1) / total,
        "iou": iou,
        "concentration": torch.where(ranked > 0, (missing / ranked).clamp(0, 1), 0.0).mean(dim=1),
        "pixel_auc": (ranks - inside * (inside + 1) / 2) / (inside * (maps.shape[1] - inside)),
    }


def centre(size: tuple[int, int]) -> Tensor:
    """A centred Gaussian, [1, 1, H, W], of standard deviation SIGMA of the height and of the width."""
    y, x = (torch.exp(-(((torch.arange(n) + 0.5) / n - 0.5) ** 2) / (2 * SIGMA**2)) for n in size)
    return torch.outer(y, x)[None, None]


def sobel(images: Tensor, config: dict) -> Tensor:
    """Edges: the length of Sobel's gradient of the grey photographs, images [B, 3, H, W] -> [B, 1, H, W]."""
    grey = denormalise(images, mean=config["mean"], std=config["std"]) @ np.array(LUMA)  # [B, H, W]
    return torch.from_numpy(
        np.stack(
            [
                np.hypot(cv2.Sobel(one, cv2.CV_64F, 1, 0), cv2.Sobel(one, cv2.CV_64F, 0, 1))
                for one in grey
            ]
        )
    )[:, None]


def dark(images: Tensor, config: dict) -> Tensor:
    """`otsu`'s guess at the lesion, images [B, 3, H, W] -> [B, 1, H, W], 0 or 1."""
    shown = (
        (255 * denormalise(images, mean=config["mean"], std=config["std"])).round().astype(np.uint8)
    )
    return torch.from_numpy(np.stack([batches.otsu(one) for one in shown]))[:, None] / 255


def untrained(network: AttnVGG, seed: int = 0) -> AttnVGG:
    """A network of the same shape as `AttnVGG` starts without pretrained weights, on the same device."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = AttnVGG(attention=network.attention)
    return fresh.to(network.classifier.weight.device, memory_format=torch.channels_last).eval()


def maps_of(network: AttnVGG, images: Tensor) -> dict[str, Tensor]:
    """Every map by name, [B or 1, 1, h, w], each in its own size and scale; attention's only where there is any."""
    cam, output = grad_cam(network, images)
    maps = {
        "attention_pool3": output.pool3_map,
        "attention_pool4": output.pool4_map,
        "grad_cam": cam,
        "centre": centre(images.shape[-2:]),
        "uniform": torch.ones(1, 1, *images.shape[-2:]),
    }
    return {name: grid for name, grid in maps.items() if grid is not None}


@torch.no_grad()
def unlearned(stranger: AttnVGG, images: Tensor, config: dict) -> dict[str, Tensor]:
    """Maps that see the photograph and have learned nothing: edges, dark parts, attention of an `untrained` network."""
    output = stranger(images)
    maps = {
        "sobel": sobel(images, config),
        "otsu": dark(images, config),
        "random_pool3": output.pool3_map,
        "random_pool4": output.pool4_map,
    }
    return {name: grid for name, grid in maps.items() if grid is not None}


def shifted(count: int, seed: int = 0) -> Draws:
    """Crops of SHIFT of the side, each in a corner of its photograph, so that no lesion is central by habit."""
    draws = draw(
        count, Augmentation(view=(SHIFT, SHIFT), shift=True), torch.Generator().manual_seed(seed)
    )
    draws.geometry[:, :, 2] = (1 - SHIFT) * draws.geometry[
        :, :, 2
    ].sign()  # from anywhere to the corner
    return draws


def measure(
    look: Callable[[Tensor], dict[str, Tensor]],
    photographs: Photographs,
    used: pd.DataFrame,
    config: dict,
    *,
    rows: np.ndarray,
    draws: Draws | None = None,
    batch_size: int = 32,
) -> pd.DataFrame:
    """One row for each map of `look(images)`, such as `maps_of`, and each of these rows of `used` (`train.used_rows`).

    Columns: row, group, target, map, FIGURES, iou_0.00 ... (of THRESHOLDS), mean (of the map in its own size and
    scale), zero (nothing is above 0). Where a photograph has no mask, or cropping left none of it, the figures that
    need one are NaN. draws: seen through these, one a row, not as in evaluation.
    """
    draws, parts = draws or plain(len(rows), config["view"]), []
    for start in range(0, len(rows), batch_size):
        batch, seen = (
            rows[start : start + batch_size],
            Draws(*(one[start : start + batch_size] for one in draws)),
        )
        pixels, masks = photographs.take(batch)
        images = transform(
            pixels, seen, config["image_size"], mean=config["mean"], std=config["std"]
        )
        masks = torch.zeros(len(batch), *pixels.shape[1:3]) if masks is None else masks
        masks = warp_masks(masks, seen, config["image_size"]).cpu()  # [B, 1, S, S]
        for name, maps in look(images).items():
            maps = maps.cpu().expand(len(batch), -1, -1, -1)  # [B, 1, h, w]
            large = functional.interpolate(
                maps, size=masks.shape[-2:], mode="bilinear", align_corners=False
            )
            figures = localise(large, masks) | {
                "mean": maps.mean(dim=(1, 2, 3)),
                "zero": maps.amax(dim=(1, 2, 3)) <= 0,
            }
            figures |= dict(
                zip(
                    map("iou_{:.2f}".format, THRESHOLDS),
                    overlap(large, masks, THRESHOLDS).T,
                    strict=True,
                )
            )
            parts.append(
                used.loc[batch, ["group", "target"]].assign(
                    row=batch,
                    map=name,
                    **{figure: values.numpy() for figure, values in figures.items()},
                )
            )
    return pd.concat(parts, ignore_index=True)


def choose_thresholds(validation: pd.DataFrame) -> dict[str, float]:
    """For each map the one of THRESHOLDS with the largest mean IoU in rows of `measure`; the lowest, where tied."""
    means = (
        validation.groupby("map")[[f"iou_{threshold:.2f}" for threshold in THRESHOLDS]]
        .mean()
        .dropna()
    )
    return {
        name: THRESHOLDS[int(row.argmax())]
        for name, row in zip(means.index, means.to_numpy(), strict=True)
    }


def paired(measured: pd.DataFrame, figure: str, first: str, second: str) -> dict | None:
    """`interval` of a figure of one map less that of another on the same photographs; None where there are none."""
    wide = measured.pivot(index=["row", "group"], columns="map", values=figure)
    wide = wide.reindex(columns=[first, second]).dropna().reset_index()
    return interval(mean(wide[first] - wide[second]), wide["group"]) if len(wide) else None


def localisation(measured: pd.DataFrame, thresholds: dict[str, float] | None = None) -> dict:
    """`localisation` of audit.json: by map, over the photographs with a mask, n, zero, and each figure's mean.

    Also its 95% interval, `<figure>_low` and `<figure>_high`. With `choose_thresholds`' thresholds: threshold, and
    iou_best as a figure. Empty where no photograph has a mask.
    """
    found, thresholds = {}, thresholds or {}
    for name, rows in measured.dropna(subset=["energy"]).groupby("map", sort=False):
        found[name] = {"n": len(rows), "zero": int(rows["zero"].sum())}
        values = {
            figure: rows[figure].dropna() for figure in FIGURES
        }  # without an outside one is NaN
        if name in thresholds:
            found[name]["threshold"] = thresholds[name]
            values["iou_best"] = rows[f"iou_{thresholds[name]:.2f}"]
        for figure, one in values.items():
            one = (
                interval(mean(one), rows.loc[one.index, "group"])
                if len(one)
                else dict.fromkeys(BOUNDS)
            )
            found[name] |= {
                figure: one["value"],
                f"{figure}_low": one["low"],
                f"{figure}_high": one["high"],
            }
    return found
