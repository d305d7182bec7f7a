"""What the values of masks mean: which of them is lesion, found from all masks of a folder.

A mask is looked at once (`look`), and what all of them hold is weighed together (`understand`).
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from helpers.photographs import reading

GREY = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L")  # Pillow's words for one channel
FEW = 8  # a mask with more values has noise or soft edges; of so few each may be a label
ROUNDED = 0.98  # of the largest value: what is larger was rounded to another, 254 for 255
FRAME = 0.08  # of the shorter side: a straight edge nearer to the border is a frame's
NOISE = 1 / 8  # of the distance of the two levels: so far from them lies what is noise
BESIDE = 0.25  # share of pixels further from both levels that edges and noise explain
THIRD = 0.005  # share of pixels that, heaped between both levels, are one more
ALL_ROUND = 0.98  # share of the border's pixels that makes it one level's
HOLE = 0.01  # share of the picture that is no speck


class Marks(NamedTuple):
    """What one mask holds."""

    width: int  # pixels, upright as its EXIF says
    height: int
    levels: tuple[float, ...]  # its values: background's and lesion's in either order; 1 or more
    noisy: bool  # whether it has values beside its levels
    solid: bool  # whether each level fills a square of 3 pixels somewhere
    beside: float  # share of pixels that lie far from its levels
    heaped: float  # share of pixels in areas of a further level between these
    area: float  # share of pixels nearer to its upper level
    border: float  # the same of its outermost pixels
    nested: bool  # whether what its border is stands also inside what its border is not
    framed: bool  # whether its border is a band of one value along all sides
    values: frozenset[float]  # all of them, if they are FEW


def read_grey(path: Path, content: bytes) -> np.ndarray:
    """The bytes of a mask as one number a pixel [H, W], at the file's own depth. Raises ValueError.

    Colours become their brightness, or, where that tells them badly apart (red on green), the
    channel that does it best.
    """
    header = reading.judge(path, content)
    # at its own depth: of 16 bits, 8 would leave black what is below 256
    flags = cv2.IMREAD_GRAYSCALE if header.mode in GREY else cv2.IMREAD_COLOR
    pixels = reading.decode_opaque(path, content, header, flags | cv2.IMREAD_ANYDEPTH)
    if not np.isfinite(pixels).all():
        raise reading.refusal(path, "it holds values that are no numbers")
    if pixels.ndim == 2:
        return pixels
    if (pixels[..., :2] == pixels[..., 1:]).all():
        return pixels[..., 0]
    grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    spreads = np.ptp(pixels.astype(float), axis=(0, 1))  # [3]
    if np.ptp(grey.astype(float)) < spreads.max() / 4:
        return pixels[..., spreads.argmax()]
    return grey


def histogram(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of a mask in rising order, and how many pixels have each."""
    if grey.dtype.kind != "u":
        values, counts = np.unique(grey, return_counts=True)
        return values.astype(float), counts
    counts = np.bincount(grey.ravel())
    values = np.flatnonzero(counts)
    return values.astype(float), counts[values]


def levels_of(
    grey: np.ndarray, values: np.ndarray, counts: np.ndarray
) -> tuple[tuple[float, ...], bool]:
    """The values that a mask is made of, and whether each fills a square of 3 pixels somewhere.

    More than two where it has few values and each of them fills such squares: edges do not, labels
    do.

    Args:
        grey: the mask [H, W].
        values, counts: its `histogram`.
    """
    ends = tuple(np.unique(values[[0, -1]]).tolist())
    if len(values) <= FEW:
        square = np.ones((3, 3), np.uint8)
        whole = []
        for value in values.tolist():
            if cv2.erode((grey == value).astype(np.uint8), square).any():
                whole.append(value)
        whole = [value for value in whole if not ROUNDED * whole[-1] < value < whole[-1]]
        if len(values) <= 2 or len(whole) < 2:
            return ends, len(whole) == len(ends)
        return tuple(whole), True
    if len(values) > 256:
        counts, edges = np.histogram(values, bins=256, weights=counts)
        values = (edges[:-1] + edges[1:]) / 2
    lower = values < sum(ends) / 2
    low = values[lower][counts[lower].argmax()].item()
    return (low, values[~lower][counts[~lower].argmax()].item()), True


def look(path: Path, content: bytes) -> Marks:
    """What the bytes of a mask hold. Raises ValueError for what is no picture."""
    grey = read_grey(path, content)
    H, W = grey.shape
    values, counts = histogram(grey)
    levels, solid = levels_of(grey, values, counts)
    if len(levels) != 2:
        return Marks(
            W, H, levels, False, solid, 0.0, 0.0, 1.0, 1.0, False, False, frozenset(levels)
        )
    low, high = levels
    shares = counts / grey.size
    away = np.minimum(np.abs(values - low), np.abs(values - high))
    upper = grey > (low + high) / 2
    border = ring(upper, 0).mean()
    of_border = upper if border > 0.5 else ~upper
    inside = of_border & ~reaching_border(of_border)
    return Marks(
        width=W,
        height=H,
        levels=levels,
        noisy=len(values) > 2,
        solid=solid,
        beside=float(shares[away > NOISE * (high - low)].sum()),
        heaped=heaped_between(grey, levels, values, shares),
        area=float(shares[values > (low + high) / 2].sum()),
        border=float(border),
        nested=bool(inside.mean() > HOLE),
        framed=is_framed(of_border),
        values=frozenset(values.tolist() if len(values) <= FEW else ()),
    )


def heaped_between(
    grey: np.ndarray, levels: tuple[float, float], values: np.ndarray, shares: np.ndarray
) -> float:
    """The share of pixels of a third level between two, each within a square of 3 such pixels.

    Soft edges are spread evenly between the two, or narrow. Labels, even a JPEG's, are heaped about
    their value, and areas.

    Args:
        grey: the mask [H, W].
        levels: its two.
        values, shares: its histogram.
    """
    heights, ends = np.histogram(values, bins=16, range=levels, weights=shares)
    between = heights[2:-2]  # 12 of 16: beside the levels is noise
    heaps = between[:-1] + between[1:]  # of two neighbours, since its value may lie at a bin's end
    place = heaps.argmax()
    if heaps[place] <= max(8 * np.median(between), THIRD):
        return 0.0
    heap = (grey >= ends[2 + place]) & (grey <= ends[4 + place])
    return float(cv2.erode(heap.astype(np.uint8), np.ones((3, 3), np.uint8)).mean())


def ring(pixels: np.ndarray, depth: int) -> np.ndarray:
    """The pixels of [H, W] that are so far from the border: its outermost for 0."""
    H, W = pixels.shape
    inner = pixels[depth : H - depth, depth : W - depth]
    return np.concatenate([inner[0], inner[-1], inner[1:-1, 0], inner[1:-1, -1]])


def reaching_border(pixels: np.ndarray) -> np.ndarray:
    """Those of `pixels` that hang together with some at the border, bool [H, W]."""
    count, parts = cv2.connectedComponents(pixels.astype(np.uint8))
    reaches = np.zeros(count, bool)
    reaches[ring(parts, 0)] = True
    return reaches[parts] & pixels


def is_framed(of_border: np.ndarray) -> bool:
    """Whether [H, W], True where it is as its border, is so all along, and all at once no more.

    Lesions are round: the rings that they reach become theirs little by little.
    """
    for depth in range(1 + round(FRAME * min(of_border.shape))):
        share = ring(of_border, depth).mean()
        if share < ALL_ROUND:
            return depth > 0 and bool(share < 0.5)
    return False


def understand(marks: dict[str, Marks]) -> tuple[dict, dict[str, str]]:
    """What lesion and background are in a folder of masks.

    Two values are expected, the upper of them lesion's. Lesions lie within their photographs: where
    the borders of most masks are of the upper value all round, the lower is lesion's.

    Args:
        marks: what each mask holds, by its file's name.

    Returns:
        The part of `masks_say` that says what the values mean: `levels` (the two of most masks),
        `threshold` between them, `inverted` (whether lesion is below it), `thresholds` of those
        masks, by name, whose levels are others, and the counts of `count`; and why each of the rest
        cannot be used.

    Raises:
        ValueError: the folder as a whole cannot be understood.
    """
    why = unclear(marks)
    two = {name: mark for name, mark in marks.items() if name not in why and len(mark.levels) == 2}
    constant = {name: mark for name, mark in marks.items() if len(mark.levels) == 1}
    if not two:
        if why:
            return {}, why
        raise ValueError(
            f"masks: each of {len(marks)} holds one value alone (the first {next(iter(marks))}): "
            "they mark all of their photographs, or nothing. Name other masks, or set `masks` to ''"
        )
    counts = Counter(mark.levels for mark in two.values())
    low, high = max(counts, key=lambda levels: (counts[levels], levels))
    threshold = (low + high) / 2
    thresholds = {}
    for name, mark in list(two.items()):
        between = mark.levels[0] < threshold < mark.levels[1]
        faint = np.ptp(mark.levels) < (high - low) / 4
        if not between and faint and (mark.noisy or not mark.solid):
            constant[name] = two.pop(name)  # nothing but noise about one value
        elif mark.noisy and abs(mark.levels[0] - low) > NOISE * (high - low):
            why[name] = (
                f"the commonest values of {name} are {mark.levels[0]:g} and {mark.levels[1]:g}, of "
                f"most masks {low:g} and {high:g}: it seems to be a photograph, or of other origin"
            )
            del two[name]
        elif not between:
            thresholds[name] = sum(mark.levels) / 2
    inverted = is_inverted(two)
    why |= reversed_ones(two, inverted)
    why |= background_alone(constant, two, NOISE * (high - low), inverted)
    for name, mark in constant.items():
        value = mark.levels[0]
        if name not in why and (value > threshold) == inverted:  # lesion of other levels
            thresholds[name] = value if inverted else value - 1
    say = {"levels": [low, high], "threshold": threshold, "inverted": inverted}
    return {**say, "thresholds": thresholds, **count(two, constant, inverted)}, why


def background_alone(
    constant: dict[str, Marks], two: dict[str, Marks], noise: float, inverted: bool
) -> dict[str, str]:
    """Why masks of one value cannot be used, by name: it is not that of lesion in other masks.

    Args:
        constant: masks of one value.
        two: masks of two.
        noise: so far from a level lies what is of that level.
        inverted: whether lesion is the lower of two values.
    """
    is_lesion: dict[float, set[bool]] = {}  # what each level means
    for lower, upper in {mark.levels for mark in two.values()}:
        is_lesion.setdefault(lower, set()).add(inverted)
        is_lesion.setdefault(upper, set()).add(not inverted)
    why = {}
    for name, mark in constant.items():
        value = mark.levels[0]
        exact = is_lesion.get(value, set())
        near = [meant for level, meant in is_lesion.items() if abs(value - level) <= noise]
        meant = exact or set().union(*near)
        if meant == {False}:
            why[name] = f"{name} marks nothing: every pixel is {value:g}, as the background is"
        elif meant != {True}:
            why[name] = f"every pixel of {name} is {value:g}: no other mask tells whether as lesion"
    return why


def unclear(marks: dict[str, Marks]) -> dict[str, str]:
    """Why masks cannot be used whatever the others hold, by name."""
    why = {}
    labels = {mark.values for mark in marks.values() if len(mark.levels) > 2}
    for name, mark in marks.items():
        # a small lesion may show but lines of a label that others show well
        if len(mark.values) > 2 and any(mark.values <= more for more in labels):
            values = ", ".join(f"{value:g}" for value in sorted(mark.values))
            why[name] = (
                f"{name} holds {len(mark.values)} values, {values}: which of them are lesion "
                "cannot be told; save it with two"
            )
        elif mark.heaped > THIRD:
            why[name] = (
                f"{name} holds more than two values: {mark.heaped:.1%} of its pixels are areas "
                f"between {mark.levels[0]:g} and {mark.levels[1]:g}. Which of them are lesion "
                "cannot be told; save it with two"
            )
        elif mark.beside > BESIDE:
            why[name] = (
                f"{name} is no mask of two values: {mark.beside:.0%} of its pixels lie between or "
                "beside its commonest, as in a photograph or a map of probabilities; save lesion "
                "as white and the rest as black"
            )
        elif mark.framed:
            why[name] = f"{name} has a frame along its border, of the lesion's value; cut it off"
    return why


def is_inverted(two: dict[str, Marks]) -> bool:
    """Whether lesion is the lower of the two values, by the borders of most masks.

    Raises:
        ValueError: the borders speak against either reading.
    """
    upper = [mark.border >= ALL_ROUND and mark.area < 1 - HOLE for mark in two.values()]
    lower = [mark.border <= 1 - ALL_ROUND for mark in two.values()]
    inverted = sum(upper) > sum(lower)
    nested = [name for name, mark in two.items() if mark.nested]
    if len(nested) > len(two) / 2:
        raise ValueError(
            f"masks: in {len(nested)} of {len(two)} (the first {nested[0]}) the value of the "
            "border stands also within what it surrounds: outlines in place of areas, or a frame. "
            "Fill the outlines, cut the frame off, or set `masks` to ''"
        )
    touching = [name for name, mark in two.items() if lesion_of(mark, inverted)[1] > 0.5]
    if len(touching) > len(two) / 2:
        raise ValueError(
            f"masks: {len(touching)} of {len(two)} (the first {touching[0]}) are lesion along most "
            "of their border, if the others are read rightly: it cannot be told which of their two "
            "values is lesion. Save lesion as white within black, or set `masks` to ''"
        )
    return inverted


def lesion_of(mark: Marks, inverted: bool) -> tuple[float, float]:
    """The share of lesion in the picture, and along its border."""
    if inverted:
        return 1 - mark.area, 1 - mark.border
    return mark.area, mark.border


def reversed_ones(two: dict[str, Marks], inverted: bool) -> dict[str, str]:
    """Why masks cannot be used whose lesion is the background of the others, by name.

    Lesion all along the border and something else within shows one. Where there is one, all that
    are lesion along most of their border may be others; where there is none, they are large ones.
    """
    sure = []
    doubtful = []
    for name, mark in two.items():
        area, border = lesion_of(mark, inverted)
        if border > 0.5 and area < 1 - HOLE:
            doubtful.append(name)
            if border >= ALL_ROUND:
                sure.append(name)
    if not sure:
        return {}
    why = {}
    for name in [*sure, *(name for name in doubtful if name not in sure)]:
        why[name] = (
            f"{name} is lesion along its border and something else within, unlike most masks of "
            "its folder: it seems to be black where they are white"
        )
    return why


def count(two: dict[str, Marks], constant: dict[str, Marks], inverted: bool) -> dict[str, int]:
    """How many masks are worth a look: noisy, nearly all lesion, or lesion at the border."""
    shares = [lesion_of(mark, inverted) for mark in two.values()]
    shares += [(1.0, 1.0) for _ in constant]
    return {
        "noisy": sum(mark.noisy for mark in two.values()),
        "nearly_all": sum(area > 0.9 for area, _ in shares),
        "at_the_border": sum(border > 0.5 for _, border in shares),
    }
