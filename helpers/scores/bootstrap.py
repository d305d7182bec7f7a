"""Intervals over groups: the bootstrap that draws whole patients and lesions; AUC under weights.

Photographs of one patient or lesion are alike, so a bootstrap that draws photographs gives
intervals that are too narrow. Here a sample draws as many groups as there are, with replacement,
and takes all photographs of each (the cluster bootstrap: Davison and Hinkley, Bootstrap Methods and
their Application, 1997, section 3.8). A sample is never copied together: it is a weight for each
photograph, how often its group was drawn, and a statistic is computed under many rows of weights.

Drawing a handful of groups again and again says nothing of the groups that one has not seen: with
one melanoma every sample has the same one, and the interval has no width. So of fewer than FEW
groups (of either class, where two are compared) no interval is formed: its ends are NaN, which is
read as "too few to tell", and no verdict follows from it.
"""

import functools
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from scipy import sparse

DRAWS = 2000  # bootstrap samples behind an interval
HELD = 2**20  # weights that are held at once, 8 MiB: what bounds the memory
LIMITS = (2.5, 97.5)  # percentiles of a 95% interval
FEW = 10  # groups; of fewer no interval is formed
RARE = 1e-3  # share of samples without a value, above which a statistic rests on few groups


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


def independent_pairs(
    targets: Iterable,
    groups: Iterable,
    sources: Iterable | None = None,
) -> int:
    """How many pairs of a melanoma's group and a benign lesion's can be formed, each used once.

    So many independent comparisons an AUC rests on, and so few they are where one class has few
    patients or lesions, however many photographs those have.

    Args:
        targets: 0 or 1, [N].
        groups: the group of each photograph, [N].
        sources: if given, pairs are of one source: what the AUC within sources rests on, [N].

    >>> independent_pairs([1, 1, 0, 0, 0], ["a", "a", "b", "c", "d"])
    1
    >>> independent_pairs([1, 0, 1, 0], ["a", "b", "c", "d"], ["A", "A", "B", "C"])
    1
    """
    table = pd.DataFrame({"target": np.asarray(targets), "group": np.asarray(groups)})
    table["source"] = "" if sources is None else np.asarray(sources)
    counts = table.groupby(["source", "target"])["group"].nunique().unstack(fill_value=0)
    return int(counts.reindex(columns=[0, 1], fill_value=0).min(axis=1).sum())


def limits(drawn: np.ndarray, independent: int) -> np.ndarray:
    """Low and high end of the 95% interval of drawn values [D] or [D, K]: [2] or [2, K].

    Args:
        drawn: of `resample`; those that are NaN are left out.
        independent: how many groups (or `independent_pairs`) the statistic rests on.

    Returns:
        NaN where these are fewer than FEW, or where samples without a value say the same: of ten
        groups with a class one sample in 20,000 misses all, of six one in 400.
    """
    if independent < FEW:
        return np.full((2, *drawn.shape[1:]), np.nan)
    few = np.isnan(drawn).mean(axis=0) > RARE
    return np.where(few, np.nan, np.nanpercentile(drawn, LIMITS, axis=0))


def share_limits(drawn: np.ndarray, independent: int) -> np.ndarray:
    """As `limits`, for means of what lies between 0 and 1, and for AUCs.

    Where all are 1 every sample repeats it, and the bootstrap gives no width. The low end is then
    the least mean at which that has a chance of 2.5%: of k groups, mean^k at most. (Of decisions
    this is the exact interval of Clopper and Pearson, Biometrika 1934.) Where all are 0, the high
    end is found alike.

    >>> share_limits(np.ones(2000), 10).round(2).tolist()
    [0.69, 1.0]
    """
    low, high = limits(drawn, independent)
    if independent >= FEW:
        least = (LIMITS[0] / 100) ** (1 / independent)
        low = np.where(low >= 1, least, low)
        high = np.where(high <= 0, 1 - least, high)
    return np.stack([low, high])


def interval(
    statistic: Callable,
    groups: Iterable,
    *,
    independent: int | None = None,
    share: bool = False,
) -> dict | None:
    """A statistic of photographs, and its 95% interval over groups.

    With the difference of two models as the statistic this is the paired bootstrap: both on the
    same drawn groups.

    Args:
        statistic: as in `resample`, with one value a row; NaN says that it does not exist there.
        groups: the group of each photograph, N labels.
        independent: how many groups the statistic rests on, if not on all: `independent_pairs`
            where it compares the classes.
        share: whether it lies between 0 and 1, a mean or an AUC: see `share_limits`.

    Returns:
        value, low, high, and n, the number of photographs. low and high are NaN where the groups
        are too few to tell. Samples without a value (a class is missing) are left out; None where
        the photographs themselves have none.

    Raises:
        ValueError: a photograph has no group.

    >>> interval(mean([1, 2, 3, 4] * 5), list("aabbccddeeffgghhiijj"))
    {'value': 2.5, 'low': 1.9, 'high': 3.1, 'n': 20}
    >>> interval(mean([1, 2, 3, 4]), ["a", "a", "b", "b"])
    {'value': 2.5, 'low': nan, 'high': nan, 'n': 4}
    """
    codes, count = number_groups(groups)
    with np.errstate(invalid="ignore"):
        value = statistic(np.ones((1, len(codes))))[0]
        if np.isnan(value):
            return None
        if independent is None:
            independent = count
        ends = share_limits if share else limits
        low, high = ends(resample(statistic, codes), independent)
    return {"value": float(value), "low": float(low), "high": float(high), "n": len(codes)}


def side(gap: dict) -> str:
    """Where a difference lies, by its interval: "above" 0, "below" it, "around" it, or "too few".

    Args:
        gap: of `interval`.

    >>> side({"value": 0.2, "low": 0.1, "high": 0.3, "n": 40})
    'above'
    >>> side({"value": 0.2, "low": np.nan, "high": np.nan, "n": 4})
    'too few'
    """
    if np.isnan(gap["low"]):
        return "too few"
    if gap["low"] > 0:
        return "above"
    if gap["high"] < 0:
        return "below"
    return "around"


def span(
    value: float,
    low: float | None,
    high: float | None,
    form: str = ".3f",
    between: str = " to ",
) -> str:
    """A figure with its interval in words; what is not known of it is None or NaN.

    >>> span(0.8123, 0.7, 0.9), span(1, None, None)
    ('0.812 (0.700 to 0.900)', '1.000 (too few to tell)')
    """
    if pd.isna(value):
        return "not measured"
    if pd.isna(low):
        return f"{value:{form}} (too few to tell)"
    return f"{value:{form}} ({low:{form}}{between}{high:{form}})"


def or_none(number: float) -> float | None:
    """A number as JSON has it: NaN is None."""
    return None if np.isnan(number) else float(number)


def for_json(figures: dict[str, float] | None) -> dict[str, float | None] | None:
    """Figures as JSON has them: what is NaN, and so not known, is None.

    >>> for_json({"value": 1, "low": np.nan})
    {'value': 1.0, 'low': None}
    """
    if figures is None:
        return None
    return {name: or_none(number) for name, number in figures.items()}


def as_columns(name: str, figure: dict | None) -> dict[str, float | None]:
    """A figure of `interval` as the columns `name`, `<name>_low` and `<name>_high`.

    All are None where there is no figure, and the ends where the groups are too few.

    >>> as_columns("auc", {"value": 0.8, "low": np.nan, "high": np.nan, "n": 4})
    {'auc': 0.8, 'auc_low': None, 'auc_high': None}
    """
    figure = figure or {"value": np.nan, "low": np.nan, "high": np.nan}
    return {
        name: or_none(figure["value"]),
        f"{name}_low": or_none(figure["low"]),
        f"{name}_high": or_none(figure["high"]),
    }


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
    independent = independent_pairs(both["target"], both["group"])
    ours = ranking(both["target"], both["logit"])
    theirs = ranking(both["target"], both["second"])
    how = {"groups": both["group"], "independent": independent}
    gap = interval(lambda weights: ours(weights)[:, 0] - theirs(weights)[:, 0], **how)
    if gap["low"] == gap["high"] != 0:  # one orders every pair: its own interval has a width
        our = interval(lambda weights: ours(weights)[:, 0], share=True, **how)
        their = interval(lambda weights: theirs(weights)[:, 0], share=True, **how)
        gap["low"] = our["low"] - their["high"]
        gap["high"] = our["high"] - their["low"]
    return gap
