"""Find the data set of notebook 01 and check it: the sample, Kaggle's, or a folder or zip.

Layout: `marking.csv` and, somewhere beside or below it in one folder, `<image_id>.jpg`; the Kaggle
set keeps its photographs in `512x512-dataset-melanoma/512x512-dataset-melanoma/`, and unlabelled
ones, unused here, in `512x512-test/`.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from helpers import workspace
from helpers.photographs import archives, reading
from helpers.photographs.kaggle import KAGGLE_DATASET, fetch
from helpers.photographs.masks import check_masks, mask_names_used
from helpers.photographs.sample import make_sample, sample_folder
from helpers.photographs.table import read_csv, read_marking, tidy

LICENCE_OF_SAMPLE = "made by helpers/photographs/sample.py: no photograph of a patient"
LICENCES = (
    "ISIC 2019 and 2020 photographs: CC BY-NC 4.0; ISIC 2017 and 2018 (Task 1): CC-0; "
    "see data/README.md"
)


def find_dataset(
    dataset: str,
    *,
    kaggle_dataset: str = KAGGLE_DATASET,
    masks: str = "auto",
    ids: str = "",
    split_seed: int = 42,
    unusable: float = 0.0,
) -> dict:
    """The data set that `dataset` names: made, fetched or unpacked if need be, and checked.

    Every byte of every photograph and mask that its rows name is read, and decoded.

    Args:
        dataset: "sample" (made under data/raw/ from `split_seed`), "kaggle" (`kaggle_dataset`, as
            `fetch` takes it), or a folder (used in place) or zip (unpacked under data/raw/).
        kaggle_dataset: "owner/name" or "owner/name/version".
        masks: a folder or zip of `<image_id>_segmentation.png`, "kaggle:owner/name", "auto" (a
            folder `masks` beside the table, if there) or "".
        ids: a csv with a column `image_id` of the photographs to keep, or "".
        split_seed: draws the sample.
        unusable: the share of photographs that may be missing or damaged; they are left out and
            listed.

    Returns:
        The content of `dataset.json`.

    Raises:
        ValueError, FileNotFoundError, KaggleFailed: what was found, and what to do.
    """
    folder = find_folder(dataset, kaggle_dataset, split_seed)
    tables = [path for path in folder.rglob("marking.csv") if path.is_file()]
    table_path = archives.only(tables, f"a marking.csv in {folder}")
    table = read_marking(table_path)
    if ids:
        table = keep_listed(table, ids, table_path)
    photographs, files = find_photographs(table["image_id"], table_path.parent)
    sums, left_out = check_photographs(table, photographs, files, unusable)
    table = table[~table["image_id"].isin(left_out)]
    masks_folder, mask_sums = check_masks(table, masks, table_path.parent)
    orders = colour_orders(table, photographs, files)
    return {
        "dataset": dataset,
        "kaggle_dataset": kaggle_dataset if dataset == "kaggle" else "",
        "folder": str(photographs),
        "masks_folder": str(masks_folder or ""),
        "masks": len(mask_names_used(table, masks_folder)),
        "csv": str(table_path),
        "ids": str(workspace.resolve(ids)) if ids else "",
        "sha256": hashlib.sha256(table_path.read_bytes()).hexdigest(),
        "rows": len(table),
        "images": len(files),
        "bytes": sum((photographs / name).stat().st_size for name in sums),
        "checked_against_archive": bool(archives.checksums(photographs)),
        "unusable": left_out,
        "colour_order": orders[table["source"].mode()[0]]["order"],
        "colour_order_by_source": orders,
        "checksums": {"photographs": sums, "masks": mask_sums},
        "licence": LICENCE_OF_SAMPLE if dataset == "sample" else LICENCES,
    }


def find_folder(dataset: str, kaggle_dataset: str, split_seed: int) -> Path:
    """The folder of a data set, which is made, fetched or unpacked if need be."""
    if dataset == "kaggle":
        return fetch(kaggle_dataset)
    if dataset != "sample":
        return archives.open_folder(dataset, "dataset")
    folder = sample_folder(split_seed)
    if not folder.exists():
        with contextlib.suppress(FileExistsError):  # another process has just made it
            make_sample(folder, seed=split_seed)
    return folder


def keep_listed(table: pd.DataFrame, ids: str, table_path: Path) -> pd.DataFrame:
    """The rows of the photographs that a list names. Raises ValueError for ids that are unknown."""
    listed = set(read_csv(workspace.resolve(ids), ["image_id"])["image_id"].dropna())
    unknown = sorted(listed - set(table["image_id"]))
    if unknown or not listed:
        such = f", such as {unknown[0]}" if unknown else ""
        raise ValueError(
            f"ids: {ids} needs a column image_id with ids of {table_path}; it has {len(listed)}, "
            f"{len(unknown)} of them unknown{such}"
        )
    return table[table["image_id"].isin(listed)]


def find_photographs(image_ids: Iterable[str], folder: Path) -> tuple[Path, dict[str, str]]:
    """The one folder at or below `folder` that holds the photographs, and their names in it.

    Returns:
        The folder, and the file name of every photograph there by image id, with a row or without.

    Raises:
        ValueError: no folder has any, or several have, or one photograph is there as two files.
    """
    wanted = set(image_ids)
    found: dict[Path, dict[str, str]] = {}
    seen = set()
    for place, below, names in os.walk(folder, followlinks=True):
        if os.path.realpath(place) in seen:  # links may lead round in a circle
            below.clear()
            continue
        seen.add(os.path.realpath(place))
        files: dict[str, str] = {}
        for name in sorted(names):
            stem, ending = os.path.splitext(name)
            if ending.lower() not in reading.ENDINGS or name.startswith("."):
                continue
            image_id = tidy(stem)
            if image_id in wanted and image_id in files:
                raise ValueError(
                    f"{place} holds {image_id} twice, as {files[image_id]} and {name}: keep one"
                )
            files[image_id] = name
        if wanted & files.keys():
            found[Path(place)] = files
    photographs = archives.only(
        found, f"one folder in {folder} with the photographs of its rows, <image_id>.jpg"
    )
    return photographs, found[photographs]


def check_photographs(
    table: pd.DataFrame, photographs: Path, files: dict[str, str], unusable: float
) -> tuple[dict[str, str], dict[str, str]]:
    """Read every photograph of the table.

    Returns:
        The CRC-32 of those that can be used, by file name, and why the others cannot, by image id.

    Raises:
        ValueError: more cannot be used than `unusable` allows.
    """
    names = {}
    for image_id in table["image_id"]:
        names[image_id] = files.get(image_id, f"{image_id}.jpg")
    paths = [photographs / name for name in names.values()]
    inspected = reading.inspect(paths, archives.checksums(photographs))
    left_out = {}
    for image_id, name in names.items():
        if name in inspected.unusable:
            left_out[image_id] = inspected.unusable[name]
    bad = list(left_out.values())
    if len(bad) > unusable * len(table) or len(bad) == len(table):
        raise ValueError(
            f"{len(bad)} of {len(table)} photographs cannot be used; `unusable` allows "
            f"{unusable:.1%}, and one must be left. The first: {bad[0]}. Unpack the archive again "
            "(what lies under data/raw/ comes again once its folder is deleted), list those to "
            "keep with `ids`, or raise `unusable`"
        )
    return inspected.checksums, left_out


def colour_orders(table: pd.DataFrame, photographs: Path, files: dict[str, str]) -> dict:
    """`colour_order` of each source of a table; files: the name of each photograph's, by id."""
    orders = {}
    for source, rows in table.groupby("source"):
        orders[source] = colour_order([photographs / files[name] for name in rows["image_id"]])
    return orders


def colour_order(paths: list[Path], *, photographs: int = 100) -> dict:
    """What the channels of these photographs are, measured: skin is redder than blue.

    So the channel of the larger mean is red's.

    Args:
        paths: of one source.
        photographs: how many of them are read at most, evenly chosen.

    Returns:
        order: "rgb", or "bgr" where red and blue are stored exchanged; share: how many are redder
        in that order; photographs: how many were read.
    """
    step = max(1, -(-len(paths) // photographs))
    chosen = paths[::step]
    redder = 0
    for path in chosen:
        red, _, blue = reading.read_photograph(path, at_least=64).mean(axis=(0, 1))
        redder += int(red > blue)
    share = redder / len(chosen)
    order = "rgb" if share >= 0.5 else "bgr"
    return {"order": order, "share": max(share, 1 - share), "photographs": len(chosen)}
