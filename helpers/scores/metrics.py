"""Figures of a diagnostic test that can be believed, for notebook 04.

The figures are scikit-learn's. Photographs of one patient or lesion are not independent, so their
intervals come from a bootstrap that draws whole groups. Everywhere: targets [N] are 0 or 1, scores
[N] are larger where melanoma is more likely, groups [N] are labels; the ends of an interval are
None, or NaN in tables, where the groups of a class are too few to tell (`bootstrap.FEW`).
"""

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
from helpers.scores.bootstrap import (
    DRAWS,
    FEW,
    as_columns,
    blocks,
    independent_pairs,
    interval,
    limits,
    mean,
    or_none,
    ranking,
    resample,
    share_limits,
    within,
)

SENSITIVITY = 0.90  # that the threshold keeps on validation
ASKED = (0.80, 0.90, 0.95)  # sensitivities, and specificities, of `operating_points`
ROUNDING = 1e-12  # 1 - 0.8 is a little less than 0.2 in binary
FEW_IN_A_BIN = 5  # photographs; a share of fewer is chance (Cochran, Biometrics 1954)
BY_CHANCE = 95  # percentile of what honest probabilities show


def discrimination(
    targets: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    where: str,
) -> dict:
    """How well scores tell melanomas from benign lesions.

    Args:
        targets: 0 or 1, [N].
        scores: larger where melanoma is more likely, [N].
        groups: the patient or lesion of each photograph, [N].
        where: what these photographs are, for the error.

    Returns:
        auc and ap (average precision), each with its 95% interval over groups (auc_low, auc_high),
        prevalence, n, positives, and positive_groups, the patients or lesions behind those. An ap
        of 1 has no interval: nothing bounds it.

    Raises:
        ValueError: there are no photographs, or they are of one class.
    """
    targets = np.asarray(targets)
    scores = np.asarray(scores)
    groups = np.asarray(groups)
    check_classes(targets, where)
    independent = independent_pairs(targets, groups)
    drawn = resample(ranking(targets, scores), groups)  # [draws, 2]
    auc_low, auc_high = share_limits(drawn[:, 0], independent)
    ap_low, ap_high = limits(drawn[:, 1], independent)
    if ap_low == 1:
        ap_low = ap_high = np.nan
    return {
        "auc": float(roc_auc_score(targets, scores)),
        "auc_low": or_none(auc_low),
        "auc_high": or_none(auc_high),
        "ap": float(average_precision_score(targets, scores)),
        "ap_low": or_none(ap_low),
        "ap_high": or_none(ap_high),
        "prevalence": float(targets.mean()),
        "n": len(targets),
        "positives": int(targets.sum()),
        "positive_groups": len(np.unique(groups[targets == 1])),
    }


def within_source(table: pd.DataFrame) -> dict:
    """`discrimination` in each source; where there is one class, auc is None with a reason.

    Args:
        table: source, group, target and logit, as in predictions.csv.

    Returns:
        The figures by source.
    """
    figures = {}
    for source, rows in table.groupby("source"):
        if rows["target"].nunique() == 2:
            figures[source] = discrimination(rows["target"], rows["logit"], rows["group"], source)
        else:
            figures[source] = {
                "auc": None,
                "n": len(rows),
                "positives": int(rows["target"].sum()),
                "reason": "one class only: no AUC",
            }
    return figures


def auc_table(table: pd.DataFrame, scores: Iterable[str]) -> pd.DataFrame:
    """Several scores of the same photographs beside each other, by AUC.

    Args:
        table: source, group, target and the scores, a row for each photograph.
        scores: the columns to compare.

    Returns:
        A row for each score: auc, auc_low, auc_high, and of pairs of one source alone within,
        within_low, within_high, NaN where no source has both classes. Ends are NaN where groups
        are too few.

    Raises:
        ValueError: the photographs are of one class.
    """
    rows = {}
    for score in scores:
        pooled = discrimination(table["target"], table[score], table["group"], "the table")
        row = {name: pooled[name] for name in ("auc", "auc_low", "auc_high")}
        inside = interval_within(table, score)
        row["within"] = inside["value"]
        row["within_low"] = inside["low"]
        row["within_high"] = inside["high"]
        rows[score] = row
    return pd.DataFrame.from_dict(rows, orient="index", dtype=float)


def interval_within(table: pd.DataFrame, score: str = "logit") -> dict:
    """AUC within sources (`bootstrap.within`) with its interval; NaN where there is no pair."""
    independent = independent_pairs(table["target"], table["group"], table["source"])
    inside = interval(within(table, score), table["group"], independent=independent, share=True)
    return inside or {"value": np.nan, "low": np.nan, "high": np.nan}


def readable(table: pd.DataFrame, digits: int = 3) -> pd.DataFrame:
    """A table of figures for readers: rounded, and "too few" for the ends of unknown intervals.

    Args:
        table: columns such as auc, auc_low and auc_high; or value, low and high.
        digits: after the point.

    >>> readable(pd.DataFrame({"auc": [1.0], "auc_low": [np.nan]})).to_dict("list")
    {'auc': [1.0], 'auc_low': ['too few']}
    """
    shown = table.round(digits)
    for column in shown:
        figure = column.removesuffix("_low").removesuffix("_high")
        if column in ("low", "high"):
            figure = "value"
        unknown = shown[column].isna() & shown[figure].notna()
        if unknown.any():
            shown[column] = shown[column].astype(object).mask(unknown, "too few")
    return shown


def calibrate(
    logits: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    shift: float = 0.0,
) -> dict:
    """Fit the probability of melanoma to the logits of validation, at its natural prevalence.

    A logistic regression of the targets on the logits (Platt, Advances in Large Margin
    Classifiers, 1999). Where it would turn the order round (slope <= 0), the logits say nothing:
    slope 0, and the prevalence. Where the logits separate the classes, a slope would grow without
    end: there the targets are Platt's (his equation 4), a little less than 1 and more than 0.

    Of fewer than FEW groups of a class no correction is fitted: slope 1, and the `shift` alone.

    Args:
        logits: [N].
        targets: 0 or 1, [N].
        groups: [N]; each photograph its own if not given.
        shift: of `prior_shift`; what validation is too small to measure.

    Returns:
        slope and intercept, for `probability`.

    Raises:
        ValueError: there are no photographs, or they are of one class.

    >>> calibrate([-2, -1, 0, 1, 2], [0, 1, 0, 1, 1])  # too few
    {'slope': 1.0, 'intercept': 0.0}
    >>> calibration = calibrate(list(range(-20, 20)), [0, 0, 0, 1] * 5 + [0, 1, 1, 1] * 5)
    >>> probability([-20, 20], calibration).round(2).tolist()
    [0.12, 0.89]
    """
    logits = np.asarray(logits, float)
    targets = np.asarray(targets)
    check_classes(targets, "validation")
    if groups is None:
        groups = np.arange(len(targets))
    if independent_pairs(targets, groups) < FEW:
        return {"slope": 1.0, "intercept": float(shift)}
    slope, intercept = fit_slope(logits, targets)
    if slope <= 0:
        prevalence = targets.mean()
        slope = 0.0
        intercept = float(np.log(prevalence / (1 - prevalence)))
    return {"slope": slope, "intercept": intercept}


def fit_slope(logits: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the logistic regression of targets on logits, finite in any case."""
    regression = LogisticRegression(C=np.inf, max_iter=1000)
    if logits[targets == 1].min() < logits[targets == 0].max():
        regression.fit(logits[:, None], targets)
    else:
        melanomas = targets.sum()
        benign = len(targets) - melanomas
        soft = np.where(targets == 1, (melanomas + 1) / (melanomas + 2), 1 / (benign + 2))
        regression.fit(  # a photograph counts as a melanoma and as a benign lesion, in parts
            np.concatenate([logits, logits])[:, None],
            np.repeat([1, 0], len(logits)),
            sample_weight=np.concatenate([soft, 1 - soft]),
        )
    return float(regression.coef_[0, 0]), float(regression.intercept_[0])


def prior_shift(split: pd.DataFrame, melanoma_times: float = 1.0) -> float:
    """What balancing the training photographs adds to the logits, to be taken back: log odds.

    The odds of a melanoma in the table (but for its test rows), over those in training.

    Args:
        split: target, split and kept, as in split.csv.
        melanoma_times: how often the recipe shows a melanoma for each time of a benign lesion.

    >>> split = pd.DataFrame({"split": "train", "target": [1, 0, 0, 0, 0], "kept": [1, 1, 0, 0, 0]})
    >>> round(np.exp(prior_shift(split)), 3)  # one to four, in place of one to one
    np.float64(0.25)
    """
    shown = split.loc[(split["split"] == "train") & (split["kept"] == 1), "target"]
    natural = split.loc[split["split"] != "test", "target"]
    trained = melanoma_times * shown.sum() / (shown == 0).sum()
    return float(np.log(natural.sum() / (natural == 0).sum() / trained))


def caution(val: pd.DataFrame) -> str:
    """A line on what few validation groups do not bear, empty where they are enough.

    Args:
        val: target and group.
    """
    groups = val.groupby("target")["group"].nunique()
    if independent_pairs(val["target"], val["group"]) >= FEW:
        return ""
    return (
        f"validation has {groups[1]} patients or lesions with melanoma and {groups[0]} without, "
        f"too few (under {FEW}) to fit a slope: probabilities are the sigmoid of the logit, put "
        "back to the table's share of melanomas; and a threshold chosen on so few may find any "
        "share of those on test\n"
    )


def probability(logits: np.ndarray, calibration: dict) -> np.ndarray:
    """Calibrated probability of melanoma, [N].

    Args:
        logits: [N].
        calibration: slope and intercept, of `calibrate`.

    >>> probability([0.0, 100.0], {"slope": 2.0, "intercept": 0.0}).tolist()
    [0.5, 1.0]
    """
    return expit(calibration["slope"] * np.asarray(logits, float) + calibration["intercept"])


def shift_prior(probabilities: np.ndarray, *, trained: float, natural: float) -> np.ndarray:
    """What probabilities that were learned at one share of melanomas are at another.

    The odds, times the ratio of the shares' odds: Saerens, Latinne and Decaestecker, Neural
    Computation 2002, equation 2.4. It holds where the loss is proper (cross-entropy), not for focal
    loss.

    Args:
        probabilities: of melanoma, [N].
        trained: share of melanomas among the photographs of the training.
        natural: share of melanomas where the probabilities will be used.

    Returns:
        Probabilities, [N].

    Raises:
        ValueError: a share is not between 0 and 1.

    >>> shift_prior([0.5, 0.9], trained=0.5, natural=0.1).round(3).tolist()
    [0.1, 0.5]
    """
    if not (0 < trained < 1 and 0 < natural < 1):
        raise ValueError(f"a share of melanomas lies between 0 and 1, not {trained} and {natural}")
    probabilities = np.asarray(probabilities, float)
    melanoma = probabilities * natural / trained
    benign = (1 - probabilities) * (1 - natural) / (1 - trained)
    return melanoma / (melanoma + benign)


def choose_threshold(
    targets: np.ndarray,
    scores: np.ndarray,
    *,
    sensitivity: float = SENSITIVITY,
    specificity: float | None = None,
) -> float:
    """A threshold for calling `scores >= threshold` melanoma, to be chosen on validation.

    Args:
        targets: 0 or 1, [N].
        scores: [N].
        sensitivity: share of the melanomas to call; the highest threshold that does.
        specificity: if given, in its place the share of the benign lesions to leave alone; the
            lowest threshold that does, just above all scores if need be.

    Returns:
        The threshold, a finite number.

    Raises:
        ValueError: there are no photographs, or they are of one class.

    >>> choose_threshold([0, 0, 1, 1], [0.1, 0.3, 0.2, 0.4], sensitivity=0.5)
    0.4
    >>> choose_threshold([0, 0, 1, 1], [0.1, 0.3, 0.2, 0.4], specificity=0.5)
    0.2
    """
    check_classes(targets, "validation")
    alarms, sensitivities, thresholds = roc_curve(targets, scores, drop_intermediate=False)
    thresholds[0] = np.nextafter(thresholds[1], np.inf)  # from inf, which JSON has not
    if specificity is None:
        place = np.argmax(sensitivities >= sensitivity)
    else:
        place = np.flatnonzero(alarms <= 1 - specificity + ROUNDING)[-1]
    return float(thresholds[place])


def decision(targets: np.ndarray, scores: np.ndarray, threshold: float) -> dict:
    """What comes of calling `scores >= threshold` melanoma.

    Args:
        targets: 0 or 1, [N].
        scores: [N].
        threshold: of `choose_threshold`.

    Returns:
        sensitivity, specificity, true_positives, false_negatives, false_positives, true_negatives.

    Raises:
        ValueError: there are no photographs, or they are of one class.

    >>> decision([0, 0, 1, 1], [0.1, 0.3, 0.2, 0.4], threshold=0.3)["sensitivity"]
    0.5
    """
    check_classes(targets, "a decision's split")
    called = np.asarray(scores) >= threshold
    (tn, fp), (fn, tp) = confusion_matrix(targets, called, labels=[0, 1]).tolist()
    return {
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "true_positives": tp,
        "false_negatives": fn,
        "false_positives": fp,
        "true_negatives": tn,
    }


def operating_points(val: pd.DataFrame, test: pd.DataFrame) -> list[dict]:
    """What thresholds chosen on validation do on test: each of ASKED, of both kinds.

    Args:
        val: target and probability.
        test: group, target and probability.

    Returns:
        A row for each: asked ("sensitivity" or "specificity"), at, threshold, the figures of
        `decision`, and 95% intervals over groups, sensitivity_low to specificity_high.

    Raises:
        ValueError: a split has no photographs, or one class.
    """
    rows = []
    for asked in ("sensitivity", "specificity"):
        for at in ASKED:
            threshold = choose_threshold(val["target"], val["probability"], **{asked: at})
            figures = decision(test["target"], test["probability"], threshold)
            rows.append({"asked": asked, "at": at, "threshold": threshold} | figures)
    called = test["probability"].to_numpy()[:, None] >= [row["threshold"] for row in rows]  # [N, K]
    melanoma = test["target"].to_numpy()[:, None] == 1
    sensitivity = decision_limits(called, melanoma, test["group"])
    specificity = decision_limits(~called, ~melanoma, test["group"])
    for number, row in enumerate(rows):
        for name, ends in (("sensitivity", sensitivity), ("specificity", specificity)):
            row[f"{name}_low"] = or_none(ends[0, number])
            row[f"{name}_high"] = or_none(ends[1, number])
    return rows


def decision_limits(right: np.ndarray, kind: np.ndarray, groups: pd.Series) -> np.ndarray:
    """95% intervals over groups of the share of a kind [N, 1] that K decisions [N, K] get right.

    Returns low and high, [2, K]; samples without any of the kind are left out.
    """
    counted = np.hstack([right & kind, kind]).astype(float)  # [N, K + 1]
    sums = resample(lambda weights: weights @ counted, groups)  # [draws, K + 1]
    drawn = sums[sums[:, -1] > 0]
    return share_limits(drawn[:, :-1] / drawn[:, -1:], groups[kind[:, 0]].nunique())


def reliability(
    targets: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    bins: int = 15,
) -> pd.DataFrame:
    """How often lesions are melanomas where the probability says so: bins of equal count.

    Equal probabilities stay in one bin, so that the order of the photographs does not matter.

    Args:
        targets: 0 or 1, [N].
        probabilities: of melanoma, [N].
        groups: if given, the patient or lesion of each photograph, [N]: shares get intervals.
        bins: how many, or as many as there are photographs if those are fewer.

    Returns:
        A row for each bin that is not empty: probability (mean), observed (share of melanomas), n.
        With groups also observed_low and observed_high, the share's 95% interval over the groups in
        the bin, NaN where these are too few.

    Raises:
        ValueError: there are no photographs.

    >>> reliability([0, 1, 1, 1], [0.25, 0.5, 0.75, 1.0], bins=2).to_dict("list")
    {'probability': [0.375, 0.875], 'observed': [0.5, 1.0], 'n': [2, 2]}
    """
    table = pd.DataFrame(
        {"probability": np.asarray(probabilities), "observed": np.asarray(targets)}
    )
    number = bin_numbers(table["probability"], bins)
    found = table.groupby(number).agg(
        probability=("probability", "mean"),
        observed=("observed", "mean"),
        n=("observed", "size"),
    )
    if groups is not None:
        labels = pd.Series(np.asarray(groups))
        for place, rows in table.groupby(number):
            share = interval(mean(rows["observed"]), labels[rows.index], share=True)
            found.loc[place, "observed_low"] = share["low"]
            found.loc[place, "observed_high"] = share["high"]
    return found


def bin_numbers(probabilities: np.ndarray, bins: int) -> pd.Series:
    """The number of the bin of equal count that each probability falls into, [N].

    Raises:
        ValueError: there are no photographs.
    """
    if len(probabilities) == 0:
        raise ValueError(
            "a split of 0 photographs has no reliability: expected one with photographs"
        )
    ranks = pd.Series(np.asarray(probabilities)).rank(method="min").astype(int)
    below = ranks - 1  # how many are lower
    return below * min(bins, len(below)) // len(below)


def calibration_error(targets: np.ndarray, probabilities: np.ndarray, *, bins: int = 15) -> float:
    """ECE: mean distance of probability and observed share over the bins of `reliability`.

    Bins count by their photographs. Naeini, Cooper and Hauskrecht, AAAI 2015, with bins of equal
    count for theirs of equal width.

    Args:
        targets: 0 or 1, [N].
        probabilities: of melanoma, [N].
        bins: how many at most; fewer where one would have fewer than FEW_IN_A_BIN photographs.

    Raises:
        ValueError: there are no photographs.

    >>> calibration_error([0, 1, 1, 1] * 3, [0.25, 0.5, 0.75, 1.0] * 3)
    0.125
    """
    bins = min(bins, max(1, len(targets) // FEW_IN_A_BIN))
    table = reliability(targets, probabilities, bins=bins)
    gaps = (table["probability"] - table["observed"]).abs()
    return float(np.average(gaps, weights=table["n"]))


def calibration_interval(
    targets: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    *,
    bins: int = 15,
) -> dict:
    """ECE with its 95% interval over groups, and what honest probabilities would show.

    A distance is never below 0, so that chance alone makes an ECE, and drawing photographs again
    adds to it once more: the percentiles of the drawn values lie too high. So they are turned round
    the value (the basic bootstrap: Davison and Hinkley, Bootstrap Methods and their Application,
    1997, section 5.2), and the low end is 0 where honest probabilities show as much by chance.

    Args:
        targets: 0 or 1, [N].
        probabilities: of melanoma, [N].
        groups: the patient or lesion of each photograph, [N].
        bins: as in `calibration_error`.

    Returns:
        value, low and high (NaN where the groups are too few), n, and chance: what 95% of perfectly
        calibrated probabilities stay below, on as many photographs that are independent.

    Raises:
        ValueError: there are no photographs.
    """
    targets = np.asarray(targets, float)
    probabilities = np.asarray(probabilities, float)
    value = calibration_error(targets, probabilities, bins=bins)
    bins = min(bins, max(1, len(targets) // FEW_IN_A_BIN))
    number = bin_numbers(probabilities, bins).to_numpy()
    inside = (number[:, None] == np.unique(number)).astype(float)  # [N, bins]
    gaps = inside * (probabilities - targets)[:, None]
    drawn = resample(
        lambda weights: np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1), groups
    )
    low, high = limits(drawn, len(np.unique(np.asarray(groups))))
    chance = float(np.percentile(errors_by_chance(probabilities, inside), BY_CHANCE))
    turned = (2 * value - high, 2 * value - low)
    if np.isnan(low):
        return {"value": value, "low": np.nan, "high": np.nan, "n": len(targets), "chance": chance}
    return {
        "value": value,
        "low": 0.0 if value <= chance else max(0.0, float(turned[0])),
        "high": min(1.0, max(value, float(turned[1]))),
        "n": len(targets),
        "chance": chance,
    }


def errors_by_chance(probabilities: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """ECEs of targets that are drawn as the probabilities say, [DRAWS].

    Args:
        probabilities: [N].
        inside: 1 where a photograph is in a bin, [N, bins].
    """
    rng = np.random.default_rng(0)
    errors = []
    for rows in blocks(DRAWS, len(probabilities)):
        count = len(range(DRAWS)[rows])
        happened = rng.random((count, len(probabilities))) < probabilities
        errors.append(np.abs((probabilities - happened) @ inside).sum(axis=1) / len(probabilities))
    return np.concatenate(errors)


def summarise(
    predictions: pd.DataFrame,
    *,
    calibration: dict,
    threshold: float,
    weights: str,
) -> dict:
    """The content of `metrics.json`.

    Args:
        predictions: rows of `predictions.csv`, of the splits val and test.
        calibration: of `calibrate`, on val.
        threshold: of `choose_threshold`, on val's probabilities.
        weights: what the network started from.

    Returns:
        weights, calibration and threshold as given, and the figures of test and val.

    Raises:
        ValueError: a split has no photographs, or one class.
    """
    val = predictions[predictions["split"] == "val"]
    test = predictions[predictions["split"] == "test"]
    content = {
        "weights": weights,
        "calibration": calibration,
        "threshold": threshold,
        "test": summarise_ranking(test, "test"),
        "val": summarise_ranking(val, "val"),
    }
    content["test"] |= summarise_decisions(val, test, threshold)
    return content


def summarise_ranking(rows: pd.DataFrame, split: str) -> dict:
    """`discrimination` of a split's rows, pooled, within sources, and by source."""
    figures = discrimination(rows["target"], rows["logit"], rows["group"], split)
    inside = interval_within(rows)
    figures |= as_columns("auc_within_source", inside)
    figures["by_source"] = within_source(rows)
    return figures


def summarise_decisions(val: pd.DataFrame, test: pd.DataFrame, threshold: float) -> dict:
    """What the probabilities of the test rows are worth, and the decisions that follow."""
    figures = decision(test["target"], test["probability"], threshold)
    figures["brier"] = float(brier_score_loss(test["target"], test["probability"]))
    ece = calibration_interval(test["target"], test["probability"], test["group"])
    figures |= as_columns("ece", ece)
    figures["ece_chance"] = ece["chance"]
    figures["operating_points"] = operating_points(val, test)
    return figures
