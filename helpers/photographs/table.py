"""The reader's tables: any csv, and `marking.csv`, checked by column and row.

Every table of the reader's own comes through `read_csv`, so that the same name is the same text in
each of them: one blank more behind an id must not make two patients of one. `identity` tells who
is the same under names that differ to the eye, too.
"""

import csv
import gzip
import io
import re
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.photographs import identity

COLUMNS = [
    "patient_id",
    "image_id",
    "target",
    "source",
    "sex",
    "age_approx",
    "anatom_site_general_challenge",
]
TWIN = "_downsampled"  # ends the second id that ISIC gave to some photographs
# columns that say whose a photograph is; the second may be absent, as from the Kaggle set
WHO = ["patient_id", "lesion_id"]
RULES = {  # of cells that are not empty
    "image_id": (  # a file's name, too
        r"\w[\w-]{0,99}",
        "up to 100 letters, digits, '_' and '-', no '-' first",
    ),
    "target": (r"[01](\.0*)?", "0 or 1"),
    "source": (
        r"[^=+@\s-][^\x00-\x1f]{0,99}",
        "up to 100 characters that do not begin as a spreadsheet's formula",
    ),
    "age_approx": (r"[0-9]{1,3}(\.[0-9]*)?", "a number, or empty"),
}
# how programs write that a number is not known; elsewhere these words are names as others are
NO_NUMBER = ["na", "n/a", "nan", "null", "none"]
BLANKS = re.compile(r"[^\S\r\n]+")
DASHES = dict.fromkeys(map(ord, "\u02d7\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212"), "-")


def read_csv(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """A csv of the reader's own, plain or .gz: every cell as `tidy` text, NaN where it is empty.

    Only an empty cell is missing: an id `null` is an id, and `NA` may be a clinic.

    Args:
        path: the file; UTF-8, with a first line of column names.
        columns: names that must be there, each once. Of others that stand twice, the first counts.

    Returns:
        The rows, in the order of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: what is there is not UTF-8, has rows of several lengths or none, or lacks one of
            `columns`. The message names the line.
    """
    table = read_cells(path, columns).map(tidy)
    return table.mask(table == "")


def read_cells(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """The cells of a csv as they are written, an empty one as "". As `read_csv` otherwise."""
    header, *rows = read_rows(path, read_text(path))
    header = [tidy(name) for name in header]
    if not rows:
        raise ValueError(
            f"{path} has no rows: expected a line of column names, then a row for each"
        )
    absent = [name for name in columns if header.count(name) != 1]
    if absent:
        raise ValueError(
            f"{path} has the columns {', '.join(header)[:300]}; {', '.join(absent)} missing or "
            "standing twice: name each once in the first line, with commas between"
        )
    table = pd.DataFrame(rows, columns=header, dtype=str)
    return table.loc[:, ~table.columns.duplicated()]


def read_text(path: Path) -> str:
    """The text of a file, plain or .gz. Raises as `read_csv`."""
    if not path.is_file():  # a pipe would be waited for
        there = "a folder or pipe" if path.exists() else "nothing"
        raise FileNotFoundError(f"expected a csv at {path}, found {there}")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            content = file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}): copy it again") from error
    text = content.decode("utf-8-sig", errors="replace")
    foreign = re.search("[\0\ufffd]", text)
    if foreign:
        line = text.count("\n", 0, foreign.start()) + 1
        raise ValueError(
            f"{path} is damaged or not UTF-8 (Latin-1 or UTF-16, perhaps): see line {line}. "
            "Save it as 'CSV UTF-8'"
        )
    return text


def read_rows(path: Path, text: str) -> list[list[str]]:
    """The cells of each line that is not empty, the first line's too; [[]] for no line at all.

    Raises ValueError where a line has not as many as the first, or quotes do not close.
    """
    lines = csv.reader(io.StringIO(text, newline=None), strict=True)
    rows = []
    try:
        for cells in lines:
            if not cells:
                continue
            rows.append(cells)
            if len(cells) != len(rows[0]):
                raise csv.Error(f"{len(cells)} cells, where the first line has {len(rows[0])}")
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {lines.line_num}: {error}. Are its quotes closed, is it whole?"
        ) from error
    return rows or [[]]


def tidy(text: str) -> str:
    r"""`text` as it is compared: what looks the same is the same.

    Spreadsheets, web pages and keyboards leave blanks and marks that nobody sees, several kinds of
    dashes and blanks, and characters in several forms: an é is one or two (a Mac names files so), a
    digit may be of full width. Unicode's form KC has one of each.

    >>> tidy("IP\u20111\u00a0 "), tidy("clinic \u00a0 A"), tidy("e\u0301"), tidy("\uff11\u200b2")
    ('IP-1', 'clinic A', 'é', '12')
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(DASHES)
        text = "".join(sign for sign in text if unicodedata.category(sign) != "Cf")
    return BLANKS.sub(" ", text.strip())


def read_marking(path: Path) -> pd.DataFrame:
    """`marking.csv`, by column name: the order of its columns varies between versions.

    Args:
        path: the table; `target` may be written as a float, a `source` may be empty.

    Returns:
        COLUMNS (from `sex` on, those that are there) and any others: `image_id` without a folder
        or ending, each of WHO in one spelling for each patient or lesion and NaN where a word says
        that nobody is known, `target` as int, `age_approx` as float, a source that is not known as
        "unknown".

    Raises:
        FileNotFoundError, ValueError: as `read_csv`; and ValueError for an id that is empty or
            stands twice, a cell that RULES refuse, or a patient as in `identity.refuse_word`.
    """
    return read_marking_and_notes(path)[0]


def read_marking_and_notes(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """`read_marking`, and a line on each thing that was taken for another, or looks wrong."""
    written = read_cells(path, COLUMNS[:4])
    table = written.map(tidy)
    table = table.mask(table == "").fillna({"target": "", "source": "unknown"})
    named = table["image_id"]
    table["image_id"] = named.map(identity.image_id, na_action="ignore")
    if "age_approx" in table:
        ages = table["age_approx"]
        table["age_approx"] = ages.mask(ages.str.casefold().isin(NO_NUMBER))
    for column, (pattern, rule) in RULES.items():
        if column in table:
            check_column(table[column], pattern, rule, path)
    check_ids(table["image_id"], named, path)
    notes = []
    for column in WHO:
        if column in table:
            table[column], more = identity.unify_patients(written[column], table[column], str(path))
            notes += more
    if "age_approx" in table:
        table["age_approx"] = pd.to_numeric(table["age_approx"])
    table["target"] = pd.to_numeric(table["target"]).astype(int)
    return table, notes_on_ids(table, named) + notes + notes_on_patients(table)


def check_ids(ids: pd.Series, named: pd.Series, path: Path) -> None:
    """Raises ValueError where an image id is empty or stands twice; `named`: as in the table."""
    twice = ids.isna() | ids.str.casefold().duplicated()
    if twice.any():
        first = named[twice].iloc[0]
        raise ValueError(
            f"{path}: {twice.sum()} image ids are empty or stand twice, the first {first!r} (names "
            "that differ in capitals alone are one file on many disks; a folder or ending such as "
            ".jpg is no part of an id)"
        )


def notes_on_ids(table: pd.DataFrame, named: pd.Series) -> list[str]:
    """A line on image ids that were written as files, and on those that may be one photograph's."""
    notes = []
    files = named[named != table["image_id"]]
    if len(files):
        notes.append(
            f"image_id: {len(files)} are written with a folder or an ending, the first "
            f"{files.iloc[0]!r}, which is taken as {table['image_id'][files.index[0]]!r}"
        )
    alike = identity.spellings(table["image_id"], identity.photograph_key).values()
    return notes + identity.tell_spellings([ids for ids in alike if len(ids) > 1], "image_id")


def notes_on_patients(table: pd.DataFrame) -> list[str]:
    """A line on patients of several sources, and on those of two sexes."""
    notes = []
    by_patient = table.groupby("patient_id")
    several = by_patient["source"].nunique()
    several = several[several > 1]
    if len(several):
        sources = table.loc[table["patient_id"] == several.index[0], "source"].unique()
        notes.append(
            f"{len(several)} patient_ids are in several sources, the first {several.index[0]!r} in "
            f"{' and '.join(sources[:2])}: each is taken as one patient. If each source counts its "
            "own patients, put the source before the number"
        )
    if "sex" in table:
        sexes = by_patient["sex"].nunique()
        sexes = sexes[sexes > 1]
        if len(sexes):
            notes.append(
                f"{len(sexes)} patient_ids have more than one sex, the first {sexes.index[0]!r}: "
                "are they one patient's each?"
            )
    return notes


def check_column(cells: pd.Series, pattern: str, rule: str, path: Path) -> None:
    """Raises ValueError where a cell that is not empty does not match."""
    bad = cells[~cells.str.fullmatch(pattern, na=True)]
    if len(bad):
        raise ValueError(
            f"{path}: {cells.name} is {rule}; {len(bad)} rows differ, the first "
            f"{bad.iloc[0][:99]!r}"
        )


def check_classes(targets: np.ndarray, where: str) -> None:
    """Raises ValueError unless both classes are among `targets` [N], 0 or 1, of what `where` is."""
    classes = len(np.unique(targets))
    if classes < 2:
        raise ValueError(
            f"{where} holds {len(targets)} photographs of {classes} class(es); a figure such as "
            "AUC needs melanomas and benign lesions: take more photographs or another split_seed"
        )
