"""The pixel cache: photographs decoded once into one memory-mapped file, for notebook 02 and all that read it after.

The file is filled chunk by chunk on all cores and renamed into place when it is whole. Beside it lies a checksum a
chunk: a build that was cut off goes on where it stopped, and a damaged file is found before anything learns from it.
"""

import hashlib
import os
import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from helpers import workspace
from helpers.photographs.reading import CHUNK, decode, decode_mask


def cache_side(image_size: int) -> int:
    """Side of the cached squares: an eighth or so larger than the network's input, room for rotation and zoom."""
    return image_size * 8 // 7


def build_cache(dataset: dict, split: pd.DataFrame, *, image_size: int) -> dict:
    """Decode the used rows once into memory-mapped uint8 squares in true colours; returns the content of `cache.json`.

    `data/cache/<key>.npy` is [N, S, S, 3], red first; `<key>-masks.npy`, where there are masks, [N, S, S], 0 to 255,
    0 where a row has none. A file that is there is checked and used again. Raises ValueError and OSError as `fill`.
    """
    used = split[split["kept"] == 1]
    side, masked = cache_side(image_size), (used["mask"] != "").any()
    key = cache_key(dataset, split, side)
    orders = {source: one["order"] for source, one in dataset["colour_order_by_source"].items()}
    file = workspace.data_folder() / "cache" / f"{key}.npy"
    masks_file = file.with_name(f"{key}-masks.npy")
    paths = [Path(dataset["folder"]) / name for name in used["path"]]
    swapped = [orders[source] == "bgr" for source in used["source"]]
    masks = [Path(dataset["masks_folder"]) / name if name else None for name in used["mask"]]
    fill(
        file,
        (len(used), side, side, 3),
        lambda row: decode(paths[row], side, swapped[row]),
        "photographs",
    )
    if masked:
        fill(
            masks_file, (len(used), side, side), lambda row: decode_mask(masks[row], side), "masks"
        )
    return {
        "file": str(file),
        "masks_file": str(masks_file) if masked else "",
        "key": key,
        "side": side,
        "rows": used["image_id"].tolist(),
    }


def cache_key(dataset: dict, split: pd.DataFrame, side: int) -> str:
    """A hash of what goes into a cache; of the photographs: their folder, names and bytes together."""
    used = split[split["kept"] == 1]
    orders = {source: one["order"] for source, one in dataset["colour_order_by_source"].items()}
    masks_folder = dataset["masks_folder"] if (used["mask"] != "").any() else ""
    recipe = [
        workspace.FORMAT,
        dataset["sha256"],
        dataset["folder"],
        dataset["bytes"],
        side,
        orders,
        used["image_id"].tolist(),
        masks_folder,
        used["mask"].tolist(),
    ]
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]


def fill(file: Path, shape: tuple, decode_row: Callable[[int], np.ndarray], what: str) -> None:
    """Make the .npy file of uint8 rows that `decode_row` gives, or what is missing or damaged of it.

    Until it is whole it is called `<name>.part`; `<name>.crc` gains a line, `chunk checksum`, for each chunk written.
    A second process waits for the first. Raises ValueError where rows raise it, when all others are done, and OSError
    where the disk has no room; what is written stays for the next call.
    """
    part, sums = file.with_suffix(".part"), file.with_suffix(".crc")
    with workspace.locked(file):
        if file.exists():
            if has_shape(file, shape) and not damaged(file):
                return
            os.replace(file, part)  # its sound chunks need no second decoding
        if not has_shape(part, shape):
            sums.unlink(missing_ok=True)
            missing, free = int(np.prod(shape)), shutil.disk_usage(file.parent).free
            if missing > free:
                raise OSError(
                    f"the cache of {what} takes {missing / 1e9:.2f} GB, {file.parent} has {free / 1e9:.2f} "
                    "free: make room, set ATTENTION_DATA to a larger disk, or lower image_size or subsample"
                )
            np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        todo = damaged(part)
        row_bytes, start = int(np.prod(shape[1:])), part.stat().st_size - int(np.prod(shape))
        bad = {}

        def make(chunk: int) -> None:
            rows = range(chunk * CHUNK, min(chunk * CHUNK + CHUNK, shape[0]))
            squares = np.empty((len(rows), *shape[1:]), np.uint8)
            for place, row in enumerate(rows):
                try:
                    squares[place] = decode_row(row)
                except ValueError as error:
                    bad[row] = str(error)
                bar.update()
            if not bad.keys().isdisjoint(rows):
                return
            with part.open("r+b") as written, sums.open("a") as journal:
                written.seek(start + rows.start * row_bytes)
                written.write(squares)
                written.flush()
                journal.write(f"{chunk} {zlib.crc32(squares)}\n")

        with (
            tqdm(
                desc=what,
                total=shape[0],
                initial=max(0, shape[0] - len(todo) * CHUNK),
                disable=workspace.headless(),
            ) as bar,
            ThreadPoolExecutor(os.cpu_count()) as pool,
        ):
            jobs = [pool.submit(make, chunk) for chunk in todo]
            try:
                for job in jobs:
                    job.result()
            finally:  # an error, or the reader's stop, waits for the chunks under way, not for all
                pool.shutdown(cancel_futures=True)
        if bad:
            todo = (
                "Replace or delete them (a photograph needs no mask) and run 02_preprocess"
                if what == "masks"
                else "01_download.ipynb finds and leaves out what is unusable: run it and 02_preprocess"
            )
            raise ValueError(
                f"{len(bad)} of {shape[0]} {what} cannot be used, the first: {min(bad.items())[1]}. "
                f"{todo} again"
            )
        os.replace(part, file)


def has_shape(file: Path, shape: tuple) -> bool:
    """Whether this is a .npy file of uint8 of that shape, as long as it should be."""
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return False
    return found.dtype == np.uint8 and found.shape == shape


def damaged(file: Path) -> list[int]:
    """The chunks whose bytes are not those that their checksums were taken of: all, where there are no checksums."""
    shape = np.load(file, mmap_mode="r").shape
    row_bytes, start = int(np.prod(shape[1:])), file.stat().st_size - int(np.prod(shape))
    sums, chunks = file.with_suffix(".crc"), range(-(-shape[0] // CHUNK))
    lines = [line.split() for line in sums.read_text().splitlines()] if sums.exists() else []
    expected = {
        line[0]: line[1] for line in lines if len(line) == 2
    }  # the last line of a chunk counts

    def sound(chunk: int) -> bool:
        if str(chunk) not in expected:
            return False
        with file.open("rb") as read:
            read.seek(start + chunk * CHUNK * row_bytes)
            rows = min(CHUNK, shape[0] - chunk * CHUNK)
            return str(zlib.crc32(read.read(rows * row_bytes))) == expected[str(chunk)]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [
            chunk for chunk, good in zip(chunks, pool.map(sound, chunks), strict=True) if not good
        ]


def open_cache(file: str) -> np.ndarray:
    """The memory map [N, S, S, ...] of a cache file. Raises ValueError, that says what to do, where it is damaged."""
    try:
        pixels, bad = np.load(file, mmap_mode="r"), damaged(Path(file))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file} cannot be read as a cache ({error}): run 02_preprocess.ipynb again"
        ) from error
    if bad:
        raise ValueError(
            f"{file} is damaged: {len(bad)} of its {-(-len(pixels) // CHUNK)} chunks of {CHUNK} rows "
            "are not those that were written. Run 02_preprocess.ipynb again: it repairs them"
        )
    return pixels
