"""Figures of a diagnostic test that can be believed, for notebook 04: on scikit-learn, with intervals over groups.

Photographs of one patient or lesion are not independent, so intervals come from a bootstrap that draws whole groups.
Everywhere: targets [N] are 0 or 1, scores [N] are larger where melanoma is more likely, groups [N] are labels.
"""

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score, roc_curve

DRAWS = 2000         # of the bootstrap
SENSITIVITY = 0.90   # that the threshold keeps on validation


def check_classes(targets: np.ndarray, where: str) -> None:
    """Raises ValueError unless both classes are there."""
    if len(np.unique(targets)) < 2:
        raise ValueError(f"{where} holds {len(targets)} photographs of {len(np.unique(targets))} class(es); a figure "
                         "such as AUC needs melanomas and benign lesions: take more photographs or another split_seed")


def bootstrap_counts(groups: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """How often each photograph stands in each bootstrap sample of whole groups: [draws, N]."""
    codes, labels = pd.factorize(np.asarray(groups))
    counts = np.random.default_rng(seed).multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=draws)
    return counts[:, codes]


def weighted_auc_ap(targets: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUC and average precision under each row of weights [D, N], each [D]; NaN where a class has no weight.

    What scikit-learn's `roc_auc_score` and `average_precision_score` give for `sample_weight`, for all rows at once.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(np.asarray(scores)[order]) != 0])       # first row of each tie
    auc, ap = np.empty(len(weights)), np.empty(len(weights))
    for part in range(0, len(weights), 100):                                            # bounds the memory
        rows = slice(part, part + 100)
        ranked = weights[rows][:, order].astype(float)                                  # [d, N]
        positive = np.add.reduceat(ranked * np.asarray(targets)[order], starts, axis=1)  # [d, T], T distinct scores
        negative = np.add.reduceat(ranked, starts, axis=1) - positive
        found, alarms = positive.cumsum(axis=1), negative.cumsum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            auc[rows] = (negative * (found - positive / 2)).sum(axis=1) / (found[:, -1] * alarms[:, -1])
            precision = np.where(found + alarms > 0, found / (found + alarms), 0.0)
            ap[rows] = (positive * precision).sum(axis=1) / found[:, -1]
    return auc, ap


def discrimination(targets: np.ndarray, scores: np.ndarray, groups: np.ndarray, where: str) -> dict:
    """AUC with its 95% interval over groups, average precision (`ap`), prevalence, n and positives.

    Draws in which a class is missing are left out. Raises ValueError for an empty or one-class split.
    """
    targets, scores = np.asarray(targets), np.asarray(scores)
    check_classes(targets, where)
    draws = weighted_auc_ap(targets, scores, bootstrap_counts(groups))[0]
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return {"auc": float(roc_auc_score(targets, scores)), "auc_low": float(low), "auc_high": float(high),
            "ap": float(average_precision_score(targets, scores)), "prevalence": float(targets.mean()),
            "n": len(targets), "positives": int(targets.sum())}


def within_source(table: pd.DataFrame) -> dict:
    """`discrimination` in each source of rows of predictions.csv; null and a reason where there is one class."""
    found = {}
    for source, rows in table.groupby("source"):
        if rows["target"].nunique() < 2:
            found[source] = {"auc": None, "n": len(rows), "positives": int(rows["target"].sum()),
                             "reason": "one class only: no AUC"}
        else:
            found[source] = discrimination(rows["target"], rows["logit"], rows["group"], source)
    return found


def auc_within_source(table: pd.DataFrame) -> float | None:
    """Share of the pairs of a melanoma and a benign lesion OF ONE SOURCE that the logits order rightly (ties half).

    Knowing the source alone gives 0.5 here. None where no source has both classes.
    """
    parts = [(rows["target"].sum() * (1 - rows["target"]).sum(), roc_auc_score(rows["target"], rows["logit"]))
             for _, rows in table.groupby("source") if rows["target"].nunique() == 2]
    return float(np.average([auc for _, auc in parts], weights=[pairs for pairs, _ in parts])) if parts else None


def calibrate(logits: np.ndarray, targets: np.ndarray) -> dict:
    """Slope and intercept of a logistic regression of the targets on the logits (Platt scaling), for `probability`.

    Fitted on validation at its natural prevalence: balancing and focal loss both shift what the network says. Where the
    fit would turn the order round (slope <= 0), the logits say nothing: slope 0 and the prevalence.
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


def choose_threshold(targets: np.ndarray, scores: np.ndarray, *, sensitivity: float = SENSITIVITY) -> float:
    """The highest threshold at which `scores >= threshold` finds at least this share of the melanomas."""
    check_classes(targets, "validation")
    _, found, thresholds = roc_curve(targets, scores, drop_intermediate=False)
    return float(thresholds[np.argmax(found >= sensitivity)])


def decision(targets: np.ndarray, scores: np.ndarray, threshold: float) -> dict:
    """Sensitivity, specificity and the four counts of calling `scores >= threshold` melanoma."""
    targets, called = np.asarray(targets) == 1, np.asarray(scores) >= threshold
    counts = {"true_positives": int((called & targets).sum()), "false_negatives": int((~called & targets).sum()),
              "false_positives": int((called & ~targets).sum()), "true_negatives": int((~called & ~targets).sum())}
    return {"sensitivity": counts["true_positives"] / max(1, int(targets.sum())),
            "specificity": counts["true_negatives"] / max(1, int((~targets).sum())), **counts}


def reliability(targets: np.ndarray, probabilities: np.ndarray, *, bins: int = 15) -> pd.DataFrame:
    """Mean probability and share of melanomas in bins of equal count: columns probability, observed, n."""
    table = pd.DataFrame({"probability": probabilities, "observed": targets}).sort_values("probability", kind="stable")
    place = np.arange(len(table)) * min(bins, len(table)) // len(table)
    return table.groupby(place).agg(probability=("probability", "mean"), observed=("observed", "mean"),
                                    n=("observed", "size"))


def calibration_error(targets: np.ndarray, probabilities: np.ndarray, *, bins: int = 15) -> float:
    """ECE: the mean distance of probability and observed share over bins of equal count, weighted by count."""
    table = reliability(targets, probabilities, bins=bins)
    return float(np.average((table["probability"] - table["observed"]).abs(), weights=table["n"]))


def summarise(predictions: pd.DataFrame, *, calibration: dict, threshold: float, weights: str) -> dict:
    """The content of `metrics.json` for the rows of `predictions.csv`."""
    content = {"weights": weights, "calibration": calibration, "threshold": threshold}
    for name, rows in predictions.groupby("split"):
        content[name] = {**discrimination(rows["target"], rows["logit"], rows["group"], name),
                         "auc_within_source": auc_within_source(rows), "by_source": within_source(rows)}
    test = predictions[predictions["split"] == "test"]
    content["test"] |= {**decision(test["target"], test["probability"], threshold),
                        "brier": float(brier_score_loss(test["target"], test["probability"])),
                        "ece": calibration_error(test["target"], test["probability"])}
    return content
