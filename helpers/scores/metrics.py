"""Figures of a diagnostic test that can be believed, for notebook 04: on scikit-learn, with intervals over groups.

Photographs of one patient or lesion are not independent, so intervals come from a bootstrap that draws whole groups.
Everywhere: targets [N] are 0 or 1, scores [N] are larger where melanoma is more likely, groups [N] are labels.
"""

import itertools
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    roc_auc_score,
    roc_curve,
)

from helpers.photographs.table import check_classes
from helpers.scores.bootstrap import bootstrap_counts, interval, mean, weighted_auc_ap, within

SENSITIVITY = 0.90  # that the threshold keeps on validation
ASKED = (0.80, 0.90, 0.95)  # sensitivities, and specificities, of `operating_points`


def discrimination(targets: np.ndarray, scores: np.ndarray, groups: np.ndarray, where: str) -> dict:
    """AUC and average precision (`ap`), each with its 95% interval over groups, prevalence, n, positives.

    positive_groups are the patients or lesions behind the positives: with a handful, or an AUC of 1 (interval 1 to 1),
    trust no interval. Raises ValueError for an empty or one-class split.
    """
    targets, scores, groups = (np.asarray(one) for one in (targets, scores, groups))
    check_classes(targets, where)
    lows, highs = np.nanpercentile(
        weighted_auc_ap(targets, scores, bootstrap_counts(groups)), [2.5, 97.5], axis=1
    )
    return {
        "auc": float(roc_auc_score(targets, scores)),
        "auc_low": float(lows[0]),
        "auc_high": float(highs[0]),
        "ap": float(average_precision_score(targets, scores)),
        "ap_low": float(lows[1]),
        "ap_high": float(highs[1]),
        "prevalence": float(targets.mean()),
        "n": len(targets),
        "positives": int(targets.sum()),
        "positive_groups": len(np.unique(groups[targets == 1])),
    }


def within_source(table: pd.DataFrame) -> dict:
    """`discrimination` in each source of rows of predictions.csv; null and a reason where there is one class."""
    found = {}
    for source, rows in table.groupby("source"):
        if rows["target"].nunique() < 2:
            found[source] = {
                "auc": None,
                "n": len(rows),
                "positives": int(rows["target"].sum()),
                "reason": "one class only: no AUC",
            }
        else:
            found[source] = discrimination(rows["target"], rows["logit"], rows["group"], source)
    return found


def auc_table(table: pd.DataFrame, scores: Iterable[str]) -> pd.DataFrame:
    """A row for each column of scores: auc, auc_low, auc_high, and the same of pairs within a source: within, ...

    Columns: source, group, target and the scores. within is NaN where no source has both classes.
    """
    rows = {}
    for score in scores:
        pooled = discrimination(table["target"], table[score], table["group"], "the table")
        inside = interval(within(table, score), table["group"]) or dict.fromkeys(
            ("value", "low", "high"), np.nan
        )
        rows[score] = {name: pooled[name] for name in ("auc", "auc_low", "auc_high")} | {
            "within": inside["value"],
            "within_low": inside["low"],
            "within_high": inside["high"],
        }
    return pd.DataFrame(rows).T


def calibrate(logits: np.ndarray, targets: np.ndarray) -> dict:
    """Slope and intercept of a logistic regression of the targets on the logits (Platt scaling), for `probability`.

    Fitted on validation at its natural prevalence. Where the fit would turn the order round (slope <= 0), the logits
    say nothing: slope 0 and the prevalence.
    """
    logits, targets = np.asarray(logits, float), np.asarray(targets)
    check_classes(targets, "validation")
    fit = LogisticRegression(C=np.inf, max_iter=1000).fit(logits[:, None], targets)
    slope, intercept = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    if slope <= 0:
        slope, intercept = 0.0, float(np.log(targets.mean() / (1 - targets.mean())))
    return {"slope": slope, "intercept": intercept}


def probability(logits: np.ndarray, calibration: dict) -> np.ndarray:
    """Calibrated probability of melanoma [N]."""
    return expit(calibration["slope"] * np.asarray(logits, float) + calibration["intercept"])


def shift_prior(probabilities: np.ndarray, *, trained: float, natural: float) -> np.ndarray:
    """What a probability learned at one share of melanomas is at another: its odds times the ratio of the shares' odds.

    Saerens, Latinne and Decaestecker, Neural Computation 2002, equation 2.4. It holds where the loss is proper
    (cross-entropy), not for focal loss. Raises ValueError for a share that is not between 0 and 1.
    """
    if not (0 < trained < 1 and 0 < natural < 1):
        raise ValueError(f"a share of melanomas lies between 0 and 1, not {trained} and {natural}")
    probabilities = np.asarray(probabilities, float)
    melanoma, benign = (
        probabilities * natural / trained,
        (1 - probabilities) * (1 - natural) / (1 - trained),
    )
    return melanoma / (melanoma + benign)


def choose_threshold(
    targets: np.ndarray,
    scores: np.ndarray,
    *,
    sensitivity: float = SENSITIVITY,
    specificity: float | None = None,
) -> float:
    """The highest threshold at which `scores >= threshold` finds at least this share of the melanomas.

    With a specificity: the lowest that leaves this share of the benign lesions alone (above all scores, if need be).
    """
    check_classes(targets, "validation")
    alarms, found, thresholds = roc_curve(targets, scores, drop_intermediate=False)
    thresholds[0] = np.nextafter(thresholds[1], np.inf)  # from inf, which JSON has not
    if specificity is not None:
        return float(thresholds[np.flatnonzero(alarms <= 1 - specificity + 1e-12)[-1]])
    return float(thresholds[np.argmax(found >= sensitivity)])


def decision(targets: np.ndarray, scores: np.ndarray, threshold: float) -> dict:
    """Sensitivity, specificity and the four counts of calling `scores >= threshold` melanoma."""
    check_classes(targets, "a decision's split")
    (tn, fp), (fn, tp) = confusion_matrix(
        targets, np.asarray(scores) >= threshold, labels=[0, 1]
    ).tolist()
    return {
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "true_positives": tp,
        "false_negatives": fn,
        "false_positives": fp,
        "true_negatives": tn,
    }


def operating_points(val: pd.DataFrame, test: pd.DataFrame) -> list[dict]:
    """Each of ASKED as a sensitivity and as a specificity: the threshold chosen on val, and what it does on test.

    Columns: group, target, probability. Rows: asked, at, threshold, `decision`, intervals (`sensitivity_low` ...).
    """
    rows, melanoma = [], test["target"].to_numpy() == 1
    for asked, at in itertools.product(("sensitivity", "specificity"), ASKED):
        threshold = choose_threshold(val["target"], val["probability"], **{asked: at})
        called = (test["probability"] >= threshold).to_numpy()
        row = {
            "asked": asked,
            "at": at,
            "threshold": threshold,
            **decision(test["target"], test["probability"], threshold),
        }
        for name, kind in (("sensitivity", melanoma), ("specificity", ~melanoma)):
            one = interval(mean(called == melanoma, kind), test["group"])
            row |= {f"{name}_low": one["low"], f"{name}_high": one["high"]}
        rows.append(row)
    return rows


def reliability(targets: np.ndarray, probabilities: np.ndarray, *, bins: int = 15) -> pd.DataFrame:
    """Mean probability and share of melanomas in bins of equal count (ties stay together): probability, observed, n."""
    if len(targets) == 0:
        raise ValueError(
            "a split of 0 photographs has no reliability: expected one with photographs"
        )
    table = pd.DataFrame(
        {"probability": np.asarray(probabilities), "observed": np.asarray(targets)}
    )
    place = (
        (table["probability"].rank(method="min").astype(int) - 1)
        * min(bins, len(table))
        // len(table)
    )
    return table.groupby(place).agg(
        probability=("probability", "mean"), observed=("observed", "mean"), n=("observed", "size")
    )


def calibration_error(targets: np.ndarray, probabilities: np.ndarray, *, bins: int = 15) -> float:
    """ECE: the mean distance of probability and observed share over bins of equal count, weighted by count."""
    table = reliability(targets, probabilities, bins=bins)
    return float(np.average((table["probability"] - table["observed"]).abs(), weights=table["n"]))


def summarise(
    predictions: pd.DataFrame, *, calibration: dict, threshold: float, weights: str
) -> dict:
    """The content of `metrics.json` for the rows of `predictions.csv`. Raises as `discrimination` does."""
    content = {"weights": weights, "calibration": calibration, "threshold": threshold}
    val, test = (predictions[predictions["split"] == name] for name in ("val", "test"))
    for name, rows in {"test": test, "val": val}.items():
        found = discrimination(rows["target"], rows["logit"], rows["group"], name)
        inside = interval(within(rows), rows["group"]) or dict.fromkeys(("value", "low", "high"))
        content[name] = {
            **found,
            "auc_within_source": inside["value"],
            "auc_within_source_low": inside["low"],
            "auc_within_source_high": inside["high"],
            "by_source": within_source(rows),
        }
    content["test"] |= {
        **decision(test["target"], test["probability"], threshold),
        "brier": float(brier_score_loss(test["target"], test["probability"])),
        "ece": calibration_error(test["target"], test["probability"]),
        "operating_points": operating_points(val, test),
    }
    return content
