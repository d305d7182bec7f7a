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

import cv2
import numpy as np
import pandas as pd
from filelock import FileLock
from tqdm.auto import tqdm

from helpers import workspace

CHUNK = 64  # rows that one core decodes, writes and sums up at a time; what bounds the memory: a chunk a core


def cache_side(image_size: int) -> int:
    """Side of the cached squares: an eighth or so larger than the network's input, room for rotation and zoom."""
    return image_size * 8 // 7


def build_cache(dataset: dict, split: pd.DataFrame, *, image_size: int) -> dict:
    """Decode the used rows once into memory-mapped uint8 squares in true colours; returns the content of `cache.json`.

    `data/cache/<key>.npy` is [N, S, S, 3], red first; `<key>-masks.npy`, where there are masks, [N, S, S], 0 to 255,
    0 where a row has none. The key is a hash of what goes in (of the photographs: their folder, names and bytes
    together). A file that is there is checked and used again. Raises ValueError as `decode` does, OSError as `fill`.
    """
    used = split[split["kept"] == 1]
    side = cache_side(image_size)
    orders = {source: one["order"] for source, one in dataset["colour_order_by_source"].items()}
    masked = bool((used["mask"] != "").any())
    recipe = [workspace.FORMAT, dataset["sha256"], dataset["folder"], dataset["bytes"], side, orders,
              used["image_id"].tolist(), dataset["masks_folder"] if masked else "", used["mask"].tolist()]
    key = hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]
    file = workspace.data_folder() / "cache" / f"{key}.npy"
    masks_file = file.with_name(f"{key}-masks.npy")
    paths = [Path(dataset["folder"]) / name for name in used["path"]]
    swapped = [orders[source] == "bgr" for source in used["source"]]
    fill(file, (len(used), side, side, 3), lambda row: decode(paths[row], side, swapped[row]), "photographs")
    if masked:
        masks = [Path(dataset["masks_folder"]) / name if name else None for name in used["mask"]]
        fill(masks_file, (len(used), side, side), lambda row: decode_mask(masks[row], side), "masks")
    return {"file": str(file), "masks_file": str(masks_file) if masked else "", "key": key, "side": side,
            "rows": used["image_id"].tolist()}


def fill(file: Path, shape: tuple, decode_row: Callable[[int], np.ndarray], what: str) -> None:
    """Make the .npy file of uint8 rows that `decode_row` gives, or what is missing or damaged of it.

    Until it is whole it is called `<name>.part`; `<name>.crc` gains a line, `chunk checksum`, for each chunk written.
    A second process waits for the first. Raises OSError where the disk has no room; what is written stays for the next.
    """
    part, sums = file.with_suffix(".part"), file.with_suffix(".crc")
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        if file.exists():
            if has_shape(file, shape) and not damaged(file):
                return
            os.replace(file, part)  # its sound chunks need no second decoding
        if not has_shape(part, shape):
            sums.unlink(missing_ok=True)
            missing, free = int(np.prod(shape)), shutil.disk_usage(file.parent).free
            if missing > free:
                raise OSError(f"the cache of {what} takes {missing / 1e9:.2f} GB, {file.parent} has {free / 1e9:.2f} "
                              "free: make room, set ATTENTION_DATA to a larger disk, or lower image_size or subsample")
            np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        todo = damaged(part)
        row_bytes, start = int(np.prod(shape[1:])), part.stat().st_size - int(np.prod(shape))

        def make(chunk: int) -> None:
            rows = range(chunk * CHUNK, min(chunk * CHUNK + CHUNK, shape[0]))
            squares = np.empty((len(rows), *shape[1:]), np.uint8)
            for place, row in enumerate(rows):
                squares[place] = decode_row(row)
                bar.update()
            with part.open("r+b") as written, sums.open("a") as journal:
                written.seek(start + rows.start * row_bytes)
                written.write(squares)
                written.flush()
                journal.write(f"{chunk} {zlib.crc32(squares)}\n")

        with tqdm(desc=what, total=shape[0], initial=max(0, shape[0] - len(todo) * CHUNK),
                  disable=workspace.headless()) as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = [pool.submit(make, chunk) for chunk in todo]
            try:
                for job in jobs:
                    job.result()
            finally:  # an error, or the reader's stop, waits for the chunks under way, not for all
                pool.shutdown(cancel_futures=True)
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
    expected = {line[0]: line[1] for line in lines if len(line) == 2}  # the last line of a chunk counts

    def sound(chunk: int) -> bool:
        if str(chunk) not in expected:
            return False
        with file.open("rb") as read:
            read.seek(start + chunk * CHUNK * row_bytes)
            rows = min(CHUNK, shape[0] - chunk * CHUNK)
            return str(zlib.crc32(read.read(rows * row_bytes))) == expected[str(chunk)]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [chunk for chunk, good in zip(chunks, pool.map(sound, chunks), strict=True) if not good]


def open_cache(file: str) -> np.ndarray:
    """The memory map [N, S, S, ...] of a cache file. Raises ValueError, that says what to do, where it is damaged."""
    try:
        pixels, bad = np.load(file, mmap_mode="r"), damaged(Path(file))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as a cache ({error}): run 02_preprocess.ipynb again") from error
    if bad:
        raise ValueError(f"{file} is damaged: {len(bad)} of its {-(-len(pixels) // CHUNK)} chunks of {CHUNK} rows "
                         "are not those that were written. Run 02_preprocess.ipynb again: it repairs them")
    return pixels


def decode(path: Path, side: int, swapped: bool) -> np.ndarray:
    """A photograph as a uint8 square [side, side, 3], red first. Raises ValueError for a file that is not one."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)                                    # [H, W, 3], blue first
    if pixels is None:
        raise ValueError(f"{path} cannot be decoded: it is missing, damaged or not a photograph")
    pixels = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    return pixels if swapped else pixels[..., ::-1]


def decode_mask(path: Path | None, side: int) -> np.ndarray:
    """A lesion mask squashed as its photograph was: uint8 [side, side], 0 to 255; zeros where there is none."""
    if path is None:
        return np.zeros((side, side), np.uint8)
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise ValueError(f"{path} cannot be decoded as a mask")
    return cv2.resize((mask > 0).astype(np.uint8) * 255, (side, side), interpolation=cv2.INTER_AREA)
