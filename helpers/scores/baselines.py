"""Baselines that see no lesion, for notebooks 04 and deeper/leaks_and_shortcuts.

A network may score well by telling cameras, collections or patients apart. Its AUC means something
only above what these reach on the same test photographs.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from tqdm.auto import tqdm

from helpers import workspace
from helpers.photographs.reading import read_photograph
from helpers.photographs.table import read_marking

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
            not a photograph.
        FileNotFoundError: a photograph is missing.
    """
    rows = split[(split["kept"] == 1) & split["split"].isin(["train", "test"])]
    marking = read_marking(Path(dataset["csv"])).set_index("image_id")
    known = [column for column in METADATA if column != "source" and column in marking]
    rows = rows.join(marking[known], on="image_id")
    train = rows["split"] == "train"
    paths = [Path(dataset["folder"]) / name for name in rows["path"]]
    scores = table_baselines(rows)
    sizes = [path.stat().st_size for path in paths]
    means = all_colours(paths, rows["source"], dataset["colour_order_by_source"])
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
    stopping nothing is drawn at random.

    Args:
        features: a row for each photograph.
        targets: 0 or 1, by the same rows.
        train: True where a row is for fitting.

    Returns:
        A probability for each row where `train` is False.
    """
    known = features[train].notna().any()
    features = features.loc[:, known]
    model = HistGradientBoostingClassifier(max_iter=50, early_stopping=False, random_state=0)
    model.fit(features[train], targets[train])
    return model.predict_proba(features[~train])[:, 1]


def all_colours(paths: list[Path], sources: pd.Series, orders: dict) -> np.ndarray:
    """`colours` of each photograph, [N, 6]; orders: colour_order_by_source of dataset.json."""
    swapped = [orders[source]["order"] == "bgr" for source in sources]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        means = tqdm(
            pool.map(colours, paths, swapped),
            desc="colours",
            total=len(paths),
            disable=workspace.headless(),
        )
        return np.stack(list(means))


def colours(path: Path, swapped: bool) -> np.ndarray:
    """Mean and standard deviation of red, green and blue, 0 to 255.

    Args:
        path: a photograph; a JPEG is decoded at an eighth of its side.
        swapped: whether its file holds red and blue exchanged.

    Returns:
        [6], the means first.

    Raises:
        ValueError: as `read_photograph`: the file's name and why it cannot be decoded.
    """
    pixels = read_photograph(path, at_least=1)  # [H/8, W/8, 3]
    if swapped:
        pixels = pixels[..., ::-1]
    pixels = pixels.reshape(-1, 3)
    return np.concatenate([pixels.mean(axis=0), pixels.std(axis=0)])
