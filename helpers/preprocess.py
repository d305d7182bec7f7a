"""From a table to a split, for notebook 02: groups, 60/20/20, balance.

The tutorial splits by image, after balancing: two thirds of its validation photographs share a patient, a lesion or the
very photograph with training. Here whole groups go to one side, and only the training rows are balanced.
`python -m helpers.preprocess MARKING.csv [--pairs PAIRS.csv] --out split.csv` splits a table without its photographs.
"""

import argparse
import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from helpers import workspace

COLUMNS = ["patient_id", "image_id", "target", "source", "sex", "age_approx", "anatom_site_general_challenge"]
RULES = {  # of cells that are not empty
    "image_id": (r"\w[\w-]{0,99}", "up to 100 letters, digits, '_' and '-', no '-' first"),  # a file's name, too
    "target": (r"\s*[01](\.0*)?\s*", "0 or 1"),
    "source": (r"[^=+@\s-][^\x00-\x1f]{0,99}", "up to 100 characters that do not begin as a spreadsheet's formula"),
    "age_approx": (r"\d{1,3}(\.\d*)?", "a number, or empty")}
SPLIT_COLUMNS = ["image_id", "path", "mask", "target", "source", "group", "split", "kept"]


def read_csv(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """A csv of the reader's own, plain or .gz: every cell as text, NaN where it is empty.

    Raises FileNotFoundError, and ValueError that names the line, for what is not UTF-8, rows of several lengths, no
    rows, or a name of `columns` that is absent or stands twice.
    """
    if not path.is_file():  # a pipe would be waited for
        raise FileNotFoundError(f"expected a csv at {path}, found {'a folder or pipe' if path.exists() else 'nothing'}")
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            text = file.read().decode("utf-8-sig", errors="replace")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}): copy it again") from error
    if foreign := re.search("[\0\ufffd]", text):
        raise ValueError(f"{path} is damaged or not UTF-8 (Latin-1 or UTF-16, perhaps): see line "
                         f"{text.count(chr(10), 0, foreign.start()) + 1}. Save it as 'CSV UTF-8'")
    lines, header, rows = csv.reader(io.StringIO(text, newline=None), strict=True), [], -1
    try:
        for cells in filter(None, lines):
            header, rows = header or cells, rows + 1
            if len(cells) != len(header):
                raise csv.Error(f"{len(cells)} cells, where the first line has {len(header)}")
    except csv.Error as error:
        raise ValueError(f"{path}, line {lines.line_num}: {error}. Are its quotes closed, is it whole?") from error
    absent = [name for name in columns if header.count(name) != 1]
    if rows < 1 or absent:
        raise ValueError(f"{path} has no rows: expected a line of column names, then a row for each" if rows < 1 else
                         f"{path} has the columns {', '.join(header)[:300]}; {', '.join(absent)} missing or standing "
                         "twice: name each once in the first line, with commas between")
    return pd.read_csv(io.StringIO(text), dtype=str)


def read_marking(path: Path) -> pd.DataFrame:
    """`marking.csv`, by column name (their order varies between versions). `target` may be written as a float.

    Raises as `read_csv` does, and ValueError for an id that is empty or stands twice, or what RULES refuse.
    """
    table = read_csv(path, COLUMNS[:4]).fillna({"target": "", "source": "unknown"})
    for column, (pattern, rule) in RULES.items():
        bad = table.loc[~table[column].str.fullmatch(pattern, na=True), column] if column in table else ()
        if len(bad):
            raise ValueError(f"{path}: {column} is {rule}; {len(bad)} rows differ, the first {bad.iloc[0][:99]!r}")
    twice = table.loc[table["image_id"].isna() | table["image_id"].str.casefold().duplicated(), "image_id"]
    if len(twice):
        raise ValueError(f"{path}: {len(twice)} image ids are empty or stand twice, the first {twice.iloc[0]!r} (on "
                         "many disks, names that differ in capitals alone are one file)")
    numbers = {name: pd.to_numeric(table[name]) for name in ("target", "age_approx") if name in table}
    return table.assign(**numbers).astype({"target": int})


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
    Raises as `read_marking` and `group_rows` do, and ValueError for pairs without a first line or a known id.
    """
    table = read_marking(Path(dataset["csv"]))
    known = read_csv(workspace.resolve(pairs)) if pairs else None
    if pairs and (table["image_id"].isin(known.columns).any() or not known.isin(set(table["image_id"])).any(axis=None)):
        raise ValueError(f"pairs: {pairs} needs a first line that names its two columns, and ids of {dataset['csv']}")
    if dataset["ids"]:
        table = table[table["image_id"].isin(read_csv(Path(dataset["ids"]), ["image_id"])["image_id"])]
    table = table[~table["image_id"].isin(dataset.get("unusable", ()))].reset_index(drop=True)
    table["group"] = group_rows(table, known)
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
        split["mask"] = mask_names(split["image_id"], Path(dataset["masks_folder"]))
    return split[SPLIT_COLUMNS]


def mask_names(image_ids: pd.Series, folder: Path) -> pd.Series:
    """The file name in this folder of each photograph's mask, or "".

    `ISIC_x_downsampled` without one of its own has that of `ISIC_x`, the same photograph: ISIC offers no other.
    """
    there = {path.name for path in folder.glob("*_segmentation.png")}
    own, same = (names + "_segmentation.png" for names in (image_ids, image_ids.str.removesuffix("_downsampled")))
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
    except (OSError, ValueError) as error:
        parser.error(str(error))
    counts = split.groupby("split").agg(groups=("group", "nunique"), rows=("target", "size"),
                                        melanomas=("target", "sum")).loc[["train", "val", "test"]]
    counts.loc["all"] = counts.sum()  # of groups too: that exceeds their number if one is on two sides
    print(counts.assign(rate=(counts["melanomas"] / counts["rows"]).round(4)).to_string())
    print(f"{counts.loc['all', 'groups'] - split['group'].nunique()} groups are on two sides")
    if options.pairs:
        known = read_csv(options.pairs).isin(set(split["image_id"])).sum(axis=1)
        print(f"{len(known)} pairs were given; the table has both ids of {(known == 2).sum()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
