"""Masks of lesions: find them, join them to photographs by name, and read what they mark.

People store lesion and background as 255 and 0, 1 and 0, 2 and 1, black on white, with a JPEG's
noise. What the two values are is decided once for a folder, from all its masks (`mask_values`),
kept as `masks_say` in dataset.json, and printed; a mask that this does not explain is refused.
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
from helpers.photographs.mask_values import Marks, look, read_grey, understand
from helpers.photographs.reading import Header, read_bytes
from helpers.photographs.table import TWIN, tidy

# what ends a mask's name before the dot, in letters of any case: _segmentation, " mask", -lesion
SUFFIX = re.compile(r"[ _.-]+(segmentation|seg|mask|lesion|ground_?truth|gt)$", re.IGNORECASE)
FOLDERS = ("masks", "mask", "segmentations", "segmentation", "groundtruth")  # any case, for "auto"
ALIKE = 0.02  # by so much width / height of two pictures of one shape may differ


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
