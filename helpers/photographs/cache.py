"""The pixel cache of notebook 02: photographs decoded once into one memory-mapped file.

The file is filled on all cores beside its place, and renamed into it when it is whole: what is in
the cache is never half. A build that was cut off starts again, which takes half a minute for all
60,487 photographs. Its name is made of what went in, so that changed content has another name.
"""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from helpers import workspace
from helpers.photographs.masks import Reading, read_mask, reading_of
from helpers.photographs.reading import CHUNK, read_bytes, square


def cache_side(image_size: int, view: float = 1.0) -> int:
    """Side of the cached squares.

    An eighth or so more than the input, for rotation and zoom; and so much that the part of a
    photograph which is seen, `view` of its side, has as many pixels as the input.
    """
    return max(image_size * 8 // 7, round(image_size / view))


def build_cache(dataset: dict, split: pd.DataFrame, *, image_size: int, view: float = 1.0) -> dict:
    """Decode the used rows of a split once, in true colours.

    `data/cache/<key>.npy` is uint8 [N, S, S, 3], red first; `<key>-masks.npy`, where there are
    masks, uint8 [N, S, S], 0 to 255, and 0 where a row has none. What is there is used again,
    once the files that it was made from prove to be the same.

    Args:
        dataset: the content of `dataset.json`.
        split: that of `split.csv`; its kept rows are used, in their order.
        image_size: side of the network's input in pixels.
        view: the share of a photograph's side that the recipe sees; S is `cache_side` of both.

    Returns:
        The content of `cache.json`: file, masks_file ("" without), key, side, rows (image ids).

    Raises:
        ValueError: files that have changed since 01 read them, or cannot be used; it counts them
            and names the first.
        OSError: the disk has no room.
    """
    used = split[split["kept"] == 1]
    side = cache_side(image_size, view)
    key = cache_key(dataset, split, side)
    photographs = files_of(used["path"], dataset["folder"], dataset["checksums"]["photographs"])
    masks = files_of(used["mask"], dataset["masks_folder"], dataset["checksums"]["masks"])
    readings = readings_of(used, dataset)
    swapped = {}
    for source, measured in dataset["colour_order_by_source"].items():
        swapped[source] = measured["order"] == "bgr"

    def photograph(row: int) -> np.ndarray:
        path, crc = photographs[row]
        return square(path, side, swapped=swapped[used["source"].iloc[row]], crc=crc)

    def mask(row: int) -> np.ndarray:
        if masks[row] is None:
            return np.zeros((side, side), np.uint8)
        path, crc = masks[row]
        return read_mask(path, side, readings[row], crc=crc)

    folder = workspace.data_folder() / "cache"
    file = folder / f"{key}.npy"
    masks_file = folder / f"{key}-masks.npy"
    masked = bool((used["mask"] != "").any())
    fill(file, (len(used), side, side, 3), photograph, photographs, "photographs")
    if masked:
        fill(masks_file, (len(used), side, side), mask, masks, "masks")
    return {
        "file": str(file),
        "masks_file": str(masks_file) if masked else "",
        "key": key,
        "side": side,
        "rows": used["image_id"].tolist(),
    }


def files_of(names: pd.Series, folder: str, sums: dict[str, str]) -> list[tuple[Path, int] | None]:
    """The file of each row and the CRC-32 that 01 found; None where the row has none."""
    return [(Path(folder) / name, int(sums[name], 16)) if name else None for name in names]


def readings_of(used: pd.DataFrame, dataset: dict) -> list[Reading | None]:
    """How the mask of each row is read; None where it has none."""
    rows = zip(used["mask"], used["image_id"], strict=True)
    return [reading_of(mask, image_id, dataset) if mask else None for mask, image_id in rows]


def cache_key(dataset: dict, split: pd.DataFrame, side: int) -> str:
    """A hash of all that a cache follows from: the bytes of photographs and masks, order, colours,
    and what is lesion in a mask.

    It rests on the CRC-32 of every used file, which 01 took, and not on where the files lie.

    Raises:
        ValueError: `dataset` has no such sums, or not of these files: 01 must run again.
    """
    used = split[split["kept"] == 1]
    orders = {}
    for source, measured in dataset["colour_order_by_source"].items():
        orders[source] = measured["order"]
    sums = dataset.get("checksums", {"photographs": {}, "masks": {}})
    contents = []
    for image_id, path, mask in zip(used["image_id"], used["path"], used["mask"], strict=True):
        known = path in sums["photographs"] and (not mask or mask in sums["masks"])
        if not known:
            raise ValueError(
                f"dataset.json has no checksum of {path}{' or ' + mask if mask else ''}: it is of "
                "an earlier edition, or of other photographs. Run 01_download.ipynb again, and "
                "02_preprocess.ipynb after it"
            )
        contents.append((image_id, sums["photographs"][path], mask and sums["masks"][mask]))
    readings = readings_of(used, dataset)
    recipe = [workspace.FORMAT, dataset["sha256"], side, orders, contents, readings]
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]


def fill(
    file: Path,
    shape: tuple,
    decode_row: Callable[[int], np.ndarray],
    sources: list[tuple[Path, int] | None],
    what: str,
) -> None:
    """Make the .npy file of uint8 rows that `decode_row` gives, whole or not at all.

    A file that is there is left as it is, if its sources are what they were. A second process waits
    for the first.

    Raises:
        ValueError: rows raised it; all others have been tried by then.
        OSError: the disk has no room.
    """
    with workspace.locked(file):
        if is_cache(file, shape):
            refuse(changed(sources), len(sources), what)
            return
        needed = int(np.prod(shape))
        free = workspace.free_space(file.parent)
        if needed > free:
            raise OSError(
                f"the cache of {what} takes {needed / 1e9:.2f} GB, {file.parent} has "
                f"{free / 1e9:.2f} free: make room, set ATTENTION_DATA to a larger disk, or lower "
                "image_size or subsample"
            )
        with workspace.replacing(file) as beside:
            refuse(write_rows(beside, shape, decode_row, what), len(sources), what)


def refuse(bad: dict[int, str], count: int, what: str) -> None:
    """Raises ValueError if any of `count` rows is bad; it says how many, and why the first is."""
    if bad:
        raise ValueError(
            f"{len(bad)} of {count} {what} cannot be used or have changed since 01 read them, the "
            f"first: {min(bad.items())[1]}. Run 01_download.ipynb again, which finds what is "
            "unusable, and 02_preprocess.ipynb after it"
        )


def changed(sources: list[tuple[Path, int] | None]) -> dict[int, str]:
    """Why rows are not as 01 found them, by row: their bytes are others, or cannot be read."""

    def look(row: int) -> str:
        try:
            read_bytes(*sources[row])
        except ValueError as error:
            return str(error)
        return ""

    rows = [row for row, source in enumerate(sources) if source is not None]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = list(pool.map(look, rows))
    return {row: reason for row, reason in zip(rows, reasons, strict=True) if reason}


def write_rows(
    file: Path, shape: tuple, decode_row: Callable[[int], np.ndarray], what: str
) -> dict[int, str]:
    """Write all rows into a new .npy file, on all cores; returns why those are missing that are."""
    with file.open("wb") as written:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(written, header)
        start = written.tell()
        written.truncate(start + int(np.prod(shape)))
    row_bytes = int(np.prod(shape[1:]))
    bad = {}

    def write(first: int) -> None:
        rows = range(first, min(first + CHUNK, shape[0]))
        squares = np.zeros((len(rows), *shape[1:]), np.uint8)
        for place, row in enumerate(rows):
            try:
                squares[place] = decode_row(row)
            except ValueError as error:
                bad[row] = str(error)
            bar.update()
        with file.open("r+b") as written:  # each core its own, since they write at once
            written.seek(start + first * row_bytes)
            written.write(squares)

    bar = workspace.progress(what, total=shape[0])
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(write, first) for first in range(0, shape[0], CHUNK)]
        try:
            for job in jobs:
                job.result()
        finally:  # an error, or the reader's stop, waits for what is under way, not for all
            pool.shutdown(cancel_futures=True)
    return bad


def is_cache(file: Path, shape: tuple) -> bool:
    """Whether this is a .npy file of uint8 of that shape, as long as it should be."""
    try:
        with workspace.saying_what_fails(file), file.open("rb") as stored:
            np.lib.format.read_magic(stored)
            header = np.lib.format.read_array_header_1_0(stored)
            length = os.fstat(stored.fileno()).st_size - stored.tell()
    except workspace.CannotRead:
        raise
    except (OSError, ValueError):
        return False
    return header == (shape, False, np.dtype(np.uint8)) and length == int(np.prod(shape))


def map_pixels(file: Path) -> np.ndarray:
    """The array of a .npy file: a memory map, or a copy in memory where a disk takes no maps.

    Raises:
        CannotRead: the disk fails; or it takes no maps, and there is too little memory.
    """
    with workspace.saying_what_fails(file):
        try:
            return np.lib.format.open_memmap(file, mode="r")
        except OSError as error:
            if error.errno not in workspace.NO_MAPS or not file.is_file():
                raise
            if file.stat().st_size > psutil.virtual_memory().available / 2:
                raise workspace.CannotRead(
                    f"ATTENTION_DATA: the disk of {file} takes no memory maps ({error.strerror}), "
                    f"and its {file.stat().st_size / 1e9:.1f} GB are too much for the memory here. "
                    "Set ATTENTION_DATA to a folder on a disk of this machine, and run "
                    "01_download.ipynb and 02_preprocess.ipynb again"
                ) from error
            print(f"the disk of {file} takes no memory maps: it is read into memory", flush=True)
            return np.load(file)


def open_cache(file: str) -> np.ndarray:
    """The memory map [N, S, S, ...] of a cache file.

    Raises:
        ValueError: the file is gone, or is no whole cache; 02 makes it again.
        CannotRead: as `map_pixels`.
    """
    try:
        pixels = map_pixels(workspace.placed(file))
    except workspace.CannotRead:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file} cannot be read as a cache ({error}): run 02_preprocess.ipynb again"
        ) from error
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise ValueError(f"{file} is no cache of pixels: run 02_preprocess.ipynb again")
    return pixels
