"""Masks of lesions: find them, join them to photographs by name, and read what they mark."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from helpers.photographs import archives, reading
from helpers.photographs.kaggle import fetch
from helpers.photographs.reading import decode_opaque, judge, read_bytes
from helpers.photographs.table import TWIN, tidy

MASK = "_segmentation.png"  # ends the name of a mask's file


def find_masks(masks: str, beside: Path) -> Path | None:
    """The folder of `<image_id>_segmentation.png` that the parameter `masks` names, or None."""
    if masks == "":
        return None
    if masks == "auto":
        return beside / "masks" if (beside / "masks").is_dir() else None
    if masks.startswith("kaggle:"):
        place = fetch(masks.removeprefix("kaggle:"))
    else:
        place = archives.open_folder(masks, "masks")
    folders = {path.parent for path in place.rglob("[!.]*_segmentation.png")}
    return archives.only(folders, f"a folder of masks (<image_id>_segmentation.png) in {masks}")


def mask_names_used(table: pd.DataFrame, folder: Path | None) -> list[str]:
    """The file names of the masks that the photographs of a table have, one for each that has."""
    if folder is None:
        return []
    return [name for name in mask_names(table["image_id"], folder) if name]


def check_masks(
    table: pd.DataFrame, masks: str, beside: Path
) -> tuple[Path | None, dict[str, str]]:
    """Find the masks and read them all.

    Returns:
        Their folder (None without masks), and the CRC-32 of each that is used by its file name.

    Raises:
        ValueError: no photograph of the table has one, or some cannot be used.
    """
    folder = find_masks(masks, beside)
    if folder is None:
        return None, {}
    names = sorted(set(mask_names_used(table, folder)))
    if not names:
        raise ValueError(
            f"masks: no mask in {folder} has the image id of one of the {len(table)} photographs; "
            "name other masks, or set `masks` to ''"
        )
    paths = [folder / name for name in names]
    inspected = reading.inspect(paths, archives.checksums(folder), decode_lesion, "checking masks")
    bad = list(inspected.unusable.values())
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(names)} masks in {folder} cannot be used, the first: {bad[0]}. "
            "Replace or delete them (a photograph needs no mask) and run 01_download.ipynb again"
        )
    return folder, inspected.checksums


def mask_names(image_ids: pd.Series, folder: Path) -> pd.Series:
    """The name of the file in `folder` of each photograph's mask, or "".

    `ISIC_x_downsampled` without one of its own has that of `ISIC_x`, the same photograph: ISIC
    offers no other.

    Raises:
        ValueError: a photograph has two of its own, as names that differ in capitals.
    """
    by_id = {}
    for name in sorted(path.name for path in folder.glob("*")):
        if name.lower().endswith(MASK):
            image_id = tidy(name[: -len(MASK)])
            if image_id in by_id:
                raise ValueError(
                    f"{folder} holds the mask of {image_id} twice, as {by_id[image_id]} and {name}:"
                    " keep one"
                )
            by_id[image_id] = name
    names = []
    for image_id in image_ids:
        of_its_twin = by_id.get(image_id.removesuffix(TWIN), "")
        names.append(by_id.get(image_id, of_its_twin))
    return pd.Series(names, index=image_ids.index, dtype=str)


def known_masks(dataset: dict) -> list[str]:
    """The file names of the masks that 01 found, where it has looked."""
    return list(dataset.get("checksums", {}).get("masks", {}))


def read_mask(path: Path, side: int, *, crc: int | None = None) -> np.ndarray:
    """A lesion mask squashed as its photograph was: uint8 [side, side], 0 to 255.

    Its size need not be the photograph's; lesion is what is not black.

    Raises:
        ValueError: as `read_photograph`, and for a mask that is all black.
    """
    lesion = decode_lesion(path, read_bytes(path, crc)).astype(np.uint8) * 255
    return cv2.resize(lesion, (side, side), interpolation=cv2.INTER_AREA)


def decode_lesion(path: Path, content: bytes) -> np.ndarray:
    """Where the bytes of a mask are not black: bool [H, W], somewhere True. Raises ValueError."""
    # at its own depth: of 16 bits, 8 would leave black what is below 256
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    lesion = decode_opaque(path, content, judge(path, content), flags).max(axis=2) > 0
    if not lesion.any():
        raise ValueError(f"{path} marks nothing: every pixel is 0")
    return lesion
