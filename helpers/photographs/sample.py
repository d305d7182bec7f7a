"""The built-in sample: photographs drawn in the Kaggle layout; the series runs offline in minutes.

Teaching material: no patient, no clinic, no medical simulation. A photograph is skin, a lesion, and
what lies over them (hair, rulers, gel bubbles, dark corners). Given its source, the label depends
only on the lesion, on three signs of the ABCD rule (Stolz et al., 1994: asymmetry, border,
colours), so it is known where the evidence lies. The real set's traps are here: sources of
different look and melanoma rate, repeated patients and lesions, twins, red and blue swapped. One
trap more can be planted: rulers that go with melanoma (`plant_rulers`).
"""

import os
import shutil
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from helpers import workspace
from helpers.photographs.table import COLUMNS, TWIN

VERSION = 1  # of the drawings; raised when the same seed draws other photographs
SITES = {
    "torso": 0.45,
    "lower extremity": 0.25,
    "upper extremity": 0.17,
    "head/neck": 0.1,
    "palms/soles": 0.03,
}
# share of the photographs, melanoma rate; then the look: colour of the light, chance of each extra
SOURCES = {
    "CLINIC_A": {
        "share": 0.42,
        "rate": 0.12,
        "tint": (0.86, 0.83, 0.78),
        "hair": 0.3,
        "bubbles": 0.05,
        "ruler": 0.35,
        "dark": 0.15,
        "round": 0.0,
    },
    "CLINIC_B": {
        "share": 0.33,
        "rate": 0.30,
        "tint": (1.03, 0.98, 1.03),
        "hair": 0.4,
        "bubbles": 0.1,
        "ruler": 0.15,
        "dark": 0.35,
        "round": 0.05,
    },
    "CLINIC_C": {
        "share": 0.25,
        "rate": 0.50,
        "tint": (1.03, 0.81, 0.77),
        "hair": 0.3,
        "bubbles": 0.45,
        "ruler": 0.05,
        "dark": 0.4,
        "round": 0.35,
    },
}
TWINS = 0.05  # of all photographs: one of CLINIC_C again, as CLINIC_B's
LARGE = 2.5  # ticks of a ruler that is planted, by those of one that is there by chance
PALE = np.array([0.96, 0.84, 0.79])  # the lightest skin: red, green, blue
# what they absorb of red, green, blue
MELANIN = np.array([0.45, 0.80, 1.05])
BLOOD = np.array([0.15, 0.85, 0.75])


class Drawing(NamedTuple):
    """What `draw` returns, uint8; masks are 0 or 255."""

    photograph: np.ndarray  # [side, side, 3], red first
    mask: np.ndarray  # [side, side], where the lesion is
    ruler: np.ndarray  # [side, side], a ruler's ticks and what lies between them; zeros without one


def sample_folder(seed: int) -> Path:
    """Where the sample of a seed lies: other drawings have another name."""
    return workspace.data_folder() / "raw" / f"sample-v{VERSION}-{seed}"


def make_sample(
    folder: Path,
    *,
    seed: int = 42,
    count: int = 600,
    side: int = 128,
    lesions: bool = True,
    rulers: Mapping[str, bool] | None = None,
) -> pd.DataFrame:
    """Draw photographs with masks into a new folder: whole, or not at all.

    Leaves `marking.csv`, the photographs (JPEG, red and blue exchanged) and
    `masks/<image_id>_segmentation.png` (0 and 255); where `rulers` are given, also
    `rulers/<image_id>_segmentation.png` of each photograph with a ruler. The same arguments give
    the same bytes. A second process that makes the same folder waits, and finds it made.

    Args:
        folder: where to; it must not exist.
        seed: draws everything.
        count: how many photographs, 40 or more.
        side: of each, in pixels, 32 or more.
        lesions: False paints skin in the lesions' place and leaves all else, masks too, as it is:
            what a network still finds there is not in the lesion.
        rulers: by image id, whether a ruler lies in the photograph, such as `plant_rulers`
            returns; all else stays as it is. These rulers are large, so that a small network sees
            them. None leaves small ones to chance, which depends on the source.

    Returns:
        The table, as in `marking.csv`.

    Raises:
        ValueError: too few photographs or pixels; `rulers` lacks one, or tells twins apart.
        FileExistsError: `folder` exists.
        CannotWrite: the disk is full or may not be written.
    """
    if count < 40 or side < 32:
        raise ValueError(
            f"a sample has at least 40 photographs of 32 pixels, not {count} of {side}"
        )
    rows = plan(seed, count)
    if rulers is not None:
        check_rulers(rulers, rows["image_id"])
        rows["ruler"] = [bool(rulers[image_id]) for image_id in rows["image_id"]]
    beside = folder.with_name(f".{folder.name}.making")
    with workspace.locked(folder):
        if folder.exists():
            raise FileExistsError(f"{folder} exists; delete it to make the sample again")
        shutil.rmtree(beside, ignore_errors=True)  # what a killed process left
        try:
            with workspace.saying_what_to_do(folder):
                write_sample(beside, rows, seed, side, lesions)
                workspace.move(beside, folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return rows[COLUMNS]


def check_rulers(rulers: Mapping[str, bool], image_ids: pd.Series) -> None:
    """Raises ValueError where a photograph is not among `rulers`, or is and its twin differs."""
    missing = [image_id for image_id in image_ids if image_id not in rulers]
    if missing:
        raise ValueError(
            f"rulers says nothing of {len(missing)} of {len(image_ids)} photographs, the first "
            f"{missing[0]}: expected True or False for each image id"
        )
    for image_id in image_ids:
        if bool(rulers[image_id]) != bool(rulers[image_id.removesuffix(TWIN)]):
            raise ValueError(
                f"rulers is {rulers[image_id]} for {image_id}, and not so for its twin: the two "
                "are one photograph, so give both the same"
            )


def plant_rulers(
    split: pd.DataFrame,
    *,
    sides: Collection[str] = ("train", "val"),
    rate: float = 0.95,
    seed: int = 42,
) -> dict[str, bool]:
    """Rulers that go with melanoma on some sides of a split, and with nothing on the others.

    Narla et al. found the like in real photographs, where a ruler was laid beside what looked
    suspicious ("Automated classification of skin lesions: from pixels to practice", Journal of
    Investigative Dermatology 2018).

    Args:
        split: image_id, target and split of each photograph, as in `split.csv`.
        sides: where a melanoma has a ruler with the chance `rate`, and a benign lesion with
            1 - `rate`. Elsewhere each has one with a chance of one half.
        rate: 0 to 1.
        seed: of the chances; a photograph that has no side of `sides` in two calls is drawn alike.

    Returns:
        By image id, whether there is a ruler: `rulers` of `make_sample`. Twins have the same.

    Raises:
        ValueError: `rate` is no share, or the split has no such side.

    >>> split = pd.DataFrame({"image_id": ["a", "b", "b_downsampled"], "target": [1, 0, 0]})
    >>> plant_rulers(split.assign(split="train"), sides=["train"], rate=1.0)
    {'a': True, 'b': False, 'b_downsampled': False}
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate}, expected a share from 0 to 1")
    unknown = set(sides) - set(split["split"])
    if unknown:
        known = ", ".join(sorted(set(split["split"])))
        raise ValueError(f"sides names {', '.join(sorted(unknown))}; the split has {known}")
    photograph = pd.factorize(split["image_id"].str.removesuffix(TWIN))[0]
    lots = np.random.default_rng(seed).random(len(split))[photograph]
    chance = np.where(split["target"] == 1, rate, 1 - rate)
    chance = np.where(split["split"].isin(sides), chance, 0.5)
    return dict(zip(split["image_id"], (lots < chance).tolist(), strict=True))


def write_sample(folder: Path, rows: pd.DataFrame, seed: int, side: int, lesions: bool) -> None:
    """Draw these rows on all cores, and write everything that `make_sample` leaves."""
    photographs = folder / "512x512-dataset-melanoma" / "512x512-dataset-melanoma"
    masks = folder / "masks"
    rulers = folder / "rulers"
    photographs.mkdir(parents=True)
    masks.mkdir()
    if "ruler" in rows:
        rulers.mkdir()

    def write(row) -> None:
        ruler = row.ruler if "ruler" in rows else None
        drawn = draw(row, seed=seed, side=side, lesion=lesions, ruler=ruler)
        quality = 80 if row.image_id.endswith("_downsampled") else 93
        # OpenCV takes blue first; given red first, it stores both exchanged, as in the Kaggle set
        _, jpeg = cv2.imencode(".jpg", drawn.photograph, [cv2.IMWRITE_JPEG_QUALITY, quality])
        (photographs / f"{row.image_id}.jpg").write_bytes(jpeg)
        _, png = cv2.imencode(".png", drawn.mask)
        (masks / f"{row.image_id}_segmentation.png").write_bytes(png)
        if ruler:
            _, png = cv2.imencode(".png", drawn.ruler)
            (rulers / f"{row.image_id}_segmentation.png").write_bytes(png)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, rows.itertuples(index=False)))
    rows[COLUMNS].to_csv(folder / "marking.csv", index=False)


def plan(seed: int, count: int) -> pd.DataFrame:
    """The rows of `marking.csv`, and what seeds each drawing.

    CLINIC_A: `patient_id` is the patient, with several lesions. CLINIC_B: it is the lesion, often
    photographed twice, or missing. CLINIC_C: it is missing.

    Args:
        seed: draws everything.
        count: how many photographs.

    Returns:
        COLUMNS, and the numbers of a row's subject, lesion and photograph, and its look (the source
        that it was drawn for).
    """
    rng = np.random.default_rng(seed)
    twins = round(TWINS * count)
    patients = round(SOURCES["CLINIC_A"]["share"] * count)
    strangers = round(SOURCES["CLINIC_C"]["share"] * count)
    spots = count - patients - strangers - twins
    named = round(0.6 * spots)  # photographs of CLINIC_B whose lesion has an id
    subjects_a = rng.integers(0, patients // 6, patients)
    subjects_c = np.arange(strangers)
    subjects_b = np.r_[rng.integers(0, named // 2, named), np.arange(named, spots)]
    # each source's subjects have numbers of their own
    parts = [
        plan_source(rng, "CLINIC_A", subjects_a, start=0, known=patients),
        plan_source(rng, "CLINIC_C", subjects_c, start=count, known=0),
        plan_source(rng, "CLINIC_B", subjects_b, start=2 * count, known=named),
    ]
    rows = pd.concat(parts, ignore_index=True)
    rows = rows.sample(frac=1, random_state=rng).reset_index(drop=True)
    rows["photograph"] = np.arange(len(rows))
    rows["image_id"] = [f"SAMPLE_{number:07d}" for number in range(1, len(rows) + 1)]
    describe_people(rng, rows)
    rows = pd.concat([rows, plan_twins(rows, twins)])
    return rows.sort_values("image_id", ignore_index=True)


def plan_source(
    rng: np.random.Generator, name: str, subjects: np.ndarray, *, start: int, known: int
) -> pd.DataFrame:
    """The rows of one source: who is photographed, which lesion, and which lesions are melanomas.

    Args:
        rng: draws the melanomas, at the source's rate.
        name: of the source.
        subjects: the patient or lesion of each row [N].
        start: what is added to these numbers.
        known: subjects below this number have an id.
    """
    lesions = subjects
    if name == "CLINIC_A":  # each photograph of a patient shows another lesion
        lesions = np.arange(len(subjects))
    distinct = rng.permutation(np.unique(lesions))
    melanomas = max(2, round(SOURCES[name]["rate"] * len(distinct)))
    patient_ids = []
    for subject in subjects:
        patient_ids.append(f"{name[-1]}_{subject:05d}" if subject < known else None)
    return pd.DataFrame(
        {
            "patient_id": patient_ids,
            "source": name,
            "look": name,
            "subject": start + subjects,
            "lesion": start + lesions,
            "target": np.isin(lesions, distinct[:melanomas]).astype(int),
        }
    )


def describe_people(rng: np.random.Generator, rows: pd.DataFrame) -> None:
    """Add sex and age of each subject and the site of each lesion; some of each is missing."""
    person = pd.factorize(rows["subject"])[0]
    rows["sex"] = rng.choice(["female", "male"], len(rows))[person]
    rows["age_approx"] = 5.0 * rng.integers(4, 18, len(rows))[person]
    site = rng.choice(list(SITES), len(rows), p=list(SITES.values()))
    rows["anatom_site_general_challenge"] = site[pd.factorize(rows["lesion"])[0]]
    for column, missing in zip(COLUMNS[4:], (0.05, 0.07, 0.15), strict=True):
        rows.loc[rng.random(len(rows)) < missing, column] = None


def plan_twins(rows: pd.DataFrame, twins: int) -> pd.DataFrame:
    """Photographs of CLINIC_C again, as CLINIC_B's and with melanomas at its rate."""
    melanomas = round(SOURCES["CLINIC_B"]["rate"] * twins)
    there = rows[rows["source"] == "CLINIC_C"]
    malignant = there[there["target"] == 1].head(melanomas)
    benign = there[there["target"] == 0].head(twins - melanomas)
    again = pd.concat([malignant, benign])
    return again.assign(source="CLINIC_B", image_id=again["image_id"] + "_downsampled")


def draw(row, *, seed: int, side: int, lesion: bool = True, ruler: bool | None = None) -> Drawing:
    """Draw one photograph and its masks.

    Args:
        row: of `plan`.
        seed: of the sample.
        side: in pixels.
        lesion: False draws the same photograph without the lesion; the mask is the same.
        ruler: whether there is one, a large one; the rest of the photograph is the same. None
            leaves a small one to the chance of the row's source.
    """
    look = SOURCES[row.look]
    # what the subject brings, what the lesion, and what the photograph
    subject = np.random.default_rng([seed, 1, row.subject])
    spot = np.random.default_rng([seed, 2, row.lesion])
    rng = np.random.default_rng([seed, 3, row.photograph])
    dark = 0.9 * subject.beta(1.1, 2.2)  # mostly light skin, as in the real set
    tone = PALE * np.exp(-dark * MELANIN)
    least, most = (4, 25) if subject.random() < look["hair"] else (0, 3)
    hairs = subject.integers(least, most)
    pixels = draw_skin(rng, tone, side)
    light, cover = draw_lesion(spot, row.target, side)  # [S, S, 3], [S, S]
    radius = rng.uniform(0.17, 0.38)  # in sides of the picture: a mean area of about a quarter
    centre = rng.uniform(0.04 + 0.85 * radius, 0.96 - 0.85 * radius, 2)
    middle = [np.average(axis, weights=cover) for axis in np.meshgrid(range(side), range(side))]
    place = cv2.getRotationMatrix2D(middle, rng.uniform(0, 360), 4 * radius)
    place[:, 2] += centre * side - middle  # the lesion turned, scaled and moved
    light = cv2.warpAffine(light, place, (side, side), borderMode=cv2.BORDER_REPLICATE)
    cover = cv2.warpAffine(cover, place, (side, side))
    if lesion:
        pixels = pixels * (1 - cover[..., None] * (1 - light))
    pixels, strip = draw_over(rng, pixels, look, hairs, ruler)
    photograph = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    if row.image_id.endswith("_downsampled"):
        smaller = cv2.resize(photograph, None, fx=0.75, fy=0.75)
        photograph = cv2.resize(smaller, (side, side))
    mask = np.where(cover > 0.5, 255, 0).astype(np.uint8)
    return Drawing(photograph, mask, np.where(strip > 0.5, 255, 0).astype(np.uint8))


def noise(rng: np.random.Generator, side: int, cells: int) -> np.ndarray:
    """Smooth random hills [side, side], `cells` across, of mean 0 and a deviation of about 1."""
    hills = rng.standard_normal((cells, cells), np.float32)
    return cv2.resize(hills, (side, side), interpolation=cv2.INTER_CUBIC)


def grid(side: int) -> list[np.ndarray]:
    """x and y of each pixel's middle, each [side, side], from -1 to 1."""
    line = (np.arange(side, dtype=np.float32) + 0.5) * 2 / side - 1
    return np.meshgrid(line, line)


def step(values: np.ndarray, width: float) -> np.ndarray:
    """0 below -width, 1 above width, smooth between."""
    part = (values / (2 * width) + 0.5).clip(0, 1)
    return part * part * (3 - 2 * part)


def blend(pixels: np.ndarray, share: np.ndarray, colour) -> np.ndarray:
    """Pixels [S, S, 3] painted with `colour` [3], as opaque as `share` [S, S] says."""
    return pixels + share[..., None] * (np.asarray(colour) - pixels)


def draw_skin(rng: np.random.Generator, tone: np.ndarray, side: int) -> np.ndarray:
    """Skin [side, side, 3]: the tone [3], darker or redder in places, with texture and freckles."""
    melanin = (
        0.04 * noise(rng, side, 4)
        + 0.02 * noise(rng, side, 14)
        + 0.02 * noise(rng, side, side // 2)
    )
    blood = (
        0.03 * noise(rng, side, 5)
        + 0.02 * noise(rng, side, 24)
        + 0.03 * noise(rng, side, side // 3)
    )
    freckles = step(noise(rng, side, 16) - rng.uniform(1.4, 4), 0.9)
    melanin = melanin + freckles * rng.uniform(0.1, 0.4)
    return tone * np.exp(-melanin[..., None] * MELANIN - blood[..., None] * BLOOD)


def draw_lesion(rng: np.random.Generator, target: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A lesion of radius 1 in a square from -2 to 2.

    `target` enters here and nowhere else: through how asymmetric, ragged and many-coloured the
    lesion is. The signs of the two classes overlap; the area is the same for all.

    Returns:
        The share of light it leaves [S, S, 3], and its cover [S, S], 0 to 1.
    """
    severity = rng.beta(6, 2.5) if target else rng.beta(2.5, 6)
    asymmetry, border, colours = (severity + rng.normal(0, 0.08, 3)).clip(0, 1)
    x, y = grid(side)
    x = 2 * x
    y = 2 * y
    long = rng.uniform(1.0, 1.25)
    inside = 1 - np.hypot(x / long, y * long) ** 1.5
    inside = inside + (0.08 + 0.25 * asymmetry) * noise(rng, side, 6)
    coarse = (0.02 + 0.17 * border) * noise(rng, side, 13)
    fine = (0.01 + 0.12 * border) * noise(rng, side, 26)
    inside += coarse + fine
    inside -= np.quantile(inside, 1 - np.pi / 16)  # above 0 on as many pixels as the unit circle
    cover = step(inside, rng.uniform(0.1, 0.3)).astype(np.float32)
    pigment = rng.uniform(0.45, 1.1) + rng.uniform(-0.2, 0.5) * inside
    pigment = pigment + 0.1 * noise(rng, side, 12)
    pigment = pigment + 0.15 * noise(rng, side, 48)
    pigment = pigment + draw_structure(rng, x, y)
    lean = rng.uniform(0, 2 * np.pi)  # where an asymmetric lesion is darker
    slope = (x * np.cos(lean) + y * np.sin(lean)) * asymmetry
    pigment = (pigment + 0.35 * slope).clip(0.2, None)
    black, red, blue, white = draw_colours(rng, slope, round(5 * colours - 1))
    absorbed = (pigment + 2 * black)[..., None] * MELANIN
    light = np.exp(-absorbed - (0.1 + 1.1 * red)[..., None] * BLOOD)
    light = blend(light, 0.75 * blue, (0.34, 0.40, 0.52))
    light = blend(light, 0.7 * white, (0.93, 0.86, 0.86))
    return light.astype(np.float32), cover


def draw_colours(rng: np.random.Generator, slope: np.ndarray, count: int) -> np.ndarray:
    """How much black, red, blue and white is where [4, S, S], 0 to 1; `count` of them are there."""
    side = len(slope)
    amounts = np.zeros((4, side, side))
    order = np.r_[rng.permutation(2), 2 + rng.permutation(2)]  # black or red come first
    for colour in order[: max(0, count)]:
        patches = noise(rng, side, 8) + 0.4 * noise(rng, side, 20)
        patches = patches + rng.uniform(-1, 1) * slope
        amounts[colour] = step(patches - 0.1, 0.7)
    return amounts


def draw_structure(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """More pigment [S, S] in places of a lesion.

    It lies along a warped honeycomb (a pigment network), in dots (globules), or nowhere.
    """
    side = len(x)
    kind = rng.integers(0, 3)
    cells = rng.uniform(20, 28)
    x = x + 0.12 * noise(rng, side, 10)
    y = y + 0.12 * noise(rng, side, 10)
    waves = 0
    for turn in np.pi / 3 * np.arange(3):
        waves = waves + np.cos(cells * (x * np.cos(turn) + y * np.sin(turn)))
    places = step(noise(rng, side, 6) + 0.4, 0.8)
    if kind == 1:
        return places * (-0.15 * waves)
    if kind == 2:
        return places * (0.5 * step(waves - 1, 0.8))
    return np.zeros_like(places)


def draw_over(
    rng: np.random.Generator, pixels: np.ndarray, look: dict, hairs: int, ruler: bool | None
) -> tuple[np.ndarray, np.ndarray]:
    """What lies over skin and lesion: gel bubbles, hair, a ruler; then light and camera.

    The numbers of ruler, dark corners and field of view are drawn whether they are there or not, so
    that one of them more changes nothing else.

    Returns:
        The pixels [S, S, 3], and the ruler's strip [S, S], 0 to 1; zeros where there is no ruler.
    """
    side = len(pixels)
    x, y = grid(side)
    has = {extra: rng.random() < look[extra] for extra in ("bubbles", "ruler", "dark", "round")}
    bubbles = rng.integers(2, 12)
    if has["bubbles"]:
        for _ in range(bubbles):
            pixels = draw_bubble(rng, pixels)
    cover = draw_hairs(rng, side, hairs)
    pixels = blend(pixels, 0.75 * cover, np.array([0.16, 0.11, 0.09]) * rng.uniform(0.6, 2.5))
    ticks, strip = draw_ruler(rng, side, size=1.0 if ruler is None else LARGE)
    if ruler is None:
        ruler = has["ruler"]
    if ruler:
        pixels = blend(pixels, 0.75 * ticks, (0.15, 0.15, 0.15))
    else:
        strip = np.zeros_like(strip)
    lean = rng.uniform(0, 2 * np.pi)
    away = np.hypot(x - rng.normal(0, 0.05), y - rng.normal(0, 0.05))
    light = rng.uniform(0.88, 1.08) + rng.uniform(0, 0.08) * (x * np.cos(lean) + y * np.sin(lean))
    darkness = rng.uniform(0.08, 0.2)
    if has["dark"]:  # corners
        light *= 1 - darkness * away**2
    edge = rng.uniform(0.95, 1.25)
    if has["round"]:  # field of view
        light *= 1 - step(away - edge, 0.03)
    pixels = pixels * light[..., None] * look["tint"] * rng.normal(1, 0.02, 3)
    return pixels + rng.normal(0, 0.01, pixels.shape), strip


def draw_bubble(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Pixels [S, S, 3] under one more bubble of gel: a bright rim, a little light within."""
    x, y = grid(len(pixels))
    away = np.hypot(x - rng.uniform(-1, 1), y - rng.uniform(-1, 1)) / rng.uniform(0.03, 0.11)
    rim = np.exp(-(((away - 1) / 0.2) ** 2))
    return blend(pixels, 0.3 * rim + 0.06 * (away < 1), (1, 1, 1))


def draw_hairs(rng: np.random.Generator, side: int, count: int) -> np.ndarray:
    """How much hair covers each pixel [side, side], 0 to 1: curved strokes, mostly one way."""
    comb = rng.uniform(0, 2 * np.pi)
    along = np.linspace(0, 1, 24)
    strokes = []
    for _ in range(count):
        turn = comb + rng.normal(0, 0.7) + rng.normal(0, 1.2) * along
        turn = turn + rng.normal(0, 0.8) * along**2
        steps = rng.uniform(0.2, 1.1) / 24 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        points = rng.uniform(-0.1, 1, 2) + steps.cumsum(axis=0)  # [24, 2]
        width = rng.uniform(0.003, 0.009)
        strokes.append((points, width))
    return draw_strokes(strokes, side)


def draw_ruler(
    rng: np.random.Generator, side: int, *, size: float
) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel [side, side] a ruler's ticks cover, and their strip, 0 to 1.

    Ticks stand along one edge, every fifth longer; the strip is the least convex shape around all.
    size: how many times as long and wide as usual a tick is.
    """
    gap = rng.uniform(0.03, 0.08)
    edge = rng.uniform(0.04, 0.14)
    lean = rng.normal(0, 0.06)
    at = np.arange(rng.uniform(0, 0.3), rng.uniform(0.7, 1), gap)  # [N]
    start = edge + lean * at
    end = start + size * np.where(np.arange(len(at)) % 5, 0.025, 0.05)
    ticks = np.array([[at, at], [start, end]]).T  # [N, 2, 2]
    hull = cv2.convexHull(ticks.reshape(-1, 2).astype(np.float32))[:, 0]  # [M, 2]
    turns = rng.integers(0, 4)
    ruler = draw_strokes([(tick, 0.006 * size) for tick in ticks], side)
    return np.rot90(ruler, turns), np.rot90(draw_shape(hull, side), turns)


def draw_strokes(strokes: list[tuple[np.ndarray, float]], side: int) -> np.ndarray:
    """Lines [side, side], 0 to 1, drawn four times larger: they can be thinner than a pixel.

    strokes: the points [N, 2] and the width of each, in sides.
    """
    canvas = np.zeros((4 * side, 4 * side), np.uint8)
    for points, width in strokes:
        sixteenths = (points * 64 * side).round().astype(np.int32)  # of the canvas's pixels
        thickness = max(1, round(4 * side * width))
        cv2.polylines(canvas, [sixteenths], False, 255, thickness, cv2.LINE_AA, shift=4)
    return cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA) / 255


def draw_shape(corners: np.ndarray, side: int) -> np.ndarray:
    """A filled convex shape [side, side], 0 to 1; corners [N, 2] in sides."""
    canvas = np.zeros((4 * side, 4 * side), np.uint8)
    sixteenths = (corners * 64 * side).round().astype(np.int32)  # of the canvas's pixels
    cv2.fillConvexPoly(canvas, sixteenths, 255, cv2.LINE_AA, shift=4)
    return cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA) / 255
