"""The tutorial's claims about attention, each with what was measured and a verdict."""

from collections.abc import Callable

import pandas as pd
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import vgg16_bn

from helpers.audit.localisation import SAME, paired
from helpers.model import AttnVGG
from helpers.scores.bootstrap import interval, mean


def cost(build: Callable[[], nn.Module]) -> dict[str, int]:
    """Parameters, and multiply-adds of one 224x224 image's forward pass; no memory is taken, nothing computed."""
    with FakeTensorMode(), FlopCounterMode(display=False) as counter, torch.no_grad():
        network = build().eval()
        network(torch.zeros(1, 3, 224, 224))
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "multiply-adds": counter.get_total_flops() // 2,
    }


def judge(claim: str, differences: dict[str, dict | None]) -> dict:
    """A row of `claims`: it holds where the whole interval (of `interval`) of each difference lies above 0."""
    if None in differences.values():
        return {"claim": claim, "measured": "", "verdict": "not measured in this run"}
    measured = "; ".join(
        f"{name} {one['value']:+z.3f} ({one['low']:+z.3f} to {one['high']:+z.3f}, n {one['n']})"
        for name, one in differences.items()
    )
    holds = all(one["low"] > SAME for one in differences.values())
    return {"claim": claim, "measured": measured, "verdict": "holds" if holds else "does not hold"}


def claims(
    measured: pd.DataFrame,
    attention: str,
    auc: dict | None = None,
    *,
    shifted: pd.DataFrame | None = None,
    posthoc: pd.DataFrame | None = None,
) -> list[dict]:
    """The tutorial's claims as {claim, measured, verdict}, from rows of `measure` and from `auc_difference`.

    measured: of the test photographs. shifted: of their shifted crops. posthoc: of those drawn for the slow methods,
    attention's too. What is not given is not measured.
    """
    pool4, activation = measured[measured["map"] == "attention_pool4"], None
    if pool4["target"].nunique() == 2:
        sick, well = (mean(pool4["mean"], pool4["target"] == kind) for kind in (1, 0))
        activation = interval(lambda weights: sick(weights) / well(weights) - 1, pool4["group"])
    ours, vgg = cost(lambda: AttnVGG(attention=attention)), cost(vgg16_bn)
    return [
        judge(
            "Attention explains better than Grad-CAM",
            {
                f"{name}, pool-4 less Grad-CAM": paired(
                    measured, figure, "attention_pool4", "grad_cam"
                )
                for figure, name in (("energy", "energy"), ("pixel_auc", "pixel AUC"))
            },
        ),
        judge(
            "Attention explains better than other post-hoc methods",
            {
                f"energy, pool-4 less {name}": None
                if posthoc is None
                else paired(posthoc, "energy", "attention_pool4", method)
                for method, name in (
                    ("integrated_gradients", "Integrated Gradients"),
                    ("occlusion", "Occlusion"),
                )
            },
        ),
        judge(
            "Pool-3 is diffuse, pool-4 focused",
            {
                "concentration, pool-3 less pool-4": paired(
                    measured, "concentration", "attention_pool3", "attention_pool4"
                )
            },
        ),
        judge(
            "Pool-4 sits on the lesion",
            {
                f"energy, pool-4 less {name}{where}": paired(
                    rows, "energy", "attention_pool4", name
                )
                for name, rows, where in (
                    ("uniform", measured, ""),
                    ("centre", measured, ""),
                    ("centre", shifted, " in shifted crops"),
                )
                if rows is not None
            },
        ),
        judge(
            "On benign photographs pool-4 minimises its activation",
            {f"mean of the {attention} map, melanoma / benign - 1": activation},
        ),
        judge(
            "Attention improves the AUC",
            {"test AUC, this run less its control": auc if attention != "none" else None},
        ),
        *(
            {
                "claim": f"Without dense layers the network is much lighter in {what}",
                "measured": f"{ours[what]:,} of VGG16-BN's {vgg[what]:,} ({ours[what] / vgg[what]:.1%}); much: under half",
                "verdict": "holds" if ours[what] < vgg[what] / 2 else "does not hold",
            }
            for what in ours
        ),
    ]
