"""Baselines that see no lesion, for notebooks 04 and deeper/leaks_and_shortcuts: how far each gets on our test split.

A network may score well by telling cameras, collections or patients apart. An AUC means something only above these.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from tqdm.auto import tqdm

from helpers import workspace
from helpers.photographs.table import read_marking

METADATA = ["source", "sex", "age_approx", "anatom_site_general_challenge"]


def baselines(dataset: dict, split: pd.DataFrame) -> pd.DataFrame:
    """A row for each row of the test split: image_id, source, group, target, and a score from each baseline.

    dataset: the content of `dataset.json`; split: that of `split.csv`. Each baseline is fitted on the kept training
    rows; a score is the probability of melanoma at their rate. "source only" and "metadata only": `table_baselines`;
    "mean colours only": mean and standard deviation of red, green and blue; "file size only": bytes. Raises ValueError
    for a file that is no photograph, FileNotFoundError for one that is missing, and as `table_baselines` does.
    """
    rows = split[(split["kept"] == 1) & split["split"].isin(["train", "test"])]
    marking = read_marking(Path(dataset["csv"])).set_index("image_id")
    rows = rows.join(marking[[name for name in METADATA[1:] if name in marking]], on="image_id")
    train, scores = rows["split"] == "train", table_baselines(rows)
    paths = [Path(dataset["folder"]) / name for name in rows["path"]]
    sizes = pd.DataFrame({"bytes": [path.stat().st_size for path in paths]}, index=rows.index)
    swapped = [
        dataset["colour_order_by_source"][source]["order"] == "bgr" for source in rows["source"]
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = tqdm(
            pool.map(colours, paths, swapped),
            desc="colours",
            total=len(paths),
            disable=workspace.headless(),
        )
        means = pd.DataFrame(list(read), index=rows.index)  # [N, 6]
    scores["mean colours only"] = fit_and_score(means, rows["target"], train)
    scores["file size only"] = fit_and_score(sizes, rows["target"], train)
    return scores


def table_baselines(table: pd.DataFrame, *, split: str = "split") -> pd.DataFrame:
    """`baselines` of a table without photographs: "source only" and "metadata only" (METADATA as far as it is there).

    table: image_id, source, group, target, METADATA, and a column named `split`: fitted on its "train" rows, scored on
    its "test" rows, all others left out. Raises ValueError for one-class training rows or no test rows.
    """
    rows = table[table[split].isin(["train", "test"])]
    train = rows[split] == "train"
    if rows.loc[train, "target"].nunique() < 2 or train.all():
        raise ValueError(
            f"{train.sum()} training rows of {rows.loc[train, 'target'].nunique()} class(es) and "
            f"{(~train).sum()} test rows: a baseline needs both classes in train, and test rows"
        )
    scores = rows.loc[~train, ["image_id", "source", "group", "target"]].copy()
    for name, columns in {"source only": METADATA[:1], "metadata only": METADATA}.items():
        features = rows[[column for column in columns if column in rows]].copy()
        for column in features.columns.drop("age_approx", errors="ignore"):
            features[column] = features[column].astype("category")
        scores[name] = fit_and_score(features, rows["target"], train)
    return scores.reset_index(drop=True)


def fit_and_score(features: pd.DataFrame, targets: pd.Series, train: pd.Series) -> np.ndarray:
    """Probability of melanoma for the rows outside `train`, from gradient-boosted trees fitted on those inside.

    Trees take numbers, categories and missing values as they are; without early stopping nothing is drawn at random.
    """
    features = features.loc[:, features[train].notna().any()]
    model = HistGradientBoostingClassifier(max_iter=50, early_stopping=False, random_state=0)
    return model.fit(features[train], targets[train]).predict_proba(features[~train])[:, 1]


def colours(path: Path, swapped: bool) -> np.ndarray:
    """Mean and standard deviation of red, green and blue, 0 to 255: [6]. JPEG is decoded at an eighth of its side."""
    pixels = cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_8)  # [H/8, W/8, 3], blue first
    if pixels is None:
        raise ValueError(f"{path} cannot be decoded: it is damaged or not a photograph")
    pixels = (pixels if swapped else pixels[..., ::-1]).reshape(-1, 3)
    return np.r_[pixels.mean(axis=0), pixels.std(axis=0)]
