"""Figures of a diagnostic test against scikit-learn, DeLong's interval and plain loops."""

import json
import re
import tracemalloc
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from helpers.scores import bootstrap, metrics
from tests.scores.lesions import delong, examples, source_table

FIGURES = {
    "auc",
    "auc_low",
    "auc_high",
    "ap",
    "ap_low",
    "ap_high",
    "prevalence",
    "n",
    "positives",
    "positive_groups",
}


# discrimination


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_of_independent_photographs_is_delongs(seed):
    targets, scores = examples(seed, 500, ties=seed == 3)
    figures = metrics.discrimination(targets, scores, np.arange(500), "val")
    assert set(figures) == FIGURES
    expected = delong(targets, scores)
    assert (figures["auc_low"], figures["auc_high"]) == pytest.approx(expected, abs=0.006)
    assert figures["auc"] == roc_auc_score(targets, scores)
    assert figures["ap"] == average_precision_score(targets, scores)
    assert (figures["n"], figures["positives"]) == (500, targets.sum())
    assert figures["prevalence"] == targets.mean()
    drawn = []
    for number in range(1000):
        rows = np.random.default_rng(number).integers(0, 500, 500)
        drawn.append(average_precision_score(targets[rows], scores[rows]))
    expected = np.percentile(drawn, [2.5, 97.5])
    assert (figures["ap_low"], figures["ap_high"]) == pytest.approx(expected, abs=0.012)


def test_photographs_of_one_patient_bring_nothing_new():
    targets, scores = examples(0, 120)
    patients = np.arange(120)
    once = metrics.discrimination(targets, scores, patients, "val")
    assert once["positive_groups"] == once["positives"] == targets.sum()
    targets = np.repeat(targets, 5)
    scores = np.repeat(scores, 5)
    copies = metrics.discrimination(targets, scores, np.repeat(patients, 5), "val")
    assert copies == pytest.approx(once | {"n": 600, "positives": targets.sum()})
    forgotten = metrics.discrimination(targets, scores, np.arange(600), "val")  # no groups
    width = once["auc_high"] - once["auc_low"]
    assert forgotten["auc_high"] - forgotten["auc_low"] < 0.6 * width


def test_photographs_are_matched_by_place_not_by_their_index():
    targets, scores = examples(1, 50)
    groups = np.arange(50) // 2
    expected = metrics.discrimination(targets, scores, groups, "val")
    series = []
    for row, values in enumerate((targets, scores, groups)):
        series.append(pd.Series(values, index=np.random.default_rng(row).permutation(50)))
    assert metrics.discrimination(*series, "val") == expected


@pytest.mark.parametrize("targets, n, classes", [([], 0, 0), ([1], 1, 1), ([0, 0, 0], 3, 1)])
def test_one_class_is_refused(targets, n, classes):
    targets = np.array(targets)
    scores = np.linspace(-1, 1, n)
    calls = {
        "test": lambda: metrics.discrimination(targets, scores, np.arange(n), "test"),
        "validation": lambda: metrics.calibrate(scores, targets),
        "validation ": lambda: metrics.choose_threshold(targets, scores),
        "split": lambda: metrics.decision(targets, scores, 0.0),
    }
    for where, call in calls.items():
        with pytest.raises(ValueError, match="split_seed") as raised:
            call()
        assert where.strip() in str(raised.value)
        assert re.findall(r"\d+", str(raised.value)) == [str(n), str(classes)]


@pytest.mark.parametrize("kept, empty", [("val", "test"), ("test", "val")])
def test_a_run_without_one_of_its_splits_has_no_summary(kept, empty):
    table = source_table(1, 40).assign(split=kept, probability=0.5)
    with pytest.raises(ValueError, match=rf"\b{empty}\b.*\b0\b"):
        metrics.summarise(
            table, calibration={"slope": 1.0, "intercept": 0.0}, threshold=0.5, weights="none"
        )


@pytest.mark.parametrize(
    "melanomas, benign, photographs",
    [(1, 60, 1), (9, 60, 1), (60, 9, 1), (2, 60, 30), (60, 1, 5)],
)
@pytest.mark.parametrize("apart", [0.0, 20.0])
def test_an_auc_of_a_handful_has_no_interval(melanomas, benign, photographs, apart):
    targets = np.repeat([1, 0], [melanomas * photographs, benign * photographs])
    scores = np.random.default_rng(0).normal(size=len(targets)) + apart * targets
    groups = np.arange(len(targets)) // photographs
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = metrics.discrimination(targets, scores, groups, "test")
    assert figures["auc"] == roc_auc_score(targets, scores)
    assert figures["positive_groups"] == melanomas
    assert {figures[f"{name}_{end}"] for name in ("auc", "ap") for end in ("low", "high")} == {None}


def test_a_perfect_auc_of_enough_has_a_width_and_a_perfect_ap_no_interval():
    targets = np.repeat([1, 0], [15, 40])
    figures = metrics.discrimination(targets, targets + 0.0, np.arange(55), "test")
    assert (figures["auc"], figures["auc_high"], figures["ap"]) == (1, 1, 1)
    assert figures["auc_low"] == pytest.approx(0.025 ** (1 / 15))
    assert figures["ap_low"] is None and figures["ap_high"] is None


def test_a_score_that_is_the_same_for_all_is_chance_whatever_is_drawn():
    table = source_table(1, 90).assign(logit=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = metrics.summarise_ranking(table, "test")
    for name in ("auc", "auc_low", "auc_high", "auc_within_source", "auc_within_source_low"):
        assert figures[name] == 0.5


# within sources


def test_a_source_with_a_handful_has_an_auc_without_interval_and_so_has_the_pair_of_such():
    """30 melanomas and a benign lesion in A, the other way round in B: within, two pairs of each"""
    targets = np.array([1] * 30 + [0] + [1] + [0] * 30)
    table = pd.DataFrame({"target": targets, "source": ["A"] * 31 + ["B"] * 31, "group": range(62)})
    table["logit"] = np.random.default_rng(0).normal(size=62) + targets
    figures = metrics.summarise_ranking(table, "test")
    assert figures["auc_low"] < figures["auc"] < figures["auc_high"]
    assert figures["auc_within_source"] is not None
    assert figures["auc_within_source_low"] is None
    for source in "AB":
        assert figures["by_source"][source]["auc"] is not None
        assert figures["by_source"][source]["auc_low"] is None
    json.dumps(figures, allow_nan=False)
    shown = metrics.readable(metrics.auc_table(table, ["logit"]))
    assert shown["within_low"].item() == shown["within_high"].item() == "too few"
    assert shown["auc_low"].item() == round(figures["auc_low"], 3)


def test_the_table_of_aucs_has_a_row_for_each_score_with_the_intervals_of_the_others():
    table = source_table(3, 90)
    table["source only"] = (table["source"] == "A").astype(float)
    table["guess"] = 1.0
    result = metrics.auc_table(table, ["logit", "source only", "guess"])
    assert list(result.index) == ["logit", "source only", "guess"]
    pooled = metrics.discrimination(table["target"], table["logit"], table["group"], "test")
    inside = bootstrap.interval(bootstrap.within(table), table["group"])
    assert result.loc["logit"].to_dict() == {
        "auc": pooled["auc"],
        "auc_low": pooled["auc_low"],
        "auc_high": pooled["auc_high"],
        "within": inside["value"],
        "within_low": inside["low"],
        "within_high": inside["high"],
    }
    assert inside["low"] < inside["value"] < inside["high"]
    assert (result.loc["source only", ["within", "within_low", "within_high"]] == 0.5).all()
    assert (result.loc["guess"] == 0.5).all()
    shown = metrics.readable(result)
    assert shown.equals(result.round(3))
    apart = table.assign(source=table["target"].map({0: "A", 1: "B"}))
    assert metrics.auc_table(apart, ["logit"])[["within", "within_low"]].isna().all(axis=None)


def test_a_source_of_one_class_has_a_reason_in_place_of_an_auc():
    table = source_table(2, 60)
    figures = metrics.within_source(table)
    assert list(figures) == ["A", "B", "C"]
    for source in "AB":
        rows = table[table["source"] == source]
        assert set(figures[source]) == FIGURES
        assert figures[source]["auc"] == roc_auc_score(rows["target"], rows["logit"])
    assert figures["C"]["auc"] is None
    assert figures["C"]["positives"] == 0
    assert figures["C"]["reason"]
    assert figures["C"]["n"] == (table["source"] == "C").sum()


# probability


@pytest.mark.parametrize("slope, intercept", [(1.7, -2.3), (0.4, 0.5), (3.0, 1.0)])
def test_calibrate_finds_the_slope_and_intercept_that_made_the_targets(slope, intercept):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=20000)
    truth = 1 / (1 + np.exp(-(slope * logits + intercept)))
    targets = (rng.random(20000) < truth).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibration = metrics.calibrate(logits, targets)
    assert calibration == pytest.approx({"slope": slope, "intercept": intercept}, abs=0.12)
    np.testing.assert_allclose(metrics.probability(logits, calibration), truth, atol=0.03)


def test_logits_in_the_wrong_order_say_nothing_but_the_prevalence():
    logits = np.arange(36.0)[::-1]
    calibration = metrics.calibrate(logits, np.repeat([0, 1], [24, 12]))
    assert calibration["slope"] == 0
    np.testing.assert_allclose(metrics.probability(logits, calibration), 1 / 3)


def test_a_probability_of_any_logit_is_between_0_and_1_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extreme = np.array([-1e6, -800, 0, 800, 1e6])
        probabilities = metrics.probability(extreme, {"slope": 1.0, "intercept": 0.0})
        logits = np.repeat([-20.0, 30.0], [90, 60])
        separable = metrics.calibrate(logits, np.repeat([0, 1], [90, 60]))
        far = metrics.probability(np.array([-20.0, 30.0, -1e5]), separable)
    assert probabilities == pytest.approx([0, 0, 0.5, 1, 1])
    assert far == pytest.approx([0, 1, 0], abs=0.02)


@pytest.mark.parametrize("scale", [0.1, 1.0, 50.0])
@pytest.mark.parametrize("melanomas", [10, 40])
def test_logits_that_separate_the_classes_get_a_slope_that_does_not_run_away(melanomas, scale):
    """Platt's targets: the probabilities' means are theirs, (n + 1) / (n + 2) and 1 / (m + 2)."""
    rng = np.random.default_rng(0)
    targets = np.repeat([1, 0], [melanomas, 60])
    logits = scale * (2 * targets + rng.random(len(targets)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibration = metrics.calibrate(logits, targets)
    probabilities = metrics.probability(logits, calibration)
    mean = (melanomas * (melanomas + 1) / (melanomas + 2) + 60 / 62) / len(targets)
    assert probabilities.mean() == pytest.approx(mean, abs=0.002)
    assert 0.001 < probabilities.min() < probabilities.max() < 0.9999


@pytest.mark.parametrize(
    "melanomas, benign, photographs",
    [(1, 60, 1), (9, 60, 1), (60, 9, 1), (2, 60, 30)],
)
def test_no_slope_is_fitted_to_a_handful(melanomas, benign, photographs):
    targets = np.repeat([1, 0], [melanomas * photographs, benign * photographs])
    logits = np.random.default_rng(0).normal(size=len(targets)) + 3 * targets
    groups = np.arange(len(targets)) // photographs
    val = pd.DataFrame({"target": targets, "group": groups})
    calibration = metrics.calibrate(logits, targets, groups, shift=-1.5)
    assert calibration == {"slope": 1.0, "intercept": -1.5}
    assert str(min(melanomas, benign)) in metrics.caution(val)
    enough = pd.DataFrame({"target": [0, 1] * 10, "group": range(20)})
    assert metrics.caution(enough) == ""


def test_the_prior_shift_is_that_of_saerens():
    """A table with 10% melanomas, balanced to a half; the recipe shows each melanoma thrice."""
    split = pd.DataFrame({"split": "train", "target": np.repeat([1, 0], [20, 180]), "kept": 1})
    split.loc[40:, "kept"] = 0
    split = pd.concat([split, split.assign(split="val", kept=1)])
    test = pd.DataFrame({"split": "test", "target": np.ones(50, int), "kept": 1})  # not looked at
    for times, trained in ((1, 0.5), (3, 0.75)):
        shift = metrics.prior_shift(pd.concat([split, test]), times)
        logits = np.array([-2.0, 0.0, 3.0])
        raw = metrics.probability(logits, {"slope": 1.0, "intercept": 0.0})
        expected = metrics.shift_prior(raw, trained=trained, natural=0.1)
        shifted = metrics.probability(logits, {"slope": 1.0, "intercept": shift})
        np.testing.assert_allclose(shifted, expected)


def test_shift_prior_gives_the_shares_that_counting_gives():
    rng = np.random.default_rng(0)
    kind = rng.choice(3, 30000, p=[0.5, 0.3, 0.2])  # three kinds of photograph
    target = rng.random(30000) < np.array([0.02, 0.1, 0.5])[kind]
    drawn = np.r_[np.flatnonzero(~target), np.repeat(np.flatnonzero(target), 7)]
    balanced = np.array([target[drawn][kind[drawn] == number].mean() for number in range(3)])
    natural = np.array([target[kind == number].mean() for number in range(3)])
    shares = {"trained": target[drawn].mean(), "natural": target.mean()}
    np.testing.assert_allclose(metrics.shift_prior(balanced, **shares), natural, rtol=1e-12)
    back = {"trained": shares["natural"], "natural": shares["trained"]}
    np.testing.assert_allclose(metrics.shift_prior(natural, **back), balanced, rtol=1e-12)


def test_shift_prior_keeps_the_ends_and_a_share_that_does_not_change():
    ends = metrics.shift_prior(np.array([0.0, 0.5, 1.0]), trained=0.5, natural=0.09)
    assert ends.tolist() == [0, 0.09, 1]
    assert metrics.shift_prior(0.3, trained=0.2, natural=0.2) == pytest.approx(0.3)


@pytest.mark.parametrize("trained, natural", [(0.0, 0.1), (0.5, 1.0), (50, 0.1)])
def test_shift_prior_refuses_what_is_no_share(trained, natural):
    with pytest.raises(ValueError, match=f"{trained}.*{natural}"):
        metrics.shift_prior(0.5, trained=trained, natural=natural)


# threshold


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_the_threshold_is_the_highest_that_calls_enough_melanomas(seed, ties):
    targets, scores = examples(seed, 5 + 11 * seed, ties=ties)
    melanomas = scores[targets == 1]
    enough = []
    for threshold in set(scores):
        called = sum(1 for score in melanomas if score >= threshold)
        if 10 * called >= 9 * len(melanomas):
            enough.append(threshold)
    assert metrics.choose_threshold(targets, scores) == max(enough)


@pytest.mark.parametrize("specificity", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_the_threshold_of_a_specificity_is_the_lowest_that_leaves_enough_alone(
    seed, ties, specificity
):
    targets, scores = examples(seed, 5 + 11 * seed, ties=ties)
    benign = scores[targets == 0]
    enough = []
    for threshold in set(scores):
        left = sum(1 for score in benign if score < threshold)
        if 100 * left >= round(100 * specificity) * len(benign):
            enough.append(threshold)
    threshold = metrics.choose_threshold(targets, scores, specificity=specificity)
    if enough:
        assert threshold == min(enough)
    else:
        assert scores.max() < threshold < np.inf


@pytest.mark.parametrize("melanomas, missed", [(10, 1), (20, 2), (30, 3), (9, 0), (19, 1)])
def test_a_sensitivity_of_exactly_90_percent_is_enough(melanomas, missed):
    scores = np.r_[np.arange(melanomas), -1.0]
    targets = np.r_[np.ones(melanomas, int), 0]
    assert metrics.choose_threshold(targets, scores) == missed


@pytest.mark.parametrize("benign, called", [(10, 2), (20, 4), (30, 6), (4, 0), (5, 1)])
def test_a_specificity_of_exactly_80_percent_is_enough(benign, called):
    scores = np.r_[np.arange(benign), benign]
    targets = np.r_[np.zeros(benign, int), 1]
    assert metrics.choose_threshold(targets, scores, specificity=0.8) == benign - called


@pytest.mark.parametrize("threshold", [-9.0, -1.0, 0.0, 1.0, 9.0])
def test_the_counts_of_a_decision_are_those_of_a_loop(threshold):
    targets, scores = examples(4, 80, ties=True)
    counts = Counter()
    for target, score in zip(targets, scores, strict=True):
        counts[int(target), bool(score >= threshold)] += 1
    assert metrics.decision(targets, scores, threshold) == {
        "true_positives": counts[1, True],
        "false_negatives": counts[1, False],
        "false_positives": counts[0, True],
        "true_negatives": counts[0, False],
        "sensitivity": counts[1, True] / targets.sum(),
        "specificity": counts[0, False] / (targets == 0).sum(),
    }


def probabilities_of(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(probability=1 / (1 + np.exp(-table["logit"])))


def test_operating_points_are_chosen_on_val_and_counted_on_test():
    val = probabilities_of(source_table(5, 80))
    test = probabilities_of(source_table(6, 70))
    points = metrics.operating_points(val, test)
    assert [(row["asked"], row["at"]) for row in points] == [
        ("sensitivity", 0.8),
        ("sensitivity", 0.9),
        ("sensitivity", 0.95),
        ("specificity", 0.8),
        ("specificity", 0.9),
        ("specificity", 0.95),
    ]
    for row in points:
        chosen = metrics.decision(val["target"], val["probability"], row["threshold"])
        assert chosen[row["asked"]] >= row["at"] - 1e-12
        counted = metrics.decision(test["target"], test["probability"], row["threshold"])
        assert counted.items() <= row.items()
    other = metrics.operating_points(val, test.assign(probability=0.0))
    assert [row["threshold"] for row in other] == [row["threshold"] for row in points]


def test_intervals_of_operating_points_are_those_of_their_shares_in_each_draw():
    val = probabilities_of(source_table(5, 80))
    test = probabilities_of(source_table(6, 70))
    draws = bootstrap.bootstrap_counts(test["group"])
    melanoma = test["target"].to_numpy() == 1
    for row in metrics.operating_points(val, test):
        called = test["probability"].to_numpy() >= row["threshold"]
        for name, kind, right in (
            ("sensitivity", melanoma, melanoma & called),
            ("specificity", ~melanoma, ~melanoma & ~called),
        ):
            shares = draws[:, right].sum(axis=1) / draws[:, kind].sum(axis=1)
            expected = np.percentile(shares, [2.5, 97.5])
            assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(expected)
            alone = bootstrap.interval(bootstrap.mean(right, kind), test["group"])
            assert (row[f"{name}_low"], row[f"{name}_high"]) == (alone["low"], alone["high"])


def test_a_sensitivity_of_a_handful_has_no_interval_and_the_specificity_beside_it_has():
    """One patient has all melanomas and is missing from more than a third of the draws."""
    table = pd.DataFrame({"group": [0, 0, *range(1, 31)], "target": [1, 1, *[0] * 30]})
    table["probability"] = [0.9, 0.1, *np.linspace(0, 0.8, 30)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for row in metrics.operating_points(table, table):
            assert row["sensitivity_low"] is None and row["sensitivity_high"] is None
            assert row["specificity_low"] < row["specificity_high"]


def test_where_every_melanoma_is_found_the_interval_is_that_of_clopper_and_pearson():
    """Of 12 patients with melanoma, each photographed thrice."""
    target = np.repeat([1, 0], [36, 60])
    table = pd.DataFrame({"group": np.arange(96) // 3, "target": target})
    table["probability"] = np.linspace(1, 0, 96)
    low = binomtest(12, 12).proportion_ci(0.95, "exact").low
    for row in metrics.operating_points(table.assign(probability=(1 - target) / 2), table):
        assert row["sensitivity"] == 1
        assert (row["sensitivity_low"], row["sensitivity_high"]) == (pytest.approx(low), 1)
        assert row["specificity_low"] < row["specificity_high"]


# calibration


@pytest.mark.parametrize("count", [1, 7, 15, 16, 100, 151])
@pytest.mark.parametrize("bins", [1, 15])
def test_reliability_and_ece_equal_a_plain_loop(count, bins):
    rng = np.random.default_rng(count)
    probabilities = rng.permutation(np.linspace(0.01, 0.99, count))
    targets = (rng.random(count) < probabilities**2).astype(int)
    number = min(bins, count)
    filled = [[] for _ in range(number)]
    for place, pair in enumerate(sorted(zip(probabilities, targets, strict=True))):
        filled[place * number // count].append(pair)
    table = metrics.reliability(targets, probabilities, bins=bins)
    assert list(table) == ["probability", "observed", "n"]
    assert table["n"].sum() == count
    assert table["n"].max() - table["n"].min() <= 1
    for row, pairs in zip(table.itertuples(), filled, strict=True):
        said = sum(probability for probability, _ in pairs) / len(pairs)
        observed = sum(target for _, target in pairs) / len(pairs)
        assert (row.probability, row.observed, row.n) == pytest.approx((said, observed, len(pairs)))
    table = metrics.reliability(targets, probabilities, bins=max(1, min(bins, count // 5)))
    error = sum(row.n * abs(row.probability - row.observed) / count for row in table.itertuples())
    assert metrics.calibration_error(targets, probabilities, bins=bins) == pytest.approx(error)


def test_bins_of_one_photograph_do_not_make_an_error_of_honest_probabilities():
    """15 photographs at 20%, of which three are melanomas; a bin each would say 32%."""
    targets = np.arange(15) % 5 == 0
    probabilities = 0.2 + 0.001 * np.arange(15)
    assert metrics.calibration_error(targets, probabilities) < 0.02


def test_ece_of_tied_probabilities_equals_a_plain_loop_on_1000_draws():
    for seed in range(1000):
        targets, scores = examples(seed, 4 + seed % 57, ties=seed % 4 > 0)
        probabilities = np.round(1 / (1 + np.exp(-scores)), seed % 4)  # to 0, 1, 2 or 3 places
        bins = {}
        for probability, target in zip(probabilities, targets, strict=True):
            number = max(1, min(15, len(targets) // 5))
            place = (probabilities < probability).sum() * number // len(targets)
            bins.setdefault(place, []).append(probability - target)
        gap = sum(abs(sum(gaps)) for gaps in bins.values()) / len(targets)
        error = metrics.calibration_error(targets, probabilities)
        assert error == pytest.approx(gap, abs=1e-12)


def test_ece_is_0_for_probabilities_that_come_true_and_1_for_the_opposite():
    targets = np.repeat([0, 1], [90, 60])
    assert metrics.calibration_error(targets, targets.astype(float)) == 0
    assert metrics.calibration_error(targets, 1.0 - targets) == 1


def test_reliability_does_not_depend_on_the_order_of_the_photographs():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 90)
    probabilities = np.round(rng.random(90), 1)
    order = np.argsort(targets, kind="stable")
    expected = metrics.reliability(targets, probabilities, bins=6)
    ordered = metrics.reliability(targets[order], probabilities[order], bins=6)
    pd.testing.assert_frame_equal(ordered, expected)
    same = np.full(90, targets.mean())  # all that slope 0 says
    assert metrics.calibration_error(targets[order], same) == pytest.approx(0, abs=1e-12)


def test_no_photographs_have_no_reliability():
    with pytest.raises(ValueError, match=r"\b0 photographs"):
        metrics.calibration_error(np.array([]), np.array([]))


def test_the_bins_shares_have_the_intervals_of_their_own_groups():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(90), 2)
    probabilities = np.sort(rng.random(180))
    targets = (rng.random(180) < probabilities).astype(int)
    order = rng.permutation(180)
    plain = metrics.reliability(targets[order], probabilities[order], bins=6)
    table = metrics.reliability(targets[order], probabilities[order], groups[order], bins=6)
    pd.testing.assert_frame_equal(table[list(plain)], plain)
    for number, row in enumerate(table.itertuples()):
        part = slice(30 * number, 30 * number + 30)
        drawn = []
        for _ in range(2000):
            chosen = rng.integers(15, size=15)
            drawn.append(targets[part].reshape(15, 2)[chosen].mean())
        low, high = np.percentile(drawn, [2.5, 97.5])
        if 0 < row.observed < 1:
            assert row.observed_low == pytest.approx(low, abs=0.05)
            assert row.observed_high == pytest.approx(high, abs=0.05)
        assert row.observed_low <= row.observed <= row.observed_high
    few = metrics.reliability(targets, probabilities, groups // 3, bins=15)
    assert few["observed_low"].isna().all() and few["observed_high"].isna().all()


def made_of(slope: float, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets whose true log odds are `slope` times those of the probabilities; probabilities."""
    rng = np.random.default_rng(seed)
    probabilities = rng.beta(1, 3, count)
    truth = expit(slope * np.log(probabilities / (1 - probabilities)))
    return (rng.random(count) < truth).astype(int), probabilities


@pytest.mark.parametrize("slope", [1.0, 0.3])
def test_the_interval_of_an_ece_holds_the_true_one_nine_times_in_ten(slope):
    """The true one is that of a million photographs; honest probabilities (slope 1) have none."""
    targets, probabilities = made_of(slope, 10**6, 0)
    true = metrics.calibration_error(targets, probabilities)
    held = 0
    by_value = []
    for seed in range(100):
        targets, probabilities = made_of(slope, 150, seed + 1)
        found = metrics.calibration_interval(targets, probabilities, np.arange(150))
        by_value.append(found["value"])
        held += found["low"] <= true + 0.001 and true <= found["high"]
    print(f"\nslope {slope}: true ECE {true:.3f}, mean {np.mean(by_value):.3f}, held {held} of 100")
    assert held >= 85
    assert np.mean(by_value) > true + 0.02, "an ECE of few lies too high: chance adds to it"


def test_chance_is_what_honest_probabilities_stay_below():
    below = 0
    for seed in range(200):
        targets, probabilities = made_of(1.0, 100, seed)
        found = metrics.calibration_interval(targets, probabilities, np.arange(100))
        below += found["value"] <= found["chance"]
        if found["value"] <= found["chance"]:
            assert found["low"] == 0
    assert 0.9 < below / 200 < 0.99


def test_an_ece_of_a_handful_of_groups_has_no_interval():
    targets, probabilities = made_of(0.3, 60, 0)
    found = metrics.calibration_interval(targets, probabilities, np.arange(60) // 7)  # nine
    assert found["value"] == metrics.calibration_error(targets, probabilities)
    assert np.isnan(found["low"]) and np.isnan(found["high"]) and found["chance"] > 0
    twice = metrics.calibration_interval(
        np.repeat(targets, 2), np.repeat(probabilities, 2), np.arange(120) // 2
    )
    alone = metrics.calibration_interval(
        np.repeat(targets, 2), np.repeat(probabilities, 2), np.arange(120)
    )
    assert twice["high"] - twice["low"] > 1.2 * (alone["high"] - alone["low"])
    with pytest.raises(ValueError, match=r"\b0 photographs"):
        metrics.calibration_interval(np.array([]), np.array([]), np.array([]))


# metrics.json


def predictions_of(val: pd.DataFrame, test: pd.DataFrame) -> tuple[pd.DataFrame, dict, float]:
    """Rows of predictions.csv with their calibration and threshold, as 04 makes them."""
    table = pd.concat([val.assign(split="val"), test.assign(split="test")])
    calibration = metrics.calibrate(val["logit"], val["target"])
    table["probability"] = metrics.probability(table["logit"], calibration)
    chosen = table[table["split"] == "val"]
    return table, calibration, metrics.choose_threshold(chosen["target"], chosen["probability"])


def test_summarise_fills_metrics_json():
    table, calibration, threshold = predictions_of(source_table(1, 70), source_table(2, 60))
    content = metrics.summarise(table, calibration=calibration, threshold=threshold, weights="none")
    assert set(content) == {"weights", "calibration", "threshold", "val", "test"}
    assert content["weights"] == "none"
    assert content["calibration"] == calibration
    assert content["threshold"] == threshold
    ranking = FIGURES | {"auc_within_source", "auc_within_source_low", "auc_within_source_high"}
    ranking |= {"by_source"}
    assert set(content["val"]) == ranking
    decision = {"sensitivity", "specificity", "true_positives", "false_negatives"}
    decision |= {"false_positives", "true_negatives"}
    calibration_figures = {"brier", "ece", "ece_low", "ece_high", "ece_chance"}
    expected = ranking | decision | calibration_figures | {"operating_points"}
    assert set(content["test"]) == expected
    # plain numbers, and none that JSON has not
    assert json.loads(json.dumps(content, allow_nan=False)) == content


@pytest.mark.parametrize("name", ["val", "test"])
def test_summarise_holds_each_splits_own_figures(name):
    table, calibration, threshold = predictions_of(source_table(1, 70), source_table(2, 60))
    content = metrics.summarise(table, calibration=calibration, threshold=threshold, weights="none")
    figures = content[name]
    rows = table[table["split"] == name]
    pooled = metrics.discrimination(rows["target"], rows["logit"], rows["group"], name)
    assert pooled.items() <= figures.items()
    assert figures["by_source"] == metrics.within_source(rows)
    inside = bootstrap.interval(bootstrap.within(rows), rows["group"])
    assert figures["auc_within_source"] == inside["value"]
    assert figures["auc_within_source_low"] == inside["low"]
    assert figures["auc_within_source_high"] == inside["high"]


def test_summarise_holds_the_decisions_on_test():
    table, calibration, threshold = predictions_of(source_table(1, 70), source_table(2, 60))
    content = metrics.summarise(table, calibration=calibration, threshold=threshold, weights="none")
    val = table[table["split"] == "val"]
    test = table[table["split"] == "test"]
    figures = content["test"]
    called = test["probability"] >= threshold
    assert figures["sensitivity"] == called[test["target"] == 1].mean()
    brier = brier_score_loss(test["target"], test["probability"])
    assert figures["brier"] == pytest.approx(brier)
    ece = metrics.calibration_error(test["target"], test["probability"])
    assert figures["ece"] == ece
    assert figures["ece_low"] <= ece <= figures["ece_high"] and figures["ece_chance"] > 0
    assert figures["operating_points"] == metrics.operating_points(val, test)


def test_sources_without_both_classes_leave_no_auc_within_source():
    tables = []
    for seed in (1, 2):
        table = source_table(seed, 60)
        tables.append(table.assign(source=table["target"].map({0: "A", 1: "B"})))
    table, calibration, threshold = predictions_of(*tables)
    content = metrics.summarise(table, calibration=calibration, threshold=threshold, weights="none")
    assert content["test"]["auc_within_source"] is None
    assert content["test"]["auc_within_source_low"] is None


def test_a_summary_of_12_000_photographs_takes_a_tenth_of_a_gigabyte():
    halves = [source_table(seed, 6000) for seed in (1, 2)]
    table, calibration, threshold = predictions_of(*halves)
    tracemalloc.start()
    metrics.summarise(table, calibration=calibration, threshold=threshold, weights="none")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"\n{len(table)} photographs: {peak / 2**20:.0f} MiB")
    assert peak < 100 * 2**20
