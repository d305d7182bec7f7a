"""Baselines that see no lesion, for notebooks 04 and deeper/leaks_and_shortcuts.

A network may score well by telling cameras, collections or patients apart. Its AUC means something
only above what these reach on the same test photographs.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier
from tqdm.auto import tqdm

from helpers import workspace
from helpers.photographs.places import check_table
from helpers.photographs.reading import read_photograph
from helpers.photographs.table import read_marking

LEAF = 20  # rows in a leaf of a tree, scikit-learn's default
LEAVES = 5  # so many can be filled with the smaller class
CATEGORIES = 255  # that scikit-learn's trees can tell apart
PRIOR = 2  # rows at the rate of all that a category's own are mixed with
METADATA = ["source", "sex", "age_approx", "anatom_site_general_challenge"]


def baselines(dataset: dict, split: pd.DataFrame) -> pd.DataFrame:
    """Scores of four baselines on the test rows, each fitted on the kept training rows.

    Args:
        dataset: the content of `dataset.json`.
        split: the content of `split.csv`.

    Returns:
        A row for each test row: image_id, source, group, target, and the probability of melanoma by
        "source only" and "metadata only" (see `table_baselines`), "mean colours only" (see
        `colours`) and "file size only" (bytes), at the rate of the kept training rows.

    Raises:
        ValueError: the kept training rows are of one class, there are no test rows, or a file is
            not a photograph, or not what 01 read.
        FileNotFoundError: the table or the photographs are missing.
    """
    check_table(dataset)
    rows = split[(split["kept"] == 1) & split["split"].isin(["train", "test"])]
    marking = read_marking(Path(dataset["csv"])).set_index("image_id")
    known = [column for column in METADATA if column != "source" and column in marking]
    rows = rows.join(marking[known], on="image_id")
    train = rows["split"] == "train"
    paths = [Path(dataset["folder"]) / name for name in rows["path"]]
    scores = table_baselines(rows)
    sizes = [path.stat().st_size for path in paths]
    means = all_colours(rows, dataset)
    features = {
        "mean colours only": pd.DataFrame(means, index=rows.index),
        "file size only": pd.DataFrame({"bytes": sizes}, index=rows.index),
    }
    for name, table in features.items():
        scores[name] = fit_and_score(table, rows["target"], train)
    return scores


def table_baselines(table: pd.DataFrame, *, split: str = "split") -> pd.DataFrame:
    """Scores of the baselines that need no photographs.

    Args:
        table: image_id, source, group, target, those of METADATA that are known, and a column that
            says where each row belongs.
        split: name of that column. Baselines are fitted on its "train" rows and scored on its
            "test" rows; all others are left out.

    Returns:
        A row for each test row: image_id, source, group, target, and the probability of melanoma by
        "source only" and "metadata only" (all of METADATA, the source too).

    Raises:
        ValueError: the training rows are of one class, or there are no test rows.
    """
    rows = table[table[split].isin(["train", "test"])]
    train = rows[split] == "train"
    classes = rows.loc[train, "target"].nunique()
    if classes < 2 or train.all():
        raise ValueError(
            f"{train.sum()} training rows of {classes} class(es) and {(~train).sum()} test rows: "
            "a baseline needs both classes in train, and test rows"
        )
    scores = rows.loc[~train, ["image_id", "source", "group", "target"]].copy()
    features = rows[[column for column in METADATA if column in rows]].copy()
    for column in features.columns.drop("age_approx", errors="ignore"):
        features[column] = features[column].astype("category")
    scores["source only"] = fit_and_score(features[["source"]], rows["target"], train)
    scores["metadata only"] = fit_and_score(features, rows["target"], train)
    return scores.reset_index(drop=True)


def fit_and_score(features: pd.DataFrame, targets: pd.Series, train: pd.Series) -> np.ndarray:
    """Probability of melanoma for the rows outside `train`, by trees fitted on those inside.

    Gradient-boosted trees take numbers, categories and missing values as they are; without early
    stopping nothing is drawn at random. But they see no group of fewer rows than a leaf has, and on
    such a one a shortcut may rest: the clinic that sent the few melanomas. So where a class is
    small leaves are smaller; there, and where rare categories stand out, categories come as their
    `smoothed_rates`; and what is left of a rare one is added by `rare_steps`.

    Args:
        features: a row for each photograph.
        targets: 0 or 1, by the same rows.
        train: True where a row is for fitting.

    Returns:
        A probability for each row where `train` is False.
    """
    known = features[train].notna().any()
    features = features.loc[:, known]
    categories = features.select_dtypes("category")
    truth = targets[train]
    leaf = int(np.clip(truth.value_counts().min() // LEAVES, 1, LEAF))
    numbers = features.copy()
    for name, column in categories.items():
        stand_out = rare_steps(column, truth, truth * 0 + truth.mean()).any()
        if stand_out or leaf < LEAF or column.nunique() > CATEGORIES:
            numbers[name] = smoothed_rates(column, truth)
    model = HistGradientBoostingClassifier(
        max_iter=50, min_samples_leaf=leaf, early_stopping=False, random_state=0
    )
    model.fit(numbers[train], truth)
    fitted = pd.Series(model.predict_proba(numbers[train])[:, 1], truth.index)
    logits = model.decision_function(numbers[~train])
    for column in categories:
        logits += rare_steps(features[column], truth, fitted)[~train].to_numpy()
    return expit(logits)


def named(column: pd.Series) -> pd.Series:
    """Categories as text; a missing value is a category of its own."""
    return column.astype(object).where(column.notna(), "")


def smoothed_rates(column: pd.Series, targets: pd.Series) -> pd.Series:
    """Each row's category as its melanoma rate, drawn to that of all as if by PRIOR more rows.

    Micci-Barreca, ACM SIGKDD Explorations 2001. A category that training lacks has the rate of all.

    Args:
        column: a category for each photograph, those to be scored too.
        targets: 0 or 1, of the training rows.

    >>> smoothed_rates(pd.Series(["A", "A", "B", "C"]), pd.Series([1, 1, 0, 0])).tolist()
    [0.75, 0.75, 0.3333333333333333, 0.3333333333333333]
    """
    names = named(column)
    groups = targets.groupby(names[targets.index])
    rates = (groups.sum() + PRIOR * targets.mean()) / (groups.size() + PRIOR)
    return names.map(rates).astype(float).fillna(targets.mean())


def rare_steps(column: pd.Series, targets: pd.Series, fitted: pd.Series) -> pd.Series:
    """What each row's category adds to the logit, where it has fewer than LEAF training rows.

    A step of gradient boosting with such a category as the leaf, shrunk as XGBoost does (Chen and
    Guestrin, KDD 2016, equation 5, lambda 1): the fewer rows, the smaller. It is taken where the
    category's melanomas lie two standard deviations or more from what the trees expect; a category
    that training lacks adds nothing.

    Args:
        column: a category for each photograph, those to be scored too.
        targets: 0 or 1, of the training rows.
        fitted: their probabilities by the trees.

    >>> column = pd.Series(["A", "A", "B", "C"])
    >>> rare_steps(column, pd.Series([1, 1, 0]), pd.Series([0.2, 0.2, 0.2])).round(2).tolist()
    [1.21, 1.21, 0.0, 0.0]
    """
    names = named(column)
    rows = pd.DataFrame({"gradient": targets - fitted, "hessian": fitted * (1 - fitted)})
    groups = rows.groupby(names[targets.index])
    sums = groups.sum()
    steps = sums["gradient"] / (sums["hessian"] + 1)
    taken = (groups.size() < LEAF) & (sums["gradient"] ** 2 >= 4 * sums["hessian"])
    return names.map(steps.where(taken, 0)).astype(float).fillna(0)


def all_colours(rows: pd.DataFrame, dataset: dict) -> np.ndarray:
    """`colours` of the photograph of each row of split.csv, [N, 6]."""
    orders = dataset["colour_order_by_source"]
    sums = dataset.get("checksums", {}).get("photographs", {})
    paths = [Path(dataset["folder"]) / name for name in rows["path"]]
    swapped = [orders[source]["order"] == "bgr" for source in rows["source"]]
    crcs = [int(sums[name], 16) if name in sums else None for name in rows["path"]]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        means = tqdm(
            pool.map(colours, paths, swapped, crcs),
            desc="colours",
            total=len(paths),
            disable=workspace.headless(),
        )
        return np.stack(list(means))


def colours(path: Path, swapped: bool, crc: int | None = None) -> np.ndarray:
    """Mean and standard deviation of red, green and blue, 0 to 255.

    Args:
        path: a photograph; a JPEG is decoded at an eighth of its side.
        swapped: whether its file holds red and blue exchanged.
        crc: the CRC-32 that its bytes must have; None: not known.

    Returns:
        [6], the means first.

    Raises:
        ValueError: as `read_photograph`: the file's name and why it cannot be decoded.
    """
    pixels = read_photograph(path, at_least=1, crc=crc)  # [H/8, W/8, 3]
    if swapped:
        pixels = pixels[..., ::-1]
    pixels = pixels.reshape(-1, 3)
    return np.concatenate([pixels.mean(axis=0), pixels.std(axis=0)])
