"""Whether the table, photographs and masks of a run are still where, and what, 01 found them.

What 02 made rests on what 01 read. A folder that has moved and a table that was corrected since
are noticed before anything is made of them; photographs and masks have a CRC-32 each in
`dataset.json`, which their readers compare.
"""

import hashlib
from pathlib import Path

ENTRIES = {  # of dataset.json
    "csv": "the table",
    "folder": "the folder of photographs",
    "masks_folder": "the folder of masks",
    "ids": "the list of ids",
}


def need_places(dataset: dict) -> None:
    """Raises FileNotFoundError where something that 01 found is no longer there.

    Args:
        dataset: the content of `dataset.json`.
    """
    for entry, what in ENTRIES.items():
        place = dataset.get(entry)
        if place and not Path(place).exists():
            raise FileNotFoundError(
                f"{what} of this run is not at {place}, where 01_download.ipynb found it. Put it "
                "back, set ATTENTION_DATA to the folder that holds data sets and caches now, or "
                "run 01_download.ipynb again, with `dataset` naming where it lies, and "
                "02_preprocess.ipynb after it: what was trained on the same photographs fits then"
            )


def changed_table(dataset: dict) -> str:
    """In a sentence, that the table is another than 01 read; "" where it is not, or not known."""
    table = Path(dataset["csv"])
    known = dataset.get("sha256")
    if not known or not table.is_file():
        return ""
    if hashlib.sha256(table.read_bytes()).hexdigest() == known:
        return ""
    return (
        f"{table} has changed since 01_download.ipynb read it: run 01_download.ipynb again, and "
        "what comes after it, or put the earlier table back"
    )


def check_table(dataset: dict) -> None:
    """What 01 found must be there, and the table be as 01 read it.

    Args:
        dataset: the content of `dataset.json`; one that 01 has not made, without a checksum, is
            not looked at.

    Raises:
        FileNotFoundError: something is not there.
        ValueError: the table has changed.
    """
    if not dataset.get("sha256"):
        return
    need_places(dataset)
    changed = changed_table(dataset)
    if changed:
        raise ValueError(changed)


def check_rows(dataset: dict, rows: int) -> None:
    """Raises ValueError unless the list `ids` leaves as many rows of the table as 01 found."""
    if dataset.get("rows", rows) != rows:
        raise ValueError(
            f"{dataset['ids'] or dataset['csv']} names {rows} photographs, 01_download.ipynb found "
            f"{dataset['rows']}: it has changed since. Run 01_download.ipynb again, and what comes "
            "after it"
        )
