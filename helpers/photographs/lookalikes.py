"""One photograph under two ids, found in the pixels: for notebook deeper/leaks_and_shortcuts and the `pairs` of 02.

No id and no list tells of such pairs. A perceptual hash (ImageHash) proposes them, in all eight flips and rotations;
dermoscopic photographs are all a dark blob on skin, so most proposals are wrong, and the aligned pixels decide.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import imagehash
import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from helpers import workspace

SIDE = 64  # of the grey thumbnails that are hashed and compared
BITS = 256  # of a hash, 16 x 16 coefficients: with 64 bits any two blobs look alike
DISTANCE = 64  # bits in which the hashes of a pair may differ
SAME = 0.98  # correlation of aligned pixels above which two photographs are one
OVERLAP = 0.85  # share of the first photograph that the second, once aligned, must cover


def find_lookalikes(
    paths: Sequence[Path], ids: Sequence[str], *, distance: int = DISTANCE
) -> pd.DataFrame:
    """Pairs of photographs whose hashes differ in at most `distance` of 256 bits, best first: a row each.

    Columns: first, second (of `ids`, in their order), distance, orientation (0 to 7: `orient` of the second that shows
    it as the first), correlation (`correlate`, -1 to 1), same (correlation above SAME: to be merged; the rest only to
    be looked at). 60,487 photographs take some five minutes on two cores and 0.4 GB: thumbnails are kept, every pair is
    compared, no table of all pairs is made. Raises ValueError for a file that is no photograph, an id that stands
    twice, or a `distance` outside 0 to 128.
    """
    paths, ids = list(paths), list(ids)
    if len(paths) != len(ids) or len(set(ids)) < len(ids):
        raise ValueError(
            f"expected an id of its own for each path; {len(paths)} paths, {len(set(ids))} different ids"
        )
    if not 0 <= distance <= 128:
        raise ValueError(f"distance is 0 to 128 bits of {BITS}, not {distance}")
    thumbnails, hashes = (
        np.empty((len(paths), SIDE, SIDE), np.uint8),
        np.empty((len(paths), 8, BITS // 64), np.uint64),
    )

    def read(row: int) -> None:
        thumbnails[row] = thumbnail(paths[row])
        hashes[row] = hash_all(thumbnails[row])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(
            tqdm(
                pool.map(read, range(len(paths))),
                desc="hash",
                total=len(paths),
                disable=workspace.headless(),
            )
        )
    rows = []
    for first, second, orientation, apart in near(hashes, distance):
        correlation = correlate(thumbnails[first], orient(thumbnails[second], orientation))
        rows.append((ids[first], ids[second], apart, orientation, correlation, correlation > SAME))
    found = pd.DataFrame(
        rows, columns=["first", "second", "distance", "orientation", "correlation", "same"]
    )
    found = found.astype({"distance": int, "orientation": int, "correlation": float, "same": bool})
    found = found.sort_values(["correlation", "distance"], ascending=[False, True], kind="stable")
    return found.drop_duplicates(["first", "second"]).reset_index(
        drop=True
    )  # each pair in its best orientation


def thumbnail(path: Path) -> np.ndarray:
    """A photograph in grey, uint8 [SIDE, SIDE]. JPEG is decoded at a quarter of its side where that is enough."""
    pixels = cv2.imread(str(path), cv2.IMREAD_REDUCED_GRAYSCALE_4)  # [H/4, W/4]
    if pixels is not None and min(pixels.shape) < SIDE:
        pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)  # [H, W]
    if pixels is None:
        raise ValueError(f"{path} cannot be decoded: it is missing, damaged or not a photograph")
    return cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def orient(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """[H, W, ...] turned left by `orientation % 4` quarters; from 4 on, left and right are exchanged first."""
    return np.ascontiguousarray(
        np.rot90(pixels[:, ::-1] if orientation >= 4 else pixels, orientation % 4)
    )


def hash_all(pixels: np.ndarray) -> np.ndarray:
    """The perceptual hash of a thumbnail in its eight orientations: uint64 [8, 4], 256 bits each."""
    side = int(BITS**0.5)
    bits = [
        imagehash.phash(Image.fromarray(orient(pixels, number)), hash_size=side).hash
        for number in range(8)
    ]
    return np.packbits(np.reshape(bits, (8, BITS)), axis=1).view(np.uint64)


def near(hashes: np.ndarray, distance: int) -> list[tuple[int, int, int, int]]:
    """(first, second, orientation, bits) wherever hash [first, 0] and [second, orientation], first < second, are near.

    hashes: uint64 [N, 8, 4]. All N * N / 2 * 8 distances, 64 bits at a time; three words are counted for all and the
    fourth only where it matters (three hold at most 192 bits, so that a byte is enough).
    """
    words = np.ascontiguousarray(hashes.T)  # [4, 8, N]
    found = []
    for first in tqdm(range(len(hashes) - 1), desc="compare", disable=workspace.headless()):
        rest, own = words[:, :, first + 1 :], words[:, 0, first]  # [4, 8, n] and [4]
        apart = np.bitwise_count(rest[0] ^ own[0])  # [8, n] uint8
        for word in (1, 2):
            apart += np.bitwise_count(rest[word] ^ own[word])
        orientation, other = np.nonzero(apart <= distance)
        last = np.bitwise_count(rest[3, orientation, other] ^ own[3])
        for o, n, bits in zip(
            orientation, other, apart[orientation, other].astype(int) + last, strict=True
        ):
            if bits <= distance:
                found.append((first, first + 1 + int(n), int(o), int(bits)))
    return found


def correlate(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation of two thumbnails, as they lie or once the second is registered, whichever is larger.

    Registered: shifted, stretched and turned a little (an affine map found by OpenCV's `findTransformECC`, Evangelidis
    and Psarakis, PAMI 2008), since a second id often comes with a slightly different crop; the correlation is that of
    the pixels that both show, at least OVERLAP of them. A photograph of one colour correlates with nothing: 0.
    """
    lying = pearson(first.ravel(), second.ravel())
    size, flags = first.shape[::-1], cv2.WARP_INVERSE_MAP
    try:
        stop = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 30, 1e-3)
        _, warp = cv2.findTransformECC(
            first, second, np.eye(2, 3, dtype=np.float32), cv2.MOTION_AFFINE, stop
        )
    except cv2.error:  # no map was found
        return lying
    shown = cv2.warpAffine(np.ones_like(second), warp, size, flags=flags | cv2.INTER_NEAREST) > 0
    if shown.mean() < OVERLAP:
        return lying
    moved = cv2.warpAffine(second, warp, size, flags=flags | cv2.INTER_LINEAR)
    return max(lying, pearson(first[shown], moved[shown]))


def pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of two rows of numbers; 0 where one of them is constant."""
    first, second = first - first.mean(), second - second.mean()
    norm = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / norm) if norm > 0 else 0.0
