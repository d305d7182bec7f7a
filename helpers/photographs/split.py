"""From a table to a split, for notebook 02: groups, 60/20/20, balance.

The tutorial splits by image, after balancing: two thirds of its validation photographs share a patient, a lesion or the
very photograph with training. Here whole groups go to one side, and only the training rows are balanced.
`python -m helpers.preprocess MARKING.csv [--pairs PAIRS.csv] --out split.csv` splits a table without its photographs.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from helpers import workspace
from helpers.photographs.table import read_csv, read_marking

SPLIT_COLUMNS = ["image_id", "path", "mask", "target", "source", "group", "split", "kept"]


def group_rows(table: pd.DataFrame, pairs: pd.DataFrame | None = None) -> np.ndarray:
    """The group of each row [N], 0, 1, 2... in order: rows linked by a patient, a lesion, a twin id or a known pair.

    `patient_id` is the patient in ISIC20 and the LESION in ISIC19; either way it must not cross a split. A twin is the
    same photograph as `ISIC_x` and `ISIC_x_downsampled`. pairs: two columns of image ids known to show one lesion; ids
    that the table lacks still link those that they are paired with. Raises ValueError if it has not two columns.
    """
    if pairs is None:
        pairs = pd.DataFrame({"first": [], "second": []}, dtype=str)
    if pairs.shape[1] != 2:
        raise ValueError(f"pairs has the columns {list(pairs)}, expected two, of image ids")
    pairs = pairs.dropna()
    names = pd.concat([table["image_id"], pairs.iloc[:, 0], pairs.iloc[:, 1]]).str.removesuffix(
        "_downsampled"
    )
    photograph, photographs = pd.factorize(names)  # [N + 2P]
    patient, patients = pd.factorize(table["patient_id"])  # [N], -1 where missing
    N, P, known = len(table), len(pairs), np.flatnonzero(patient >= 0)
    a = np.concatenate([photograph[known], photograph[N : N + P]])
    b = np.concatenate([len(photographs) + patient[known], photograph[N + P :]])
    nodes = len(photographs) + len(
        patients
    )  # a graph of photographs and patients; its links are (a, b)
    component = connected_components(
        coo_array((np.ones(len(a)), (a, b)), shape=(nodes, nodes)), directed=False
    )[1]
    return component[photograph[:N]]


def take_groups(table: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """At most `count` rows in whole groups drawn at random, five groups of each class first; 0 takes all rows."""
    if not count or count >= len(table):
        return table
    groups = table.groupby("group")["target"].agg(["max", "size"]).sample(frac=1, random_state=seed)
    order = groups.groupby("max").cumcount()  # 0, 1, 2... within malignant and within benign groups
    groups = pd.concat([groups[order < 5], groups[order >= 5]])
    taken, total = [], 0
    for group, size in groups["size"].items():
        if total + size <= count:
            taken.append(group)
            total += size
    return table[table["group"].isin(taken)].reset_index(drop=True)


def split_groups(table: pd.DataFrame, seed: int) -> np.ndarray:
    """ "train", "val" or "test" for each row [N]: 60/20/20 by `group`, stratified by source and target.

    Two folds of scikit-learn's StratifiedGroupKFold of five are validation and test; both classes are on every side.
    Raises ValueError where a class has fewer than five groups.
    """
    if table["target"].nunique() < 2:
        raise ValueError(f"every target is {table['target'].iloc[0]}: a split needs both classes")
    for target, rows in table.groupby("target"):
        if rows["group"].nunique() < 5:
            raise ValueError(
                f"class {target} has {rows['group'].nunique()} groups, a split needs 5: "
                "take more photographs"
            )
    strata = table["source"] + " " + table["target"].astype(str)
    commonest = strata.groupby(table["target"]).transform(lambda rows: rows.mode()[0])
    strata = strata.where(strata.map(strata.value_counts()) >= 5, commonest)
    for labels in (strata, table["target"]):  # where sources are many and rows few, by target alone
        folds = StratifiedGroupKFold(n_splits=5, shuffle=True, random_state=seed).split(
            table, labels, table["group"]
        )
        split = np.full(len(table), "train", dtype=object)
        for name, (_, rows) in zip(["val", "test"], folds, strict=False):
            split[rows] = name
        if table.groupby(split)["target"].nunique().reindex(["train", "val", "test"]).eq(2).all():
            return split
    raise ValueError(
        f"no split of {table['group'].nunique()} groups found with both classes on every side: "
        "take more photographs or another split_seed"
    )


def read_table(
    dataset: dict, *, pairs: str = "", subsample: int = 0, split_seed: int = 42
) -> pd.DataFrame:
    """The rows of `marking.csv` to use, with their `group`, for the data set that `dataset.json` describes.

    pairs: the path of a csv of two columns of image ids, or "". subsample: at most so many rows, in whole groups.
    Raises as `read_marking` and `group_rows` do, and ValueError for pairs without a first line or a known id.
    """
    table = read_marking(Path(dataset["csv"]))
    known = read_csv(workspace.resolve(pairs)) if pairs else None
    if pairs and (
        table["image_id"].isin(known.columns).any()
        or not known.isin(set(table["image_id"])).any(axis=None)
    ):
        raise ValueError(
            f"pairs: {pairs} needs a first line that names its two columns, and ids of {dataset['csv']}"
        )
    if dataset["ids"]:
        table = table[
            table["image_id"].isin(read_csv(Path(dataset["ids"]), ["image_id"])["image_id"])
        ]
    table = table[~table["image_id"].isin(dataset.get("unusable", ()))].reset_index(drop=True)
    table["group"] = group_rows(table, known)
    return take_groups(table, subsample, split_seed)


def make_split(
    dataset: dict, *, pairs: str = "", subsample: int = 0, benign: int = 0, split_seed: int = 42
) -> pd.DataFrame:
    """The content of `split.csv`: the rows of `read_table`, in its order; the columns are SPLIT_COLUMNS.

    benign: how many benign training rows to keep (`kept` is 0 for the rest), 0 for all.
    """
    table = read_table(dataset, pairs=pairs, subsample=subsample, split_seed=split_seed)
    split = table.assign(
        split=split_groups(table, split_seed), path=table["image_id"] + ".jpg", mask=""
    )
    split["kept"] = balance(split, benign, split_seed)
    if dataset["masks_folder"]:
        split["mask"] = mask_names(split["image_id"], Path(dataset["masks_folder"]))
    return split[SPLIT_COLUMNS]


def mask_names(image_ids: pd.Series, folder: Path) -> pd.Series:
    """The file name in this folder of each photograph's mask, or "".

    `ISIC_x_downsampled` without one of its own has that of `ISIC_x`, the same photograph: ISIC offers no other.
    """
    there = {path.name for path in folder.glob("*_segmentation.png")}
    own, same = (
        names + "_segmentation.png"
        for names in (image_ids, image_ids.str.removesuffix("_downsampled"))
    )
    return own.where(own.isin(there), same.where(same.isin(there), ""))


def balance(table: pd.DataFrame, benign: int, seed: int) -> np.ndarray:
    """1 for each row to use [N]: all but the benign training rows beyond `benign` drawn at random (0 keeps all)."""
    kept = np.ones(len(table), dtype=int)
    rows = np.flatnonzero((table["split"] == "train") & (table["target"] == 0))
    if benign and benign < len(rows):
        kept[np.random.default_rng(seed).permutation(rows)[benign:]] = 0
    return kept


def read_split(path: Path) -> pd.DataFrame:
    """`split.csv` as `make_split` made it (an empty mask stays an empty string). Raises as `workspace.read_table`."""
    return workspace.read_table(path, "02_preprocess.ipynb", SPLIT_COLUMNS)


def main(arguments: list[str] | None = None) -> int:
    """The split of a table alone; returns 0. What is wrong with the files or options is said on stderr, with exit 2."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.preprocess",
        description="Split a table 60/20/20 by group, without photographs.",
    )
    parser.add_argument("marking", type=Path, help="the table, marking.csv or marking.csv.gz")
    parser.add_argument(
        "--pairs", type=Path, help="a csv of known duplicate pairs, two columns of image ids"
    )
    parser.add_argument("--out", type=Path, required=True, help="the split.csv to write")
    options = parser.parse_args(arguments)
    dataset = {"csv": options.marking, "ids": "", "masks_folder": ""}
    try:
        split = make_split(
            dataset, pairs=str(options.pairs.expanduser().absolute()) if options.pairs else ""
        )
        with workspace.replacing(options.out) as beside:
            split.to_csv(beside, index=False)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    counts = (
        split.groupby("split")
        .agg(groups=("group", "nunique"), rows=("target", "size"), melanomas=("target", "sum"))
        .loc[["train", "val", "test"]]
    )
    counts.loc["all"] = (
        counts.sum()
    )  # of groups too: that exceeds their number if one is on two sides
    print(counts.assign(rate=(counts["melanomas"] / counts["rows"]).round(4)).to_string())
    print(f"{counts.loc['all', 'groups'] - split['group'].nunique()} groups are on two sides")
    if options.pairs:
        known = read_csv(options.pairs).isin(set(split["image_id"])).sum(axis=1)
        print(f"{len(known)} pairs were given; the table has both ids of {(known == 2).sum()}")
    return 0
