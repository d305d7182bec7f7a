"""The reader's tables: any csv, and `marking.csv`, checked by column and row."""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

COLUMNS = [
    "patient_id",
    "image_id",
    "target",
    "source",
    "sex",
    "age_approx",
    "anatom_site_general_challenge",
]
RULES = {  # of cells that are not empty
    "image_id": (
        r"\w[\w-]{0,99}",
        "up to 100 letters, digits, '_' and '-', no '-' first",
    ),  # a file's name, too
    "target": (r"\s*[01](\.0*)?\s*", "0 or 1"),
    "source": (
        r"[^=+@\s-][^\x00-\x1f]{0,99}",
        "up to 100 characters that do not begin as a spreadsheet's formula",
    ),
    "age_approx": (r"\d{1,3}(\.\d*)?", "a number, or empty"),
}


def read_csv(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """A csv of the reader's own, plain or .gz: every cell as text, NaN where it is empty.

    Raises FileNotFoundError, and ValueError that names the line, for what is not UTF-8, rows of several lengths, no
    rows, or a name of `columns` that is absent or stands twice.
    """
    if not path.is_file():  # a pipe would be waited for
        raise FileNotFoundError(
            f"expected a csv at {path}, found {'a folder or pipe' if path.exists() else 'nothing'}"
        )
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            text = file.read().decode("utf-8-sig", errors="replace")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}): copy it again") from error
    if foreign := re.search("[\0\ufffd]", text):
        raise ValueError(
            f"{path} is damaged or not UTF-8 (Latin-1 or UTF-16, perhaps): see line "
            f"{text.count(chr(10), 0, foreign.start()) + 1}. Save it as 'CSV UTF-8'"
        )
    lines, header, rows = csv.reader(io.StringIO(text, newline=None), strict=True), [], -1
    try:
        for cells in filter(None, lines):
            header, rows = header or cells, rows + 1
            if len(cells) != len(header):
                raise csv.Error(f"{len(cells)} cells, where the first line has {len(header)}")
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {lines.line_num}: {error}. Are its quotes closed, is it whole?"
        ) from error
    absent = [name for name in columns if header.count(name) != 1]
    if rows < 1 or absent:
        raise ValueError(
            f"{path} has no rows: expected a line of column names, then a row for each"
            if rows < 1
            else f"{path} has the columns {', '.join(header)[:300]}; {', '.join(absent)} missing or standing "
            "twice: name each once in the first line, with commas between"
        )
    return pd.read_csv(io.StringIO(text), dtype=str)


def read_marking(path: Path) -> pd.DataFrame:
    """`marking.csv`, by column name (their order varies between versions). `target` may be written as a float.

    Raises as `read_csv` does, and ValueError for an id that is empty or stands twice, or what RULES refuse.
    """
    table = read_csv(path, COLUMNS[:4]).fillna({"target": "", "source": "unknown"})
    for column, (pattern, rule) in RULES.items():
        bad = (
            table.loc[~table[column].str.fullmatch(pattern, na=True), column]
            if column in table
            else ()
        )
        if len(bad):
            raise ValueError(
                f"{path}: {column} is {rule}; {len(bad)} rows differ, the first {bad.iloc[0][:99]!r}"
            )
    twice = table.loc[
        table["image_id"].isna() | table["image_id"].str.casefold().duplicated(), "image_id"
    ]
    if len(twice):
        raise ValueError(
            f"{path}: {len(twice)} image ids are empty or stand twice, the first {twice.iloc[0]!r} (on "
            "many disks, names that differ in capitals alone are one file)"
        )
    numbers = {
        name: pd.to_numeric(table[name]) for name in ("target", "age_approx") if name in table
    }
    return table.assign(**numbers).astype({"target": int})


def check_classes(targets: np.ndarray, where: str) -> None:
    """Raises ValueError unless both classes are there."""
    if len(np.unique(targets)) < 2:
        raise ValueError(
            f"{where} holds {len(targets)} photographs of {len(np.unique(targets))} class(es); a figure "
            "such as AUC needs melanomas and benign lesions: take more photographs or another split_seed"
        )
