"""One photograph under two ids, found in the pixels: for deeper/leaks_and_shortcuts and `pairs`.

No id and no list tells of such pairs. A perceptual hash (ImageHash) proposes them, in all eight
flips and rotations; dermoscopic photographs are all a dark blob on skin, so most proposals are
wrong, and the aligned pixels decide.
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

from helpers import workspace
from helpers.photographs.reading import read_photograph

SIDE = 64  # of the grey thumbnails that are hashed and compared
BITS = 256  # of a hash, 16 x 16 coefficients: with 64 bits any two blobs look alike
DISTANCE = 64  # bits in which the hashes of a pair may differ
SAME = 0.98  # correlation of aligned pixels above which two photographs are one
OVERLAP = 0.85  # share of the first photograph that the second, once aligned, must cover


def find_lookalikes(
    paths: Sequence[Path],
    ids: Sequence[str],
    *,
    distance: int = DISTANCE,
) -> pd.DataFrame:
    """Pairs of photographs that may be one, best first: a row each.

    60,487 photographs take some five minutes on two cores and 0.4 GB: thumbnails are kept, every
    pair is compared, no table of all pairs is made.

    Args:
        paths: of the photographs, N.
        ids: theirs, N different ones.
        distance: how many of 256 bits of their hashes may differ, 0 to 128.

    Returns:
        first, second (of `ids`, in their order), distance, orientation (0 to 7: `orient` of the
        second that shows it as the first), correlation (`correlate`, -1 to 1), same (correlation
        above SAME: to be merged; the rest only to be looked at).

    Raises:
        ValueError: a file is no photograph, an id stands twice, or `distance` is out of range.
    """
    paths = list(paths)
    ids = list(ids)
    if len(paths) != len(ids) or len(set(ids)) < len(ids):
        raise ValueError(
            f"expected an id of its own for each path; {len(paths)} paths, {len(set(ids))} "
            "different ids"
        )
    if not 0 <= distance <= 128:
        raise ValueError(f"distance is 0 to 128 bits of {BITS}, not {distance}")
    thumbnails, hashes = read_all(paths)
    rows = []
    for first, second, orientation, bits in near(hashes, distance):
        turned = orient(thumbnails[second], orientation)
        correlation = correlate(thumbnails[first], turned)
        same = correlation > SAME
        rows.append((ids[first], ids[second], bits, orientation, correlation, same))
    columns = ["first", "second", "distance", "orientation", "correlation", "same"]
    pairs = pd.DataFrame(rows, columns=columns)
    pairs = pairs.astype({"distance": int, "orientation": int, "correlation": float, "same": bool})
    pairs = pairs.sort_values(["correlation", "distance"], ascending=[False, True], kind="stable")
    # each pair in its best orientation
    return pairs.drop_duplicates(["first", "second"]).reset_index(drop=True)


def read_all(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """The thumbnails [N, SIDE, SIDE] and hashes [N, 8, 4] of photographs, read on all cores."""
    N = len(paths)
    thumbnails = np.empty((N, SIDE, SIDE), np.uint8)
    hashes = np.empty((N, 8, BITS // 64), np.uint64)

    def read(row: int) -> None:
        thumbnails[row] = thumbnail(paths[row])
        hashes[row] = hash_all(thumbnails[row])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(read, range(N))
        for _ in workspace.progress("hash", done, N):
            pass
    return thumbnails, hashes


def thumbnail(path: Path) -> np.ndarray:
    """A photograph in grey, uint8 [SIDE, SIDE].

    Raises:
        ValueError: it is missing, damaged or no photograph.
    """
    pixels = read_photograph(path, at_least=SIDE)  # [H, W, 3]
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)  # [H, W]
    return cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def orient(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """One of the eight flips and rotations of a picture.

    Args:
        pixels: [H, W, ...].
        orientation: 0 to 7; from 4 on, left and right are exchanged first, then it is turned left
            by `orientation % 4` quarters.

    >>> orient(np.array([[1, 2, 3]]), 1).tolist()
    [[3], [2], [1]]
    """
    if orientation >= 4:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(np.rot90(pixels, orientation % 4))


def hash_all(pixels: np.ndarray) -> np.ndarray:
    """The perceptual hashes of a thumbnail [H, W] in its eight orientations: uint64 [8, 4]."""
    bits = []
    for orientation in range(8):
        picture = Image.fromarray(orient(pixels, orientation))
        bits.append(imagehash.phash(picture, hash_size=int(BITS**0.5)).hash.ravel())
    return np.packbits(bits, axis=1).view(np.uint64)


def near(hashes: np.ndarray, distance: int) -> list[tuple[int, int, int, int]]:
    """The pairs whose hashes differ in at most `distance` bits.

    All N * N / 2 * 8 distances, 64 bits at a time; three words are counted for all and the fourth
    only where it matters (three hold at most 192 bits, so that a byte is enough).

    Args:
        hashes: uint64 [N, 8, 4].
        distance: 0 to 128.

    Returns:
        (first, second, orientation, bits) wherever hash [first, 0] and [second, orientation] are
        near, first < second.
    """
    words = np.ascontiguousarray(hashes.T)  # [4, 8, N]
    pairs = []
    for first in workspace.progress("compare", range(len(hashes) - 1)):
        own = words[:, 0, first]  # [4]
        rest = words[:, :, first + 1 :]  # [4, 8, n]
        apart = np.bitwise_count(rest[0] ^ own[0])  # [8, n] uint8
        for word in (1, 2):
            apart += np.bitwise_count(rest[word] ^ own[word])
        orientations, others = np.nonzero(apart <= distance)
        last = np.bitwise_count(rest[3, orientations, others] ^ own[3])
        bits = apart[orientations, others].astype(int) + last
        for place in np.flatnonzero(bits <= distance):
            second = first + 1 + int(others[place])
            pairs.append((first, second, int(orientations[place]), int(bits[place])))
    return pairs


def correlate(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation of two thumbnails, as they lie or registered, whichever is larger.

    Registered: the second is shifted, stretched and turned a little (an affine map found by
    OpenCV's `findTransformECC`, Evangelidis and Psarakis, PAMI 2008), since a second id often comes
    with a slightly different crop; the correlation is that of the pixels that both show, at least
    OVERLAP of them.

    Args:
        first, second: uint8 [H, W].

    Returns:
        -1 to 1; 0 for a photograph of one colour, which correlates with nothing.
    """
    lying = pearson(first.ravel(), second.ravel())
    start = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 30, 1e-3)
    try:
        _, warp = cv2.findTransformECC(first, second, start, cv2.MOTION_AFFINE, stop)
    except cv2.error:  # no map was found
        return lying
    size = first.shape[::-1]
    whole = np.ones_like(second)
    shown = cv2.warpAffine(whole, warp, size, flags=cv2.WARP_INVERSE_MAP | cv2.INTER_NEAREST) > 0
    if shown.mean() < OVERLAP:
        return lying
    moved = cv2.warpAffine(second, warp, size, flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR)
    return max(lying, pearson(first[shown], moved[shown]))


def pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of two rows of numbers [N]; 0 where one of them is constant.

    >>> round(pearson(np.array([1, 2, 3]), np.array([2, 4, 7])), 3)
    0.993
    """
    first = first - first.mean()
    second = second - second.mean()
    norm = np.sqrt((first @ first) * (second @ second))
    if norm == 0:
        return 0.0
    return float(first @ second / norm)
