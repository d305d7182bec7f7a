"""The reader's lists of photographs: ids to keep, and pairs known to show one lesion.

A list comes from elsewhere than the table, and names photographs in its own way: by their files, in
folders, in capitals. What it means is looked up, counted and told; a list that mostly names nothing
is refused, since it would do nothing.
"""

import difflib
import re
from collections.abc import Collection

import pandas as pd

from helpers import workspace
from helpers.photographs.identity import image_id, match_names, photograph_key
from helpers.photographs.table import TWIN, read_csv


def keep_listed(table: pd.DataFrame, ids: str) -> tuple[pd.DataFrame, str]:
    """The rows of the photographs that a list names, and a line on them.

    Args:
        table: the column image_id.
        ids: the path of a csv with a column `image_id`.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is no csv, or has an id that is none of the table's.
    """
    path = workspace.resolve(ids)
    listed = read_csv(path, ["image_id"])["image_id"].dropna().map(image_id)
    meant = match_names(listed, table["image_id"])
    unknown = [name for name in dict.fromkeys(listed) if name not in meant]
    if unknown or listed.empty:
        such = f", such as {with_nearest(unknown[0], table['image_id'])}" if unknown else ""
        raise ValueError(
            f"ids: {path} needs a column image_id with ids of the table; it has {len(listed)}, "
            f"{len(unknown)} of them unknown{such}"
        )
    rows = table[table["image_id"].isin(meant.values())]
    respelled = sum(name != known for name, known in meant.items())
    note = f"{ids} names {len(rows)} of the table's {len(table)} photographs"
    if respelled:
        first = next(f"{name!r} for {known!r}" for name, known in meant.items() if name != known)
        note += f", {respelled} of them in another spelling, such as {first}"
    return rows, note


def read_pairs(path: str, image_ids: pd.Series) -> tuple[pd.DataFrame, list[str]]:
    """A csv of known pairs, for a table with these ids, and a line on each oddity.

    Returns:
        Two columns of image ids, spelled as in the table where it has them (either id of a twin
        will do); and the lines.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is no csv, its first line holds ids in place of names, it has not two columns
            of ids, or more of them are formed unlike the table's than are the table's. (Others of
            the same form are photographs that the table lacks, as a part of an archive does.)
    """
    listed = read_csv(workspace.resolve(path))
    photographs = image_ids.str.removesuffix(TWIN)
    known = {*photographs, *(photographs + TWIN)}
    expected = f"pairs: {path} needs a first line that names its two columns, and ids of the table"
    if match_names(map(image_id, listed.columns), known):
        raise ValueError(f"{expected}: its first line is {', '.join(listed.columns)[:300]}")
    listed = listed.map(image_id, na_action="ignore")
    meant = match_names(listed.stack().dropna(), known)
    if not meant:
        raise ValueError(
            f"{expected}: of its {len(listed)} rows none has one, the first is "
            f"{', '.join(listed.iloc[0].fillna(''))[:300]!r}"
        )
    pairs, notes = two_columns(listed, meant)
    names = set(pairs.stack().dropna())
    forms = {form(name) for name in known}
    foreign = sorted(name for name in names - meant.keys() if form(name) not in forms)
    if len(foreign) > len(meant):
        raise ValueError(
            f"{expected}: of its {len(names)} ids {len(meant)} are, and {len(foreign)} are written "
            f"unlike any id of the table, such as {with_nearest(foreign[0], known)}"
        )
    if foreign:
        notes.append(
            f"{len(foreign)} ids of the list of pairs are not written as ids of the table, such as "
            f"{with_nearest(foreign[0], known)}"
        )
    pairs = pairs.map(lambda name: meant.get(name, name), na_action="ignore")
    itself = pairs.dropna().map(lambda name: photograph_key(name.removesuffix(TWIN)))
    alone = (itself.iloc[:, 0] == itself.iloc[:, 1]).sum()
    if alone:
        notes.append(f"{alone} pairs name one photograph twice, and link nothing")
    return pairs, notes


def two_columns(listed: pd.DataFrame, meant: Collection[str]) -> tuple[pd.DataFrame, list[str]]:
    """The two columns that hold ids (all of `meant` are), and a line if there are others.

    Raises:
        ValueError: there are not two.
    """
    if listed.shape[1] == 2:
        return listed, []
    columns = [name for name in listed if listed[name].isin(meant).any()]
    if len(columns) != 2:
        raise ValueError(f"pairs has the columns {list(listed)}, expected two, of image ids")
    others = ", ".join(name for name in listed if name not in columns)
    return listed[columns], [
        f"of the list of pairs, the columns {' and '.join(columns)} are used, and not {others[:99]}"
    ]


def both_known(pairs: pd.DataFrame, image_ids: pd.Series) -> pd.Series:
    """Whether each pair names two photographs of `image_ids`, under either of their ids."""
    photographs = set(image_ids.str.removesuffix(TWIN))
    return pairs.apply(lambda ids: ids.str.removesuffix(TWIN).isin(photographs)).all(axis=1)


def form(name: str) -> str:
    """How an id is written: each digit is as any other, so that ids of one archive are alike."""
    return re.sub(r"\d", "0", name)


def with_nearest(name: str, known: Collection[str]) -> str:
    """An id that the table lacks, and the one of its own that is nearest."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)
    return f"{name} (the nearest in the table is {nearest[0]})"
