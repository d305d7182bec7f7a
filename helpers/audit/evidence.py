"""Does the network use its attention? For notebook deeper/does_it_use_its_attention: change maps, pixels and weights.

That a map lies on the lesion (notebook 06) does not show that the answer rests on it. Here something is changed that
the answer should rest on, and the answer is watched. Maps are [N, 1, h, w], each in its own size and scale.
"""

import copy
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from helpers.audit import attribution, localisation
from helpers.model import AttnVGG
from helpers.scores import bootstrap
from helpers.training.batches import Photographs

CHANGES = ("uniform", "another's", "reversed", "mask")
BLOCKS = {
    "pool-3": ("pool3",),
    "pool-4": ("pool4",),
    "both": ("pool3", "pool4"),
}  # whose map is replaced
STAGES = {
    "classifier": ("classifier.",),
    "attention": ("attention3.", "attention4."),
    **{
        f"block {number}": tuple(f"backbone.{layer}." for layer in layers)
        for number, layers in (
            (5, range(34, 43)),
            (4, range(24, 33)),
            (3, range(14, 23)),
            (2, range(7, 13)),
            (1, range(6)),
        )
    },
}


class Evidence(NamedTuple):
    """Logits taken apart. Each is linear in the maps: `rest` + the sum of map * value over all positions of both.

    values: what a position adds to the logit where its map is 1. rest: what does not pass through attention (pool-5's
    part and the bias), [N]. masks: [N, 1, H, W], 0 to 1, or None. All float32, on the CPU.
    """

    maps: dict[str, Tensor]  # attention; "pool3": [N, 1, H/8, W/8], "pool4": [N, 1, H/16, W/16]
    values: dict[str, Tensor]  # the same
    rest: Tensor
    masks: Tensor | None


def evidence(
    network: AttnVGG,
    photographs: Photographs,
    rows: np.ndarray,
    config: dict,
    *,
    batch_size: int = 32,
) -> Evidence:
    """`Evidence` of these rows of the cache; values are the logits' gradients by the maps. ValueError without maps."""
    if network.attention == "none":
        raise ValueError(
            "attention is 'none', expected 'softmax' or 'sigmoid': there is no map to change"
        )
    weights = {
        name: value.detach().requires_grad_(".score." in name)  # no graph below the maps
        for name, value in network.eval().named_parameters()
    }
    parts = []
    for batch in np.split(rows, range(batch_size, len(rows), batch_size)):
        images, masks = photographs.evaluation(batch, config)
        logits, *maps = functional_call(network, weights, (images,))
        values = torch.autograd.grad(logits.sum(), maps)
        parts.append([*maps, *values, masks, logits.squeeze(1)])
    map3, map4, value3, value4, masks, logits = (
        None if one[0] is None else torch.cat(one).detach().cpu()
        for one in zip(*parts, strict=True)
    )
    found = Evidence(
        {"pool3": map3, "pool4": map4}, {"pool3": value3, "pool4": value4}, torch.zeros(1), masks
    )
    return found._replace(rest=logits - logits_of(found))


def logits_of(found: Evidence, maps: dict[str, Tensor] | None = None) -> Tensor:
    """Logits [N] with these maps in place of the network's own (those not given stay)."""
    maps = found.maps | (maps or {})
    return found.rest + sum(
        (maps[name] * values).sum(dim=(1, 2, 3)) for name, values in found.values.items()
    )


def strangers(groups: np.ndarray) -> np.ndarray:
    """For each photograph the number of one of another group, each taken once: [N]. ValueError where there is none."""
    order, largest = (
        np.argsort(np.asarray(groups), kind="stable"),
        int(pd.Series(groups).value_counts().max()),
    )
    if 2 * largest > len(order):
        raise ValueError(
            f"{largest} of {len(order)} photographs are of one group: expected at most half"
        )
    return np.roll(order, largest)[
        order.argsort()
    ]  # sorted by group, so large a step leaves every group


def replace(
    change: str, maps: Tensor, *, groups: np.ndarray, masks: Tensor | None = None
) -> Tensor:
    """Maps [N, 1, h, w] changed, each with the sum that it had.

    uniform: one value everywhere. another's: of a photograph of another group. reversed: the same values, the largest
    where the smallest was. mask: the lesion's share of each cell; NaN where there is no lesion to see.
    """
    if change == "uniform":
        return maps.mean(dim=(2, 3), keepdim=True).expand_as(maps)
    if change == "reversed":
        flat = maps.flatten(1)  # [N, h*w]
        ranked = flat.sort(dim=1, stable=True)
        return (
            torch.empty_like(flat).scatter(1, ranked.indices, ranked.values.flip(1)).view_as(maps)
        )
    if change == "another's":
        new = maps[torch.from_numpy(strangers(groups))]
    elif change == "mask":
        new = (
            functional.adaptive_avg_pool2d(masks, maps.shape[-2:])
            if masks is not None
            else maps * torch.nan
        )
    else:
        raise ValueError(f"change is one of {', '.join(CHANGES)}, not {change!r}")
    return new * (maps.sum(dim=(2, 3), keepdim=True) / new.sum(dim=(2, 3), keepdim=True))


def interventions(table: pd.DataFrame, found: Evidence) -> pd.DataFrame:
    """What each of CHANGES in each of BLOCKS does to the test AUC, with 95% intervals over groups.

    table: the test photographs: image_id, split, group, target. value: AUC with the changed map less that with the
    network's own. moved: how far a logit goes, in standard deviations of the logits. Not measurable: left out.
    """
    own, rows = logits_of(found), []
    for block, names in BLOCKS.items():
        for change in CHANGES:
            new = logits_of(
                found,
                {
                    name: replace(
                        change, found.maps[name], groups=table["group"], masks=found.masks
                    )
                    for name in names
                },
            )
            first, second = (
                table.assign(logit=one.numpy())[new.isfinite().numpy()] for one in (new, own)
            )
            if gap := bootstrap.auc_difference(first, second):
                moved = (new - own).abs().nanmean() / own.std()
                rows.append({"block": block, "change": change, **gap, "moved": moved.item()})
    return pd.DataFrame(rows)


def ranking(maps: Tensor, size: tuple[int, int], *, seed: int = 0) -> Tensor:
    """Pixels of each photograph, those where the map is largest first: numbers [N, H*W]. Ties in random order."""
    flat = functional.interpolate(maps, size=size, mode="bilinear", align_corners=False).flatten(1)
    mixed = (
        torch.rand(flat.shape, generator=torch.Generator().manual_seed(seed))
        .argsort(dim=1)
        .to(flat.device)
    )
    return mixed.gather(1, flat.gather(1, mixed).argsort(dim=1, descending=True, stable=True))


@torch.no_grad()
def curves(
    network: AttnVGG, images: Tensor, maps: Tensor, *, steps: int = 8, seed: int = 0
) -> dict[str, Tensor]:
    """Deletion and insertion (Petsiuk et al., BMVC 2018) of pixels ranked by maps: each [N, steps + 1] on the CPU.

    Entry k: the probability of the answer that the network gives to the whole photograph, with k / steps of its pixels
    hidden (deletion) or shown (insertion), the highest ranked first. What is hidden has the photograph's mean colour.
    """
    N, _, H, W = images.shape
    fill, order = images.mean(dim=(2, 3), keepdim=True), ranking(maps, (H, W), seed=seed)
    place = order.argsort(dim=1).view(N, 1, H, W)  # 0: ranked first
    cuts = [round(step * H * W / steps) for step in range(steps + 1)]
    hidden = {
        "deletion": [place < cut for cut in cuts],
        "insertion": [place >= cut for cut in cuts],
    }
    answers = {
        name: torch.cat(
            [network.eval()(torch.where(where, fill, images)).logits for where in wheres], dim=1
        )
        for name, wheres in hidden.items()
    }  # [N, steps + 1]
    sign = torch.where(answers["deletion"][:, :1] > 0, 1.0, -1.0)  # of the whole photograph
    return {name: (sign * logits).sigmoid().cpu() for name, logits in answers.items()}


def views(images: Tensor, masks: Tensor, config: dict) -> dict[str, Tensor]:
    """Normalised images [N, 3, H, W] whole, and with the lesion (masks [N, 1, H, W], 0 to 1), or all else, hidden.

    Filled with black, as Bissoto et al. (CVPR workshops 2019) do, or with the mean colour of what is not the lesion.
    """
    lesion = masks >= 0.5
    mean, std = (
        torch.tensor(config[name], device=images.device).view(1, 3, 1, 1)
        for name in ("mean", "std")
    )
    skin = (images * ~lesion).sum(dim=(2, 3), keepdim=True) / (~lesion).sum(
        dim=(2, 3), keepdim=True
    ).clamp(min=1)
    return {
        "whole": images,
        **{
            f"no {name}, {colour}": torch.where(where, fill, images)
            for name, where in (("lesion", lesion), ("background", ~lesion))
            for colour, fill in (("black", -mean / std), ("skin", skin))
        },
    }


@torch.no_grad()
def hidden(
    network: AttnVGG,
    photographs: Photographs,
    rows: np.ndarray,
    config: dict,
    *,
    batch_size: int = 64,
) -> pd.DataFrame:
    """Logits of the `views` of these rows of the cache, a column each; NaN where there is no lesion to see."""
    parts = []
    for batch in np.split(rows, range(batch_size, len(rows), batch_size)):
        images, masks = photographs.evaluation(batch, config)
        seen = torch.where((masks >= 0.5).flatten(1).any(dim=1), 0.0, torch.nan)  # [B]
        parts.append(
            pd.DataFrame(
                {
                    name: (network.eval()(view).logits.squeeze(1) + seen).cpu().numpy()
                    for name, view in views(images, masks, config).items()
                },
                index=batch,
            )
        )
    return pd.concat(parts)


def cascade(network: AttnVGG, *, seed: int = 0) -> Iterator[tuple[str, AttnVGG]]:
    """The network, then with more and more of it untrained, from the classifier down (Adebayo et al., NeurIPS 2018).

    Yields the stage (STAGES) and a copy, which the next stage changes further. Untrained is as `AttnVGG` starts.
    """
    fresh, network = (
        localisation.untrained(network, seed).state_dict(),
        copy.deepcopy(network).eval(),
    )
    yield "trained", network
    for stage, prefixes in STAGES.items():
        state = network.state_dict()
        network.load_state_dict(
            state | {name: value for name, value in fresh.items() if name.startswith(prefixes)}
        )
        yield stage, network


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation of each map with the other, [N]; 0 where one of them is constant, 1 where both."""
    first, second = (
        torch.from_numpy(rankdata(maps.detach().cpu().flatten(1), axis=1))
        for maps in (first, second)
    )
    first, second = (
        functional.normalize(ranks - ranks.mean(dim=1, keepdim=True), dim=1)
        for ranks in (first, second)
    )
    constant = (first == 0).all(dim=1) & (second == 0).all(dim=1)
    return torch.where(constant, 1.0, (first * second).sum(dim=1))


def turn(images: Tensor, number: int, *, back: bool = False) -> Tensor:
    """One of the eight turns of a square [..., H, W]: quarters number % 4, flipped left to right first from 4 on."""
    flip, quarters, sides = (-1,) if number >= 4 else (), number % 4, (-2, -1)
    return (
        images.rot90(-quarters, sides).flip(flip)
        if back
        else images.flip(flip).rot90(quarters, sides)
    )


def turned(network: AttnVGG, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Maps of the eight turns of images [N, 3, S, S], each turned back: [8, N, 1, h, w]; and logits [8, N]."""
    found = [attribution.grad_cam(network, turn(images, number)) for number in range(8)]
    maps = {
        "attention_pool3": [output.pool3_map for _, output in found],
        "attention_pool4": [output.pool4_map for _, output in found],
        "grad_cam": [cam for cam, _ in found],
    }
    maps = {
        name: torch.stack([turn(grid, number, back=True) for number, grid in enumerate(grids)])
        for name, grids in maps.items()
    }
    return maps, torch.stack([output.logits.squeeze(1) for _, output in found])
