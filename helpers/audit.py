"""Does a map look at the lesion? For notebook 06: maps against masks on test photographs, and the tutorial's claims."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.func import functional_call
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import vgg16_bn

from helpers.batches import Photographs
from helpers.metrics import auc_difference as auc_difference  # for notebook 06, beside the claims
from helpers.metrics import interval, mean
from helpers.model import LAST_RELU, AttnVGG, Output

FIGURES = ("hits", "energy", "iou", "concentration")
SIGMA = 0.25  # of the centred Gaussian, in sides of the photograph
SAME = 1e-6   # what differs by less is equal: computers round


def localise(maps: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """FIGURES of maps [N, 1, H, W], 0 or more, on masks [N, 1, H, W] (lesion where at least 0.5), each float64 [N].

    hits: share of the map's (tied) maxima in the mask (the pointing game of Zhang et al., ECCV 2016). energy: share of
    its sum in the mask. iou: of the mask and where the map is at least half way from its min to its max (Yan et al.,
    IPMI 2019). concentration: the smallest share of the area that holds half of its sum. A constant map, zeros too,
    counts as ones. On an empty mask all but concentration are NaN. Raises ValueError for other shapes or values.
    """
    if maps.shape != masks.shape or not (maps >= 0).all():
        raise ValueError(f"maps {list(maps.shape)}, masks {list(masks.shape)}: expected one shape, maps of 0 or more")
    maps, masks = maps.detach().cpu().double().flatten(1), (masks.cpu().flatten(1) >= 0.5).double()  # [N, H*W]
    masks[masks.sum(dim=1) == 0] = torch.nan
    low, high = maps.amin(dim=1, keepdim=True), maps.amax(dim=1, keepdim=True)
    constant = high - low <= SAME * high
    maps, low, high = (torch.where(constant, 1.0, values) for values in (maps, low, high))
    maxima, chosen = (maps >= (1 - SAME) * high).double(), (maps - low >= 0.5 * (high - low)).double()
    ranked, total = maps.sort(dim=1, descending=True).values, maps.sum(dim=1)
    missing = total[:, None] / 2 - (ranked.cumsum(dim=1) - ranked)                      # of the half, before each pixel
    return {"hits": (maxima * masks).sum(dim=1) / maxima.sum(dim=1), "energy": (maps * masks).sum(dim=1) / total,
            "iou": (chosen * masks).sum(dim=1) / torch.maximum(chosen, masks).sum(dim=1),
            "concentration": torch.where(ranked > 0, (missing / ranked).clamp(0, 1), 0.0).mean(dim=1)}


def centre(size: tuple[int, int]) -> Tensor:
    """A centred Gaussian, [1, 1, H, W], of standard deviation SIGMA of the height and of the width."""
    y, x = (torch.exp(-((torch.arange(n) + 0.5) / n - 0.5) ** 2 / (2 * SIGMA ** 2)) for n in size)
    return torch.outer(y, x)[None, None]


def grad_cam(network: AttnVGG, images: Tensor) -> tuple[Tensor, Output]:
    """Grad-CAM (Selvaraju et al., ICCV 2017) at block 5, by captum: images [B, 3, H, W] -> map [B, 1, H/16, W/16].

    It explains the class that the network calls. One logit stands for two: where it is positive that is melanoma, and
    the gradient is the logit's; elsewhere it is benign, and the gradient that of minus the logit. Evaluation mode,
    float32. With it comes the output of the same pass. Raises ValueError for a network of several logits.
    """
    weights = {name: value.detach() for name, value in network.eval().named_parameters()}  # no graph below block 5
    outputs = []

    def called(images: Tensor) -> Tensor:
        outputs.append(functional_call(network, weights, (images,)))
        logits = outputs[-1].logits                                                     # [B, 1]
        if logits.shape[1] != 1:
            raise ValueError(f"grad_cam explains one logit, not {logits.shape[1]}")
        return (logits * torch.where(logits.detach() > 0, 1.0, -1.0)).squeeze(1)        # [B]

    cam = LayerGradCam(called, network.backbone[LAST_RELU]).attribute(images, relu_attributions=True)
    return cam.detach(), Output(*(None if one is None else one.detach() for one in outputs[-1]))


def maps_of(network: AttnVGG, images: Tensor) -> dict[str, Tensor]:
    """Every map by name, [B or 1, 1, h, w], each in its own size and scale; attention's only where there is any."""
    cam, output = grad_cam(network, images)
    maps = {"attention_pool3": output.pool3_map, "attention_pool4": output.pool4_map, "grad_cam": cam,
            "centre": centre(images.shape[-2:]), "uniform": torch.ones(1, 1, *images.shape[-2:])}
    return {name: grid for name, grid in maps.items() if grid is not None}


def measure(network: AttnVGG, photographs: Photographs, used: pd.DataFrame, config: dict,
            *, batch_size: int = 32) -> pd.DataFrame:
    """One row for each map and each photograph of the test split of `used` (`train.used_rows`).

    Columns: row, group, target, map, FIGURES, mean (of the map in its own size and scale), zero (nothing is above 0).
    Where a photograph has no mask, or cropping left none of it, the figures that need one are NaN.
    """
    rows, parts = np.flatnonzero(used["split"] == "test"), []
    for batch in np.split(rows, range(batch_size, len(rows), batch_size)):
        images, masks = photographs.evaluation(batch, config)
        masks = torch.zeros(len(batch), 1, *images.shape[-2:]) if masks is None else masks.cpu()
        for name, maps in maps_of(network, images).items():
            maps = maps.cpu().expand(len(batch), -1, -1, -1)                            # [B, 1, h, w]
            large = functional.interpolate(maps, size=masks.shape[-2:], mode="bilinear", align_corners=False)
            figures = localise(large, masks) | {"mean": maps.mean(dim=(1, 2, 3)), "zero": maps.amax(dim=(1, 2, 3)) <= 0}
            parts.append(used.loc[batch, ["group", "target"]].assign(
                row=batch, map=name, **{figure: values.numpy() for figure, values in figures.items()}))
    return pd.concat(parts, ignore_index=True)


def paired(measured: pd.DataFrame, figure: str, first: str, second: str) -> dict | None:
    """`interval` of a figure of one map less that of another on the same photographs; None where there are none."""
    wide = measured.pivot(index=["row", "group"], columns="map", values=figure)
    wide = wide.reindex(columns=[first, second]).dropna().reset_index()
    return interval(mean(wide[first] - wide[second]), wide["group"]) if len(wide) else None


def localisation(measured: pd.DataFrame) -> dict:
    """`localisation` of audit.json: by map, over the photographs with a mask, n, zero, and each figure's mean.

    Also its 95% interval, `<figure>_low` and `<figure>_high`. Empty where no photograph has a mask.
    """
    found = {}
    for name, rows in measured.dropna(subset=["energy"]).groupby("map", sort=False):
        found[name] = {"n": len(rows), "zero": int(rows["zero"].sum())}
        for figure in FIGURES:
            one = interval(mean(rows[figure]), rows["group"])
            found[name] |= {figure: one["value"], f"{figure}_low": one["low"], f"{figure}_high": one["high"]}
    return found


def cost(build: Callable[[], nn.Module]) -> dict[str, int]:
    """Parameters, and multiply-adds of one 224x224 image's forward pass; no memory is taken, nothing computed."""
    with FakeTensorMode(), FlopCounterMode(display=False) as counter, torch.no_grad():
        network = build().eval()
        network(torch.zeros(1, 3, 224, 224))
    return {"parameters": sum(parameter.numel() for parameter in network.parameters()),
            "multiply-adds": counter.get_total_flops() // 2}


def judge(claim: str, differences: dict[str, dict | None]) -> dict:
    """A row of `claims`: it holds where the whole interval (of `interval`) of each difference lies above 0."""
    if None in differences.values():
        return {"claim": claim, "measured": "", "verdict": "not measured in this run"}
    measured = "; ".join(f"{name} {one['value']:+z.3f} ({one['low']:+z.3f} to {one['high']:+z.3f}, n {one['n']})"
                         for name, one in differences.items())
    holds = all(one["low"] > SAME for one in differences.values())
    return {"claim": claim, "measured": measured, "verdict": "holds" if holds else "does not hold"}


def claims(measured: pd.DataFrame, attention: str, auc: dict | None = None) -> list[dict]:
    """The tutorial's claims as {claim, measured, verdict}, from the rows of `measure` and from `auc_difference`."""
    pool4, activation = measured[measured["map"] == "attention_pool4"], None
    if pool4["target"].nunique() == 2:
        sick, well = (mean(pool4["mean"], pool4["target"] == kind) for kind in (1, 0))
        activation = interval(lambda weights: sick(weights) / well(weights) - 1, pool4["group"])
    ours, vgg = cost(lambda: AttnVGG(attention=attention)), cost(vgg16_bn)
    return [
        judge("Attention explains better than Grad-CAM",
              {"energy, pool-4 less Grad-CAM": paired(measured, "energy", "attention_pool4", "grad_cam")}),
        judge("Pool-3 is diffuse, pool-4 focused", {"concentration, pool-3 less pool-4":
              paired(measured, "concentration", "attention_pool3", "attention_pool4")}),
        judge("Pool-4 sits on the lesion", {f"energy, pool-4 less {name}":
              paired(measured, "energy", "attention_pool4", name) for name in ("uniform", "centre")}),
        judge("On benign photographs pool-4 minimises its activation",
              {f"mean of the {attention} map, melanoma / benign - 1": activation}),
        judge("Attention improves the AUC",
              {"test AUC, this run less its control": auc if attention != "none" else None}),
        *({"claim": f"Without dense layers the network is much lighter in {what}",
           "measured": f"{ours[what]:,} of VGG16-BN's {vgg[what]:,} ({ours[what] / vgg[what]:.1%}); much: under half",
           "verdict": "holds" if ours[what] < vgg[what] / 2 else "does not hold"} for what in ours)]
