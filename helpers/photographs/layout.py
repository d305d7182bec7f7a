"""Find the table of a data set in a folder as people lay it out, with links, past other files."""

import os
from collections.abc import Iterator
from pathlib import Path

from helpers import workspace
from helpers.photographs import archives

TABLE = "marking.csv"
COLUMNS = "image_id, target, source and patient_id"
# where macOS, Windows, Linux and disks on the network keep what is nobody's photograph
SYSTEM = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
TABLES = (".csv", ".tsv", ".xlsx", ".xls", ".ods")  # endings of what people keep tables in


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder at and below `folder`, once, with the names of its files, in order of name.

    Links are followed, and end where they lead round in a circle. Hidden folders and those of a
    system are left out, and what may not be listed.

    Raises:
        CannotRead: the disk fails, or has dropped out.
    """

    def refuse(error: OSError) -> None:
        if error.errno not in workspace.OF_A_FILE or error.filename == str(folder):
            raise error

    seen = set()
    with workspace.saying_what_fails(folder):
        for place, below, names in os.walk(folder, onerror=refuse, followlinks=True):
            real = os.path.realpath(place)
            if real in seen:
                below.clear()
                continue
            seen.add(real)
            kept = [name for name in below if name not in SYSTEM and not name.startswith(".")]
            # what is no link comes first: it is the name that stays
            below[:] = sorted(kept, key=lambda name: (os.path.islink(f"{place}/{name}"), name))
            yield Path(place), sorted(names)


def find_table(folder: Path) -> Path:
    """The one marking.csv at or below a folder, in capitals or small letters.

    Raises:
        ValueError: there is none, or several; it names what is there in its place.
    """
    tables = []
    others = []
    packed = []
    for place, names in walk(folder):
        for name in names:
            path = place / name
            if name.casefold() == TABLE and path.is_file():
                tables.append(path)
            elif path.suffix.lower() in TABLES or name.casefold().startswith(TABLE):
                others.append(path)
            elif path.suffix.lower() == ".zip":
                packed.append(path)
    if tables:
        return archives.only(tables, f"one {TABLE} in {folder}")
    raise ValueError(
        f"expected a {TABLE} in {folder}, found 0; {in_its_place(folder, others, packed)}"
    )


def in_its_place(folder: Path, others: list[Path], packed: list[Path]) -> str:
    """What to do where a folder has no table: about one above it, other tables, zips."""
    for above in list(folder.parents)[:3]:
        if (above / TABLE).is_file():
            return f"there is {above / TABLE}: name the folder {above}"
    if others:
        shown = ", ".join(str(path.relative_to(folder)) for path in others[:3])
        return (
            f"there is {shown}: if that is the table, save it as csv (UTF-8) under the name "
            f"{TABLE}, with the columns {COLUMNS}"
        )
    if packed:
        shown = ", ".join(str(path.relative_to(folder)) for path in packed[:3])
        return f"there is {shown}: unpack it and name the folder"
    return "name the folder or zip of one data set, laid out as data/README.md describes"
