"""Figures of a diagnostic test against scikit-learn, DeLong's interval, simulations and loops in plain Python.

ATTENTION_SIMULATIONS=2000 measures the coverage of the intervals in full (three to four minutes); `-s` prints it.
"""

import json
import math
import os
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from helpers.scores import bootstrap, metrics

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
SIMULATIONS = int(os.environ.get("ATTENTION_SIMULATIONS") or 200)


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
    auc, ap = bootstrap.weighted_auc_ap(targets, scores, weights)
    for row, weight in enumerate(weights):
        assert auc[row] == pytest.approx(
            roc_auc_score(targets, scores, sample_weight=weight), abs=1e-12
        )
        assert ap[row] == pytest.approx(
            average_precision_score(targets, scores, sample_weight=weight), abs=1e-12
        )


def test_a_weight_of_2_is_the_photograph_twice_and_many_rows_of_weights_are_as_one():
    targets, scores = examples(3, 40, ties=True)
    weights = np.random.default_rng(0).integers(
        1, 4, size=(250, 40)
    )  # more than are held in memory at once
    auc, ap = bootstrap.weighted_auc_ap(targets, scores, weights)
    assert auc.shape == ap.shape == (250,)
    for row in (0, 99, 100, 199, 200, 249):
        repeated = np.repeat(targets, weights[row]), np.repeat(scores, weights[row])
        assert (auc[row], ap[row]) == pytest.approx(
            (roc_auc_score(*repeated), average_precision_score(*repeated))
        )


def test_without_a_class_there_is_no_auc():
    targets, scores = np.array([1, 1, 0, 0]), np.array([3.0, 1.0, 2.0, 0.0])
    auc, ap = bootstrap.weighted_auc_ap(
        targets, scores, np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0]])
    )
    assert np.isnan(auc).tolist() == [True, True, False] and np.isnan(ap[1]) and auc[2] == 1


def by_pairs(targets: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """AUC as the share of pairs in the right order (ties half), AP as a sum over distinct thresholds."""
    difference = scores[targets == 1][:, None] - scores[targets == 0][None, :]
    precision = recall = ap = 0.0
    for threshold in sorted(set(scores), reverse=True):
        called = targets[scores >= threshold]
        precision, before, recall = called.mean(), recall, called.sum() / targets.sum()
        ap += (recall - before) * precision
    return ((difference > 0) + (difference == 0) / 2).mean(), ap


def test_auc_ap_and_ece_equal_independent_computations_on_1000_draws():
    for seed in range(1000):
        targets, scores = examples(seed, 4 + seed % 57, ties=seed % 4 > 0)
        probabilities = np.round(1 / (1 + np.exp(-scores)), seed % 4)  # to 0, 1, 2 or 3 places
        unweighted = bootstrap.weighted_auc_ap(targets, scores, np.ones((1, len(targets))))
        assert (unweighted[0][0], unweighted[1][0]) == pytest.approx(
            by_pairs(targets, scores), abs=1e-12
        )
        bins = {}
        for probability, target in zip(probabilities, targets, strict=True):
            place = (probabilities < probability).sum() * min(15, len(targets)) // len(targets)
            bins.setdefault(place, []).append((probability, target))
        gaps = [
            abs(sum(said for said, _ in pairs) - sum(true for _, true in pairs))
            for pairs in bins.values()
        ]
        assert metrics.calibration_error(targets, probabilities) == pytest.approx(
            sum(gaps) / len(targets), abs=1e-12
        )


# the bootstrap


def test_the_bootstrap_draws_whole_groups_as_many_as_there_are():
    groups = np.array(["a", "b", "a", "c", "d", "b", "a", "e"])
    counts = bootstrap.bootstrap_counts(groups, draws=3000, seed=1)
    assert counts.shape == (3000, 8)
    firsts = [groups.tolist().index(group) for group in "abcde"]
    for group, first in zip("abcde", firsts, strict=True):
        assert (counts[:, groups == group] == counts[:, [first]]).all()
        assert counts[:, first].mean() == pytest.approx(1, abs=0.1)
        assert (counts[:, first] == 0).mean() == pytest.approx((4 / 5) ** 5, abs=0.05)
    assert (counts[:, firsts].sum(axis=1) == 5).all()


def test_the_bootstrap_follows_from_its_seed():
    groups = np.arange(30)
    first, again, other = (
        bootstrap.bootstrap_counts(groups, draws=20, seed=seed) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert bootstrap.bootstrap_counts(groups).shape == (2000, 30)


# discrimination


def delong(targets: np.ndarray, *scores: np.ndarray) -> tuple[float, float]:
    """95% interval of the AUC, or of the first scores' less the second's, from structural components.

    DeLong, DeLong and Clarke-Pearson, Biometrics 1988. It takes every photograph for independent.
    """
    pairs = [one[targets == 1][:, None] - one[targets == 0][None, :] for one in scores]
    right = [(one > 0) + 0.5 * (one == 0) for one in pairs]  # [positives, negatives] each
    right = right[0] - right[1] if len(right) == 2 else right[0]
    error = math.sqrt(
        right.mean(axis=1).var(ddof=1) / len(right)
        + right.mean(axis=0).var(ddof=1) / right.shape[1]
    )
    return right.mean() - 1.96 * error, right.mean() + 1.96 * error


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_of_independent_photographs_is_delongs(seed):
    targets, scores = examples(seed, 500, ties=seed == 3)
    found = metrics.discrimination(targets, scores, np.arange(500), "val")
    assert set(found) == FIGURES
    assert (found["auc_low"], found["auc_high"]) == pytest.approx(
        delong(targets, scores), abs=0.006
    )
    assert found["auc"] == roc_auc_score(targets, scores) and found[
        "ap"
    ] == average_precision_score(targets, scores)
    assert (found["n"], found["positives"], found["prevalence"]) == (
        500,
        targets.sum(),
        targets.mean(),
    )
    rows = [np.random.default_rng(n).integers(0, 500, 500) for n in range(1000)]  # drawn one by one
    expected = np.percentile(
        [average_precision_score(targets[row], scores[row]) for row in rows], [2.5, 97.5]
    )
    assert (found["ap_low"], found["ap_high"]) == pytest.approx(expected, abs=0.012)


def test_photographs_of_one_patient_bring_nothing_new():
    targets, scores = examples(0, 120)
    once = metrics.discrimination(targets, scores, np.arange(120), "val")
    copies = [np.repeat(one, 5) for one in (targets, scores, np.arange(120))]
    assert metrics.discrimination(*copies, "val") == pytest.approx(
        {**once, "n": 600, "positives": 5 * targets.sum()}
    )
    assert once["positive_groups"] == once["positives"] == targets.sum()
    alone = metrics.discrimination(
        copies[0], copies[1], np.arange(600), "val"
    )  # who forgets the groups
    assert alone["auc_high"] - alone["auc_low"] < 0.6 * (once["auc_high"] - once["auc_low"])


def patients(seed: int) -> pd.DataFrame:
    """100 patients of 1 to 9 photographs each, 30 with melanomas alone, and the logits of two networks.

    Photographs of a patient are alike to both networks: of a logit's variance in a class a half is the patient's, the
    same to both, a quarter the patient's to this network, and a quarter the photograph's.
    """
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(100), rng.integers(1, 10, 100))
    target, count = (patient < 30).astype(int), len(patient)
    shared = rng.normal(size=100)[patient] * math.sqrt(0.5)
    first, second = (
        shift * target + shared + 0.5 * rng.normal(size=100)[patient] + 0.5 * rng.normal(size=count)
        for shift in (1.2, 0.9)
    )
    return pd.DataFrame(
        {
            "image_id": np.arange(count),
            "split": "test",
            "group": patient,
            "target": target,
            "logit": first,
            "second": second,
        }
    )


def test_95_of_100_intervals_hold_the_truth():
    """Of the AUC and of the difference of two, over patients; and how few do that forget the patients (DeLong)."""
    auc, other = norm.cdf(np.array([1.2, 0.9]) / math.sqrt(2))  # P(N(shift, 1) > N(0, 1))
    held = Counter()
    for seed in range(SIMULATIONS):
        table = patients(seed)
        found = metrics.discrimination(table["target"], table["logit"], table["group"], "test")
        paired = bootstrap.auc_difference(table, table.assign(logit=table["second"]))
        one, two = (
            table["target"].to_numpy(),
            (table["logit"].to_numpy(), table["second"].to_numpy()),
        )
        intervals = {
            "AUC, groups": (found["auc_low"], found["auc_high"]),
            "AUC, DeLong": delong(one, two[0]),
            "difference, groups": (paired["low"], paired["high"]),
            "difference, DeLong": delong(one, *two),
        }
        for name, (low, high) in intervals.items():
            held[name] += low <= (auc if name.startswith("AUC") else auc - other) <= high
    share = {name: float(count) / SIMULATIONS for name, count in held.items()}
    print(f"intervals that hold the truth, of {SIMULATIONS}:", share)
    for what in ("AUC", "difference"):
        assert 0.92 <= share[f"{what}, groups"] <= 0.97, share
        assert share[f"{what}, DeLong"] < 0.8, share


def test_photographs_are_matched_by_place_not_by_their_index():
    targets, scores = examples(1, 50)
    groups = np.arange(50) // 2
    expected = metrics.discrimination(targets, scores, groups, "val")
    series = (
        pd.Series(one, index=np.random.default_rng(row).permutation(50))
        for row, one in enumerate((targets, scores, groups))
    )
    assert metrics.discrimination(*series, "val") == expected


@pytest.mark.parametrize(
    "targets, message",
    [
        ([], "test holds 0 photographs of 0"),
        ([1], "1 photographs of 1"),
        ([0, 0, 0], "test holds 3 photographs of 1"),
    ],
)
def test_one_class_is_refused(targets, message):
    scores = np.linspace(-1, 1, len(targets))
    with pytest.raises(ValueError, match=message) as raised:
        metrics.discrimination(targets, scores, np.arange(len(targets)), "test")
    assert "split_seed" in str(raised.value)
    for call in (
        metrics.calibrate,
        lambda scores, targets: metrics.choose_threshold(targets, scores),
    ):
        with pytest.raises(ValueError, match=message.replace("test", "validation")):
            call(scores, np.array(targets))
    with pytest.raises(ValueError, match=message.replace("test", "split")):
        metrics.decision(np.array(targets), scores, 0.0)


@pytest.mark.parametrize(
    "kept, message", [("val", "test holds 0 photographs"), ("test", "val holds 0 photographs")]
)
def test_a_run_without_one_of_its_splits_has_no_summary(kept, message):
    table = source_table(1, 40).assign(split=kept, probability=0.5)
    with pytest.raises(ValueError, match=message):
        metrics.summarise(
            table, calibration={"slope": 1.0, "intercept": 0.0}, threshold=0.5, weights="none"
        )
    with pytest.raises(ValueError, match="0 photographs"):
        metrics.calibration_error(np.array([]), np.array([]))


# a statistic and its interval


def test_interval_equals_a_loop_over_drawn_groups():
    rng = np.random.default_rng(1)
    values, groups = rng.normal(size=30), rng.integers(0, 9, 30)
    means = [
        sum(times * value for times, value in zip(row, values, strict=True)) / row.sum()
        for row in bootstrap.bootstrap_counts(groups)
    ]
    found = bootstrap.interval(bootstrap.mean(values), groups)
    assert (found["value"], found["n"]) == (pytest.approx(values.mean()), 30)
    assert [found["low"], found["high"]] == pytest.approx(np.percentile(means, [2.5, 97.5]))
    kept = groups % 2 == 0
    assert bootstrap.interval(bootstrap.mean(values, kept), groups)["value"] == pytest.approx(
        values[kept].mean()
    )
    assert bootstrap.interval(bootstrap.mean(values, np.zeros(30)), groups) is None


def test_a_paired_interval_is_narrow_where_photographs_vary_and_their_differences_do_not():
    values, groups = np.random.default_rng(0).random(40), np.arange(40)
    alone = bootstrap.interval(bootstrap.mean(values), groups)
    paired = bootstrap.interval(bootstrap.mean(values + 0.01 - values), groups)
    assert alone["high"] - alone["low"] > 0.1
    assert paired["low"] == pytest.approx(0.01) == paired["high"]


def test_auc_difference_uses_the_test_photographs_of_both():
    rng = np.random.default_rng(2)
    ours = pd.DataFrame(
        {
            "image_id": [f"x{n}" for n in range(60)],
            "split": ["val"] * 10 + ["test"] * 50,
            "group": np.arange(60),
            "target": np.arange(60) % 3 == 0,
            "logit": rng.normal(size=60),
        }
    )
    theirs = ours.assign(logit=rng.normal(size=60)).sample(
        frac=1, random_state=0
    )  # in another order
    theirs = theirs[theirs["image_id"] != "x59"]
    found, shared = bootstrap.auc_difference(ours, theirs), ours.iloc[10:59]
    expected = roc_auc_score(shared["target"], shared["logit"]) - roc_auc_score(
        shared["target"], theirs.set_index("image_id").loc[shared["image_id"], "logit"]
    )
    assert (found["value"], found["n"]) == (pytest.approx(expected), 49)
    assert found["low"] < found["value"] < found["high"]
    assert bootstrap.auc_difference(ours, theirs.assign(split="val")) is None


@pytest.mark.parametrize("seed", range(3))
def test_the_difference_of_two_models_on_independent_photographs_is_delongs(seed):
    targets, scores = examples(seed, 500, ties=seed == 2)
    other = scores + 0.5 * np.random.default_rng(100 + seed).normal(
        size=500
    )  # knows less, mostly the same
    table = pd.DataFrame(
        {
            "image_id": np.arange(500),
            "split": "test",
            "group": np.arange(500),
            "target": targets,
            "logit": scores,
        }
    )
    found = bootstrap.auc_difference(table, table.assign(logit=other))
    low, high = delong(targets, scores, other)
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.006)
    alone = metrics.discrimination(targets, other, np.arange(500), "test")
    assert found["high"] - found["low"] < 0.8 * (alone["auc_high"] - alone["auc_low"])


# within sources


def source_table(seed: int, count: int, *, ties: bool = False) -> pd.DataFrame:
    """Rows as in predictions.csv, of a source with both classes twice over and of one with benign lesions alone."""
    targets, scores = examples(seed, count, ties=ties)
    source = np.random.default_rng(100 + seed).choice(["A", "B"], count)
    source[:4], targets[:4] = ["A", "A", "B", "B"], [0, 1, 0, 1]
    table = pd.DataFrame(
        {
            "image_id": [f"X_{row}" for row in range(count)],
            "source": source,
            "group": np.arange(count) // 3,
            "target": targets,
            "logit": scores,
        }
    )
    table.loc[(table["target"] == 0) & (table.index % 7 == 6), "source"] = "C"
    return table.sample(frac=1, random_state=seed)


def auc_within_source(table: pd.DataFrame) -> float | None:
    found = bootstrap.interval(bootstrap.within(table), table["group"])
    return None if found is None else found["value"]


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
    assert auc_within_source(table) == pytest.approx(right / pairs, abs=1e-12)
    twice = np.ones((1, 60)) + (table["group"].to_numpy() == 3)  # as the bootstrap draws a group
    doubled = pd.concat([table, table[table["group"] == 3]])
    assert bootstrap.within(table)(twice)[0] == pytest.approx(auc_within_source(doubled), abs=1e-12)


def test_knowing_the_source_alone_is_worth_nothing_within_it():
    table = pd.DataFrame(
        {"source": ["A"] * 20 + ["B"] * 20, "target": [1] * 15 + [0] * 5 + [1] * 3 + [0] * 17}
    )
    table["logit"], table["group"] = (table["source"] == "A") * 2.0, range(40)
    assert roc_auc_score(table["target"], table["logit"]) > 0.75
    assert auc_within_source(table) == 0.5
    assert auc_within_source(table[table["target"] == (table["source"] == "A")]) is None


def test_the_table_of_aucs_has_a_row_for_each_score_with_the_intervals_of_the_others():
    table = source_table(3, 90)
    table["source only"], table["guess"] = (table["source"] == "A").astype(float), 1.0
    found = metrics.auc_table(table, ["logit", "source only", "guess"])
    assert list(found.index) == ["logit", "source only", "guess"]
    one = metrics.discrimination(table["target"], table["logit"], table["group"], "test")
    inside = bootstrap.interval(bootstrap.within(table), table["group"])
    assert found.loc["logit"].to_dict() == {
        **{name: one[name] for name in ("auc", "auc_low", "auc_high")},
        "within": inside["value"],
        "within_low": inside["low"],
        "within_high": inside["high"],
    }
    assert inside["low"] < inside["value"] < inside["high"]
    assert (found.loc["source only", ["within", "within_low", "within_high"]] == 0.5).all()
    assert (found.loc["guess"] == 0.5).all()
    apart = table.assign(source=table["target"].map({0: "A", 1: "B"}))
    assert metrics.auc_table(apart, ["logit"])[["within", "within_low"]].isna().all(axis=None)


def test_a_source_of_one_class_has_a_reason_in_place_of_an_auc():
    table = source_table(2, 60)
    found = metrics.within_source(table)
    assert list(found) == ["A", "B", "C"] and set(found["A"]) == set(found["B"]) == FIGURES
    for source in "AB":
        rows = table[table["source"] == source]
        assert found[source]["auc"] == roc_auc_score(rows["target"], rows["logit"])
    assert (
        found["C"]["auc"] is None
        and found["C"]["positives"] == 0
        and "one class" in found["C"]["reason"]
    )
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
        found = metrics.probability(
            np.array([-1e6, -800, 0, 800, 1e6]), {"slope": 1.0, "intercept": 0.0}
        )
        separable = metrics.calibrate(
            np.r_[np.full(9, -20.0), np.full(6, 30.0)], np.r_[np.zeros(9), np.ones(6)]
        )
        far = metrics.probability(np.array([-20.0, 30.0, -1e5]), separable)
    assert found == pytest.approx([0, 0, 0.5, 1, 1]) and far == pytest.approx([0, 1, 0], abs=0.01)


def test_shift_prior_gives_the_shares_that_counting_gives():
    rng = np.random.default_rng(0)
    kind = rng.choice(3, 30000, p=[0.5, 0.3, 0.2])  # three kinds of photograph
    target = rng.random(30000) < np.array([0.02, 0.1, 0.5])[kind]
    drawn = np.r_[
        np.flatnonzero(~target), np.repeat(np.flatnonzero(target), 7)
    ]  # each melanoma 7 times
    balanced = np.array([target[drawn][kind[drawn] == one].mean() for one in range(3)])
    natural = np.array([target[kind == one].mean() for one in range(3)])
    shares = {"trained": target[drawn].mean(), "natural": target.mean()}
    np.testing.assert_allclose(metrics.shift_prior(balanced, **shares), natural, rtol=1e-12)
    back = {"trained": shares["natural"], "natural": shares["trained"]}
    np.testing.assert_allclose(metrics.shift_prior(natural, **back), balanced, rtol=1e-12)


def test_shift_prior_at_its_ends():
    assert metrics.shift_prior(np.array([0.0, 0.5, 1.0]), trained=0.5, natural=0.09).tolist() == [
        0,
        0.09,
        1,
    ]
    assert metrics.shift_prior(0.3, trained=0.2, natural=0.2) == pytest.approx(0.3)
    for shares in (
        {"trained": 0.0, "natural": 0.1},
        {"trained": 0.5, "natural": 1.0},
        {"trained": 50, "natural": 0.1},
    ):
        with pytest.raises(ValueError, match="between 0 and 1"):
            metrics.shift_prior(0.5, **shares)


@pytest.mark.parametrize("specificity", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_the_threshold_of_a_specificity_is_the_lowest_that_leaves_enough_alone(
    seed, ties, specificity
):
    targets, scores = examples(seed, 5 + 11 * seed, ties=ties)
    benign, good = scores[targets == 0], []
    for threshold in set(scores):
        if 100 * sum(1 for score in benign if score < threshold) >= round(100 * specificity) * len(
            benign
        ):
            good.append(threshold)
    found = metrics.choose_threshold(targets, scores, specificity=specificity)
    assert found == min(good) if good else found > scores.max() and np.isfinite(found)


@pytest.mark.parametrize("benign, called", [(10, 2), (20, 4), (30, 6), (4, 0), (5, 1)])
def test_a_specificity_of_exactly_80_percent_is_enough(benign, called):
    targets, scores = np.r_[np.zeros(benign, int), 1], np.r_[np.arange(benign), benign]
    assert metrics.choose_threshold(targets, scores, specificity=0.8) == benign - called


def test_operating_points_choose_on_val_and_count_on_test():
    val, test = source_table(5, 80), source_table(6, 70)
    val, test = (
        table.assign(probability=1 / (1 + np.exp(-table["logit"]))) for table in (val, test)
    )
    found = metrics.operating_points(val, test)
    assert [(row["asked"], row["at"]) for row in found] == [
        (asked, at) for asked in ("sensitivity", "specificity") for at in (0.8, 0.9, 0.95)
    ]
    for row in found:
        chosen = val["probability"] >= row["threshold"]
        reached = (
            chosen[val["target"] == 1]
            if row["asked"] == "sensitivity"
            else ~chosen[val["target"] == 0]
        )
        assert reached.mean() >= row["at"] - 1e-12
        ill, called = test["target"] == 1, test["probability"] >= row["threshold"]
        assert (row["true_positives"], row["false_positives"]) == (
            (ill & called).sum(),
            (~ill & called).sum(),
        )
        assert (
            row["sensitivity"] == called[ill].mean()
            and row["specificity"] == (~called)[~ill].mean()
        )
        draws = bootstrap.bootstrap_counts(test["group"])
        shares = draws[:, ill & called].sum(axis=1) / draws[:, ill].sum(axis=1)
        assert (row["sensitivity_low"], row["sensitivity_high"]) == pytest.approx(
            np.percentile(shares, [2.5, 97.5])
        )
        assert row["specificity_low"] <= row["specificity"] <= row["specificity_high"]
        other = metrics.operating_points(
            val, test.assign(probability=0.0)
        )  # nothing is chosen on test
        assert [one["threshold"] for one in other] == [one["threshold"] for one in found]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_the_threshold_is_the_highest_that_finds_enough(seed, ties):
    targets, scores = examples(seed, 5 + 11 * seed, ties=ties)
    good = []
    for threshold in set(scores):
        found = sum(
            1
            for target, score in zip(targets, scores, strict=True)
            if target and score >= threshold
        )
        if 10 * found >= 9 * sum(targets):
            good.append(threshold)
    assert metrics.choose_threshold(targets, scores) == max(good)


@pytest.mark.parametrize("melanomas, missed", [(10, 1), (20, 2), (30, 3), (9, 0), (19, 1)])
def test_a_sensitivity_of_exactly_90_percent_is_enough(melanomas, missed):
    scores = np.r_[np.arange(melanomas), -1.0]
    targets = np.r_[np.ones(melanomas, int), 0]
    assert metrics.choose_threshold(targets, scores) == missed


@pytest.mark.parametrize("threshold", [-9.0, -1.0, 0.0, 1.0, 9.0])
def test_the_counts_of_a_decision_are_those_of_a_loop(threshold):
    targets, scores = examples(4, 80, ties=True)
    found = metrics.decision(targets, scores, threshold)
    counts = Counter(
        (int(target), bool(score >= threshold))
        for target, score in zip(targets, scores, strict=True)
    )
    tn, fp, fn, tp = (counts[pair] for pair in ((0, False), (0, True), (1, False), (1, True)))
    assert found == {
        "true_positives": tp,
        "false_negatives": fn,
        "false_positives": fp,
        "true_negatives": tn,
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
    }


@pytest.mark.parametrize("count", [1, 7, 15, 16, 100, 151])
@pytest.mark.parametrize("bins", [1, 15])
def test_reliability_and_ece_equal_a_plain_loop(count, bins):
    rng = np.random.default_rng(count)
    probabilities = rng.permutation(np.linspace(0.01, 0.99, count))
    targets = (rng.random(count) < probabilities**2).astype(int)
    pairs, number = sorted(zip(probabilities, targets, strict=True)), min(bins, count)
    filled = [
        [pair for place, pair in enumerate(pairs) if place * number // count == one]
        for one in range(number)
    ]
    table = metrics.reliability(targets, probabilities, bins=bins)
    assert list(table) == ["probability", "observed", "n"] and len(table) == number
    assert table["n"].sum() == count and table["n"].max() - table["n"].min() <= 1
    error = 0.0
    for row, pairs in zip(table.itertuples(), filled, strict=True):
        said, observed = (
            sum(one for one, _ in pairs) / len(pairs),
            sum(one for _, one in pairs) / len(pairs),
        )
        assert (row.probability, row.observed, row.n) == pytest.approx((said, observed, len(pairs)))
        error += len(pairs) * abs(said - observed) / count
    assert metrics.calibration_error(targets, probabilities, bins=bins) == pytest.approx(error)


def test_ece_is_0_for_probabilities_that_come_true_and_large_for_the_opposite():
    targets = np.r_[np.zeros(90), np.ones(60)].astype(int)
    assert metrics.calibration_error(targets, targets.astype(float)) == 0
    assert metrics.calibration_error(targets, 1.0 - targets) == 1


def test_reliability_does_not_depend_on_the_order_of_the_photographs():
    rng = np.random.default_rng(0)
    targets, probabilities = rng.integers(0, 2, 90), np.round(rng.random(90), 1)
    order = np.argsort(targets, kind="stable")
    expected = metrics.reliability(targets, probabilities, bins=6)
    pd.testing.assert_frame_equal(
        metrics.reliability(targets[order], probabilities[order], bins=6), expected
    )
    same = np.full(90, targets.mean())  # all that slope 0 says
    assert metrics.calibration_error(targets[order], same) == pytest.approx(0, abs=1e-12)


# metrics.json


def test_summarise_fills_metrics_json(tmp_path):
    table = pd.concat(
        [source_table(1, 70).assign(split="val"), source_table(2, 60).assign(split="test")]
    )
    val = table[table["split"] == "val"]
    calibration = metrics.calibrate(val["logit"], val["target"])
    table["probability"] = metrics.probability(table["logit"], calibration)
    threshold = metrics.choose_threshold(
        val["target"], table.loc[table["split"] == "val", "probability"]
    )
    found = metrics.summarise(table, calibration=calibration, threshold=threshold, weights="none")
    assert set(found) == {"weights", "calibration", "threshold", "val", "test"}
    assert (found["weights"], found["calibration"], found["threshold"]) == (
        "none",
        calibration,
        threshold,
    )
    counts = {"true_positives", "false_negatives", "false_positives", "true_negatives"}
    inside = {"auc_within_source", "auc_within_source_low", "auc_within_source_high"}
    sides = {"val": FIGURES | inside | {"by_source"}}
    sides["test"] = (
        sides["val"] | {"sensitivity", "specificity", "brier", "ece", "operating_points"} | counts
    )
    for name, keys in sides.items():
        rows = table[table["split"] == name]
        assert set(found[name]) == keys
        assert found[name]["auc"] == roc_auc_score(rows["target"], rows["logit"])
        interval = metrics.discrimination(rows["target"], rows["logit"], rows["group"], name)
        assert interval.items() <= found[name].items()
        assert found[name]["n"] == len(rows) and found[name]["positives"] == rows["target"].sum()
        assert {source: one["n"] for source, one in found[name]["by_source"].items()} == Counter(
            rows["source"]
        )
        assert found[name]["by_source"]["C"]["auc"] is None
        assert found[name]["auc_within_source"] == auc_within_source(rows)
        assert found[name]["auc_within_source_low"] < found[name]["auc_within_source_high"]
    test = table[table["split"] == "test"].reset_index(drop=True)
    assert found["test"]["operating_points"] == metrics.operating_points(
        val.assign(probability=metrics.probability(val["logit"], calibration)), test
    )
    assert (
        found["test"]["sensitivity"]
        == (test.loc[test["target"] == 1, "probability"] >= threshold).mean()
    )
    assert found["test"]["brier"] == pytest.approx(
        brier_score_loss(test["target"], test["probability"])
    )
    assert found["test"]["ece"] == metrics.calibration_error(test["target"], test["probability"])
    assert (
        json.loads(json.dumps(found, allow_nan=False)) == found
    )  # plain numbers, and none that JSON has not
