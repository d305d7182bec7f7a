"""From a table to a split, for notebook 02: groups, 60/20/20, balance.

The tutorial splits by image, after balancing: two thirds of its validation photographs share a
patient, a lesion or the very photograph with training. Here whole groups go to one side, and only
the training rows are balanced. `python -m helpers.preprocess MARKING.csv [--pairs PAIRS.csv] --out
split.csv` splits a table without its photographs.
"""

import argparse
import os
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from helpers import hosts, workspace
from helpers.photographs.identity import LARGE, MANY, match_files, photograph_key
from helpers.photographs.lists import both_known, keep_listed, read_pairs
from helpers.photographs.masks import names_of
from helpers.photographs.places import check_rows, check_table
from helpers.photographs.table import TWIN, WHO, read_marking, read_marking_and_notes, tidy

SPLIT_COLUMNS = ["image_id", "path", "mask", "target", "source", "group", "split", "kept"]


def group_rows(table: pd.DataFrame, pairs: pd.DataFrame | None = None) -> np.ndarray:
    """Number the rows by what must stay on one side of a split.

    Rows are linked by a patient, a lesion, a twin id or a known pair, also through others.
    `patient_id` is the patient in ISIC20 and the LESION in ISIC19; either way it must not cross a
    split. A twin is the same photograph as `ISIC_x` and `ISIC_x_downsampled`; so are image ids that
    differ in capitals and signs alone, and not those that differ in a digit.

    Args:
        table: the column image_id, and those of `table.WHO` that are known, N rows.
        pairs: two columns of image ids known to show one lesion; ids that the table lacks still
            link those that they are paired with.

    Returns:
        The group of each row [N]: 0, 1, 2... in the order of their first rows.

    Raises:
        ValueError: `pairs` has not two columns.

    >>> table = pd.DataFrame({"image_id": ["a", "b", "c", "a_downsampled"],
    ...                       "patient_id": ["p", "q", "p", None]})
    >>> group_rows(table).tolist()
    [0, 1, 0, 0]
    """
    if pairs is None:
        pairs = pd.DataFrame({"first": [], "second": []}, dtype=str)
    if pairs.shape[1] != 2:
        raise ValueError(f"pairs has the columns {list(pairs)}, expected two, of image ids")
    pairs = pairs.dropna()
    N = len(table)
    P = len(pairs)
    ids = pd.concat([table["image_id"], pairs.iloc[:, 0], pairs.iloc[:, 1]])
    keys = ids.str.removesuffix(TWIN).map(photograph_key)
    photograph, photographs = pd.factorize(keys)  # [N + 2P]
    # a graph of photographs, patients and lesions; a link leads from each of `a` to that of `b`
    a = [photograph[N : N + P]]
    b = [photograph[N + P :]]
    nodes = len(photographs)
    for column in WHO:
        if column in table:
            owner, owners = pd.factorize(table[column])  # [N], -1 where missing
            known = np.flatnonzero(owner >= 0)
            a.append(photograph[known])
            b.append(nodes + owner[known])
            nodes += len(owners)
    a, b = np.concatenate(a), np.concatenate(b)
    links = coo_array((np.ones(len(a)), (a, b)), shape=(nodes, nodes))
    _, component = connected_components(links, directed=False)
    return component[photograph[:N]]


def take_groups(
    table: pd.DataFrame, count: int, seed: int, *, parameter: str = "subsample"
) -> pd.DataFrame:
    """Draw whole groups at random, five of each class first.

    Args:
        table: the columns group and target, N rows.
        count: how many rows to take at most; 0 takes all.
        seed: of the drawing.
        parameter: what `count` is called where the reader sets it, for the error.

    Returns:
        The rows taken, in the order of `table`.

    Raises:
        ValueError: no group has so few rows.
    """
    if not count or count >= len(table):
        return table
    groups = table.groupby("group")["target"].agg(["max", "size"]).sample(frac=1, random_state=seed)
    order = groups.groupby("max").cumcount()  # 0, 1, 2... within malignant and within benign groups
    groups = pd.concat([groups[order < 5], groups[order >= 5]])
    taken = []
    total = 0
    for group, size in groups["size"].items():
        if total + size <= count:
            taken.append(group)
            total += size
    if not taken:
        raise ValueError(
            f"{parameter} is {count} rows, and the smallest of {len(groups)} groups has "
            f"{groups['size'].min()}: groups are taken whole, so take more rows, or 0 for all"
        )
    return table[table["group"].isin(taken)].reset_index(drop=True)


def split_groups(table: pd.DataFrame, seed: int) -> np.ndarray:
    """Split 60/20/20 by `group`, stratified by source and target.

    Two of the five folds of scikit-learn's StratifiedGroupKFold are validation and test. Where
    sources are many and rows few, it is stratified by target alone.

    Args:
        table: the columns group, target (0 or 1) and source, N rows.
        seed: of the folds.

    Returns:
        "train", "val" or "test" for each row [N], both classes on every side.

    Raises:
        ValueError: there are no rows, one class, or fewer than five groups of a class.
    """
    check_groups(table)
    strata = table["source"] + " " + table["target"].astype(str)
    commonest = strata.groupby(table["target"]).transform(lambda rows: rows.mode()[0])
    strata = strata.where(strata.map(strata.value_counts()) >= 5, commonest)
    for labels in (strata, table["target"]):
        folds = StratifiedGroupKFold(n_splits=5, shuffle=True, random_state=seed)
        sides = [rows for _, rows in folds.split(table, labels, table["group"])]
        split = np.full(len(table), "train", dtype=object)
        split[sides[0]] = "val"
        split[sides[1]] = "test"
        classes = table.groupby(split)["target"].nunique()
        if classes.reindex(["train", "val", "test"]).eq(2).all():
            return split
    raise ValueError(
        f"no split of {table['group'].nunique()} groups found with both classes on every side: "
        "take more photographs or another split_seed"
    )


def check_groups(table: pd.DataFrame) -> None:
    """Raises ValueError unless both classes are there, in five groups each."""
    more = "take more photographs (see ids and subsample)"
    targets = table["target"].unique()
    if not len(targets):
        raise ValueError(f"no photographs are left to split: {more}")
    if len(targets) < 2:
        raise ValueError(
            f"every target is {targets[0]} in {len(table)} rows: a split needs both classes, {more}"
        )
    for target, groups in table.groupby("target")["group"].nunique().items():
        if groups < 5:
            raise ValueError(f"class {target} has {groups} groups, a split needs 5: {more}")


def read_table(
    dataset: dict,
    *,
    pairs: str = "",
    subsample: int = 0,
    split_seed: int = 42,
) -> pd.DataFrame:
    """The rows of `marking.csv` to use, with their `group`.

    Args:
        dataset: the content of `dataset.json`.
        pairs: the path of a csv of two columns of image ids, or "".
        subsample: how many rows to take at most, in whole groups; 0 takes all.
        split_seed: of the drawing of the subsample.

    Raises:
        FileNotFoundError: the table, the ids or the pairs are not there, or not what 01 found.
        ValueError: one of them is no such table (see `read_marking`, `keep_listed`, `read_pairs`),
            or no group is as small as `subsample`.
    """
    return read_table_and_notes(dataset, pairs, subsample, split_seed)[0]


def read_table_and_notes(
    dataset: dict, pairs: str, subsample: int, split_seed: int
) -> tuple[pd.DataFrame, list[str]]:
    """`read_table`, and a line on each thing that was linked, taken for another, or looks wrong."""
    check_table(dataset)
    marking, notes = read_marking_and_notes(Path(dataset["csv"]))
    table = usable_rows(marking, dataset)
    check_rows(dataset, len(table))
    known = pd.DataFrame(columns=["first", "second"], dtype=str)
    if pairs:
        known, more = read_pairs(pairs, marking["image_id"])
        known.columns = ["first", "second"]
        notes = notes + more
    copies = copies_of(dataset)
    # of the whole table: a row that is left out may link two that stay
    groups = pd.Series(group_rows(marking, pd.concat([known, copies])), index=marking["image_id"])
    table["group"] = pd.factorize(groups[table["image_id"]])[0]
    notes = notes + notes_on_copies(copies) + notes_on_targets(table, known)
    notes += notes_on_groups(table)
    table = take_groups(table, subsample, split_seed)
    if pairs:
        both = both_known(known, table["image_id"]).sum()
        notes.append(f"{len(known)} pairs were given; the table has both ids of {both}")
    return table, notes


def usable_rows(marking: pd.DataFrame, dataset: dict) -> pd.DataFrame:
    """The rows of the table that the list `ids` names and whose photographs can be used."""
    table = marking
    if dataset["ids"]:
        table, _ = keep_listed(table, dataset["ids"])
    return table[~table["image_id"].isin(dataset.get("unusable", ()))].reset_index(drop=True)


def copies_of(dataset: dict) -> pd.DataFrame:
    """The photographs that 01 found several times, byte for byte, as pairs: first, second."""
    pairs = [(ids[0], other) for ids in dataset.get("copies", ()) for other in ids[1:]]
    return pd.DataFrame(pairs, columns=["first", "second"], dtype=str)


def notes_on_copies(copies: pd.DataFrame) -> list[str]:
    """A line on files that stand several times."""
    if copies.empty:
        return []
    first, second = copies.iloc[0]
    return [
        f"{len(copies)} photographs are, byte for byte, others under another id, the first "
        f"{second} is {first}: they stay on one side"
    ]


def notes_on_targets(table: pd.DataFrame, pairs: pd.DataFrame) -> list[str]:
    """A line on twins and pairs of which one is a melanoma and the other is not."""
    notes = []
    targets = table.set_index("image_id")["target"]
    twins = table.loc[table["image_id"].str.endswith(TWIN), "image_id"]
    twins = pd.DataFrame({"first": twins.str.removesuffix(TWIN), "second": twins})
    for what, links in (("twins", twins), ("known pairs", pairs.dropna())):
        first = targets.reindex(links["first"]).to_numpy()
        second = targets.reindex(links["second"]).to_numpy()
        differ = links[np.abs(first - second) == 1]
        if len(differ):
            names = " and ".join(f"{name} ({targets[name]})" for name in differ.iloc[0])
            notes.append(
                f"{len(differ)} {what} have two targets, the first {names}: they stay as they "
                "are, on one side; where one target is wrong, correct the table"
            )
    return notes


def notes_on_groups(table: pd.DataFrame) -> list[str]:
    """A line on a group that several links have made large: one of them may be wrong."""
    sizes = table["group"].value_counts()
    if sizes.empty or sizes.iloc[0] <= max(MANY, LARGE * len(table)):
        return []
    rows = table[table["group"] == sizes.index[0]]
    patients = rows["patient_id"].value_counts()
    if len(patients) < 2 and rows["patient_id"].notna().all():
        return []  # one patient, of whom the table's own notes tell
    first, last = rows["image_id"].iloc[[0, -1]]
    return [
        f"the largest group holds {len(rows)} of {len(table)} photographs and {len(patients)} "
        f"patient_ids, linked by twins, pairs or copies, such as {first} and {last}: it is on one "
        "side, whole. Is each link right?"
    ]


def make_split(
    dataset: dict,
    *,
    pairs: str = "",
    subsample: int = 0,
    benign: int = 0,
    split_seed: int = 42,
) -> pd.DataFrame:
    """The content of `split.csv`: the rows of `read_table`, in its order.

    Prints what was linked and how many of the pairs the rows have, what was taken for another
    thing, and what looks wrong.

    Args:
        dataset, pairs, subsample, split_seed: as for `read_table`.
        benign: how many benign training rows to keep (`kept` is 0 for the rest); 0 keeps all.

    Returns:
        SPLIT_COLUMNS; `path` and `mask` are names of files in the dataset's folders.

    Raises:
        FileNotFoundError, ValueError: as `read_table` and `split_groups`; and for masks that have
            gone since 01 found them.
    """
    table, notes = read_table_and_notes(dataset, pairs, subsample, split_seed)
    for note in notes:
        print(note)
    split = table.assign(split=split_groups(table, split_seed))
    split["path"] = photograph_names(split["image_id"], dataset)
    tell_respelled(split)
    split["mask"] = names_of(split["image_id"], dataset)
    split["kept"] = balance(split, benign, split_seed)
    return split[SPLIT_COLUMNS]


def tell_respelled(split: pd.DataFrame) -> None:
    """Print how many photographs are in files that spell their ids in another way."""
    stems = split["path"].map(lambda name: tidy(PurePosixPath(name).stem))
    respelled = split[stems != split["image_id"]]
    if len(respelled):
        name, path = respelled.iloc[0][["image_id", "path"]]
        print(
            f"the files of {len(respelled)} photographs spell their ids in another way: the first, "
            f"{name!r}, is {path}"
        )


def photograph_names(image_ids: pd.Series, dataset: dict) -> list[str]:
    """The name of each photograph's file [N], as it is on the disk.

    A dataset that has not looked at its files has `<image_id>.jpg`.
    """
    files = dataset.get("checksums", {}).get("photographs", {})
    names = {tidy(Path(name).stem): name for name in files}
    wanted = set(image_ids)
    if names and not wanted <= names.keys():
        # all rows tell whose a file is that spells an id in another way, as in 01: to a part of
        # them, such as a subsample, it may be anybody's
        marking = read_marking(Path(dataset["csv"]))
        wanted.update(usable_rows(marking, dataset)["image_id"])
    meant = match_files(wanted, names)
    return [names.get(meant.get(image_id), f"{image_id}.jpg") for image_id in image_ids]


def balance(table: pd.DataFrame, benign: int, seed: int) -> np.ndarray:
    """Mark the rows to use: all but benign training rows beyond `benign`, drawn at random.

    Args:
        table: the columns split and target, N rows.
        benign: how many benign training rows to keep; 0 keeps all.
        seed: of the drawing.

    Returns:
        1 for each row to use, else 0 [N].
    """
    kept = np.ones(len(table), dtype=int)
    rows = np.flatnonzero((table["split"] == "train") & (table["target"] == 0))
    if benign and benign < len(rows):
        kept[np.random.default_rng(seed).permutation(rows)[benign:]] = 0
    return kept


def read_split(path: Path) -> pd.DataFrame:
    """`split.csv` as `make_split` made it: an empty mask stays an empty string.

    Raises:
        FileNotFoundError, ValueError: as `workspace.read_table`.
    """
    return workspace.read_table(path, "02_preprocess.ipynb", SPLIT_COLUMNS)


def main(arguments: list[str] | None = None) -> int:
    """Split a table alone; returns 0.

    What is wrong with the files or options is said on stderr, with exit 2.
    """
    parser = argparse.ArgumentParser(
        prog="python -m helpers.preprocess",
        description="Split a table 60/20/20 by group, without photographs.",
    )
    parser.add_argument("marking", help="the table, marking.csv or marking.csv.gz")
    parser.add_argument("--pairs", help="a csv of known duplicate pairs, two columns of image ids")
    parser.add_argument("--out", required=True, help="the split.csv to write")
    options = parser.parse_args(arguments)
    try:
        workspace.start_command()
        marking = hosts.absolute(options.marking, Path.cwd())
        out = hosts.absolute(options.out, Path.cwd())
        pairs = str(hosts.absolute(options.pairs, Path.cwd())) if options.pairs else ""
        if os.path.realpath(out) in (os.path.realpath(marking), os.path.realpath(pairs)):
            raise ValueError(
                f"--out {options.out} would take the place of what is read: name another"
            )
        split = make_split({"csv": marking, "ids": "", "masks_folder": ""}, pairs=pairs)
        with workspace.replacing(out) as beside:
            split.to_csv(beside, index=False)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print_sides(split)
    return 0


def print_sides(split: pd.DataFrame) -> None:
    """Print how many groups, rows and melanomas each side has, and how many groups cross."""
    columns = {"groups": ("group", "nunique"), "rows": ("target", "size")}
    sides = split.groupby("split").agg(**columns, melanomas=("target", "sum"))
    sides = sides.loc[["train", "val", "test"]]
    sides.loc["all"] = sides.sum()  # a group that is on two sides is counted twice
    rates = (sides["melanomas"] / sides["rows"]).round(4)
    print(sides.assign(rate=rates).to_string())
    crossing = sides.loc["all", "groups"] - split["group"].nunique()
    print(f"{crossing} groups are on two sides")
