"""Masks of lesions: find them, join them to photographs by name, and read what they mark.

People store lesion and background as 255 and 0, 1 and 0, 2 and 1, black on white, with a JPEG's
noise. What the two values are is decided once for a folder, from all its masks (`understand`), kept
as `masks_say` in dataset.json, and printed; a mask that this does not explain is refused.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np

from helpers import workspace
from helpers.photographs import archives, identity, reading
from helpers.photographs.kaggle import fetch
from helpers.photographs.layout import walk
from helpers.photographs.reading import Header, read_bytes
from helpers.photographs.table import TWIN, tidy

# what ends a mask's name before the dot, in letters of any case: _segmentation, " mask", -lesion
SUFFIX = re.compile(r"[ _.-]+(segmentation|seg|mask|lesion|ground_?truth|gt)$", re.IGNORECASE)
FOLDERS = ("masks", "mask", "segmentations", "segmentation", "groundtruth")  # any case, for "auto"
GREY = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L")  # Pillow's words for one channel
FEW = 8  # a mask with more values has noise or soft edges; of so few each may be a label
ROUNDED = 0.98  # of the largest value: what is larger was rounded to another, 254 for 255
FRAME = 0.08  # of the shorter side: a straight edge nearer to the border is a frame's
NOISE = 1 / 8  # of the distance of the two levels: so far from them lies what is noise
BESIDE = 0.25  # share of pixels further from both levels that edges and noise explain
THIRD = 0.005  # share of pixels that, heaped between both levels, are one more
ALL_ROUND = 0.98  # share of the border's pixels that makes it one level's
HOLE = 0.01  # share of the picture that is no speck
ALIKE = 0.02  # by so much width / height of two pictures of one shape may differ


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


class Reading(NamedTuple):
    """How a mask is read."""

    threshold: float  # between the values of lesion and background
    inverted: bool = False  # whether lesion is what is not above it
    orientation: int = 1  # EXIF's, by which the mask is turned onto its photograph


# names and folders


def join(
    image_ids: Iterable[str], names: Iterable[str], *, plain: bool
) -> tuple[dict[str, str], list[str]]:
    """Find the mask of each photograph by its file's name.

    `<image_id>_segmentation.png`, with another word of SUFFIX or none. Capitals, signs and blanks
    do not count where that leaves no doubt. `ISIC_x_downsampled` without one of its own has that of
    `ISIC_x`, the same photograph: ISIC offers no other.

    Args:
        image_ids: of the table.
        names: of files, which may have folders before them; what is no picture is left out.
        plain: whether `<image_id>.png` is a mask, too.

    Returns:
        The name of the mask by the id of each photograph that has one, and the names of masks that
        no photograph has.

    Raises:
        ValueError: a photograph has two.

    >>> join(["A_1", "B"], ["m/a-1 Mask.PNG", "C_segmentation.png", "B.png"], plain=False)
    ({'A_1': 'm/a-1 Mask.PNG'}, ['C_segmentation.png'])
    """
    image_ids = list(image_ids)
    wanted = {*image_ids, *(image_id.removesuffix(TWIN) for image_id in image_ids)}
    files: dict[str, list[str]] = {}  # by the image id that they say
    for name in sorted(names):
        stem, ending = os.path.splitext(PurePosixPath(name).name)
        if ending.lower() not in reading.ENDINGS or stem.startswith("."):
            continue
        said = ids_said(stem)
        if not plain:
            said = said[1:]
        if said:
            own = next((image_id for image_id in said if image_id in wanted), said[-1])
            files.setdefault(own, []).append(name)
    ids_of_key = identity.spellings(wanted, identity.photograph_key)
    files_of_key = identity.spellings(files.keys() - wanted, identity.photograph_key)
    joined = {}
    for image_id in image_ids:
        for own in (image_id, image_id.removesuffix(TWIN)):
            key = identity.photograph_key(own)
            said = [own] if own in files else files_of_key.get(key, [])
            own_names = [name for spelling in said for name in files[spelling]]
            if not own_names or (own not in files and len(ids_of_key[key]) > 1):
                continue
            if len(own_names) > 1:
                raise ValueError(
                    f"masks: {image_id} has two, {own_names[0]} and {own_names[1]}: keep one"
                )
            joined[image_id] = own_names[0]
            break
    used = set(joined.values())
    return joined, [name for names in files.values() for name in names if name not in used]


def ids_said(stem: str) -> list[str]:
    """The image ids that a file's name may say: as it is, and with one word after another left out.

    >>> ids_said("A_lesion_mask")
    ['A_lesion_mask', 'A_lesion', 'A']
    """
    said = [tidy(stem)]
    while SUFFIX.search(said[-1]):
        said.append(identity.image_id(tidy(SUFFIX.sub("", said[-1]))))
    return said


def is_named_as_mask(name: str, image_ids: set[str]) -> bool:
    """Whether a file beside photographs is the mask of one, and itself none of them."""
    own, *others = ids_said(os.path.splitext(name)[0])
    return own not in image_ids and not image_ids.isdisjoint(others)


def of_masks(folder: Path, masks: str) -> bool:
    """Whether a folder is one of masks by its name, or lies in what the parameter `masks` names."""
    named = workspace.resolve(masks) if masks not in ("", "auto") else None
    return folder.name.casefold() in FOLDERS or named in (folder, *folder.parents)


def find_masks(
    masks: str, beside: Path, photographs: Path, image_ids: Iterable[str]
) -> tuple[Path | None, dict[str, str], list[str]]:
    """The folder of the masks that the parameter `masks` names, and whose they are.

    Args:
        masks: as in `sources.find_dataset`.
        beside: the folder of the table.
        photographs: that of the photographs, where names without a word are photographs'.
        image_ids: of the table.

    Returns:
        The folder in or below which they lie (None without masks), and what `join` returns.

    Raises:
        ValueError: there is none, or a photograph has two.
    """
    if masks == "":
        return None, {}, []
    if masks == "auto":
        places = [path for path in beside.iterdir() if path.name.casefold() in FOLDERS]
        places = [path for path in places if path.is_dir()]
        if not places:  # they may lie among the photographs
            joined, others = join(image_ids, os.listdir(photographs), plain=False)
            return (photographs, joined, others) if joined else (None, {}, [])
        place = archives.only(places, f"one folder of masks in {beside}")
    elif masks.startswith("kaggle:"):
        place = fetch(masks.removeprefix("kaggle:"))
    else:
        place = archives.open_folder(masks, "masks")
    image_ids = list(image_ids)
    names = []
    unsuited = []  # to `plain`
    for folder, here in walk(place):
        own = [(folder / name).relative_to(place).as_posix() for name in here]
        names += own
        if folder.resolve() == photographs.resolve():
            unsuited += own
    joined, others = join(image_ids, names, plain=False)
    if not joined:
        rest = sorted(set(names) - set(unsuited))
        joined, others = join(image_ids, rest, plain=True)
    if not joined:
        such = f" (there is {others[0]})" if others else ""
        raise ValueError(
            f"masks: no mask in {place}{such} has the image id of one of the {len(image_ids)} "
            "photographs, as <image_id>_segmentation.png; name other masks, or set `masks` to ''"
        )
    above = os.path.commonpath([os.path.dirname(name) for name in joined.values()])
    inside = {image_id: os.path.relpath(name, above or ".") for image_id, name in joined.items()}
    return place / above, inside, others


# what a mask holds


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
    why.update(reversed_ones(two, inverted))
    meanings: dict[float, set[bool]] = {}  # whether a level is lesion's
    for lower, upper in {mark.levels for mark in two.values()}:
        meanings.setdefault(lower, set()).add(inverted)
        meanings.setdefault(upper, set()).add(not inverted)
    for name, mark in constant.items():
        value = mark.levels[0]
        near = set()
        for level, meaning in meanings.items():
            if abs(value - level) <= NOISE * (high - low) or value == level:
                near |= meaning
        if near == {False}:
            why[name] = f"{name} marks nothing: every pixel is {value:g}, as the background is"
        elif near != {True}:
            background, lesion = (high, low) if inverted else (low, high)
            why[name] = (
                f"every pixel of {name} is {value:g}; in most masks background is {background:g} "
                f"and lesion {lesion:g}"
            )
    say = {
        "levels": [low, high],
        "threshold": threshold,
        "inverted": inverted,
        "thresholds": thresholds,
        **count(two, constant, inverted),
    }
    return say, why


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


# a mask and its photograph


def fit(mark: Marks, photograph: Header) -> tuple[int, str]:
    """How a mask has to be turned to lie on its photograph, which is read upright.

    A mask may have been drawn on the pixels as the file stores them: its shape tells, unless one of
    the two is a square. Both are squashed to squares in the end, so that a square fits any shape.

    Returns:
        The EXIF orientation by which to turn it, 1 if none; and "", "unknown" (its shape does not
        tell), "squashed" (one of the two is a square), or "unlike" (they cannot be one picture).
    """
    stored = np.log(photograph.width / photograph.height)
    upright = -stored if photograph.orientation >= 5 else stored
    own = np.log(mark.width / mark.height)
    turned = photograph.orientation > 1
    if abs(own - upright) <= ALIKE:
        told = photograph.orientation >= 5 and abs(stored - upright) > 2 * ALIKE
        return 1, "unknown" if turned and not told else ""
    if turned and abs(own - stored) <= ALIKE:
        return photograph.orientation, ""
    if min(abs(own), abs(upright)) <= ALIKE:
        return 1, "unknown" if turned else "squashed"
    return 1, "unlike"


def fit_all(
    joined: dict[str, str], marks: dict[str, Marks], headers: dict[str, Header]
) -> tuple[dict, dict[str, str]]:
    """How masks lie on their photographs.

    Args:
        joined: the name of the mask by image id.
        marks: what each mask holds, by name.
        headers: of the photographs, by image id.

    Returns:
        The part of `masks_say` about it: `turned` (the EXIF orientation by image id of masks drawn
        on the file's pixels), `turn_unknown` and `squashed` (how many); and why masks do not fit.
    """
    turned = {}
    why = {}
    fits = Counter()
    for image_id, name in joined.items():
        if name not in marks:
            continue
        mark, photograph = marks[name], headers[image_id]
        orientation, fitting = fit(mark, photograph)
        fits[fitting] += 1
        if orientation > 1:
            turned[image_id] = orientation
        if fitting == "unlike":
            why[name] = (
                f"{name} is {mark.width} x {mark.height} pixels, its photograph {image_id} "
                f"{photograph.width} x {photograph.height}: one is cropped, padded or turned"
            )
    say = {
        "turned": turned,
        "turn_unknown": fits["unknown"],
        "squashed": fits["squashed"],
    }
    return say, why


# all of it


def check_masks(
    masks: str, beside: Path, photographs: Path, headers: dict[str, Header]
) -> tuple[dict, dict[str, str]]:
    """Find the masks and read them all.

    Args:
        masks, beside, photographs: as in `find_masks`.
        headers: of the photographs of the table that can be used, by image id.

    Returns:
        What dataset.json says of them: `masks_folder` ("" without masks), `masks` (how many
        photographs have one), `mask_names` (by image id) and `masks_say` (see `understand`,
        `fit_all`); and the CRC-32 of each that is used by its file name.

    Raises:
        ValueError: no photograph of the table has one, some cannot be used, or it cannot be told
            what they mark.
    """
    folder, joined, others = find_masks(masks, beside, photographs, headers)
    found = {"masks_folder": str(folder or ""), "masks": len(joined), "mask_names": joined}
    if folder is None:
        return {**found, "masks_say": {}}, {}
    names = {PurePosixPath(name).name: name for name in sorted(joined.values())}
    paths = [folder / name for name in names.values()]
    inspected = reading.inspect(paths, archives.checksums(folder), look, "checking masks")
    marks = {names[name]: mark for name, mark in inspected.seen.items()}
    meaning, unread = understand(marks) if marks else ({}, {})
    places, unfit = fit_all(joined, marks, headers)
    why = {**unfit, **unread, **inspected.unusable}
    if why:
        raise ValueError(
            f"{len(why)} of {len(names)} masks in {folder} cannot be used, the first: "
            f"{why[min(why)]}. Replace or delete them (a photograph needs no mask) and "
            "run 01_download.ipynb again"
        )
    say = {**meaning, **places, "without_photograph": len(others), "such_as": others[:1]}
    sums = {names[name]: value for name, value in inspected.checksums.items()}
    return {**found, "masks_say": say}, sums


def describe(dataset: dict) -> list[str]:
    """What was assumed of the masks, in sentences to print; dataset: of `sources.find_dataset`."""
    say = dataset["masks_say"]
    if not say:
        return ["masks: none"]
    rows, masked = dataset["rows"], dataset["masks"]
    low, high = say["levels"]
    background, lesion = (high, low) if say["inverted"] else (low, high)
    side = "below" if say["inverted"] else "above"
    lines = [
        f"masks: {masked} of {rows} photographs have one; background is {background:g}, lesion "
        f"{lesion:g} (what is {side} {say['threshold']:g})"
    ]
    if say["inverted"]:
        lines.append("masks: lesion is DARK in them, since their borders are bright all round")
    others = say["without_photograph"]
    if others:
        few = masked < rows / 2 and masked < others
        warning = "FEW MASKS FOUND THEIR PHOTOGRAPH: " if few else ""
        lines.append(
            f"masks: {warning}{others} belong to no photograph of the table, such as "
            f"{say['such_as'][0]}"
        )
    counts = {
        "have two values of their own": len(say["thresholds"]),
        "have noise or soft edges": say["noisy"],
        "cover over 90% of their photograph": say["nearly_all"],
        "are lesion along most of their border": say["at_the_border"],
        "are of another shape than their photograph; both are squashed to squares": say["squashed"],
        "were drawn before EXIF turned their photograph, and are turned with it": len(
            say["turned"]
        ),
        "are of photographs that EXIF turns and, as their shape does not tell, taken as drawn on "
        "the upright one": say["turn_unknown"],
    }
    lines += [f"masks: {number} {what}" for what, number in counts.items() if number]
    return lines


def names_of(image_ids: Iterable[str], dataset: dict) -> list[str]:
    """The file name of the mask of each photograph that 01 found, or "".

    Raises:
        ValueError: `dataset` is of an earlier edition, or masks have gone since.
    """
    if not dataset["masks_folder"]:
        return ["" for _ in image_ids]
    need_meaning(dataset)
    folder = Path(dataset["masks_folder"])
    names = dataset["mask_names"]
    gone = [name for name in sorted(set(names.values())) if not (folder / name).exists()]
    if gone:
        raise ValueError(
            f"{len(gone)} masks that 01 found are no longer in {folder}, the first {gone[0]}: "
            "put them back, or run 01_download.ipynb again"
        )
    return [names.get(image_id, "") for image_id in image_ids]


def need_meaning(dataset: dict) -> None:
    """Raises ValueError where dataset.json does not say whose its masks are and what they mean."""
    if not {"mask_names", "masks_say"} <= dataset.keys():
        raise ValueError(
            "dataset.json does not say whose the masks are and which of their values is lesion: it "
            "is of an earlier edition. Run 01_download.ipynb again"
        )


def reading_of(name: str, image_id: str, dataset: dict) -> Reading:
    """How the mask of a photograph is to be read.

    Args:
        name: of its file.
        image_id: of its photograph.
        dataset: the content of `dataset.json`.

    Raises:
        ValueError: `dataset` is of an earlier edition.
    """
    need_meaning(dataset)
    say = dataset["masks_say"]
    threshold = say["thresholds"].get(name, say["threshold"])
    return Reading(threshold, say["inverted"], say["turned"].get(image_id, 1))


def read_mask(path: Path, side: int, how: Reading, *, crc: int | None = None) -> np.ndarray:
    """A lesion mask squashed as its photograph was: uint8 [side, side], 255 on the lesion.

    Args:
        path: the file; its size need not be the photograph's.
        side: of the square, in pixels.
        how: what its values mean, see `reading_of`.
        crc: as in `reading.read_photograph`.

    Raises:
        ValueError: as `reading.read_photograph`, and for a mask that marks nothing.
    """
    lesion = (read_grey(path, read_bytes(path, crc)) > how.threshold) != how.inverted
    if not lesion.any():
        raise ValueError(f"{path} marks nothing: no pixel is lesion")
    upright = turn(lesion.astype(np.uint8) * 255, how.orientation)
    return cv2.resize(upright, (side, side), interpolation=cv2.INTER_AREA)


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels [H, W] upright, as the EXIF orientation (1 to 8) says.

    >>> turn(np.array([[1, 2], [3, 4]]), 6).tolist()
    [[3, 1], [4, 2]]
    """
    if orientation >= 5:
        pixels = pixels.T
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
