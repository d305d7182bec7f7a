"""Intervals over groups: the bootstrap that draws whole patients and lesions, and AUC under weights."""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

DRAWS = 2000  # of the bootstrap


def bootstrap_counts(groups: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """How often each photograph stands in each bootstrap sample of whole groups: [draws, N]."""
    codes, labels = pd.factorize(np.asarray(groups))
    counts = np.random.default_rng(seed).multinomial(
        len(labels), np.full(len(labels), 1 / len(labels)), size=draws
    )
    return counts[:, codes]


def weighted_auc_ap(
    targets: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUC and average precision under each row of weights [D, N], each [D]; NaN where a class has no weight.

    What scikit-learn's `roc_auc_score` and `average_precision_score` give for `sample_weight`, for all rows at once.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    starts = np.flatnonzero(
        np.r_[True, np.diff(np.asarray(scores)[order]) != 0]
    )  # first row of each tie
    auc, ap = np.empty(len(weights)), np.empty(len(weights))
    for part in range(0, len(weights), 100):  # bounds the memory
        rows = slice(part, part + 100)
        ranked = weights[rows][:, order].astype(float)  # [d, N]
        positive = np.add.reduceat(
            ranked * np.asarray(targets)[order], starts, axis=1
        )  # [d, T], T distinct scores
        negative = np.add.reduceat(ranked, starts, axis=1) - positive
        found, alarms = positive.cumsum(axis=1), negative.cumsum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            auc[rows] = (negative * (found - positive / 2)).sum(axis=1) / (
                found[:, -1] * alarms[:, -1]
            )
            precision = np.where(found + alarms > 0, found / (found + alarms), 0.0)
            ap[rows] = (positive * precision).sum(axis=1) / found[:, -1]
    return auc, ap


def mean(values: np.ndarray, kept: np.ndarray | float = 1.0) -> Callable:
    """The mean of values [N] as a statistic for `interval`; of those alone where kept [N] is 1, not 0."""
    values, kept = np.asarray(values, float), kept * np.ones(len(values))
    return lambda weights: weights @ (values * kept) / (weights @ kept)


def interval(statistic: Callable, groups: Iterable) -> dict | None:
    """value of a statistic (weights of photographs [D, N] -> [D]), its 95% interval over groups (low, high), and n.

    Draws where it is NaN (a class is missing) are left out; None where it is NaN on the photographs themselves. With a
    difference of two models as the statistic this is the paired bootstrap: both on the same drawn groups.
    """
    draws = bootstrap_counts(groups)  # [2000, N]
    with np.errstate(invalid="ignore"):
        value = statistic(np.ones((1, draws.shape[1])))[0]
        if np.isnan(value):
            return None
        low, high = np.nanpercentile(statistic(draws), [2.5, 97.5])
    return {"value": float(value), "low": float(low), "high": float(high), "n": draws.shape[1]}


def auc_difference(first: pd.DataFrame, second: pd.DataFrame) -> dict | None:
    """`interval` of one predictions.csv's AUC less another's on the test photographs of both; None: they miss a class.

    Needs image_id, split, group, target, logit; of the second image_id, split, logit.
    """
    ours, theirs = (
        table[table["split"] == "test"].set_index("image_id") for table in (first, second)
    )
    both = ours[["group", "target", "logit"]].join(theirs["logit"].rename("second"), how="inner")
    if both["target"].nunique() < 2:
        return None
    return interval(
        lambda weights: (
            weighted_auc_ap(both["target"], both["logit"], weights)[0]
            - weighted_auc_ap(both["target"], both["second"], weights)[0]
        ),
        both["group"],
    )


def within(table: pd.DataFrame, score: str = "logit") -> Callable:
    """Share of the pairs of a melanoma and a benign lesion OF ONE SOURCE that the score orders rightly (ties half).

    A statistic for `interval`. Columns: source, target, the score. Knowing the source alone gives 0.5 here.
    """

    def statistic(weights: np.ndarray) -> np.ndarray:
        right = pairs = np.zeros(len(weights))
        for source in table["source"].unique():
            rows = (table["source"] == source).to_numpy()
            targets, drawn = table.loc[rows, "target"].to_numpy(), weights[:, rows]  # [n], [D, n]
            both = (drawn @ targets) * (drawn @ (1 - targets))  # [D]
            auc = weighted_auc_ap(targets, table.loc[rows, score], drawn)[0]
            right, pairs = right + np.where(both > 0, both * auc, 0), pairs + both
        return np.divide(right, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)

    return statistic
