"""The tutorial's claims about attention, each with what was measured and a verdict.

One function a claim. A claim holds where the whole 95% interval of each difference that it rests on
lies above 0, is undecided where there are too few groups for an interval, and is "not measured"
where a difference is missing.
"""

from collections.abc import Callable

import pandas as pd
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import vgg16_bn

from helpers.audit.localisation import SAME, paired
from helpers.model import AttnVGG
from helpers.scores.bootstrap import independent_pairs, interval, mean, side, span


def cost(build: Callable[[], nn.Module]) -> dict[str, int]:
    """What a network of a 224 x 224 image costs; no memory is taken, nothing is computed.

    Args:
        build: makes the network, such as `AttnVGG`.

    Returns:
        parameters, and multiply-adds of one image's forward pass.
    """
    with FakeTensorMode(), FlopCounterMode(display=False) as counter, torch.no_grad():
        network = build().eval()
        network(torch.zeros(1, 3, 224, 224))
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "multiply-adds": counter.get_total_flops() // 2,
    }


def verdict(holds: bool) -> str:
    """The word for it, as notebook 06 counts them."""
    return "holds" if holds else "does not hold"


def judge(claim: str, differences: dict[str, dict | None]) -> dict:
    """A row of `claims`: it holds where the whole interval of each difference lies above 0.

    Of few groups nothing follows: undecided, unless another difference says that it does not hold.

    Args:
        claim: its words.
        differences: of `interval`, by what they are; None where one was not measured.

    Returns:
        claim, measured (the differences in words), verdict.

    >>> gap = {"value": 0.05, "low": 0.01, "high": 0.09, "n": 40}
    >>> row = judge("A beats B", {"AUC, A less B": gap})
    >>> row["verdict"], row["measured"]
    ('holds', 'AUC, A less B +0.050 (+0.010 to +0.090), n 40')
    """
    if None in differences.values():
        return {"claim": claim, "measured": "", "verdict": "not measured in this run"}
    measured = []
    for name, gap in differences.items():
        figure = span(gap["value"], gap["low"], gap["high"], form="+z.3f")
        measured.append(f"{name} {figure}, n {gap['n']}")
    judged = [gap for gap in differences.values() if side(gap) != "too few"]
    word = verdict(all(gap["low"] > SAME for gap in judged))
    if word == "holds" and len(judged) < len(differences):
        word = "undecided"
    return {"claim": claim, "measured": "; ".join(measured), "verdict": word}


def explains_better_than_grad_cam(measured: pd.DataFrame) -> dict:
    """Pool-4's map against Grad-CAM's: energy and pixel AUC; better in one is not enough."""
    differences = {}
    for figure, name in {"energy": "energy", "pixel_auc": "pixel AUC"}.items():
        gap = paired(measured, figure, "attention_pool4", "grad_cam")
        differences[f"{name}, pool-4 less Grad-CAM"] = gap
    return judge("Attention explains better than Grad-CAM", differences)


def explains_better_than_other_methods(posthoc: pd.DataFrame | None) -> dict:
    """Pool-4's map against both of the slow methods, on the photographs drawn for them."""
    methods = {"integrated_gradients": "Integrated Gradients", "occlusion": "Occlusion"}
    differences = {}
    for method, name in methods.items():
        gap = None
        if posthoc is not None:
            gap = paired(posthoc, "energy", "attention_pool4", method)
        differences[f"energy, pool-4 less {name}"] = gap
    return judge("Attention explains better than other post-hoc methods", differences)


def pool3_is_diffuse(measured: pd.DataFrame) -> dict:
    """Pool-3's map needs more of the area for half of its sum than pool-4's."""
    gap = paired(measured, "concentration", "attention_pool3", "attention_pool4")
    return judge("Pool-3 is diffuse, pool-4 focused", {"concentration, pool-3 less pool-4": gap})


def sits_on_the_lesion(measured: pd.DataFrame, shifted: pd.DataFrame | None) -> dict:
    """Pool-4's map against chance, and against one that only looks at the middle.

    Lesions are photographed in the middle: shifted crops tell one that looks there from one that
    follows the lesion.
    """
    differences = {
        "energy, pool-4 less uniform": paired(measured, "energy", "attention_pool4", "uniform"),
        "energy, pool-4 less centre": paired(measured, "energy", "attention_pool4", "centre"),
    }
    if shifted is not None:
        gap = paired(shifted, "energy", "attention_pool4", "centre")
        differences["energy, pool-4 less centre in shifted crops"] = gap
    return judge("Pool-4 sits on the lesion", differences)


def minimises_activation(measured: pd.DataFrame, attention: str) -> dict:
    """How much larger pool-4's map is on melanomas than on benign photographs, as a share.

    A softmax map sums to 1 on every photograph, so that it cannot.
    """
    pool4 = measured[measured["map"] == "attention_pool4"]
    gap = None
    if pool4["target"].nunique() == 2:
        on_melanoma = mean(pool4["mean"], pool4["target"] == 1)
        on_benign = mean(pool4["mean"], pool4["target"] == 0)
        gap = interval(
            lambda weights: on_melanoma(weights) / on_benign(weights) - 1,
            pool4["group"],
            independent=independent_pairs(pool4["target"], pool4["group"]),
        )
    return judge(
        "On benign photographs pool-4 minimises its activation",
        {f"mean of the {attention} map, melanoma / benign - 1": gap},
    )


def improves_the_auc(auc: dict | None, attention: str) -> dict:
    """The run's test AUC less that of its control, which has no attention."""
    if attention == "none":
        auc = None  # what was compared is not attention
    return judge("Attention improves the AUC", {"test AUC, this run less its control": auc})


def is_lighter(attention: str) -> list[dict]:
    """Parameters and multiply-adds against VGG16-BN's, whose dense layers are left out."""
    ours = cost(lambda: AttnVGG(attention=attention))
    vgg = cost(vgg16_bn)
    rows = []
    for what in ours:
        share = ours[what] / vgg[what]
        rows.append(
            {
                "claim": f"Without dense layers the network is much lighter in {what}",
                "measured": f"{ours[what]:,} of VGG16-BN's {vgg[what]:,} ({share:.1%}); "
                "much: under half",
                "verdict": verdict(share < 1 / 2),
            }
        )
    return rows


def claims(
    measured: pd.DataFrame,
    attention: str,
    auc: dict | None = None,
    *,
    shifted: pd.DataFrame | None = None,
    posthoc: pd.DataFrame | None = None,
) -> list[dict]:
    """The tutorial's claims, judged by what was measured; what is not given is not measured.

    Args:
        measured: rows of `localisation.measure`, of the test photographs.
        attention: of the network: "softmax", "sigmoid" or "none".
        auc: of `bootstrap.auc_difference`, of this run and its control.
        shifted: rows of `measure`, of the test photographs' shifted crops.
        posthoc: rows of `measure`, of the photographs drawn for the slow methods; attention's
            maps too.

    Returns:
        Eight rows of claim, measured, verdict ("holds", "does not hold", "undecided", "not
        measured in this run").
    """
    return [
        explains_better_than_grad_cam(measured),
        explains_better_than_other_methods(posthoc),
        pool3_is_diffuse(measured),
        sits_on_the_lesion(measured, shifted),
        minimises_activation(measured, attention),
        improves_the_auc(auc, attention),
        *is_lighter(attention),
    ]
