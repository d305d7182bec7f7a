"""helpers/audit/claims.py: verdicts on made-up figures, each of the photographs that it is of."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.audit import claims as module  # the function has its name
from helpers.audit import tutorial
from helpers.audit.claims import claims
from helpers.model import AttnVGG
from helpers.scores.bootstrap import interval, mean

ROWS = 16
(
    GRAD_CAM_READS,
    RESPONSIBLE,
    DIFFUSE,
    LESION,
    REGIONS,
    SUM,
    PARAMETERS,
    TRAINING,
    FOCAL,
    UNBALANCED,
    COMPETITION,
    DENSE,
    VALIDATION,
    BETTER,
    POSTHOC,
    AUC,
) = range(ROWS)
OF_A_RUN = (DIFFUSE, LESION, REGIONS, BETTER)
ENERGY = {
    "attention_pool3": 0.4,
    "attention_pool4": 0.8,
    "grad_cam": 0.5,
    "centre": 0.6,
    "uniform": 0.3,
}
AREA = {"attention_pool3": 0.4, "attention_pool4": 0.2}  # and .1 less on benign, for pool-4
AREAS = ("concentration", "region", "above_mean", "above_half")
GAIN = {"value": 0.05, "low": 0.01, "high": 0.09, "n": 40}
LIGHTER = {
    "seconds": {"AttnVGG": [0.5, 0.6], "VGG16-BN": [0.8, 0.7]},
    "bytes": {"AttnVGG": 24, "VGG16-BN": 221},
    "batch": 2,
    "side": 224,
}


def made_up(energies: dict[str, float] = ENERGY, *, noise: float = 0.0) -> pd.DataFrame:
    """Rows as `measure` gives them: 80 photographs, half melanoma, each its own group.

    Every area of pool-4 is half of pool-3's on melanomas, and less on benign lesions. noise: of the
    energy from photograph to photograph.
    """
    rng = np.random.default_rng(0)
    target = np.arange(80) % 2
    parts = []
    for name, energy in energies.items():
        spread = rng.normal(size=80)
        columns = {
            "row": np.arange(80),
            "group": np.arange(80),
            "target": target,
            "map": name,
            "energy": energy + noise * (spread - spread.mean()),
            "pixel_auc": energy,
            "mean": 0.02 + 0.01 * target,
        }
        for area in AREAS:
            columns[area] = AREA.get(name, 0.5) - 0.1 * (1 - target) * (name == "attention_pool4")
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def change(table: pd.DataFrame, target: int, name: str, **values: float) -> pd.DataFrame:
    """The table with other values of one map on one class."""
    table = table.copy()
    table.loc[(table["target"] == target) & (table["map"] == name), list(values)] = list(
        values.values()
    )
    return table


def verdicts(*arguments, **more) -> list[str]:
    rows = claims(*arguments, **more)
    assert len(rows) == ROWS
    for judged in rows:
        assert set(judged) == {
            "said",
            "claim",
            "where",
            "photographs",
            "test",
            "measured",
            "verdict",
            "seeds",
        }
        assert judged["verdict"] in module.VERDICTS and judged["test"]
    assert json.loads(json.dumps(rows)) == rows
    return [judged["verdict"] for judged in rows]


def test_each_claim_has_the_tutorials_words_or_is_called_often_said():
    rows = claims(made_up(), "softmax", seed=7)
    for judged in rows:
        passages = tutorial.QUOTATIONS
        if judged["said"] == "often said":
            passages = tutorial.OFTEN_SAID
        assert tutorial.is_said(judged["claim"], passages), judged["claim"]
        assert judged["seeds"] == [7]
    said = {judged["claim"] for judged in rows if judged["said"] == "often said"}
    assert said == {passage.words for passage in tutorial.OFTEN_SAID}
    assert rows[DIFFUSE]["photographs"] == rows[LESION]["photographs"] == "malignant"
    assert rows[REGIONS]["photographs"] == rows[SUM]["photographs"] == "benign"


def test_claims_are_supported_where_the_numbers_say_so():
    slow = made_up({"attention_pool4": 0.8, "integrated_gradients": 0.7, "occlusion": 0.6})
    judged = verdicts(
        made_up(noise=0.02),
        "sigmoid",
        GAIN,
        shifted=made_up(),
        posthoc=slow,
        training=LIGHTER,
        unchanged=True,
    )
    expected = ["supported"] * ROWS
    expected[GRAD_CAM_READS] = expected[FOCAL] = "identity"
    expected[RESPONSIBLE] = "not measured"
    expected[UNBALANCED] = expected[COMPETITION] = expected[DENSE] = "contradicted"
    expected[VALIDATION] = "undecided"
    assert judged == expected


def test_what_was_measured_is_told_with_its_bounds_and_n():
    auc = {"value": 0.0304, "low": -0.01, "high": 0.07, "n": 37}
    rows = claims(made_up(), "softmax", auc)
    for fact in ("+0.030", "-0.010", "+0.070", "37"):
        assert fact in rows[AUC]["measured"]
    assert "+0.300" in rows[BETTER]["measured"]  # .8 less .5
    assert "n 40" in rows[DIFFUSE]["measured"], "the melanomas alone"
    assert "n 80" in rows[BETTER]["measured"]
    assert "15,183,683" in rows[PARAMETERS]["measured"]


WORSE = {"energy": 0.1, "pixel_auc": 0.1} | dict.fromkeys(AREAS, 0.9)


@pytest.mark.parametrize(("target", "claim"), [(1, DIFFUSE), (1, LESION), (0, REGIONS)])
def test_a_claim_is_judged_on_the_photographs_that_it_is_said_of(target, claim):
    """What pool-4 does on the other class neither helps nor hurts, so that both are hidden there.

    Regions are compared with melanomas' too: there pool-4's are made larger, as is claimed.
    """
    elsewhere = change(made_up(), 1 - target, "attention_pool4", **WORSE)
    there = change(made_up(), target, "attention_pool4", **WORSE)
    assert verdicts(elsewhere, "softmax", shifted=elsewhere)[claim] == "supported"
    assert verdicts(there, "softmax", shifted=there)[claim] == "contradicted"


@pytest.mark.parametrize(
    ("claim", "energies"),
    [(BETTER, {"grad_cam": 0.9}), (LESION, {"uniform": 0.9})],
    ids=["below Grad-CAM", "below chance"],
)
def test_claims_are_contradicted_where_the_numbers_say_so(claim, energies):
    table = made_up(ENERGY | energies)
    assert verdicts(table, "softmax", shifted=table)[claim] == "contradicted"


def test_within_noise_a_claim_is_undecided():
    table = made_up(ENERGY | {"grad_cam": 0.79}, noise=0.2)
    table["pixel_auc"] = table["energy"]
    assert verdicts(table, "softmax")[BETTER] == "undecided"
    auc = {"value": 0.03, "low": -0.01, "high": 0.07, "n": 40}
    assert verdicts(made_up(), "softmax", auc)[AUC] == "undecided"
    loss = {"value": -0.05, "low": -0.09, "high": -0.01, "n": 40}
    assert verdicts(made_up(), "softmax", loss)[AUC] == "contradicted"


def test_yardsticks_that_disagree_leave_a_claim_undecided():
    table = change(made_up(), 1, "attention_pool4", concentration=0.6)
    assert verdicts(table, "softmax")[DIFFUSE] == "undecided"
    ranked_worse = made_up()
    ranked_worse.loc[ranked_worse["map"] == "grad_cam", "pixel_auc"] = 0.9
    assert verdicts(ranked_worse, "softmax")[BETTER] == "undecided"


@pytest.mark.parametrize(
    ("attention", "column"),
    [("softmax", "above_mean")] + [(name, "above_half") for name in ("sigmoid", "weighted")],
)
def test_the_level_of_a_region_is_of_the_maps_own_scale(attention, column):
    for area in ("above_mean", "above_half"):
        table = change(made_up(), 0, "attention_pool4", **{area: 0.9})
        expected = "undecided" if area == column else "supported"  # one level of two, the other way
        assert verdicts(table, attention)[REGIONS] == expected


def test_pool_4_that_shrinks_on_melanomas_too_does_not_shrink_because_the_image_is_benign():
    table = change(made_up(), 1, "attention_pool4", region=0.05, above_mean=0.05)
    assert verdicts(table, "softmax")[REGIONS] == "contradicted"
    same = change(made_up(), 1, "attention_pool4", region=0.1, above_mean=0.1)
    assert verdicts(same, "softmax")[REGIONS] == "undecided"


def test_of_a_softmax_map_the_sum_is_an_identity_without_n_or_interval():
    rows = claims(made_up().assign(mean=1 / 36), "softmax")
    assert rows[SUM]["verdict"] == "identity"
    assert "n " not in rows[SUM]["measured"].split() and "(" not in rows[SUM]["measured"]
    assert verdicts(made_up(), "weighted")[SUM] == "supported"
    less = change(made_up(), 1, "attention_pool4", mean=0.01)
    assert verdicts(less, "sigmoid")[SUM] == "contradicted"
    rounding = made_up().assign(mean=lambda table: 1 / 36 + 1e-9 * table["target"])
    assert verdicts(rounding, "sigmoid")[SUM] == "undecided"


@pytest.mark.parametrize("better", ["integrated_gradients", "occlusion"])
def test_one_better_method_is_enough_against_attention(better):
    energies = {"attention_pool4": 0.8, "integrated_gradients": 0.1, "occlusion": 0.1}
    slow = made_up(energies | {better: 0.9})
    assert verdicts(made_up(), "softmax", posthoc=slow)[POSTHOC] == "contradicted"


@pytest.mark.parametrize(
    ("centre", "expected"), [(0.3, "supported"), (0.9, "contradicted"), (None, "not measured")]
)
def test_a_map_that_only_lies_in_the_middle_is_not_on_the_lesion(centre, expected):
    crops = None if centre is None else made_up(ENERGY | {"centre": centre})
    assert verdicts(made_up(), "softmax", shifted=crops)[LESION] == expected


@pytest.mark.parametrize(
    ("ours", "memory", "expected"),
    [
        ([0.5, 0.6], 24, "supported"),
        ([0.9, 0.6], 24, "undecided"),
        ([0.9, 0.9], 24, "undecided"),
        ([0.5, 0.6], 300, "undecided"),
        ([0.9, 0.9], 300, "contradicted"),
    ],
)
def test_lighter_to_train_is_time_and_memory(ours, memory, expected):
    found = LIGHTER | {
        "seconds": LIGHTER["seconds"] | {"AttnVGG": ours},
        "bytes": LIGHTER["bytes"] | {"AttnVGG": memory},
    }
    assert verdicts(made_up(), "softmax", training=found)[TRAINING] == expected
    assert verdicts(made_up(), "softmax")[TRAINING] == "not measured"


def test_grad_cam_only_reads_and_a_network_that_it_changed_would_be_seen(monkeypatch):
    network = AttnVGG().eval()
    images = torch.randn(1, 3, 32, 32)
    assert module.reads_only(network, images)

    def writes(network: AttnVGG, images: torch.Tensor) -> None:
        with torch.no_grad():
            network.classifier.bias += 1

    def leaves_gradients(network: AttnVGG, images: torch.Tensor) -> None:
        network(images).logits.sum().backward()

    for broken in (writes, leaves_gradients):
        monkeypatch.setattr(module, "grad_cam", broken)
        assert not module.reads_only(network, images)
    assert verdicts(made_up(), "softmax", unchanged=False)[GRAD_CAM_READS] == "contradicted"


def test_the_tutorials_own_sample_and_auc_are_judged_by_published_counts(tmp_path, monkeypatch):
    rows = claims(made_up(), "softmax")
    table = json.loads(module.FULL_TABLE.read_text(encoding="utf-8"))
    melanomas = table["data"]["melanomas"] - table["figures"]["leaks"]["tutorial"]["melanomas"]
    assert f"{melanomas:,} of 9,183" in rows[UNBALANCED]["measured"]
    assert "n 46" in rows[VALIDATION]["measured"]  # 2,296 in fifties leave as many
    monkeypatch.setattr(module, "FULL_TABLE", tmp_path / "not there.json")
    judged = verdicts(made_up(), "softmax")
    assert judged[UNBALANCED] == judged[VALIDATION] == "not measured"


@pytest.mark.parametrize(("positives", "negatives", "auc"), [(22, 24, 0.851), (60, 30, 0.7)])
def test_the_interval_of_a_printed_auc_is_that_of_drawn_scores(positives, negatives, auc):
    """Against the spread of the AUCs of exponential scores, for which the formula is exact."""
    rng = np.random.default_rng(0)
    rate = auc / (1 - auc)  # P(melanoma's score above benign's) = rate / (1 + rate)
    melanomas = rng.exponential(rate, (20_000, positives, 1))
    benign = rng.exponential(1.0, (20_000, 1, negatives))
    spread = (melanomas > benign).mean(axis=(1, 2)).std()
    found = module.auc_interval(auc, positives, negatives)
    assert auc - found["low"] == pytest.approx(1.96 * spread, rel=0.03)
    assert found["n"] == positives + negatives


def test_claims_without_attention_masks_or_control_are_not_measured():
    without_maps = {name: ENERGY[name] for name in ("grad_cam", "centre", "uniform")}
    judged = verdicts(made_up(without_maps), "none", GAIN)  # of a run without attention
    for claim in (*OF_A_RUN, SUM, POSTHOC, AUC):
        assert judged[claim] == "not measured"
    without_masks = made_up().assign(energy=np.nan, pixel_auc=np.nan)
    judged = verdicts(without_masks, "softmax", shifted=without_masks)
    for claim in (BETTER, POSTHOC, LESION, AUC):
        assert judged[claim] == "not measured"
    assert judged[DIFFUSE] == judged[REGIONS] == "supported"


@pytest.mark.parametrize("photographs", [2, 6, 18])
def test_claims_on_a_handful_of_photographs_are_undecided(photographs):
    table = made_up()
    table = table[table["row"] < photographs]
    slow = made_up({"attention_pool4": 0.8, "integrated_gradients": 0.7, "occlusion": 0.6})
    auc = {"value": 0.05, "low": np.nan, "high": np.nan, "n": photographs}
    rows = claims(
        table, "sigmoid", auc, shifted=table, posthoc=slow[slow["row"] < photographs % 10]
    )
    for claim in (DIFFUSE, LESION, REGIONS, SUM, POSTHOC, AUC):
        assert rows[claim]["verdict"] == "undecided", rows[claim]
    assert not re.search(r"\bnan\b", json.dumps(rows).lower())
    assert "+0.300" in rows[BETTER]["measured"]
    assert f"n {photographs}" in rows[BETTER]["measured"]


def test_photographs_of_a_handful_of_patients_are_a_handful():
    few = made_up(noise=0.05)
    few = few.assign(group=few["group"] % 8)
    judged = verdicts(few, "sigmoid", shifted=few)
    for claim in (*OF_A_RUN, SUM):
        assert judged[claim] == "undecided"


def test_where_one_class_is_missing_what_is_said_of_it_is_not_measured():
    table = made_up()
    benign = table[table["target"] == 0]
    judged = verdicts(benign, "softmax", shifted=benign)
    assert judged[DIFFUSE] == judged[LESION] == judged[REGIONS] == "not measured"
    melanomas = table[table["target"] == 1]
    judged = verdicts(melanomas, "sigmoid", shifted=melanomas)
    assert judged[DIFFUSE] == judged[LESION] == "supported"
    assert judged[REGIONS] == judged[SUM] == "not measured"


def test_a_part_that_is_contradicted_is_enough_though_another_is_missing_or_too_few():
    below = interval(mean([-1.0] * 20), range(20))
    few = interval(mean([1.0] * 3), range(3))
    assert module.weigh([{"a": below}, {"b": None}]) == "contradicted"
    assert module.weigh([{"a": few}, {"b": below}]) == "contradicted"
    assert module.weigh([{"a": few}, {"b": None}]) == "not measured"
    assert module.weigh([{"a": few, "b": below}]) == "undecided"


def test_verdicts_of_several_trainings_stand_beside_each_other():
    first = {"seed": 3, "claims": claims(made_up(), "sigmoid")}
    less = change(made_up(), 1, "attention_pool4", mean=0.01)
    second = {"seed": 4, "claims": claims(less, "sigmoid")}
    table = module.by_seed([first, second])
    assert len(table) == ROWS and list(table) == [3, 4]
    differ = table[table[3] != table[4]]
    assert differ.values.tolist() == [["supported", "contradicted"]]
    assert "sum" in differ.index[0][1]


def test_trainings_that_others_ran_come_as_a_column_a_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "OVER_SEEDS", tmp_path / "over_seeds-claims.csv")
    assert module.other_trainings() is None
    rows = [(0, "first", "a", "supported"), (1, "first", "a", "undecided")]
    rows += [(0, "second", "b", "identity"), (1, "second", "b", "identity")]
    columns = ["seed", "claim", "test", "verdict"]
    pd.DataFrame(rows, columns=columns).to_csv(module.OVER_SEEDS, index=False)
    table = module.other_trainings()
    assert list(table) == [0, 1]
    assert table.loc[("first", "a")].tolist() == ["supported", "undecided"]


def test_two_audits_of_one_seed_are_told_and_a_claim_that_one_lacks_is_not_measured():
    claim = {"claim": "a", "test": "t", "verdict": module.SUPPORTED}
    other = {**claim, "claim": "b"}
    audits = [{"seed": 1, "claims": [claim, other]}, {"seed": 2, "claims": [claim]}]
    table = module.by_seed(audits)
    assert table.loc[("b", "t")].tolist() == [module.SUPPORTED, module.NOT_MEASURED]
    with pytest.raises(ValueError, match="two audits are of seed 1"):
        module.by_seed([audits[0], audits[0]])


def test_the_parameters_counted_are_those_of_the_network_without_the_bypass_too():
    counted = []
    for bypass in (True, False):
        said = module.has_fewer_parameters("weighted", bypass)["measured"]
        counted.append(int(said.split(" of")[0].replace(",", "")))
        network = AttnVGG(attention="weighted", bypass=bypass)
        assert counted[-1] == sum(parameter.numel() for parameter in network.parameters())
    assert counted[0] - counted[1] == 512
