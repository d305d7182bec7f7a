"""Find the data set of notebook 01 and check it: the built-in sample, or a folder or zip in the Kaggle layout.

Layout: `marking.csv` and, somewhere beside or below it, `<image_id>.jpg`; the Kaggle set keeps its photographs in
`512x512-dataset-melanoma/512x512-dataset-melanoma/`.
"""

import hashlib
import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

import cv2
import pandas as pd

from helpers import preprocess, sample, workspace

LICENCES = "ISIC 2019 and 2020 photographs: CC BY-NC 4.0; ISIC 2017 and 2018 (Task 1): CC-0; see data/README.md"
PHOTOGRAPHS = "512x512-dataset-melanoma"


def find_dataset(dataset: str, *, masks: str = "auto", ids: str = "", split_seed: int = 42) -> dict:
    """The data set that `dataset` names, made or unpacked where it must be, checked and described.

    dataset: "sample" (made under data/raw/ from `split_seed`), or a folder (used in place) or zip (unpacked under
    data/raw/). masks: a folder or zip of `<image_id>_segmentation.png`, "auto" (a folder `masks` beside the table, if
    there) or "". ids: a csv with a column `image_id` of the photographs to keep, or "". Returns the content of
    `dataset.json`. Raises ValueError or FileNotFoundError that says what was found and what to do.
    """
    if dataset == "sample":
        folder = workspace.data_folder() / "raw" / f"sample-{split_seed}"
        if not folder.exists():
            sample.make_sample(folder, seed=split_seed)
    elif dataset == "kaggle":
        raise ValueError("dataset 'kaggle': fetching from Kaggle is not built in yet. Download the data set's zip from "
                         "its page on Kaggle and set `dataset` to the path of the zip")
    else:
        folder = open_folder(dataset, "dataset")
    table_path = one_of(folder.rglob("marking.csv"), f"a marking.csv in {folder}")
    photographs = photograph_folder(table_path.parent)
    table = preprocess.read_marking(table_path)
    if ids:
        table = keep_ids(table, workspace.resolve(ids))
    there = {path.stem for path in photographs.glob("*.jpg")}
    missing = table.loc[~table["image_id"].isin(there), "image_id"]
    if len(missing):
        raise ValueError(f"{len(missing)} of {len(table)} rows of {table_path} have no photograph in {photographs}, the "
                         f"first {missing.iloc[0]}.jpg: unpack the archive again, or list those to keep with `ids`")
    masks_folder = find_masks(masks, table_path.parent, dataset)
    orders = {source: colour_order([photographs / f"{name}.jpg" for name in rows["image_id"]])
              for source, rows in table.groupby("source")}
    return {
        "dataset": dataset, "folder": str(photographs), "masks_folder": str(masks_folder or ""),
        "csv": str(table_path), "ids": str(workspace.resolve(ids)) if ids else "",
        "sha256": hashlib.sha256(table_path.read_bytes()).hexdigest(), "rows": len(table), "images": len(there),
        "bytes": sum((photographs / f"{name}.jpg").stat().st_size for name in table["image_id"]),
        "colour_order": max(orders.values(), key=lambda one: one["photographs"])["order"],
        "colour_order_by_source": orders,
        "licence": "made by helpers/sample.py: no photograph of a patient" if dataset == "sample" else LICENCES,
    }


def open_folder(place: str, parameter: str) -> Path:
    """A folder as it is, or the folder under data/raw/ into which a zip was unpacked (once for one content)."""
    path = workspace.resolve(place)
    if path.is_dir():
        return path
    if not path.is_file():
        raise FileNotFoundError(f"{parameter}: there is no folder or zip at {path}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{parameter}: {path} is neither a folder nor a whole zip archive; download it again")
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    folder = workspace.data_folder() / "raw" / f"{path.stem}-{content[:8]}"
    if not folder.exists():
        unpack(path, folder)
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip into a new folder: whole, or not at all.

    Raises ValueError for a member that would leave the folder or is a link, OSError where the disk has no room.
    """
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            name = PurePosixPath(member.filename.replace("\\", "/"))
            if name.is_absolute() or ".." in name.parts or ":" in member.filename:
                raise ValueError(f"{archive} is refused: its member {member.filename!r} would leave the folder")
            if stat.S_ISLNK(member.external_attr >> 16):
                raise ValueError(f"{archive} is refused: its member {member.filename!r} is a link")
        needed = sum(member.file_size for member in zipped.infolist())
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free
        if needed > 0.95 * free:
            raise OSError(f"{archive} needs {needed / 1e9:.1f} GB in {folder.parent}, where {free / 1e9:.1f} GB are free: "
                          "make room, or set ATTENTION_DATA to a folder on a larger disk")
        beside = folder.with_name(f".{folder.name}.unpacking")
        shutil.rmtree(beside, ignore_errors=True)
        try:
            zipped.extractall(beside)  # checks every member's CRC
            beside.rename(folder)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{archive} is damaged ({error}); download it again") from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def photograph_folder(folder: Path) -> Path:
    """The folder of `<image_id>.jpg` at or below `folder`: the Kaggle set's own, or the one that holds JPEGs."""
    kaggle = folder / PHOTOGRAPHS / PHOTOGRAPHS
    if kaggle.is_dir():
        return kaggle
    return one_of({path.parent for path in folder.rglob("*.jpg")}, f"a folder of photographs (*.jpg) in {folder}")


def one_of(found, what: str) -> Path:
    """The only member of `found`. Raises FileNotFoundError for none, ValueError for several."""
    found = sorted(found)
    if not found:
        raise FileNotFoundError(f"expected {what}, found none; the Kaggle layout is described in data/README.md")
    if len(found) > 1:
        raise ValueError(f"expected {what}, found {len(found)}: {found[0]}, {found[1]}...; name the folder of one")
    return found[0]


def find_masks(masks: str, folder: Path, dataset: str) -> Path | None:
    """The folder of `<image_id>_segmentation.png`, or None."""
    if masks == "auto":
        return folder / "masks" if (folder / "masks").is_dir() else None
    if not masks:
        return None
    return one_of({path.parent for path in open_folder(masks, "masks").rglob("*_segmentation.png")},
                  f"a folder of masks (<image_id>_segmentation.png) in {masks}")


def keep_ids(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The rows whose `image_id` the csv at `path` lists. Raises ValueError for one that the table lacks."""
    listed = pd.read_csv(path, dtype=str)
    if "image_id" not in listed:
        raise ValueError(f"ids: {path} has the columns {list(listed)}, expected image_id")
    unknown = set(listed["image_id"]) - set(table["image_id"])
    if unknown:
        raise ValueError(f"ids: {len(unknown)} of {len(listed)} in {path} are not in the table, such as {min(unknown)}")
    return table[table["image_id"].isin(listed["image_id"])].reset_index(drop=True)


def colour_order(paths: list[Path], *, photographs: int = 100) -> dict:
    """What the channels of these JPEGs are, measured: skin is redder than blue, so the larger mean is red's.

    At most `photographs` evenly chosen files are decoded by OpenCV and put in the order that a standard decoder gives.
    Returns {"order": "rgb" or "bgr", "share": how many are redder in that order, "photographs": how many were read}.
    """
    chosen = paths[::max(1, len(paths) // photographs)][:photographs]
    redder = 0
    for path in chosen:
        pixels = cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_4)                      # [H, W, 3], blue first
        if pixels is None:
            raise ValueError(f"{path} cannot be decoded as a JPEG: unpack or download the data set again")
        blue, _, red = pixels.mean(axis=(0, 1))
        redder += red > blue
    share = float(redder) / len(chosen)
    return {"order": "rgb" if share >= 0.5 else "bgr", "share": max(share, 1 - share), "photographs": len(chosen)}
