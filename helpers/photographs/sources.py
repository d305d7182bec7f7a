"""Find the data set of notebook 01 and check it: the sample, one from Kaggle, or a folder or zip in the Kaggle layout.

Layout: `marking.csv` and, somewhere beside or below it, `<image_id>.jpg`; the Kaggle set keeps its photographs in
`512x512-dataset-melanoma/512x512-dataset-melanoma/`, and unlabelled ones, unused here, in `512x512-test/`.
"""

import hashlib
from pathlib import Path

import cv2

from helpers import workspace
from helpers.photographs import archives, reading
from helpers.photographs.kaggle import KAGGLE_DATASET, fetch
from helpers.photographs.sample import make_sample
from helpers.photographs.split import mask_names
from helpers.photographs.table import read_csv, read_marking

LICENCES = "ISIC 2019 and 2020 photographs: CC BY-NC 4.0; ISIC 2017 and 2018 (Task 1): CC-0; see data/README.md"


def find_dataset(
    dataset: str,
    *,
    kaggle_dataset: str = KAGGLE_DATASET,
    masks: str = "auto",
    ids: str = "",
    split_seed: int = 42,
    unusable: float = 0.0,
) -> dict:
    """The data set that `dataset` names, made, fetched or unpacked where it must be, checked and described.

    dataset: "sample" (made under data/raw/ from `split_seed`), "kaggle" (`kaggle_dataset`, as `fetch` takes it), or a
    folder (used in place) or zip (unpacked under data/raw/). masks: a folder or zip of `<image_id>_segmentation.png`,
    "kaggle:owner/name", "auto" (a folder `masks` beside the table, if there) or "". ids: a csv with a column `image_id`
    of the photographs to keep, or "". unusable: the share of photographs that may be missing or damaged; those are left
    out and listed. Returns the content of `dataset.json`. Raises ValueError, FileNotFoundError or KaggleFailed that
    says what was found and what to do.
    """
    if dataset == "sample":
        folder = workspace.data_folder() / "raw" / f"sample-{split_seed}"
        if not folder.exists():
            make_sample(folder, seed=split_seed)
    elif dataset == "kaggle":
        folder = fetch(kaggle_dataset)
    else:
        folder = archives.open_folder(dataset, "dataset")
    table_path = one_of(
        filter(Path.is_file, folder.rglob("marking.csv")), f"a marking.csv in {folder}"
    )
    table = read_marking(table_path)
    names = set(table["image_id"])
    if ids:
        listed = set(read_csv(workspace.resolve(ids), ["image_id"])["image_id"].dropna())
        unknown = listed - names
        if unknown or not listed:
            raise ValueError(
                f"ids: {ids} needs a column image_id with ids of {table_path}; it has {len(listed)}, "
                f"{len(unknown)} of them unknown{', such as ' + str(unknown.pop()) if unknown else ''}"
            )
        table = table[table["image_id"].isin(listed)]
    photographs = one_of(
        {path.parent for path in table_path.parent.rglob("*.jpg") if path.stem in names},
        f"one folder in {table_path.parent} with the photographs of its rows, <image_id>.jpg",
    )
    sizes = {path.stem: path.stat().st_size for path in photographs.glob("*.jpg") if path.is_file()}
    sums = archives.checksums(photographs)
    left_out = reading.find_unusable(
        [photographs / f"{name}.jpg" for name in table["image_id"]], sums
    )
    if len(left_out) > unusable * len(table):
        raise ValueError(
            f"{len(left_out)} of {len(table)} photographs of {table_path} cannot be used; `unusable` "
            f"allows {unusable:.1%}. The first: {next(iter(left_out.values()))}. Unpack the archive again "
            "(what lies under data/raw/ comes again once its folder is deleted), list those to keep with "
            "`ids`, or raise `unusable`"
        )
    table = table[~table["image_id"].isin(left_out)]
    masks_folder = find_masks(masks, table_path.parent)
    masked = (
        int((mask_names(table["image_id"], masks_folder) != "").sum()) if masks_folder else None
    )
    if masked == 0:
        raise ValueError(
            f"masks: no mask in {masks_folder} has the image id of one of the {len(table)} photographs; "
            "name other masks, or set `masks` to ''"
        )
    orders = {
        source: colour_order([photographs / f"{name}.jpg" for name in rows["image_id"]])
        for source, rows in table.groupby("source")
    }
    return {
        "dataset": dataset,
        "kaggle_dataset": kaggle_dataset if dataset == "kaggle" else "",
        "folder": str(photographs),
        "masks_folder": str(masks_folder or ""),
        "masks": masked or 0,
        "csv": str(table_path),
        "ids": str(workspace.resolve(ids)) if ids else "",
        "sha256": hashlib.sha256(table_path.read_bytes()).hexdigest(),
        "rows": len(table),
        "images": len(sizes),
        "bytes": sum(sizes[name] for name in table["image_id"]),
        "checked_against_archive": bool(sums),
        "unusable": left_out,
        "colour_order": orders[table["source"].mode()[0]]["order"],
        "colour_order_by_source": orders,
        "licence": "made by helpers/sample.py: no photograph of a patient"
        if dataset == "sample"
        else LICENCES,
    }


def one_of(found, what: str) -> Path:
    """The only member of `found`. Raises ValueError for none or several."""
    found = sorted(found)
    if len(found) != 1:
        raise ValueError(
            f"expected {what}, found {len(found)}{': ' if found else ''}{', '.join(map(str, found[:2]))}; "
            "name the folder or zip of one data set, laid out as data/README.md describes"
        )
    return found[0]


def find_masks(masks: str, folder: Path) -> Path | None:
    """The folder of `<image_id>_segmentation.png`, or None."""
    if masks in ("", "auto"):
        return folder / "masks" if masks and (folder / "masks").is_dir() else None
    name = masks.removeprefix("kaggle:")
    place = archives.open_folder(masks, "masks") if name == masks else fetch(name)
    return one_of(
        {path.parent for path in place.rglob("[!.]*_segmentation.png")},
        f"a folder of masks (<image_id>_segmentation.png) in {masks}",
    )


def colour_order(paths: list[Path], *, photographs: int = 100) -> dict:
    """What the channels of these JPEGs are, measured: skin is redder than blue, so the larger mean is red's.

    At most `photographs` evenly chosen files are decoded by OpenCV and put in the order that a standard decoder gives.
    Returns {"order": "rgb" or "bgr", "share": how many are redder in that order, "photographs": how many were read}.
    """
    redder = []
    for path in paths[:: -(-len(paths) // photographs)]:
        pixels = cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_4)  # [H, W, 3], blue first
        if pixels is None:
            raise ValueError(
                f"{path} cannot be decoded as a JPEG: unpack or download the data set again"
            )
        blue, _, red = pixels.mean(axis=(0, 1))
        redder.append(bool(red > blue))
    share = sum(redder) / len(redder)
    return {
        "order": "rgb" if share >= 0.5 else "bgr",
        "share": max(share, 1 - share),
        "photographs": len(redder),
    }
