"""Find the data set of notebook 01 and check it: the sample, ISIC's, Kaggle's, or one's own.

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
from helpers.photographs import archives, isic, reading
from helpers.photographs.identity import find_copies, match_files
from helpers.photographs.kaggle import KAGGLE_DATASET, fetch
from helpers.photographs.layout import find_table, walk
from helpers.photographs.lists import keep_listed
from helpers.photographs.masks import check_masks, is_named_as_mask, of_masks
from helpers.photographs.sample import make_sample, sample_folder
from helpers.photographs.table import read_marking, tidy

FEW = 5  # photographs; the colour order of a source of fewer is not measured on its own
LICENCE_OF_SAMPLE = "made by helpers/photographs/sample.py: no photograph of a patient"
LICENCES = (  # of KAGGLE_DATASET
    "ISIC 2019 and 2020 photographs: CC BY-NC 4.0; ISIC 2017 and 2018 (Task 1): CC-0; "
    "see data/README.md"
)


def find_dataset(
    dataset: str,
    *,
    kaggle_dataset: str = KAGGLE_DATASET,
    isic_query: str = "",
    isic_count: int = 0,
    masks: str = "auto",
    ids: str = "",
    split_seed: int = 42,
    unusable: float = 0.0,
) -> dict:
    """The data set that `dataset` names: made, fetched or unpacked if need be, and checked.

    Every byte of every photograph and mask that its rows name is read, and decoded.

    Args:
        dataset: "sample" (made under data/raw/ from `split_seed`), "isic" (`isic_query` of the
            ISIC Archive), "kaggle" (`kaggle_dataset`), or a folder (used in place) or zip
            (unpacked under data/raw/).
        kaggle_dataset: "owner/name" or "owner/name/version".
        isic_query: as `isic.fetch` takes it; "" is photographs with masks, under CC-0.
        isic_count: how many of them to take at most; 0 takes all.
        masks: a folder or zip of `<image_id>_segmentation.png`, "kaggle:owner/name", "auto" (a
            folder `masks` beside the table, if there) or "".
        ids: a csv with a column `image_id` of the photographs to keep, or "".
        split_seed: draws the sample, and some of many photographs of the archive.
        unusable: the share of photographs that may be missing, damaged, or a melanoma under one id
            and none under another; they are left out and listed.

    Returns:
        The content of `dataset.json`.

    Raises:
        ValueError, FileNotFoundError, KaggleFailed, IsicFailed: what was found, and what to do.
    """
    if dataset == "isic":
        folder = isic.fetch(isic_query, isic_count, seed=split_seed)
    else:
        folder = find_folder(dataset, kaggle_dataset, split_seed)
    table_path = find_table(folder)
    with workspace.saying_what_fails(table_path):
        table = read_marking(table_path)
    if ids:
        table, note = keep_listed(table, ids)
        print(note)
    photographs, files = find_photographs(table["image_id"], table_path.parent, folder, apart=masks)
    inspected, left_out, copies = check_photographs(table, photographs, files, unusable)
    sums = inspected.checksums
    table = table[~table["image_id"].isin(left_out)]
    headers = {name: inspected.seen[files[name]] for name in table["image_id"]}
    about_masks, mask_sums = check_masks(masks, table_path.parent, photographs, headers)
    orders = colour_orders(table, photographs, files)
    return {
        "dataset": dataset,
        "kaggle_dataset": kaggle_dataset if dataset == "kaggle" else "",
        "folder": str(photographs),
        **about_masks,
        "csv": str(table_path),
        "ids": str(workspace.resolve(ids)) if ids else "",
        "sha256": hashlib.sha256(table_path.read_bytes()).hexdigest(),
        "rows": len(table),
        "images": len(files),
        "bytes": sum((photographs / name).stat().st_size for name in sums),
        "checked_against_archive": bool(archives.checksums(photographs)),
        "unusable": left_out,
        "copies": copies,
        "colour_order": orders[table["source"].mode()[0]]["order"],
        "colour_order_by_source": orders,
        "checksums": {"photographs": sums, "masks": mask_sums},
        **terms_of(dataset, folder, kaggle_dataset),
    }


def terms_of(dataset: str, folder: Path, kaggle_dataset: str) -> dict[str, str]:
    """`licence` and `attribution` of dataset.json; that they are not known, where they are not."""
    if dataset == "isic":
        return isic.terms_of(folder)
    if dataset == "sample":
        return {"licence": LICENCE_OF_SAMPLE, "attribution": "drawn: nobody's photographs"}
    if dataset == "kaggle":
        name = "/".join(kaggle_dataset.split("/")[:2])  # without its version
        if name == KAGGLE_DATASET:
            return {"licence": LICENCES, "attribution": "the ISIC Archive; see data/README.md"}
        said = f"not known: see https://www.kaggle.com/datasets/{name}"
    else:
        said = "not known: the photographs are the reader's own, under the terms they came with"
    return {"licence": said, "attribution": said}


def find_folder(dataset: str, kaggle_dataset: str, split_seed: int) -> Path:
    """The folder of the sample, of Kaggle's set or of the reader's own: made, fetched, unpacked."""
    if dataset == "kaggle":
        return fetch(kaggle_dataset)
    if not dataset:
        raise ValueError(
            "dataset is empty; expected 'sample', 'isic', 'kaggle', or the path of a folder or zip"
        )
    if dataset != "sample":
        return archives.open_folder(dataset, "dataset")
    folder = sample_folder(split_seed)
    if not folder.exists():
        with contextlib.suppress(FileExistsError):  # another process has just made it
            make_sample(folder, seed=split_seed)
    return folder


def find_photographs(
    image_ids: Iterable[str], *places: Path, apart: str = ""
) -> tuple[Path, dict[str, str]]:
    """The folder that holds the photographs of a table, and their names in it.

    Of several folders, parts of one set or one for each class, it is the one above them all. Masks
    may have the names of their photographs: where several folders have some, those named as folders
    of masks are, and what `apart` names, are not those of photographs.

    Args:
        image_ids: of the rows.
        places: where to look, at any depth: in the next where there is none.
        apart: as the parameter `masks`.

    Returns:
        The folder, and the file name of every photograph there by image id, with a row or without;
        with the folder below before it, where there are several. A file is found under another
        spelling of its id, too (see `match_files`).

    Raises:
        ValueError: there is none, or one photograph is there as two files.
    """
    wanted = set(image_ids)
    there = {}
    for folder in places:
        there = {place: by_id(place, names, wanted) for place, names in walk(folder)}
        found = {place: files for place, files in there.items() if wanted & files.keys()}
        if not found:
            found = {place: files for place, files in there.items() if match_files(wanted, files)}
        if len(found) > 1:
            found = {place: files for place, files in found.items() if not of_masks(place, apart)}
        if found:
            photographs, files = join_folders(found, wanted)
            for image_id, stem in match_files(wanted, files).items():
                files[image_id] = files.pop(stem)
            return photographs, files
    others = [place / name for place, files in there.items() for name in files.values()]
    such = f"; {len(others)} others are, such as {others[0]}" if others else ""
    raise ValueError(
        f"no photograph of a row is in {folder}, such as {min(wanted)}.jpg{such}: name the folder "
        "or zip of one data set, laid out as data/README.md describes"
    )


def by_id(folder: Path, names: list[str], wanted: set[str]) -> dict[str, str]:
    """The photographs of one folder: their names by image id.

    Raises:
        ValueError: one that is wanted is there as two files.
    """
    files: dict[str, str] = {}
    for name in names:
        stem, ending = os.path.splitext(name)
        if ending.lower() not in reading.ENDINGS or name.startswith("."):
            continue
        image_id = tidy(stem)
        if is_named_as_mask(name, wanted):
            continue
        if image_id in wanted and image_id in files:
            raise ValueError(
                f"{folder} holds {image_id} twice, as {files[image_id]} and {name}: keep one"
            )
        files[image_id] = name
    return files


def join_folders(
    found: dict[Path, dict[str, str]], wanted: set[str]
) -> tuple[Path, dict[str, str]]:
    """The photographs of several folders as those of the one above them all.

    Args:
        found: the names of the photographs by image id, by folder.
        wanted: image ids of rows.

    Raises:
        ValueError: one that is wanted lies in two of them, and is no link to the same file.
    """
    if len(found) == 1:
        return next(iter(found.items()))
    above = Path(os.path.commonpath(found))
    joined: dict[str, str] = {}
    for folder, files in found.items():
        for image_id, name in files.items():
            path = folder / name
            first = above / joined.get(image_id, name)
            if image_id not in joined:
                joined[image_id] = path.relative_to(above).as_posix()
            elif image_id in wanted and os.path.realpath(first) != os.path.realpath(path):
                raise ValueError(
                    f"{image_id} is there twice, as {first} and {path}: name the folder of one, "
                    "or keep one"
                )
    print(f"the photographs lie in {len(found)} folders: " + ", ".join(map(str, list(found)[:9])))
    return above, joined


def check_photographs(
    table: pd.DataFrame, photographs: Path, files: dict[str, str], unusable: float
) -> tuple[reading.Inspected, dict[str, str], list[list[str]]]:
    """Read every photograph of the table.

    Returns:
        What was found in them, by file name; why some cannot be used, by image id; and the image
        ids of those that stand several times (see `find_copies`).

    Raises:
        ValueError: more cannot be used than `unusable` allows.
    """
    names = {}
    for image_id in table["image_id"]:
        names[image_id] = files.get(image_id, f"{image_id}.jpg")
    paths = [photographs / name for name in names.values()]
    in_folder = {path.name: name for path, name in zip(paths, names.values(), strict=True)}
    checked = reading.inspect(paths, archives.checksums(photographs))
    inspected = reading.Inspected(
        *({in_folder[name]: value for name, value in found.items()} for found in checked)
    )
    left_out = {}
    for image_id, name in names.items():
        if name in inspected.unusable:
            left_out[image_id] = inspected.unusable[name]
    copies = find_copies(names, inspected.checksums, photographs)
    disputed = of_two_targets(copies, table)
    left_out |= disputed
    copies = [same for same in copies if same[0] not in disputed]
    bad = list(left_out.values())
    if len(bad) > unusable * len(table) or len(bad) == len(table):
        raise ValueError(
            f"{len(bad)} of {len(table)} photographs cannot be used; `unusable` allows "
            f"{unusable:.1%}, and one must be left. The first: {bad[0]}. Unpack the archive again "
            "(what lies under data/raw/ comes again once its folder is deleted), list those to "
            "keep with `ids`, or raise `unusable`"
        )
    return inspected, left_out, copies


def of_two_targets(copies: list[list[str]], table: pd.DataFrame) -> dict[str, str]:
    """Why some photographs that stand several times cannot be used, by image id.

    They are a melanoma under one id and none under another: one of the two is wrong, and nobody
    here knows which. Kept, they would be a mistake whatever the network says.
    """
    targets = dict(zip(table["image_id"], table["target"], strict=True))
    disputed = {}
    for same in copies:
        if len({targets[image_id] for image_id in same}) > 1:
            said = ", ".join(f"{image_id} (target {targets[image_id]})" for image_id in same[:9])
            reason = f"{said} are one photograph, byte for byte: correct the table"
            disputed |= dict.fromkeys(same, reason)
    return disputed


def colour_orders(table: pd.DataFrame, photographs: Path, files: dict[str, str]) -> dict:
    """`colour_order` of each source of a table; files: the name of each photograph's, by id.

    A blue light or a blue ink turns one photograph, so a source of fewer than FEW has the order of
    all of the table; its share says how many of its own are redder in that.
    """
    orders = {}
    paths = table["image_id"].map(lambda name: photographs / files[name])
    for source, own in paths.groupby(table["source"]):
        orders[source] = colour_order(list(own))
        if len(own) < FEW:
            order = colour_order(list(paths))["order"]
            if order != orders[source]["order"]:
                print(
                    f"source {source}: {len(own)} photographs are too few to say that red and blue "
                    f"lie in them otherwise than in the table's others; read as {order}, as those"
                )
                orders[source]["order"] = order
                orders[source]["share"] = 1 - orders[source]["share"]
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
