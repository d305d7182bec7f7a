"""What is the answer made of? Take it apart; then change what it should rest on, and watch it.

That a map lies on the lesion (notebook 06) does not show that the answer rests on it. Notebook 07
takes the logit apart (`take_apart`, `contribution_maps`, `variance_shares`) and changes what the
answer should rest on: the maps (`interventions`), the pixels (`curves`, `hidden`), the borders
(`padded`), the weights (`cascade`), the photograph's turn (`turned`). Maps are [N, 1, h, w], each
in its own size and scale.
"""

import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional

from helpers import workspace
from helpers.audit import attribution, localisation
from helpers.model import AttnVGG
from helpers.pictures.maps import upsample
from helpers.scores import bootstrap
from helpers.training.batches import Photographs

CHANGES = ("uniform", "another's", "reversed", "lesion", "outside")
# whose map is replaced
BLOCKS = {
    "pool-3": ("pool3",),
    "pool-4": ("pool4",),
    "both": ("pool3", "pool4"),
}
VIEWS = (
    "whole",
    "no lesion, black",
    "no lesion, skin",
    "no background, black",
    "no background, skin",
)
# of `cascade`: how the names of a stage's weights start; in the backbone, the layers that have any
STAGES = {
    "classifier": ("classifier.",),
    "attention": ("attention3.", "attention4."),
    "block 5": tuple(f"backbone.{layer}." for layer in (34, 35, 37, 38, 40, 41)),
    "block 4": tuple(f"backbone.{layer}." for layer in (24, 25, 27, 28, 30, 31)),
    "block 3": tuple(f"backbone.{layer}." for layer in (14, 15, 17, 18, 20, 21)),
    "block 2": tuple(f"backbone.{layer}." for layer in (7, 8, 10, 11)),
    "block 1": tuple(f"backbone.{layer}." for layer in (0, 1, 3, 4)),
}


class Contributions(NamedTuple):
    """Logits taken apart: the sum of map * value over all positions of both maps, and `rest`.

    All float32, on the CPU.
    """

    # attention, as the share that each position has in its vector (`AttentionBlock.shares`);
    # "pool3": [N, 1, H/8, W/8], "pool4": [N, 1, H/16, W/16]
    maps: dict[str, Tensor]
    values: dict[str, Tensor]  # the same; what a position adds to the logit where its share is 1
    pool5: Tensor  # [N, 1, H/32, W/32], what each position of pool-5 adds to the logit
    bias: float  # the classifier's
    masks: Tensor | None  # [N, 1, H, W], 0 to 1

    @property
    def rest(self) -> Tensor:
        """What does not pass through attention, [N]: pool-5's part and the bias."""
        return self.pool5.sum(dim=(1, 2, 3)) + self.bias

    def signed(self) -> dict[str, Tensor]:
        """The three maps of what each position adds to the logit: with the bias they sum to it."""
        through_maps = {name: self.maps[name] * self.values[name] for name in self.maps}
        return through_maps | {"pool5": self.pool5}

    def total(self) -> Tensor:
        """The three signed maps added up at pool-3's resolution, [N, 1, H/8, W/8].

        Each is enlarged bilinearly and divided by how many cells of pool-3 one of its own covers,
        so that it keeps its sum; with the bias the total sums to the logit as the three do.
        """
        size = self.maps["pool3"].shape[-2:]
        total = torch.zeros_like(self.maps["pool3"])
        for grid in self.signed().values():
            large = upsample(grid, size)
            total += large * (grid[0].numel() / large[0].numel())
        return total


def batches_of(rows: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Rows of the cache, at most batch_size at a time. ValueError where there are none."""
    if len(rows) == 0:
        raise ValueError("rows is empty: expected the numbers of one or more rows of the cache")
    return np.split(rows, range(batch_size, len(rows), batch_size))


@torch.no_grad()
def take_apart(
    network: AttnVGG,
    photographs: Photographs,
    rows: np.ndarray,
    config: dict,
    *,
    batch_size: int = 32,
) -> Contributions:
    """The network's logits as what each position of pool-3, pool-4 and pool-5 adds to them.

    The classifier is linear, and so is each vector in its local features: a position adds its share
    of attention times its features' product with the classifier's weights. Pool-5's part is a class
    activation map (Zhou et al., CVPR 2016).

    Args:
        network: of one logit; is put in evaluation mode. Without attention each position has the
            same share.
        photographs: the cache.
        rows: those to take apart.
        config: of the network: image_size, view, mean, std.
        batch_size: photographs at a time.

    Raises:
        ValueError: for a network of several logits; where there are no rows.
    """
    network.eval()
    pieces = []
    masks = []
    for batch in workspace.progress("taken apart", batches_of(rows, batch_size)):
        images, batch_masks = photographs.evaluation(batch, config)
        pieces.append(take_images_apart(network, images))
        if batch_masks is not None:
            masks.append(batch_masks.cpu())
    names = ("pool3", "pool4")
    return Contributions(
        maps={name: torch.cat([piece.maps[name] for piece in pieces]) for name in names},
        values={name: torch.cat([piece.values[name] for piece in pieces]) for name in names},
        pool5=torch.cat([piece.pool5 for piece in pieces]),
        bias=pieces[0].bias,
        masks=torch.cat(masks) if masks else None,
    )


@torch.no_grad()
def take_images_apart(network: AttnVGG, images: Tensor) -> Contributions:
    """`take_apart` of normalised images [N, 3, H, W], of which no masks are known."""
    weight = network.classifier.weight  # [1, 1280], or [1, 768] without the bypass
    if len(weight) != 1:
        raise ValueError(f"expected a network of one logit, not {len(weight)}")
    pool3, pool4, pool5 = (features.float() for features in network.pools(images))
    widths = [len(features[0]) for features in (pool5, pool3, pool4)]
    if network.bypass:
        of_pool5, of_pool3, of_pool4 = weight.split(widths, dim=1)  # [1, C] each
        added = product(of_pool5, pool5) / pool5[0, 0].numel()  # of its plain mean
    else:
        of_pool3, of_pool4 = weight.split(widths[1:], dim=1)
        added = torch.zeros_like(pool5[:, :1])
    if network.attention == "none":  # plain means
        shares3 = torch.full_like(pool3[:, :1], 1 / pool3[0, 0].numel())
        shares4 = torch.full_like(pool4[:, :1], 1 / pool4[0, 0].numel())
    else:
        shares3 = network.attention3.shares(network.attention3(pool3, pool5)[0])
        shares4 = network.attention4.shares(network.attention4(pool4, pool5)[0])
    return Contributions(
        maps={"pool3": shares3.cpu(), "pool4": shares4.cpu()},
        values={"pool3": product(of_pool3, pool3).cpu(), "pool4": product(of_pool4, pool4).cpu()},
        pool5=added.cpu(),
        bias=network.classifier.bias.item(),
        masks=None,
    )


def contribution_maps(
    network: AttnVGG,
    images: Tensor,
    *,
    threshold: float = 0.0,
) -> dict[str, Tensor]:
    """What each position adds to the call that was made, as maps to be measured beside others.

    Args:
        network: of one logit; is put in evaluation mode.
        images: [B, 3, H, W], normalised.
        threshold: of `attribution.logit_threshold`; a logit from here on is called melanoma.

    Returns:
        contribution_pool3 [B, 1, H/8, W/8], contribution_pool4 [B, 1, H/16, W/16],
        contribution_pool5 [B, 1, H/32, W/32] (where the classifier sees pool-5), and
        contribution_sum, all three at pool-3's resolution. Above 0 is what speaks for the call,
        below 0 what speaks against it. On the CPU.

    Raises:
        ValueError: for a network of several logits.
    """
    parts = take_images_apart(network.eval(), images)
    side = attribution.side(logits_of(parts)[:, None], threshold)  # [B, 1, 1, 1]
    maps = {f"contribution_{name}": side * grid for name, grid in parts.signed().items()}
    if not network.bypass:
        del maps["contribution_pool5"]
    return maps | {"contribution_sum": side * parts.total()}


def variance_shares(parts: Contributions, groups: pd.Series) -> dict[str, dict | None]:
    """How much of the logit's variance over photographs comes through each pool.

    A pool's share is the covariance of what it adds with the logit, over the logit's variance. The
    three sum to 1; one may be below 0 or above 1, where pools work against each other.

    Args:
        parts: of `take_apart`.
        groups: [N], of patients or lesions.

    Returns:
        pool3, pool4 and pool5, each value, low, high, n: the share with its 95% interval over
        groups (NaN where they are too few); None where all logits are equal.
    """
    logits = logits_of(parts).double()
    logits = (logits - logits.mean()).numpy()
    shares = {}
    for name, grid in parts.signed().items():
        added = grid.double().sum(dim=(1, 2, 3)).numpy()
        shares[name] = bootstrap.interval(share_of_variance(added, logits), groups)
    return shares


def share_of_variance(part: np.ndarray, whole: np.ndarray) -> Callable:
    """cov(part, whole) / var(whole) of [N] and [N], as a statistic for `bootstrap.interval`."""
    columns = np.stack([part, whole, part * whole, whole * whole], axis=1)  # [N, 4]

    def statistic(weights: np.ndarray) -> np.ndarray:
        means = (weights @ columns / weights.sum(axis=1, keepdims=True)).T  # [4, draws]
        covariance = means[2] - means[0] * means[1]
        variance = means[3] - means[1] ** 2
        return np.divide(
            covariance, variance, out=np.full_like(variance, np.nan), where=variance > 0
        )

    return statistic


def product(weight: Tensor, features: Tensor) -> Tensor:
    """Of each position: weights [1, C] times features [N, C, h, w], summed over C: [N, 1, h, w].

    Not by a convolution: on a GPU that would round to ten bits.
    """
    return (weight[:, :, None, None] * features).sum(dim=1, keepdim=True)


def logits_of(parts: Contributions, maps: dict[str, Tensor] | None = None) -> Tensor:
    """Logits [N] with other maps in place of the network's own.

    Args:
        parts: of `take_apart`.
        maps: by name as in `parts.maps`, of the same shapes; those not given stay.

    >>> grid = {"pool4": torch.tensor([[[[0.75, 0.25]]]])}
    >>> value = {"pool4": torch.tensor([[[[2.0, -4.0]]]])}
    >>> parts = Contributions(grid, value, torch.zeros(1, 1, 1, 1), bias=1.0, masks=None)
    >>> logits_of(parts).tolist()  # 1 + 0.75 * 2 - 0.25 * 4
    [1.5]
    >>> logits_of(parts, {"pool4": torch.tensor([[[[0.5, 0.5]]]])}).tolist()
    [0.0]
    """
    used = parts.maps | (maps or {})
    logits = parts.rest
    for name, values in parts.values.items():
        logits = logits + (used[name] * values).sum(dim=(1, 2, 3))
    return logits


def donors(groups: np.ndarray) -> np.ndarray:
    """For each photograph one of another group, each taken once.

    Args:
        groups: [N], of patients or lesions.

    Returns:
        Their numbers, [N].

    Raises:
        ValueError: where more than half are of one group, so that it cannot be.

    >>> donors(np.array(["a", "a", "b", "b", "c"])).tolist()
    [3, 4, 0, 1, 2]
    """
    order = np.argsort(np.asarray(groups), kind="stable")
    largest = int(pd.Series(groups).value_counts().max())
    if 2 * largest > len(order):
        raise ValueError(
            f"{largest} of {len(order)} photographs are of one group: expected at most half"
        )
    # sorted by group, so large a step leaves every group
    return np.roll(order, largest)[order.argsort()]


def replace(
    change: str,
    maps: Tensor,
    *,
    groups: np.ndarray,
    masks: Tensor | None = None,
) -> Tensor:
    """Changed maps, each with the sum that it had.

    Args:
        change: one of CHANGES. uniform: one value everywhere. another's: of a photograph of
            another group. reversed: the same values, the largest where the smallest was. lesion:
            the lesion's share of each cell. outside: the share of all else.
        maps: [N, 1, h, w].
        groups: [N], of patients or lesions.
        masks: [N, 1, H, W], 0 to 1.

    Returns:
        [N, 1, h, w]; NaN where the mask shows nothing to look at, and without masks.

    Raises:
        ValueError: for another change; where more than half are of one group.
    """
    if change == "uniform":
        return maps.mean(dim=(2, 3), keepdim=True).expand_as(maps)
    if change == "reversed":
        flat = maps.flatten(1)  # [N, h*w]
        ranked = flat.sort(dim=1, stable=True)
        turned_over = torch.empty_like(flat).scatter(1, ranked.indices, ranked.values.flip(1))
        return turned_over.view_as(maps)
    if change == "another's":
        new = maps[torch.from_numpy(donors(groups))]
    elif change not in CHANGES:
        raise ValueError(f"change is one of {', '.join(CHANGES)}, not {change!r}")
    elif masks is None:
        return torch.full_like(maps, torch.nan)
    else:
        lesion = functional.adaptive_avg_pool2d(masks, maps.shape[-2:])
        new = lesion if change == "lesion" else 1 - lesion
    return new * (maps.sum(dim=(2, 3), keepdim=True) / new.sum(dim=(2, 3), keepdim=True))


def interventions(table: pd.DataFrame, parts: Contributions) -> pd.DataFrame:
    """What each of CHANGES in each of BLOCKS does to the test AUC.

    Args:
        table: the test photographs, in the order of `parts`: image_id, split, group, target.
        parts: of `take_apart`.

    Returns:
        A row each: block, change; value, the AUC with the changed map less that with the
        network's own, with low and high, its 95% interval over groups (NaN where those of a class
        are too few), and n; moved, how far a logit goes, in standard deviations of the logits.
        What cannot be measured is left out: "lesion" and "outside" without masks, and "another's"
        where more than half of the photographs are of one group.
    """
    own = logits_of(parts)
    changes = list(CHANGES)
    if 2 * table["group"].value_counts().max() > len(table):
        changes.remove("another's")
    rows = []
    for block, names in BLOCKS.items():
        for change in changes:
            maps = {}
            for name in names:
                maps[name] = replace(
                    change, parts.maps[name], groups=table["group"], masks=parts.masks
                )
            new = logits_of(parts, maps)
            measurable = new.isfinite().numpy()  # a mask may show no lesion
            gap = bootstrap.auc_difference(
                table.assign(logit=new.numpy())[measurable],
                table.assign(logit=own.numpy())[measurable],
            )
            if gap is None:
                continue
            moved = (new - own).abs().nanmean() / own.std()
            rows.append({"block": block, "change": change, **gap, "moved": moved.item()})
    return pd.DataFrame(rows)


def ranking(maps: Tensor, size: tuple[int, int], *, seed: int = 0) -> Tensor:
    """The pixels of each photograph, those where its map is largest first, ties in random order.

    Args:
        maps: [N, 1, h, w].
        size: (H, W) of the photographs; the maps are enlarged to it.
        seed: of the ties.

    Returns:
        Numbers of pixels, row by row, [N, H*W].
    """
    flat = upsample(maps, size).flatten(1)
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.rand(flat.shape, generator=generator).argsort(dim=1).to(flat.device)
    # a stable sort of mixed pixels leaves equal ones as they were mixed
    order = flat.gather(1, mixed).argsort(dim=1, descending=True, stable=True)
    return mixed.gather(1, order)


@torch.no_grad()
def curves(
    network: AttnVGG,
    images: Tensor,
    maps: Tensor,
    *,
    steps: int = 8,
    seed: int = 0,
    threshold: float = 0.0,
) -> dict[str, Tensor]:
    """Deletion and insertion of pixels ranked by maps (Petsiuk et al., "RISE", BMVC 2018).

    Args:
        network: is put in evaluation mode.
        images: [N, 3, H, W], normalised.
        maps: [N, 1, h, w].
        steps: from none of the pixels to all.
        seed: of ties in a map.
        threshold: of `attribution.logit_threshold`; a logit from here on is called melanoma.

    Returns:
        deletion and insertion, each [N, steps + 1] on the CPU. Entry k says how far the network
        holds to the call that it makes of the whole photograph, with k / steps of its pixels hidden
        (deletion) or shown (insertion), the highest ranked first: the sigmoid of the logit's
        distance from the threshold, on the side of that call. Below 0.5 the call is the other one.
        What is hidden has the photograph's mean colour.
    """
    network.eval()
    N, _, H, W = images.shape
    mean_colour = images.mean(dim=(2, 3), keepdim=True)
    maps = maps.to(images.device)
    rank = ranking(maps, (H, W), seed=seed).argsort(dim=1).view(N, 1, H, W)  # 0: ranked first
    whole = network(images).logits  # [N, 1]
    blank = network(mean_colour.expand_as(images).contiguous()).logits
    deletion = [whole]
    insertion = [blank]
    for step in workspace.progress("steps", range(1, steps)):
        first = rank < round(step * H * W / steps)
        deletion.append(network(torch.where(first, mean_colour, images)).logits)
        insertion.append(network(torch.where(first, images, mean_colour)).logits)
    deletion.append(blank)
    insertion.append(whole)
    side = attribution.side(whole, threshold).view(N, 1)
    return {
        "deletion": (side * (torch.cat(deletion, dim=1) - threshold)).sigmoid().cpu(),
        "insertion": (side * (torch.cat(insertion, dim=1) - threshold)).sigmoid().cpu(),
    }


def views(images: Tensor, masks: Tensor, config: dict) -> dict[str, Tensor]:
    """Photographs whole, without their lesion, and without all else.

    What is hidden is black (Bissoto et al., "(De)constructing bias on skin lesion datasets", CVPR
    workshops 2019), or has the mean colour of what is not the lesion.

    Args:
        images: [N, 3, H, W], normalised.
        masks: [N, 1, H, W]; lesion where at least 0.5.
        config: of the network, with mean and std of the normalisation.

    Returns:
        By name (VIEWS), each [N, 3, H, W].
    """
    lesion = masks >= 0.5
    mean = torch.tensor(config["mean"], device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(config["std"], device=images.device).view(1, 3, 1, 1)
    black = -mean / std
    area = (~lesion).sum(dim=(2, 3), keepdim=True).clamp(min=1)
    skin = (images * ~lesion).sum(dim=(2, 3), keepdim=True) / area
    return {
        "whole": images,
        "no lesion, black": torch.where(lesion, black, images),
        "no lesion, skin": torch.where(lesion, skin, images),
        "no background, black": torch.where(lesion, images, black),
        "no background, skin": torch.where(lesion, images, skin),
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
    """The network's logits for the `views` of photographs.

    Args:
        network: is put in evaluation mode.
        photographs: the cache.
        rows: those to look at.
        config: of the network: image_size, view, mean, std.
        batch_size: photographs at a time.

    Returns:
        A column for each of VIEWS, indexed by `rows`; NaN where there is no lesion to see, so
        everywhere in a run without masks.

    Raises:
        ValueError: where there are no rows.
    """
    network.eval()
    parts = []
    for batch in workspace.progress("hidden", batches_of(rows, batch_size)):
        images, masks = photographs.evaluation(batch, config)
        logits = pd.DataFrame(np.nan, index=batch, columns=list(VIEWS), dtype=np.float32)
        if masks is not None:
            seen = (masks >= 0.5).flatten(1).any(dim=1).cpu().numpy()  # [B]
            for name, view in views(images, masks, config).items():
                answers = network(view).logits.squeeze(1).cpu().numpy()
                logits[name] = np.where(seen, answers, np.float32(np.nan))
        parts.append(logits)
    return pd.concat(parts)


PADDINGS = ("zeros", "replicate", "reflect", "circular")  # torch's words


def padded(network: AttnVGG, mode: str) -> AttnVGG:
    """The same weights with another border around the input of each 3 x 3 convolution.

    VGG pads with zeros, so that a cell at the rim sees a frame that no photograph has, and can tell
    where it lies (Islam, Jia and Bruce, "How much position information do convolutional neural
    networks encode?", ICLR 2020). With "replicate", which repeats the outermost values, a picture
    of one colour gives the same features everywhere.

    Args:
        network: stays as it is.
        mode: one of PADDINGS; "zeros" is the network's own.

    Returns:
        A copy in evaluation mode.

    Raises:
        ValueError: another word for mode.
    """
    if mode not in PADDINGS:
        raise ValueError(f"mode is one of {', '.join(PADDINGS)}, not {mode!r}")
    other = copy.deepcopy(network).eval()
    for layer in other.backbone:
        if isinstance(layer, nn.Conv2d):
            layer.padding_mode = mode
    return other


def cascade(network: AttnVGG, *, seed: int = 0) -> Iterator[tuple[str, AttnVGG]]:
    """The network, then with more and more of it untrained, from the classifier down.

    Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018. Untrained is as `AttnVGG`
    starts, drawn by `seed`; the network itself stays as it is.

    Yields:
        "trained", then each of STAGES; and a copy of the network, which the next stage changes
        further.
    """
    fresh = localisation.untrained(network, seed).state_dict()
    network = copy.deepcopy(network).eval()
    yield "trained", network
    for stage, prefixes in STAGES.items():
        state = network.state_dict()
        for name, value in fresh.items():
            if name.startswith(prefixes):
                state[name] = value
        network.load_state_dict(state)
        yield stage, network


def unit_ranks(maps: Tensor) -> Tensor:
    """Each map's ranks, centred and of length 1, float64 [N, h*w]; zeros of a constant map."""
    ranks = torch.from_numpy(rankdata(maps.detach().cpu().flatten(1), axis=1))
    return functional.normalize(ranks - ranks.mean(dim=1, keepdim=True), dim=1)


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation of each map with its counterpart.

    Args:
        first: [N, 1, h, w].
        second: the same shape.

    Returns:
        float64 [N], -1 to 1; 0 where one of the two is constant, 1 where both are.

    >>> maps = torch.tensor([0.1, 0.3, 0.2, 0.9]).view(1, 1, 2, 2)
    >>> round(rank_correlation(maps, maps**2).item(), 6)
    1.0
    """
    first = unit_ranks(first)
    second = unit_ranks(second)
    constant = (first == 0).all(dim=1) & (second == 0).all(dim=1)
    return torch.where(constant, 1.0, (first * second).sum(dim=1))


def turn(images: Tensor, number: int, *, back: bool = False) -> Tensor:
    """One of the eight turns of a square.

    Args:
        images: [..., S, S].
        number: 0 to 7: number % 4 quarters to the left, from 4 on flipped left to right before.
        back: undo it instead.
    """
    sides = (-2, -1)
    if back:
        images = images.rot90(-number, sides)
        return images.flip(-1) if number >= 4 else images
    if number >= 4:
        images = images.flip(-1)
    return images.rot90(number, sides)


def turned(
    network: AttnVGG,
    images: Tensor,
    *,
    threshold: float = 0.0,
) -> tuple[dict[str, Tensor], Tensor]:
    """What the network says of the eight turns of photographs.

    Args:
        network: with attention; is put in evaluation mode.
        images: [N, 3, S, S], normalised.
        threshold: of `attribution.logit_threshold`; a logit from here on is called melanoma.

    Returns:
        Maps (attention_pool3, attention_pool4, grad_cam), each turned back, [8, N, 1, h, w]; and
        logits, [8, N].

    Raises:
        ValueError: the network has no attention.
    """
    if network.attention == "none":
        raise ValueError("the network has no attention, so that there are no maps to turn")
    maps = {"attention_pool3": [], "attention_pool4": [], "grad_cam": []}
    logits = []
    for number in range(8):
        cam, output = attribution.grad_cam(network, turn(images, number), threshold=threshold)
        maps["attention_pool3"].append(turn(output.pool3_map, number, back=True))
        maps["attention_pool4"].append(turn(output.pool4_map, number, back=True))
        maps["grad_cam"].append(turn(cam, number, back=True))
        logits.append(output.logits.squeeze(1))
    return {name: torch.stack(grids) for name, grids in maps.items()}, torch.stack(logits)
