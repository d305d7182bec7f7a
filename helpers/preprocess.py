"""From a table to a split, for notebook 02: groups, 60/20/20, balance.

The tutorial splits by image, after balancing: two thirds of its validation photographs share a patient, a lesion or the
very photograph with training. Here whole groups go to one side, and only the training rows are balanced.
`python -m helpers.preprocess MARKING.csv [--pairs PAIRS.csv] --out split.csv` splits a table without its photographs.
"""

import argparse
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from helpers import workspace

COLUMNS = ["patient_id", "image_id", "target", "source", "sex", "age_approx", "anatom_site_general_challenge"]
SPLIT_COLUMNS = ["image_id", "path", "mask", "target", "source", "group", "split", "kept"]


def read_marking(path: Path) -> pd.DataFrame:
    """`marking.csv`, by column name (their order varies between versions). `target` may be written as a float.

    Raises ValueError for a missing column, an id that is empty or stands twice, or a target that is not 0 or 1.
    """
    table = pd.read_csv(path, dtype={"image_id": str, "patient_id": str, "source": str}, encoding="utf-8-sig")
    absent = [name for name in COLUMNS[:4] if name not in table]
    if absent:
        raise ValueError(f"{path} has the columns {list(table)}; {', '.join(absent)} missing")
    if table.empty:
        raise ValueError(f"{path} has no rows")
    target = pd.to_numeric(table["target"], errors="coerce")
    bad = table.loc[~target.isin([0, 1]), "target"]
    if len(bad):
        raise ValueError(f"{path}: target is 0 or 1; {len(bad)} rows differ, the first {bad.iloc[0]!r}")
    twice = table.loc[table["image_id"].isna() | table["image_id"].duplicated(), "image_id"]
    if len(twice):
        raise ValueError(f"{path}: {len(twice)} image ids are empty or stand twice, the first {twice.iloc[0]!r}")
    strange = table.loc[~table["image_id"].str.fullmatch(r"[\w-]+"), "image_id"]
    if len(strange):
        raise ValueError(f"{path}: an image id is letters, digits, '_' and '-', not {strange.iloc[0]!r}")
    return table.assign(target=target.astype(int), source=table["source"].fillna("unknown"))


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
    names = pd.concat([table["image_id"], pairs.iloc[:, 0], pairs.iloc[:, 1]]).str.removesuffix("_downsampled")
    photograph, photographs = pd.factorize(names)                                       # [N + 2P]
    patient, patients = pd.factorize(table["patient_id"])                               # [N], -1 where missing
    N, P, known = len(table), len(pairs), np.flatnonzero(patient >= 0)
    a = np.concatenate([photograph[known], photograph[N:N + P]])
    b = np.concatenate([len(photographs) + patient[known], photograph[N + P:]])
    nodes = len(photographs) + len(patients)  # a graph of photographs and patients; its links are (a, b)
    component = connected_components(coo_array((np.ones(len(a)), (a, b)), shape=(nodes, nodes)), directed=False)[1]
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
    """"train", "val" or "test" for each row [N]: 60/20/20 by `group`, stratified by source and target.

    Two folds of scikit-learn's StratifiedGroupKFold of five are validation and test; both classes are on every side.
    Raises ValueError where a class has fewer than five groups.
    """
    if table["target"].nunique() < 2:
        raise ValueError(f"every target is {table['target'].iloc[0]}: a split needs both classes")
    for target, rows in table.groupby("target"):
        if rows["group"].nunique() < 5:
            raise ValueError(f"class {target} has {rows['group'].nunique()} groups, a split needs 5: "
                             "take more photographs")
    strata = table["source"] + " " + table["target"].astype(str)
    commonest = strata.groupby(table["target"]).transform(lambda rows: rows.mode()[0])
    strata = strata.where(strata.map(strata.value_counts()) >= 5, commonest)
    for labels in (strata, table["target"]):  # where sources are many and rows few, by target alone
        folds = StratifiedGroupKFold(n_splits=5, shuffle=True, random_state=seed).split(table, labels, table["group"])
        split = np.full(len(table), "train", dtype=object)
        for name, (_, rows) in zip(["val", "test"], folds, strict=False):
            split[rows] = name
        if table.groupby(split)["target"].nunique().reindex(["train", "val", "test"]).eq(2).all():
            return split
    raise ValueError(f"no split of {table['group'].nunique()} groups found with both classes on every side: "
                     "take more photographs or another split_seed")


def read_table(dataset: dict, *, pairs: str = "", subsample: int = 0, split_seed: int = 42) -> pd.DataFrame:
    """The rows of `marking.csv` to use, with their `group`, for the data set that `dataset.json` describes.

    pairs: the path of a csv of two columns of image ids, or "". subsample: at most so many rows, in whole groups.
    """
    table = read_marking(Path(dataset["csv"]))
    if dataset["ids"]:
        table = table[table["image_id"].isin(pd.read_csv(dataset["ids"], dtype=str)["image_id"])].reset_index(drop=True)
    table = table[~table["image_id"].isin(dataset.get("unusable", ()))].reset_index(drop=True)
    table["group"] = group_rows(table, pd.read_csv(workspace.resolve(pairs), dtype=str) if pairs else None)
    return take_groups(table, subsample, split_seed)


def make_split(dataset: dict, *, pairs: str = "", subsample: int = 0, benign: int = 0,
               split_seed: int = 42) -> pd.DataFrame:
    """The content of `split.csv`: the rows of `read_table`, in its order; the columns are SPLIT_COLUMNS.

    benign: how many benign training rows to keep (`kept` is 0 for the rest), 0 for all.
    """
    table = read_table(dataset, pairs=pairs, subsample=subsample, split_seed=split_seed)
    split = table.assign(split=split_groups(table, split_seed), path=table["image_id"] + ".jpg", mask="")
    split["kept"] = balance(split, benign, split_seed)
    if dataset["masks_folder"]:
        there = {path.name for path in Path(dataset["masks_folder"]).glob("*_segmentation.png")}
        names = split["image_id"] + "_segmentation.png"
        split["mask"] = names.where(names.isin(there), "")
    return split[SPLIT_COLUMNS]


def balance(table: pd.DataFrame, benign: int, seed: int) -> np.ndarray:
    """1 for each row to use [N]: all but the benign training rows beyond `benign` drawn at random (0 keeps all)."""
    kept = np.ones(len(table), dtype=int)
    rows = np.flatnonzero((table["split"] == "train") & (table["target"] == 0))
    if benign and benign < len(rows):
        kept[np.random.default_rng(seed).permutation(rows)[benign:]] = 0
    return kept


def read_split(path: Path) -> pd.DataFrame:
    """`split.csv` as `make_split` made it (an empty mask stays an empty string)."""
    return pd.read_csv(path, dtype={"image_id": str, "source": str}, keep_default_na=False)


def main(arguments: list[str] | None = None) -> int:
    """The split of a table alone; returns 0. What is wrong with the files or options is said on stderr, with exit 2."""
    parser = argparse.ArgumentParser(prog="python -m helpers.preprocess",
                                     description="Split a table 60/20/20 by group, without photographs.")
    parser.add_argument("marking", type=Path, help="the table, marking.csv or marking.csv.gz")
    parser.add_argument("--pairs", type=Path, help="a csv of known duplicate pairs, two columns of image ids")
    parser.add_argument("--out", type=Path, required=True, help="the split.csv to write")
    options = parser.parse_args(arguments)
    dataset = {"csv": options.marking, "ids": "", "masks_folder": ""}
    try:
        split = make_split(dataset, pairs=str(options.pairs.expanduser().absolute()) if options.pairs else "")
        with workspace.replacing(options.out) as beside:
            split.to_csv(beside, index=False)
    except (OSError, EOFError, zlib.error, ValueError) as error:  # the middle two: a .gz that is cut off or damaged
        parser.error(str(error))
    counts = split.groupby("split").agg(groups=("group", "nunique"), rows=("target", "size"),
                                        melanomas=("target", "sum")).loc[["train", "val", "test"]]
    counts.loc["all"] = counts.sum()  # of groups too: that exceeds their number if one is on two sides
    print(counts.assign(rate=(counts["melanomas"] / counts["rows"]).round(4)).to_string())
    print(f"{counts.loc['all', 'groups'] - split['group'].nunique()} groups are on two sides")
    if options.pairs:
        known = pd.read_csv(options.pairs, dtype=str).isin(set(split["image_id"])).sum(axis=1)
        print(f"{len(known)} pairs were given; the table has both ids of {(known == 2).sum()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
