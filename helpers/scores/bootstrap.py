"""Intervals over groups: the bootstrap that draws whole patients and lesions; AUC under weights.

Photographs of one patient or lesion are alike, so a bootstrap that draws photographs gives
intervals that are too narrow. Here a sample draws as many groups as there are, with replacement,
and takes all photographs of each (the cluster bootstrap: Davison and Hinkley, Bootstrap Methods and
their Application, 1997, section 3.8). A sample is never copied together: it is a weight for each
photograph, how often its group was drawn, and a statistic is computed under many rows of weights.
"""

import functools
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from scipy import sparse

DRAWS = 2000  # bootstrap samples behind an interval
HELD = 2**20  # weights that are held at once, 8 MiB: what bounds the memory
LIMITS = (2.5, 97.5)  # percentiles of a 95% interval


@functools.lru_cache(maxsize=4)
def draw_groups(count: int, draws: int, seed: int) -> np.ndarray:
    """How often each of `count` groups stands in each bootstrap sample: uint8 [draws, count].

    Drawn once for all statistics of as many groups, so nobody may write into it. uint8 holds every
    count: 255 groups give no more, and of more than those, one is drawn 256 times in a sample with
    a probability below 1/256!.
    """
    rng = np.random.default_rng(seed)
    counts = np.empty((draws, count), np.uint8)
    for draw in range(draws):
        counts[draw] = np.bincount(rng.integers(count, size=count), minlength=count)
    counts.flags.writeable = False
    return counts


def number_groups(groups: Iterable) -> tuple[np.ndarray, int]:
    """The groups numbered in the order of their first photograph, [N], and how many there are."""
    codes, labels = pd.factorize(np.asarray(groups))
    if (codes < 0).any():
        raise ValueError(
            f"{(codes < 0).sum()} of {len(codes)} photographs have no group: expected the label of "
            "a patient or lesion for each, as the column `group` of split.csv has it"
        )
    return codes, len(labels)


def bootstrap_counts(groups: Iterable, *, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """How often each photograph stands in each bootstrap sample of whole groups.

    Args:
        groups: the group of each photograph, N labels.
        draws: how many samples.
        seed: the same seed gives the same samples on every machine.

    Returns:
        int32 [draws, N], so that sums and differences of counts hold, too.

    Raises:
        ValueError: a photograph has no group.

    >>> bootstrap_counts(["a", "b", "b", "c"], draws=3)
    array([[0, 2, 2, 1],
           [3, 0, 0, 0],
           [3, 0, 0, 0]], dtype=int32)
    """
    codes, count = number_groups(groups)
    return draw_groups(count, draws, seed)[:, codes].astype(np.int32)


def resample(statistic: Callable, groups: Iterable) -> np.ndarray:
    """A statistic under each of the DRAWS bootstrap samples of whole groups.

    Args:
        statistic: takes weights of photographs, float64 [D, N], and gives one or several values
            for each row, [D] or [D, K]. It is called for some rows at a time, to bound the memory.
        groups: the group of each photograph, N labels.

    Returns:
        [DRAWS] or [DRAWS, K].
    """
    codes, count = number_groups(groups)
    counts = draw_groups(count, DRAWS, seed=0)
    parts = []
    for rows in blocks(DRAWS, len(codes)):
        drawn = counts[rows].T.astype(float)  # [groups, D]
        parts.append(statistic(drawn[codes].T))
    return np.concatenate(parts)


def blocks(draws: int, photographs: int) -> list[slice]:
    """Slices of the draws, each of so many that their weights keep to HELD."""
    size = max(1, HELD // max(1, photographs))
    return [slice(start, start + size) for start in range(0, draws, size)]


def limits(drawn: np.ndarray) -> np.ndarray:
    """Low and high end of the 95% interval of drawn values [D] or [D, K]: [2] or [2, K].

    Draws that are NaN are left out.
    """
    return np.nanpercentile(drawn, LIMITS, axis=0)


def interval(statistic: Callable, groups: Iterable) -> dict | None:
    """A statistic of photographs, and its 95% interval over groups.

    With the difference of two models as the statistic this is the paired bootstrap: both on the
    same drawn groups.

    Args:
        statistic: as in `resample`, with one value a row; NaN says that it does not exist there.
        groups: the group of each photograph, N labels.

    Returns:
        value, low, high, and n, the number of photographs. Samples without a value (a class is
        missing) are left out; None where the photographs themselves have none.

    Raises:
        ValueError: a photograph has no group.

    >>> interval(mean([1, 2, 3, 4]), ["a", "a", "b", "b"])
    {'value': 2.5, 'low': 1.5, 'high': 3.5, 'n': 4}
    """
    groups = np.asarray(groups)
    with np.errstate(invalid="ignore"):
        value = statistic(np.ones((1, len(groups))))[0]
        if np.isnan(value):
            return None
        low, high = limits(resample(statistic, groups))
    return {"value": float(value), "low": float(low), "high": float(high), "n": len(groups)}


def mean(values: np.ndarray, kept: np.ndarray | float = 1.0) -> Callable:
    """The mean as a statistic for `interval`.

    Args:
        values: [N].
        kept: 1 where a value counts and 0 where it does not, [N]; all count if not given.

    >>> mean([1, 2, 3, 4], kept=[1, 1, 1, 0])(np.ones((1, 4)))
    array([2.])
    """
    values = np.asarray(values, float)
    kept = np.broadcast_to(np.asarray(kept, float), values.shape)
    return lambda weights: ratio(weights @ (values * kept), weights @ kept)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, NaN where the denominator is 0."""
    empty = np.full(np.shape(denominator), np.nan)
    return np.divide(numerator, denominator, out=empty, where=denominator > 0)


def weighted_auc_ap(
    targets: np.ndarray,
    scores: np.ndarray,
    weights: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """AUC and average precision under each row of weights.

    What scikit-learn's `roc_auc_score` and `average_precision_score` give for `sample_weight`, for
    all rows at once.

    Args:
        targets: 0 or 1, [N].
        scores: larger where melanoma is more likely, [N].
        weights: how much each photograph counts, [D, N].

    Returns:
        AUC [D], NaN where a class has no weight; average precision [D], NaN where melanomas have
        none.

    >>> weights = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])
    >>> weighted_auc_ap([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], weights)
    (array([0.75, 0.5 ]), array([0.83333333, 0.5       ]))
    """
    statistic = ranking(targets, scores)
    auc, ap = np.concatenate([statistic(weights[rows]) for rows in blocks(*weights.shape)]).T
    return auc, ap


def ranking(targets: np.ndarray, scores: np.ndarray) -> Callable:
    """AUC and average precision as a statistic for `resample`, [D, 2]; see `weighted_auc_ap`."""
    count = len(scores)
    melanomas, benign = step_matrices(targets, scores, np.arange(count), count)

    def statistic(weights: np.ndarray) -> np.ndarray:
        positive = melanomas @ weights.T  # [T, D]
        negative = benign @ weights.T
        auc = ratio(ordered_pairs(positive, negative), all_pairs(positive, negative))
        return np.column_stack([auc, average_precision(positive, negative)])

    return statistic


def step_matrices(
    targets: np.ndarray,
    scores: np.ndarray,
    places: np.ndarray,
    photographs: int,
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Matrices that sum the weights of photographs in steps, from the highest score to the lowest.

    A step is one score. Scores that follow each other without a melanoma share a step: no pair and
    no precision tells them apart, and as most lesions are benign, that leaves few steps.

    Args:
        targets: 0 or 1, [n].
        scores: [n].
        places: where these photographs stand among all, [n].
        photographs: how many there are in all, N.

    Returns:
        Of the melanomas and of the benign lesions: [T, N] each; `matrix @ weights.T` is [T, D].
    """
    melanoma = np.asarray(targets) == 1
    scores = np.asarray(scores, float)
    order = np.argsort(-scores, kind="stable")
    ties = np.cumsum(np.diff(scores[order], prepend=np.nan) != 0) - 1  # [n], number of the score
    holds = np.bincount(ties, weights=melanoma[order]) > 0  # [scores], a melanoma has it
    opens = holds | np.r_[True, holds[:-1]]
    step = np.cumsum(opens)[ties] - 1  # [n], by rank
    matrices = []
    for kind in (melanoma[order], ~melanoma[order]):
        cells = (np.ones(kind.sum()), (step[kind], places[order][kind]))
        matrices.append(sparse.csr_array(cells, shape=(opens.sum(), photographs)))
    return matrices[0], matrices[1]


def ordered_pairs(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Weight of the pairs that the scores order rightly, ties half: [D].

    A pair is a melanoma and a benign lesion. positive and negative are the weights of melanomas and
    of benign lesions in each step, the highest first: [T, D].
    """
    above = positive.cumsum(axis=0) - positive / 2
    return (negative * above).sum(axis=0)


def all_pairs(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Weight of all pairs of a melanoma and a benign lesion: [D], from [T, D] each."""
    return positive.sum(axis=0) * negative.sum(axis=0)


def average_precision(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Mean precision over the melanomas, each at its own score: [D], from [T, D] each."""
    recalled = positive.cumsum(axis=0)
    called = recalled + negative.cumsum(axis=0)
    precision = np.divide(recalled, called, out=np.zeros_like(called), where=called > 0)
    return ratio((positive * precision).sum(axis=0), recalled[-1])


def within(table: pd.DataFrame, score: str = "logit") -> Callable:
    """AUC within sources: the share of pairs OF ONE SOURCE that the score orders rightly.

    A pair is a melanoma and a benign lesion; a tie counts half. Knowing the source alone gives 0.5.

    Args:
        table: source, target, and the score, a row for each photograph.
        score: the score's column.

    Returns:
        A statistic for `interval`; NaN where no source has both classes.

    >>> table = pd.DataFrame({"source": ["A", "A", "B", "B"], "target": [0, 1, 0, 1]})
    >>> table["logit"] = [1.0, 2.0, 5.0, 4.0]
    >>> within(table)(np.ones((1, 4)))
    array([0.5])
    """
    matrices = []
    for source in table["source"].unique():
        places = np.flatnonzero(table["source"] == source)
        rows = table.iloc[places]
        matrices.append(step_matrices(rows["target"], rows[score], places, len(table)))

    def statistic(weights: np.ndarray) -> np.ndarray:
        right = np.zeros(len(weights))
        pairs = np.zeros(len(weights))
        for melanomas, benign in matrices:
            positive = melanomas @ weights.T  # [T, D]
            negative = benign @ weights.T
            right += ordered_pairs(positive, negative)
            pairs += all_pairs(positive, negative)
        return ratio(right, pairs)

    return statistic


def auc_difference(first: pd.DataFrame, second: pd.DataFrame) -> dict | None:
    """One network's AUC less another's, with its paired interval.

    On the test photographs that both predict.

    Args:
        first: image_id, split, group, target, logit, as in predictions.csv.
        second: image_id, split, logit.

    Returns:
        As `interval` does; None where these photographs miss a class.
    """
    first = first[first["split"] == "test"].set_index("image_id")
    second = second[second["split"] == "test"].set_index("image_id")
    both = first[["group", "target", "logit"]].join(second["logit"].rename("second"), how="inner")
    if both["target"].nunique() < 2:
        return None
    ours = ranking(both["target"], both["logit"])
    theirs = ranking(both["target"], both["second"])
    return interval(lambda weights: ours(weights)[:, 0] - theirs(weights)[:, 0], both["group"])
