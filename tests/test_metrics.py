"""Figures of a diagnostic test against scikit-learn, DeLong's interval, simulations and loops in plain Python."""

import json
import math
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, confusion_matrix, roc_auc_score

from helpers import metrics

FIGURES = {"auc", "auc_low", "auc_high", "ap", "prevalence", "n", "positives"}


def examples(seed: int, count: int, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Targets of both classes and scores that know something of them, all different or with many ties."""
    rng = np.random.default_rng(seed)
    targets = rng.permutation(np.r_[0, 1, rng.random(count - 2) < 0.4].astype(int))
    scores = rng.normal(size=count) + targets
    return targets, np.round(scores) if ties else scores


# AUC and average precision under weights

@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_weighted_auc_and_ap_are_scikit_learns(seed, ties):
    targets, scores = examples(seed, 6 + 9 * seed, ties=ties)
    weights = np.random.default_rng(seed).integers(0, 4, size=(12, len(targets)))
    weights[:, [targets.argmin(), targets.argmax()]] += 1  # a photograph of each class at least
    auc, ap = metrics.weighted_auc_ap(targets, scores, weights)
    for row, weight in enumerate(weights):
        assert auc[row] == pytest.approx(roc_auc_score(targets, scores, sample_weight=weight), abs=1e-12)
        assert ap[row] == pytest.approx(average_precision_score(targets, scores, sample_weight=weight), abs=1e-12)


def test_a_weight_of_2_is_the_photograph_twice_and_many_rows_of_weights_are_as_one():
    targets, scores = examples(3, 40, ties=True)
    weights = np.random.default_rng(0).integers(1, 4, size=(250, 40))  # more than are held in memory at once
    auc, ap = metrics.weighted_auc_ap(targets, scores, weights)
    assert auc.shape == ap.shape == (250,)
    for row in (0, 99, 100, 199, 200, 249):
        repeated = np.repeat(targets, weights[row]), np.repeat(scores, weights[row])
        assert (auc[row], ap[row]) == pytest.approx((roc_auc_score(*repeated), average_precision_score(*repeated)))


def test_without_a_class_there_is_no_auc():
    targets, scores = np.array([1, 1, 0, 0]), np.array([3.0, 1.0, 2.0, 0.0])
    auc, ap = metrics.weighted_auc_ap(targets, scores, np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0]]))
    assert np.isnan(auc).tolist() == [True, True, False] and np.isnan(ap[1]) and auc[2] == 1


# the bootstrap

def test_the_bootstrap_draws_whole_groups_as_many_as_there_are():
    groups = np.array(["a", "b", "a", "c", "d", "b", "a", "e"])
    counts = metrics.bootstrap_counts(groups, draws=3000, seed=1)
    assert counts.shape == (3000, 8)
    firsts = [groups.tolist().index(group) for group in "abcde"]
    for group, first in zip("abcde", firsts, strict=True):
        assert (counts[:, groups == group] == counts[:, [first]]).all()
        assert counts[:, first].mean() == pytest.approx(1, abs=0.1)
        assert (counts[:, first] == 0).mean() == pytest.approx((4 / 5) ** 5, abs=0.05)
    assert (counts[:, firsts].sum(axis=1) == 5).all()


def test_the_bootstrap_follows_from_its_seed():
    groups = np.arange(30)
    first, again, other = (metrics.bootstrap_counts(groups, draws=20, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert metrics.bootstrap_counts(groups).shape == (2000, 30)


# discrimination

def delong(targets: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """95% interval of the AUC from its structural components (DeLong and others, Biometrics 1988)."""
    pairs = scores[targets == 1][:, None] - scores[targets == 0][None, :]
    right = (pairs > 0) + 0.5 * (pairs == 0)                                            # [positives, negatives]
    error = math.sqrt(right.mean(axis=1).var(ddof=1) / len(right) + right.mean(axis=0).var(ddof=1) / right.shape[1])
    return right.mean() - 1.96 * error, right.mean() + 1.96 * error


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_of_independent_photographs_is_delongs(seed):
    targets, scores = examples(seed, 500, ties=seed == 3)
    found = metrics.discrimination(targets, scores, np.arange(500), "val")
    assert set(found) == FIGURES
    assert (found["auc_low"], found["auc_high"]) == pytest.approx(delong(targets, scores), abs=0.006)
    assert found["auc"] == roc_auc_score(targets, scores) and found["ap"] == average_precision_score(targets, scores)
    assert (found["n"], found["positives"], found["prevalence"]) == (500, targets.sum(), targets.mean())


def test_photographs_of_one_patient_bring_nothing_new():
    targets, scores = examples(0, 120)
    once = metrics.discrimination(targets, scores, np.arange(120), "val")
    copies = [np.repeat(one, 5) for one in (targets, scores, np.arange(120))]
    assert metrics.discrimination(*copies, "val") == pytest.approx({**once, "n": 600, "positives": 5 * targets.sum()})
    alone = metrics.discrimination(copies[0], copies[1], np.arange(600), "val")  # who forgets the groups
    assert alone["auc_high"] - alone["auc_low"] < 0.6 * (once["auc_high"] - once["auc_low"])


def test_95_of_100_intervals_hold_the_truth():
    truth = 0.5 * (1 + math.erf(0.5))  # P(N(1, 1) > N(0, 1))
    held = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        patients = np.arange(70)
        targets = (patients % 3 == 0).astype(int)
        scores = rng.normal(size=70) + targets
        rows = np.repeat(patients, rng.integers(1, 4, 70))  # one to three equal photographs of each
        found = metrics.discrimination(targets[rows], scores[rows], rows, "val")
        held += found["auc_low"] <= truth <= found["auc_high"]
    assert 0.89 <= held / 150 <= 0.99


def test_photographs_are_matched_by_place_not_by_their_index():
    targets, scores = examples(1, 50)
    groups = np.arange(50) // 2
    expected = metrics.discrimination(targets, scores, groups, "val")
    series = (pd.Series(one, index=np.random.default_rng(row).permutation(50))
              for row, one in enumerate((targets, scores, groups)))
    assert metrics.discrimination(*series, "val") == expected


@pytest.mark.parametrize("targets, message", [([], "test holds 0 photographs of 0"), ([1], "1 photographs of 1"),
                                              ([0, 0, 0], "test holds 3 photographs of 1")])
def test_one_class_is_refused(targets, message):
    scores = np.linspace(-1, 1, len(targets))
    with pytest.raises(ValueError, match=message) as raised:
        metrics.discrimination(targets, scores, np.arange(len(targets)), "test")
    assert "split_seed" in str(raised.value)
    for call in (metrics.calibrate, lambda scores, targets: metrics.choose_threshold(targets, scores)):
        with pytest.raises(ValueError, match=message.replace("test", "validation")):
            call(scores, np.array(targets))


# within sources

def source_table(seed: int, count: int, *, ties: bool = False) -> pd.DataFrame:
    """Rows as in predictions.csv, of a source with both classes twice over and of one with benign lesions alone."""
    targets, scores = examples(seed, count, ties=ties)
    source = np.random.default_rng(100 + seed).choice(["A", "B"], count)
    source[:4], targets[:4] = ["A", "A", "B", "B"], [0, 1, 0, 1]
    table = pd.DataFrame({"image_id": [f"X_{row}" for row in range(count)], "source": source,
                          "group": np.arange(count) // 3, "target": targets, "logit": scores})
    table.loc[(table["target"] == 0) & (table.index % 7 == 6), "source"] = "C"
    return table.sample(frac=1, random_state=seed)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_auc_within_source_counts_the_pairs_of_one_source(seed, ties):
    table = source_table(seed, 60, ties=ties)
    right = pairs = 0
    for one in table.itertuples():
        for other in table.itertuples():
            if one.source == other.source and one.target == 1 and other.target == 0:
                right += 1 if one.logit > other.logit else 0.5 if one.logit == other.logit else 0
                pairs += 1
    assert metrics.auc_within_source(table) == pytest.approx(right / pairs, abs=1e-12)


def test_knowing_the_source_alone_is_worth_nothing_within_it():
    table = pd.DataFrame({"source": ["A"] * 20 + ["B"] * 20, "target": [1] * 15 + [0] * 5 + [1] * 3 + [0] * 17})
    table["logit"] = (table["source"] == "A") * 2.0
    assert roc_auc_score(table["target"], table["logit"]) > 0.75
    assert metrics.auc_within_source(table) == 0.5
    assert metrics.auc_within_source(table[table["target"] == (table["source"] == "A")]) is None


def test_a_source_of_one_class_has_a_reason_in_place_of_an_auc():
    table = source_table(2, 60)
    found = metrics.within_source(table)
    assert list(found) == ["A", "B", "C"] and set(found["A"]) == set(found["B"]) == FIGURES
    for source in "AB":
        rows = table[table["source"] == source]
        assert found[source]["auc"] == roc_auc_score(rows["target"], rows["logit"])
    assert found["C"]["auc"] is None and found["C"]["positives"] == 0 and "one class" in found["C"]["reason"]
    assert found["C"]["n"] == (table["source"] == "C").sum()


# probability and threshold

@pytest.mark.parametrize("slope, intercept", [(1.7, -2.3), (0.4, 0.5), (3.0, 1.0)])
def test_calibrate_finds_the_slope_and_intercept_that_made_the_targets(slope, intercept):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=20000)
    truth = 1 / (1 + np.exp(-(slope * logits + intercept)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics.calibrate(logits, (rng.random(20000) < truth).astype(int))
    assert found == pytest.approx({"slope": slope, "intercept": intercept}, abs=0.12)
    np.testing.assert_allclose(metrics.probability(logits, found), truth, atol=0.03)


def test_logits_in_the_wrong_order_say_nothing_but_the_prevalence():
    logits, targets = np.array([3.0, 2, 1, 0, -1, -2]), np.array([0, 0, 0, 0, 1, 1])
    found = metrics.calibrate(logits, targets)
    assert found["slope"] == 0
    np.testing.assert_allclose(metrics.probability(logits, found), 1 / 3)


def test_a_probability_of_any_logit_is_between_0_and_1_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics.probability(np.array([-1e6, -800, 0, 800, 1e6]), {"slope": 1.0, "intercept": 0.0})
        separable = metrics.calibrate(np.r_[np.full(9, -20.0), np.full(6, 30.0)], np.r_[np.zeros(9), np.ones(6)])
        far = metrics.probability(np.array([-20.0, 30.0, -1e5]), separable)
    assert found == pytest.approx([0, 0, 0.5, 1, 1]) and far == pytest.approx([0, 1, 0], abs=0.01)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_the_threshold_is_the_highest_that_finds_enough(seed, ties):
    targets, scores = examples(seed, 5 + 11 * seed, ties=ties)
    good = []
    for threshold in set(scores):
        found = sum(1 for target, score in zip(targets, scores, strict=True) if target and score >= threshold)
        if 10 * found >= 9 * sum(targets):
            good.append(threshold)
    assert metrics.choose_threshold(targets, scores) == max(good)


@pytest.mark.parametrize("melanomas, missed", [(10, 1), (20, 2), (30, 3), (9, 0), (19, 1)])
def test_a_sensitivity_of_exactly_90_percent_is_enough(melanomas, missed):
    scores = np.r_[np.arange(melanomas), -1.0]
    targets = np.r_[np.ones(melanomas, int), 0]
    assert metrics.choose_threshold(targets, scores) == missed


@pytest.mark.parametrize("threshold", [-9.0, -1.0, 0.0, 1.0, 9.0])
def test_the_counts_of_a_decision_are_scikit_learns(threshold):
    targets, scores = examples(4, 80, ties=True)
    found = metrics.decision(targets, scores, threshold)
    (tn, fp), (fn, tp) = confusion_matrix(targets, scores >= threshold, labels=[0, 1]).tolist()
    assert found == {"true_positives": tp, "false_negatives": fn, "false_positives": fp, "true_negatives": tn,
                     "sensitivity": tp / (tp + fn), "specificity": tn / (tn + fp)}


@pytest.mark.parametrize("count", [1, 7, 15, 16, 100, 151])
@pytest.mark.parametrize("bins", [1, 15])
def test_reliability_and_ece_equal_a_plain_loop(count, bins):
    rng = np.random.default_rng(count)
    probabilities = rng.permutation(np.linspace(0.01, 0.99, count))
    targets = (rng.random(count) < probabilities ** 2).astype(int)
    pairs, number = sorted(zip(probabilities, targets, strict=True)), min(bins, count)
    filled = [[pair for place, pair in enumerate(pairs) if place * number // count == one] for one in range(number)]
    table = metrics.reliability(targets, probabilities, bins=bins)
    assert list(table) == ["probability", "observed", "n"] and len(table) == number
    assert table["n"].sum() == count and table["n"].max() - table["n"].min() <= 1
    error = 0.0
    for row, pairs in zip(table.itertuples(), filled, strict=True):
        said, observed = sum(one for one, _ in pairs) / len(pairs), sum(one for _, one in pairs) / len(pairs)
        assert (row.probability, row.observed, row.n) == pytest.approx((said, observed, len(pairs)))
        error += len(pairs) * abs(said - observed) / count
    assert metrics.calibration_error(targets, probabilities, bins=bins) == pytest.approx(error)


def test_ece_is_0_for_probabilities_that_come_true_and_large_for_the_opposite():
    targets = np.r_[np.zeros(90), np.ones(60)].astype(int)
    assert metrics.calibration_error(targets, targets.astype(float)) == 0
    assert metrics.calibration_error(targets, 1.0 - targets) == 1


# metrics.json

def test_summarise_fills_metrics_json(tmp_path):
    table = pd.concat([source_table(1, 70).assign(split="val"), source_table(2, 60).assign(split="test")])
    val = table[table["split"] == "val"]
    calibration = metrics.calibrate(val["logit"], val["target"])
    table["probability"] = metrics.probability(table["logit"], calibration)
    threshold = metrics.choose_threshold(val["target"], table.loc[table["split"] == "val", "probability"])
    found = metrics.summarise(table, calibration=calibration, threshold=threshold, weights="none")
    assert set(found) == {"weights", "calibration", "threshold", "val", "test"}
    assert (found["weights"], found["calibration"], found["threshold"]) == ("none", calibration, threshold)
    counts = {"true_positives", "false_negatives", "false_positives", "true_negatives"}
    sides = {"val": FIGURES | {"auc_within_source", "by_source"}}
    sides["test"] = sides["val"] | {"sensitivity", "specificity", "brier", "ece"} | counts
    for name, keys in sides.items():
        rows = table[table["split"] == name]
        assert set(found[name]) == keys
        assert found[name]["auc"] == roc_auc_score(rows["target"], rows["logit"])
        interval = metrics.discrimination(rows["target"], rows["logit"], rows["group"], name)
        assert interval.items() <= found[name].items()
        assert found[name]["n"] == len(rows) and found[name]["positives"] == rows["target"].sum()
        assert {source: one["n"] for source, one in found[name]["by_source"].items()} == Counter(rows["source"])
        assert found[name]["by_source"]["C"]["auc"] is None
        assert found[name]["auc_within_source"] == metrics.auc_within_source(rows)
    test = table[table["split"] == "test"].reset_index(drop=True)
    assert found["test"]["sensitivity"] == (test.loc[test["target"] == 1, "probability"] >= threshold).mean()
    assert found["test"]["brier"] == pytest.approx(brier_score_loss(test["target"], test["probability"]))
    assert found["test"]["ece"] == metrics.calibration_error(test["target"], test["probability"])
    assert json.loads(json.dumps(found, allow_nan=False)) == found  # plain numbers, and none that JSON has not
