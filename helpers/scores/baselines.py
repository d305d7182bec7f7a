"""Guesses without a lesion's shape, for notebooks 04 and deeper/leaks_and_shortcuts.

A network may score well by telling cameras, collections or patients apart. Its AUC means something
only above what these reach on the same test photographs. Three see no lesion: the source, the
metadata, and the colours of the photograph's rim. Two see something of it, and no shape: how large
and dark a lesion is moves the mean colours, and how rough it is the size of the file.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier

from helpers import workspace
from helpers.photographs.cache import files_of, readings_of
from helpers.photographs.masks import Reading, read_mask
from helpers.photographs.places import check_table
from helpers.photographs.reading import read_photograph
from helpers.photographs.table import read_marking

LEAF = 20  # rows in a leaf of a tree, scikit-learn's default
LEAVES = 5  # so many can be filled with the smaller class
CATEGORIES = 255  # that scikit-learn's trees can tell apart
PRIOR = 2  # rows at the rate of all that a category's own are mixed with
RIM = 8  # the rim's width is the shorter side by this
MASK_SIDE = 128  # pixels of a mask's side, fine enough for photographs at an eighth of theirs
METADATA = ["source", "sex", "age_approx", "anatom_site_general_challenge"]


def baselines(dataset: dict, split: pd.DataFrame) -> pd.DataFrame:
    """Scores of five baselines on the test rows, each fitted on the kept training rows.

    Args:
        dataset: the content of `dataset.json`.
        split: the content of `split.csv`.

    Returns:
        A row for each test row: image_id, source, group, target, and the probability of melanoma by
        "source only" and "metadata only" (see `table_baselines`), "rim colours only" (see `rim`),
        "mean colours only" (of the whole photograph) and "file size only" (bytes), at the rate of
        the kept training rows.

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
    whole, rims = all_colours(rows, dataset)
    features = {
        "rim colours only": pd.DataFrame(rims, index=rows.index),
        "mean colours only": pd.DataFrame(whole, index=rows.index),
        "file size only": pd.DataFrame({"bytes": sizes}, index=rows.index),
    }
    for name, table in workspace.progress("baselines", features.items()):
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


def all_colours(rows: pd.DataFrame, dataset: dict) -> tuple[np.ndarray, np.ndarray]:
    """`colours` of the photograph of each row of split.csv, and of its rim: [N, 6] each."""
    orders = dataset["colour_order_by_source"]
    sums = dataset.get("checksums", {"photographs": {}, "masks": {}})
    paths = [Path(dataset["folder"]) / name for name in rows["path"]]
    swapped = [orders[source]["order"] == "bgr" for source in rows["source"]]
    known = sums["photographs"]
    crcs = [int(known[name], 16) if name in known else None for name in rows["path"]]
    masks = [None] * len(rows)
    if "mask" in rows:
        files = files_of(rows["mask"], dataset["masks_folder"], sums["masks"])
        masks = list(zip(files, readings_of(rows, dataset), strict=True))
        masks = [(*file, how) if file else None for file, how in masks]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(whole_and_rim, paths, swapped, crcs, masks)
        both = np.stack(list(workspace.progress("colours", found, len(paths))))  # [N, 2, 6]
    return both[:, 0], both[:, 1]


def whole_and_rim(
    path: Path,
    swapped: bool,
    crc: int | None,
    mask: tuple[Path, int, Reading] | None,
) -> np.ndarray:
    """`spread` of a photograph and of its `rim`, [2, 6]; its file is read once.

    Args:
        path: a photograph.
        swapped: whether its file holds red and blue exchanged.
        crc: the CRC-32 that its bytes must have; None: not known.
        mask: the lesion's: path, CRC-32, and how it is read; None where there is none.
    """
    pixels = read_red_first(path, swapped, crc)
    lesion = None
    if mask is not None:
        file, its_crc, how = mask
        lesion = read_mask(file, MASK_SIDE, how, crc=its_crc)
    return np.stack([spread(pixels.reshape(-1, 3)), spread(rim(pixels, lesion))])


def read_red_first(path: Path, swapped: bool, crc: int | None = None) -> np.ndarray:
    """A photograph [h, w, 3], red first; a JPEG is decoded at an eighth of its side."""
    pixels = read_photograph(path, at_least=1, crc=crc)
    return pixels[..., ::-1] if swapped else pixels


def spread(pixels: np.ndarray) -> np.ndarray:
    """Mean and standard deviation of each channel of pixels [n, 3]: [6], the means first."""
    return np.concatenate([pixels.mean(axis=0), pixels.std(axis=0)])


def rim(pixels: np.ndarray, lesion: np.ndarray | None = None) -> np.ndarray:
    """The pixels of a photograph's rim, where the skin is: [n, 3].

    Args:
        pixels: [h, w, 3].
        lesion: its mask, [s, s], above 0 where the lesion is; what of it reaches into the rim is
            left out. Without a mask, or where it covers all of the rim, the whole rim.
    """
    height, width, _ = pixels.shape
    depth = max(1, min(height, width) // RIM)
    around = np.ones((height, width), bool)
    around[depth : height - depth, depth : width - depth] = False
    if lesion is None:
        return pixels[around]
    covered = cv2.resize(lesion, (width, height), interpolation=cv2.INTER_AREA) > 0
    skin = around & ~covered
    return pixels[skin if skin.any() else around]


def colours(path: Path, swapped: bool, crc: int | None = None) -> np.ndarray:
    """Mean and standard deviation of red, green and blue, 0 to 255, lesion and skin together.

    Args:
        path: a photograph; a JPEG is decoded at an eighth of its side.
        swapped: whether its file holds red and blue exchanged.
        crc: the CRC-32 that its bytes must have; None: not known.

    Returns:
        [6], the means first.

    Raises:
        ValueError: as `read_photograph`: the file's name and why it cannot be decoded.
    """
    return spread(read_red_first(path, swapped, crc).reshape(-1, 3))
