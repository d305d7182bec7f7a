"""Intervals over groups against scikit-learn, DeLong's interval, simulations and plain loops.

ATTENTION_SIMULATIONS=2000 measures the coverage of the intervals in full (some minutes); `-s`
prints it.
"""

import math
import os
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, binomtest, norm
from sklearn.metrics import average_precision_score, roc_auc_score

from helpers.scores import bootstrap, metrics
from tests.scores.lesions import auc_ap_by_pairs, delong, examples, patients, source_table

SIMULATIONS = int(os.environ.get("ATTENTION_SIMULATIONS") or 200)


def auc_within_source(table: pd.DataFrame) -> float | None:
    result = bootstrap.interval(bootstrap.within(table), table["group"])
    return None if result is None else result["value"]


# AUC and average precision under weights


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_weighted_auc_and_ap_are_scikit_learns(seed, ties):
    targets, scores = examples(seed, 6 + 9 * seed, ties=ties)
    weights = np.random.default_rng(seed).integers(0, 4, size=(12, len(targets)))
    weights[:, [targets.argmin(), targets.argmax()]] += 1  # a photograph of each class at least
    auc, ap = bootstrap.weighted_auc_ap(targets, scores, weights)
    for row, weight in enumerate(weights):
        expected = roc_auc_score(targets, scores, sample_weight=weight)
        assert auc[row] == pytest.approx(expected, abs=1e-12)
        expected = average_precision_score(targets, scores, sample_weight=weight)
        assert ap[row] == pytest.approx(expected, abs=1e-12)


def test_weights_of_fractions_and_of_few_melanomas_are_scikit_learns():
    rng = np.random.default_rng(0)
    targets = (np.arange(400) % 97 == 0).astype(int)  # long runs of benign lesions
    scores = np.round(rng.normal(size=400), 1)
    weights = rng.random((5, 400))
    auc, ap = bootstrap.weighted_auc_ap(targets, scores, weights)
    for row, weight in enumerate(weights):
        assert (auc[row], ap[row]) == pytest.approx(
            (
                roc_auc_score(targets, scores, sample_weight=weight),
                average_precision_score(targets, scores, sample_weight=weight),
            ),
            abs=1e-12,
        )


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64", "float32", "bool"])
def test_weights_of_a_small_type_do_not_overflow(dtype):
    targets, scores = examples(0, 1000, ties=True)
    weights = np.random.default_rng(0).integers(0, 2, (3, 1000))
    expected = bootstrap.weighted_auc_ap(targets, scores, weights.astype(float))
    auc, ap = bootstrap.weighted_auc_ap(targets, scores, weights.astype(dtype))
    assert np.array_equal(auc, expected[0])
    assert np.array_equal(ap, expected[1])


@pytest.mark.parametrize("held", [40, 1000, 2**20])
def test_a_weight_of_2_is_the_photograph_twice_however_many_are_held_at_once(held, monkeypatch):
    monkeypatch.setattr(bootstrap, "HELD", held)
    targets, scores = examples(3, 40, ties=True)
    weights = np.random.default_rng(0).integers(1, 4, size=(250, 40))
    auc, ap = bootstrap.weighted_auc_ap(targets, scores, weights)
    assert auc.shape == ap.shape == (250,)
    for row in (0, 24, 25, 99, 100, 249):
        repeated = np.repeat(targets, weights[row]), np.repeat(scores, weights[row])
        assert auc[row] == pytest.approx(roc_auc_score(*repeated))
        assert ap[row] == pytest.approx(average_precision_score(*repeated))


def test_without_a_class_there_is_no_auc_and_no_warning():
    targets = np.array([1, 1, 0, 0])
    scores = np.array([3.0, 1.0, 2.0, 0.0])
    weights = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        auc, ap = bootstrap.weighted_auc_ap(targets, scores, weights)
    assert np.isnan(auc).tolist() == [True, True, False, True]
    assert np.isnan(ap).tolist() == [False, True, False, True]
    assert auc[2] == ap[0] == 1


def test_auc_and_ap_equal_a_loop_over_pairs_on_1000_draws():
    for seed in range(1000):
        targets, scores = examples(seed, 4 + seed % 57, ties=seed % 4 > 0)
        auc, ap = bootstrap.weighted_auc_ap(targets, scores, np.ones((1, len(targets))))
        assert (auc[0], ap[0]) == pytest.approx(auc_ap_by_pairs(targets, scores), abs=1e-12)


# the draws


def test_the_bootstrap_draws_whole_groups_as_many_as_there_are():
    groups = np.array(["a", "b", "a", "c", "d", "b", "a", "e"])
    counts = bootstrap.bootstrap_counts(groups, draws=3000, seed=1)
    assert counts.shape == (3000, 8)
    firsts = [groups.tolist().index(group) for group in "abcde"]
    for group, first in zip("abcde", firsts, strict=True):
        assert (counts[:, groups == group] == counts[:, [first]]).all()
    assert (counts[:, firsts].sum(axis=1) == 5).all()


@pytest.mark.parametrize("count", [2, 7, 40])
def test_counts_are_distributed_as_a_multinomials(count):
    """Mean 1, variance 1 - 1/G, covariance -1/G, and each count binomial: of G draws, 1/G each."""
    draws = 20_000
    counts = bootstrap.bootstrap_counts(np.arange(count), draws=draws, seed=3)
    assert (counts.sum(axis=1) == count).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(count), abs=0.04)
    covariance = np.cov(counts.T)
    expected = np.eye(count) - 1 / count
    assert covariance == pytest.approx(expected, abs=0.06)
    for times in range(4):
        share = (counts == times).mean()
        assert share == pytest.approx(binom.pmf(times, count, 1 / count), abs=0.01)


def test_a_seed_gives_the_same_draws_on_every_machine():
    counts = bootstrap.bootstrap_counts(list("abcde"), draws=4, seed=0)
    assert counts.tolist() == [
        [0, 2, 1, 1, 1],
        [4, 0, 0, 0, 1],
        [0, 0, 1, 2, 2],
        [0, 0, 2, 2, 1],
    ]
    other = bootstrap.bootstrap_counts(list("abcde"), draws=4, seed=1)
    assert not np.array_equal(counts, other)
    assert bootstrap.bootstrap_counts(np.arange(30)).shape == (2000, 30)


def test_groups_are_drawn_once_for_all_figures_of_theirs():
    groups = np.arange(61) // 2
    bootstrap.draw_groups.cache_clear()
    for values in np.random.default_rng(0).normal(size=(5, 61)):
        bootstrap.interval(bootstrap.mean(values), groups)
    assert bootstrap.draw_groups.cache_info().misses == 1
    with pytest.raises(ValueError, match="read-only"):  # or one caller would change another's
        bootstrap.draw_groups(31, 2000, 0)[0] = 0


def test_counts_handed_out_are_the_callers_own_and_hold_sums_and_differences():
    groups = np.zeros(1000, int)
    counts = bootstrap.bootstrap_counts(groups, draws=2)
    assert (counts @ np.ones(1000, bool)).tolist() == [1000, 1000]
    assert (counts - 2).min() == -1
    counts[:] = 0
    assert bootstrap.bootstrap_counts(groups, draws=2).sum() == 2000


@pytest.mark.parametrize("missing", [None, np.nan])
def test_a_photograph_without_a_group_is_refused_not_put_into_anothers(missing):
    groups = pd.Series(["a", "b", missing, "c"], dtype=object)
    for call in (
        lambda: bootstrap.bootstrap_counts(groups),
        lambda: bootstrap.interval(bootstrap.mean([1, 2, 3, 4]), groups),
    ):
        with pytest.raises(ValueError, match="1 of 4.*group"):
            call()


# a statistic and its interval


def test_interval_equals_a_loop_over_drawn_groups():
    rng = np.random.default_rng(1)
    values = rng.normal(size=30)
    groups = rng.permutation(np.arange(30) % 12)
    means = []
    for counts in bootstrap.bootstrap_counts(groups):
        total = sum(times * value for times, value in zip(counts, values, strict=True))
        means.append(total / counts.sum())
    result = bootstrap.interval(bootstrap.mean(values), groups)
    assert (result["value"], result["n"]) == (pytest.approx(values.mean()), 30)
    assert [result["low"], result["high"]] == pytest.approx(np.percentile(means, [2.5, 97.5]))


def test_only_kept_values_count_and_none_is_no_interval():
    values = np.random.default_rng(1).normal(size=30)
    groups = np.arange(30) // 4
    kept = groups % 2 == 0
    result = bootstrap.interval(bootstrap.mean(values, kept), groups)
    assert result["value"] == pytest.approx(values[kept].mean())
    assert bootstrap.interval(bootstrap.mean(values, np.zeros(30)), groups) is None
    assert bootstrap.interval(bootstrap.mean([]), []) is None


def test_samples_without_a_value_are_left_out():
    """Of three groups one holds all kept values: 8 of 27 samples miss it, and have no mean."""
    kept = np.array([1, 0, 0])
    drawn = bootstrap.resample(bootstrap.mean([4.0, 1.0, 1.0], kept), ["a", "b", "c"])
    assert np.isnan(drawn).mean() == pytest.approx(8 / 27, abs=0.04)
    drawn = np.r_[np.nan, np.arange(2000.0)]
    assert bootstrap.limits(drawn, 20) == pytest.approx(np.percentile(drawn[1:], [2.5, 97.5]))


@pytest.mark.parametrize("held", [30, 7001, 2**20])
def test_an_interval_does_not_depend_on_how_many_weights_are_held(held, monkeypatch):
    table = source_table(4, 70, ties=True)
    expected = bootstrap.interval(bootstrap.within(table), table["group"])
    monkeypatch.setattr(bootstrap, "HELD", held)
    assert bootstrap.interval(bootstrap.within(table), table["group"]) == expected


def test_a_statistic_may_have_several_values():
    values = np.random.default_rng(0).normal(size=(20, 3))
    drawn = bootstrap.resample(lambda weights: weights @ values, np.arange(20))
    assert drawn == pytest.approx(bootstrap.bootstrap_counts(np.arange(20)) @ values)
    assert bootstrap.limits(drawn, 20).shape == (2, 3)


def test_a_paired_interval_is_narrow_where_photographs_vary_and_their_differences_do_not():
    values = np.random.default_rng(0).random(40)
    groups = np.arange(40)
    alone = bootstrap.interval(bootstrap.mean(values), groups)
    paired = bootstrap.interval(bootstrap.mean(values + 0.01 - values), groups)
    assert alone["high"] - alone["low"] > 0.1
    assert paired["low"] == pytest.approx(0.01) == paired["high"]


def test_95_of_100_intervals_hold_the_truth():
    """Of the AUC and of a difference, over patients; few do that forget the patients (DeLong)."""
    auc, other = norm.cdf(np.array([1.2, 0.9]) / math.sqrt(2))  # P(N(shift, 1) > N(0, 1))
    held = Counter()
    for seed in range(SIMULATIONS):
        table = patients(seed)
        targets, first, second = table[["target", "logit", "second"]].to_numpy().T
        figures = metrics.discrimination(targets, first, table["group"], "test")
        paired = bootstrap.auc_difference(table, table.assign(logit=second))
        intervals = {
            "AUC, groups": (figures["auc_low"], figures["auc_high"]),
            "AUC, DeLong": delong(targets, first),
            "difference, groups": (paired["low"], paired["high"]),
            "difference, DeLong": delong(targets, first, second),
        }
        for name, (low, high) in intervals.items():
            truth = auc if name.startswith("AUC") else auc - other
            held[name] += low <= truth <= high
    share = {name: float(count) / SIMULATIONS for name, count in held.items()}
    print(f"intervals that hold the truth, of {SIMULATIONS}:", share)
    for what in ("AUC", "difference"):
        assert 0.92 <= share[f"{what}, groups"] <= 0.97, share
        assert share[f"{what}, DeLong"] < 0.8, share


# too few to tell


def few(melanomas: int, benign: int, *, photographs: int = 1, apart: float = 0.0) -> pd.DataFrame:
    """Test rows: so many melanomas' and benign lesions' groups, each of so many photographs.

    apart: added to the logits of melanomas; from 9 on, they lie above all others.
    """
    target = np.repeat([1, 0], [melanomas * photographs, benign * photographs])
    count = len(target)
    logit = np.random.default_rng(0).uniform(0, 9, count) + apart * target
    return pd.DataFrame(
        {
            "image_id": np.arange(count).astype(str),
            "split": "test",
            "source": "A",
            "group": np.arange(count) // photographs,
            "target": target,
            "logit": logit,
        }
    )


def test_pairs_are_as_many_as_the_smaller_class_has_groups():
    table = few(3, 40, photographs=7)
    pairs = bootstrap.independent_pairs
    assert pairs(table["target"], table["group"]) == 3
    assert pairs(1 - table["target"], table["group"]) == 3
    assert pairs(table["target"], np.zeros(len(table))) == 1
    assert pairs([1, 1], ["a", "b"]) == 0
    # 30 melanomas and a benign lesion in A, the other way round in B: two pairs, not 31
    target = [1] * 30 + [0] + [1] + [0] * 30
    assert pairs(target, range(62), ["A"] * 31 + ["B"] * 31) == 2
    assert pairs(target, range(62)) == 31


@pytest.mark.parametrize("photographs", [1, 6])
@pytest.mark.parametrize("count", [1, 2, 9, 10, 25])
def test_of_fewer_than_ten_groups_there_is_no_interval_and_no_side(count, photographs):
    groups = np.repeat(np.arange(count), photographs)
    values = 1 + np.random.default_rng(0).random(len(groups))
    result = bootstrap.interval(bootstrap.mean(values), groups)
    assert result["value"] == pytest.approx(values.mean())
    assert np.isnan([result["low"], result["high"]]).all() == (count < 10)
    assert bootstrap.side(result) == ("too few" if count < 10 else "above")


@pytest.mark.parametrize("melanomas, benign", [(1, 60), (9, 60), (60, 9), (60, 1)])
@pytest.mark.parametrize("apart", [0.5, 9.0])
def test_a_difference_of_aucs_rests_on_the_smaller_class(melanomas, benign, apart):
    table = few(melanomas, benign, photographs=4, apart=apart)
    gap = bootstrap.auc_difference(table, table.assign(logit=table["logit"] % 1))
    assert np.isnan([gap["low"], gap["high"]]).all()
    assert bootstrap.side(gap) == "too few"


def test_a_class_that_samples_miss_is_few_also_where_nobody_counted_it():
    """The AUC of three melanomas, by a statistic of the caller's own."""
    table = few(3, 60)
    gap = bootstrap.interval(
        lambda weights: bootstrap.weighted_auc_ap(table["target"], table["logit"], weights)[0],
        table["group"],
    )
    assert np.isnan([gap["low"], gap["high"]]).all()


@pytest.mark.parametrize("count", [10, 12, 40])
def test_where_all_are_right_the_interval_is_that_of_clopper_and_pearson(count):
    exact = binomtest(count, count).proportion_ci(0.95, "exact")
    right = bootstrap.interval(bootstrap.mean(np.ones(count)), np.arange(count), share=True)
    assert (right["low"], right["high"]) == pytest.approx((exact.low, exact.high))
    wrong = bootstrap.interval(bootstrap.mean(np.zeros(count)), np.arange(count), share=True)
    assert (wrong["low"], wrong["high"]) == pytest.approx((1 - exact.high, 1 - exact.low))


def test_95_of_100_intervals_of_a_perfect_auc_hold_the_truth():
    """Ten melanomas of an AUC of .9 or more: where all are above all, the low end is below that."""
    held = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        target = np.repeat([1, 0], [10, 12])
        logit = rng.normal(size=22) + 2.5 * target  # an AUC of .961
        drawn = np.full(5, roc_auc_score(target, logit))
        low, high = bootstrap.share_limits(drawn, 10)
        held += drawn[0] < 1 or low <= norm.cdf(2.5 / math.sqrt(2)) <= high
    assert held == 300


def test_a_perfect_order_less_no_order_has_a_width_and_is_above():
    perfect = few(12, 30, apart=9.0)
    constant = perfect.assign(logit=0.0)
    gap = bootstrap.auc_difference(perfect, constant)
    assert gap["value"] == gap["high"] == 0.5
    assert gap["low"] == pytest.approx(0.025 ** (1 / 12) - 0.5)
    assert bootstrap.side(gap) == "above"
    other = bootstrap.auc_difference(constant, perfect)
    assert (other["low"], other["high"]) == pytest.approx((-gap["high"], -gap["low"]))
    assert bootstrap.side(bootstrap.auc_difference(constant, constant)) == "around"


@pytest.mark.parametrize("unknown", [None, np.nan])
def test_no_interval_is_shown_where_there_is_none(unknown):
    assert bootstrap.span(0.5, 0.25, 0.75, ".2f", "-") == "0.50 (0.25-0.75)"
    assert "nan" not in bootstrap.span(0.5, unknown, unknown)
    assert "0.500" in bootstrap.span(0.5, unknown, unknown)
    assert "nan" not in bootstrap.span(unknown, unknown, unknown)
    assert bootstrap.or_none(np.nan) is None
    assert bootstrap.or_none(np.float64(0.5)) == 0.5


# the difference of two networks


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
    theirs = ours.assign(logit=rng.normal(size=60))
    theirs = theirs.sample(frac=1, random_state=0)  # in another order
    theirs = theirs[theirs["image_id"] != "x59"]
    shared = ours.iloc[10:59]
    second = theirs.set_index("image_id").loc[shared["image_id"], "logit"]
    expected = roc_auc_score(shared["target"], shared["logit"])
    expected -= roc_auc_score(shared["target"], second)
    result = bootstrap.auc_difference(ours, theirs)
    assert (result["value"], result["n"]) == (pytest.approx(expected), 49)
    assert result["low"] < result["value"] < result["high"]
    assert bootstrap.auc_difference(ours, theirs.assign(split="val")) is None


@pytest.mark.parametrize("seed", range(3))
def test_the_difference_of_two_models_on_independent_photographs_is_delongs(seed):
    targets, scores = examples(seed, 500, ties=seed == 2)
    noise = np.random.default_rng(100 + seed).normal(size=500)
    other = scores + 0.5 * noise  # knows less, mostly the same
    table = pd.DataFrame(
        {
            "image_id": np.arange(500),
            "split": "test",
            "group": np.arange(500),
            "target": targets,
            "logit": scores,
        }
    )
    result = bootstrap.auc_difference(table, table.assign(logit=other))
    expected = delong(targets, scores, other)
    assert (result["low"], result["high"]) == pytest.approx(expected, abs=0.006)
    alone = metrics.discrimination(targets, other, np.arange(500), "test")
    assert result["high"] - result["low"] < 0.8 * (alone["auc_high"] - alone["auc_low"])


# within sources


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_auc_within_source_counts_the_pairs_of_one_source(seed, ties):
    table = source_table(seed, 60, ties=ties)
    right = 0.0
    pairs = 0
    for _, rows in table.groupby("source"):
        for melanoma in rows.loc[rows["target"] == 1, "logit"]:
            for benign in rows.loc[rows["target"] == 0, "logit"]:
                right += (melanoma > benign) + 0.5 * (melanoma == benign)
                pairs += 1
    assert auc_within_source(table) == pytest.approx(right / pairs, abs=1e-12)
    chosen = table["group"].to_numpy() == 3
    twice = np.ones((1, 60)) + chosen  # as the bootstrap draws a group
    doubled = pd.concat([table, table[chosen]])
    value = bootstrap.within(table)(twice)[0]
    assert value == pytest.approx(auc_within_source(doubled), abs=1e-12)


def test_of_one_source_it_is_the_auc():
    table = source_table(1, 50, ties=True).assign(source="A")
    expected = roc_auc_score(table["target"], table["logit"])
    assert auc_within_source(table) == pytest.approx(expected, abs=1e-12)


def test_knowing_the_source_alone_is_worth_nothing_within_it():
    targets = [1] * 15 + [0] * 5 + [1] * 3 + [0] * 17
    table = pd.DataFrame({"source": ["A"] * 20 + ["B"] * 20, "target": targets})
    table["logit"] = (table["source"] == "A") * 2.0
    table["group"] = range(40)
    assert roc_auc_score(table["target"], table["logit"]) > 0.75
    assert auc_within_source(table) == 0.5
    assert auc_within_source(table[table["target"] == (table["source"] == "A")]) is None
