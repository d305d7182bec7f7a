"""helpers/audit/claims.py: verdicts on made-up figures, and costs against published counts."""

import json

import numpy as np
import pandas as pd
import pytest
from torchvision.models import vgg16_bn
from torchvision.models.vgg import cfgs

from helpers.audit.claims import claims, cost
from helpers.model import AttnVGG

NOT_MEASURED = "not measured in this run"
EXPLAINS, POSTHOC, DIFFUSE, LESION, BENIGN, AUC, PARAMETERS, WORK = range(8)
GOOD = {
    "attention_pool3": 0.4,
    "attention_pool4": 0.8,
    "grad_cam": 0.5,
    "centre": 0.6,
    "uniform": 0.3,
}
CONCENTRATION = {"attention_pool3": 0.3, "attention_pool4": 0.2}


def made_up(
    energies: dict[str, float],
    *,
    noise: float = 0.0,
    mean: float = 0.02,
    more: float = 0.0,
) -> pd.DataFrame:
    """Rows as `measure` gives them: 40 photographs, half melanoma, each its own group.

    noise: of the energy from photograph to photograph. more: how much larger than `mean` a map's
    mean is on melanomas.
    """
    rng = np.random.default_rng(0)
    target = np.arange(40) % 2
    parts = []
    for name, energy in energies.items():
        spread = rng.normal(size=40)
        columns = {
            "row": np.arange(40),
            "group": np.arange(40),
            "target": target,
            "map": name,
            "energy": energy + noise * (spread - spread.mean()),
            "pixel_auc": energy,
            "concentration": CONCENTRATION.get(name, 0.4),
            "mean": mean + more * target,
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def verdicts(*arguments, **more) -> list[str]:
    rows = claims(*arguments, **more)
    assert all(set(row) == {"claim", "measured", "verdict"} for row in rows)
    assert json.loads(json.dumps(rows)) == rows
    return [row["verdict"] for row in rows]


def test_cost_equals_published_counts_and_a_sum_over_layers():
    side, channels, work = 224, 3, 0
    for layer in cfgs["D"]:
        if layer == "M":
            side //= 2
        else:
            work += side * side * channels * layer * 9
            channels = layer
    ours, vgg = cost(AttnVGG), cost(vgg16_bn)
    assert (ours["parameters"], vgg["parameters"]) == (15_183_683, 138_365_992)
    assert vgg["multiply-adds"] == work + 25088 * 4096 + 4096 * 4096 + 4096 * 1000
    blocks = 0
    for local, places in ((256, 28 * 28), (512, 14 * 14)):
        blocks += 256 * (local * places + 512 * 7 * 7 + places)
    assert ours["multiply-adds"] == work + blocks + 1280


def test_claims_hold_where_the_numbers_say_so():
    auc = {"value": 0.05, "low": 0.01, "high": 0.09, "n": 40}
    slow = made_up(
        {"attention_pool4": 0.8, "integrated_gradients": 0.7, "occlusion": 0.6}, noise=0.01
    )
    table = made_up(GOOD, noise=0.05, more=0.01)
    judged = verdicts(table, "sigmoid", auc, shifted=made_up(GOOD), posthoc=slow)
    assert judged[:WORK] == ["holds"] * 7
    assert judged[WORK] == "does not hold"  # the dense layers have few of the multiply-adds


def test_what_was_measured_is_told_with_its_bounds_and_n():
    auc = {"value": 0.0304, "low": -0.01, "high": 0.07, "n": 37}
    rows = claims(made_up(GOOD), "softmax", auc)
    for fact in ("+0.030", "-0.010", "+0.070", "37"):
        assert fact in rows[AUC]["measured"]
    assert "+0.300" in rows[EXPLAINS]["measured"]  # .8 less .5
    assert "15,183,683" in rows[PARAMETERS]["measured"]


@pytest.mark.parametrize(
    ("claim", "change"),
    [
        (EXPLAINS, {"energies": GOOD | {"grad_cam": 0.9}}),
        (LESION, {"energies": GOOD | {"attention_pool4": 0.55}}),
        (LESION, {"energies": GOOD | {"uniform": 0.9, "centre": 0.1}}),
        (BENIGN, {"more": -0.01}),
        (EXPLAINS, {"energies": GOOD | {"grad_cam": 0.79}, "noise": 0.2}),
    ],
    ids=["below Grad-CAM", "below the centre", "below chance", "more on benign", "within noise"],
)
def test_claims_do_not_hold_where_the_numbers_say_so(claim, change):
    table = made_up(**({"energies": GOOD, "more": 0.01} | change))
    assert verdicts(table, "sigmoid")[claim] == "does not hold"


def test_a_pool_3_as_focused_as_pool_4_is_not_diffuse():
    table = made_up(GOOD).assign(concentration=0.2)
    assert verdicts(table, "softmax")[DIFFUSE] == "does not hold"


def test_a_better_energy_with_a_worse_ranking_does_not_explain_better():
    table = made_up(GOOD)
    table.loc[table["map"] == "grad_cam", "pixel_auc"] = 0.9
    assert verdicts(table, "softmax")[EXPLAINS] == "does not hold"


@pytest.mark.parametrize("better", ["integrated_gradients", "occlusion"])
def test_one_better_method_is_enough_against_attention(better):
    energies = {"attention_pool4": 0.8, "integrated_gradients": 0.1, "occlusion": 0.1}
    slow = made_up(energies | {better: 0.9})
    assert verdicts(made_up(GOOD), "softmax", posthoc=slow)[POSTHOC] == "does not hold"


@pytest.mark.parametrize(("centre", "expected"), [(0.3, "holds"), (0.9, "does not hold")])
def test_a_map_that_only_lies_in_the_middle_does_not_sit_on_the_lesion(centre, expected):
    crops = made_up(GOOD | {"centre": centre})
    assert verdicts(made_up(GOOD), "softmax", shifted=crops)[LESION] == expected


def test_an_auc_gain_within_its_interval_does_not_hold():
    auc = {"value": 0.03, "low": -0.01, "high": 0.07, "n": 40}
    assert verdicts(made_up(GOOD), "softmax", auc)[AUC] == "does not hold"


def test_softmax_cannot_minimise_its_activation():
    table = made_up(GOOD, mean=1 / 36)
    table["mean"] += 1e-9 * table["target"]  # rounding shows nothing
    assert verdicts(table, "softmax")[BENIGN] == "does not hold"


def test_claims_without_attention_masks_or_control_are_not_measured():
    without_maps = {name: GOOD[name] for name in ("grad_cam", "centre", "uniform")}
    control = {"value": 0.05, "low": 0.01, "high": 0.09, "n": 40}  # of a run without attention
    judged = verdicts(made_up(without_maps), "none", control)
    assert judged == [NOT_MEASURED] * 6 + ["holds", "does not hold"]
    without_masks = made_up(GOOD).assign(energy=np.nan, pixel_auc=np.nan)
    judged = verdicts(without_masks, "softmax")
    assert judged[EXPLAINS] == judged[POSTHOC] == judged[LESION] == judged[AUC] == NOT_MEASURED
    assert (judged[DIFFUSE], judged[BENIGN]) == ("holds", "does not hold")


@pytest.mark.parametrize("photographs", [1, 3, 9])
def test_claims_on_a_handful_of_photographs_are_undecided(photographs):
    table = made_up(GOOD, more=0.01)
    table = table[table["row"] < photographs]
    slow = made_up({"attention_pool4": 0.8, "integrated_gradients": 0.7, "occlusion": 0.6})
    auc = {"value": 0.05, "low": np.nan, "high": np.nan, "n": photographs}
    rows = claims(table, "sigmoid", auc, shifted=table, posthoc=slow[slow["row"] < photographs])
    words = {row["verdict"] for row in rows[:PARAMETERS]}
    assert words <= {"undecided", NOT_MEASURED}
    assert rows[EXPLAINS]["verdict"] == rows[AUC]["verdict"] == "undecided"
    assert "nan" not in json.dumps(rows).lower()
    assert (
        "+0.300" in rows[EXPLAINS]["measured"] and f"n {photographs}" in rows[EXPLAINS]["measured"]
    )


def test_photographs_of_a_handful_of_patients_are_a_handful():
    table = made_up(GOOD, noise=0.05, more=0.01)
    few = table.assign(group=table["group"] % 4)
    judged = verdicts(few, "sigmoid", shifted=few)
    assert judged[EXPLAINS] == judged[DIFFUSE] == judged[LESION] == judged[BENIGN] == "undecided"


def test_of_the_activation_each_class_needs_enough():
    table = made_up(GOOD, more=0.01)
    one = table[(table["target"] == 0) | (table["row"] == 1)]
    judged = verdicts(one, "sigmoid")
    assert judged[BENIGN] == "undecided"
    assert judged[DIFFUSE] == "holds"


def test_a_handful_does_not_hide_what_enough_photographs_say():
    table = made_up(GOOD)
    crops = table[table["row"] < 3]
    assert verdicts(table, "softmax", shifted=crops)[LESION] == "undecided"
    worse = made_up(GOOD | {"centre": 0.9})
    assert verdicts(worse, "softmax", shifted=crops)[LESION] == "does not hold"


def test_photographs_of_one_class_tell_nothing_of_the_activation():
    table = made_up(GOOD)
    judged = verdicts(table[table["target"] == 1], "sigmoid")
    assert judged[BENIGN] == NOT_MEASURED
