"""The built-in sample: drawn photographs in the Kaggle layout, so that the whole series runs offline in minutes.

Teaching material: no patient, no clinic and no medical simulation. Each photograph is skin, a lesion, and what lies over
it (hair, rulers, gel bubbles, dark corners). Given its source, the label depends only on the lesion, on three signs of
the ABCD rule (Stolz et al., 1994: asymmetry, border, colours), so it is known where the evidence lies. The traps of the
real set are here too: sources whose look and melanoma rate differ, patients and lesions that repeat, twins under a second
id, red and blue swapped on disk.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

COLUMNS = ["patient_id", "image_id", "target", "source", "sex", "age_approx", "anatom_site_general_challenge"]
SITES = ["torso", "lower extremity", "upper extremity", "head/neck", "palms/soles"]
SOURCES = {  # share of the photographs, melanoma rate, and the look: red, green, blue of the light, chances of each extra
    "CLINIC_A": {"share": 0.42, "rate": 0.12, "tint": (0.84, 0.82, 0.76), "ruler": 0.35, "round": 0.0, "dark": 0.15,
                 "hair": 0.35, "bubbles": 0.05, "sticker": 0.25, "ink": 0.0},
    "CLINIC_B": {"share": 0.33, "rate": 0.30, "tint": (1.02, 0.97, 1.02), "ruler": 0.15, "round": 0.05, "dark": 0.35,
                 "hair": 0.50, "bubbles": 0.10, "sticker": 0.0, "ink": 0.12},
    "CLINIC_C": {"share": 0.25, "rate": 0.50, "tint": (1.03, 0.80, 0.76), "ruler": 0.05, "round": 0.40, "dark": 0.40,
                 "hair": 0.35, "bubbles": 0.45, "sticker": 0.0, "ink": 0.0},
}
TWINS = 0.05  # share of the photographs that are a CLINIC_C photograph again, in CLINIC_B
TONES = np.array([(0.94, 0.81, 0.76), (0.90, 0.73, 0.64), (0.80, 0.61, 0.50), (0.60, 0.43, 0.34)])  # light to dark skin
MELANIN, BLOOD = np.array([0.45, 0.80, 1.05]), np.array([0.15, 0.85, 0.75])  # what they absorb of red, green, blue
VEIL, SCAR = np.array([0.34, 0.40, 0.52]), np.array([0.93, 0.86, 0.86])  # blue-white veil, white regression
SUBJECT, LESION, PHOTOGRAPH = 1, 2, 3  # streams of random numbers: what a patient, a lesion, a photograph brings


def make_sample(folder: Path, *, seed: int = 42, count: int = 600, side: int = 128, lesions: bool = True) -> pd.DataFrame:
    """Draw `count` photographs of `side` pixels with masks into a new folder: whole, or not at all.

    Leaves `marking.csv`, the photographs (JPEG, red and blue swapped) and `masks/<image_id>_segmentation.png` (0 or 255).
    The same arguments give the same bytes. lesions=False leaves the lesions out and all else, masks too, as it is: what a
    network still finds there is not in the lesion. Returns the table. Raises ValueError for fewer than 40 photographs or
    32 pixels, FileExistsError where `folder` exists.
    """
    if count < 40 or side < 32:
        raise ValueError(f"a sample has at least 40 photographs of 32 pixels, not {count} of {side}")
    if folder.exists():
        raise FileExistsError(f"{folder} exists; delete it to make the sample again")
    rows = plan(seed, count)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    photographs = beside / "512x512-dataset-melanoma" / "512x512-dataset-melanoma"
    try:
        photographs.mkdir(parents=True)
        (beside / "masks").mkdir()

        def write(row) -> None:
            photograph, mask = draw(row, seed=seed, side=side, lesion=lesions)
            quality = 80 if row.image_id.endswith("_downsampled") else 93
            # imwrite takes blue first; given red first, it stores the two swapped, as in the Kaggle set
            cv2.imwrite(str(photographs / f"{row.image_id}.jpg"), photograph, [cv2.IMWRITE_JPEG_QUALITY, quality])
            cv2.imwrite(str(beside / "masks" / f"{row.image_id}_segmentation.png"), mask)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(write, rows.itertuples(index=False)))
        rows[COLUMNS].to_csv(beside / "marking.csv", index=False)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return rows[COLUMNS]


def plan(seed: int, count: int) -> pd.DataFrame:
    """The rows of `marking.csv` and, for each, the numbers of its subject, lesion and photograph, which seed the drawing.

    CLINIC_A: `patient_id` is the patient, photographed several times. CLINIC_B: it is the lesion, or missing.
    CLINIC_C: it is missing. Targets are drawn by lesion; twins hold melanomas at the rate of the source they go to.
    """
    rng = np.random.default_rng(seed)
    twins = round(TWINS * count)
    sizes = {name: round(look["share"] * count) for name, look in SOURCES.items()}
    sizes["CLINIC_B"] = count - sizes["CLINIC_A"] - sizes["CLINIC_C"] - twins
    parts, first = [], 0
    for (name, size), repeats in zip(sizes.items(), [6, 2, 1], strict=True):
        subject = first + np.sort(rng.integers(0, max(size // repeats, 1), size))
        lesion = first + np.arange(size) if name == "CLINIC_A" else subject
        known = {"CLINIC_A": 1.0, "CLINIC_B": 0.6, "CLINIC_C": 0.0}[name]
        label = {"CLINIC_A": "P", "CLINIC_B": "L", "CLINIC_C": ""}[name]
        distinct = rng.permutation(np.unique(lesion))
        sick = distinct[:max(2, round(SOURCES[name]["rate"] * len(distinct)))]
        named = rng.permutation(np.unique(subject))[:round(known * len(np.unique(subject)))]
        part = pd.DataFrame({"source": name, "look": name, "subject": subject, "lesion": lesion,
                             "target": np.isin(lesion, sick).astype(int)})
        part["patient_id"] = [f"{label}_{one:05d}" if one in named else None for one in subject]
        parts.append(part)
        first += size
    rows = pd.concat(parts, ignore_index=True)
    rows = rows.iloc[rng.permutation(len(rows))].reset_index(drop=True)
    rows["image_id"] = [f"SAMPLE_{number:07d}" for number in range(1, len(rows) + 1)]
    rows["photograph"] = np.arange(len(rows))
    people = rows["subject"].unique()
    site = pd.Series(rng.choice(SITES, len(rows), p=[0.45, 0.25, 0.17, 0.1, 0.03]))
    rows["sex"] = rows["subject"].map(dict(zip(people, rng.choice(["male", "female"], len(people)), strict=True)))
    rows["age_approx"] = rows["subject"].map(dict(zip(people, 5.0 * rng.integers(4, 18, len(people)), strict=True)))
    rows["anatom_site_general_challenge"] = site
    for column, missing in (("sex", 0.05), ("age_approx", 0.07), ("anatom_site_general_challenge", 0.15)):
        rows.loc[rng.random(len(rows)) < missing, column] = None
    chosen = []
    sick = round(SOURCES["CLINIC_B"]["rate"] * twins)
    for target, number in ((1, sick), (0, twins - sick)):
        chosen.append(rows[(rows["look"] == "CLINIC_C") & (rows["target"] == target)].head(number))
    again = pd.concat(chosen).assign(source="CLINIC_B", image_id=lambda part: part["image_id"] + "_downsampled")
    return pd.concat([rows, again], ignore_index=True).sort_values("image_id", ignore_index=True)


def draw(row, *, seed: int, side: int, lesion: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """One photograph, uint8 [side, side, 3], red first, and its mask, uint8 [side, side], 0 or 255.

    row: a row of `plan`. lesion=False draws the same photograph without the lesion; the mask is the same.
    """
    look = SOURCES[row.look]
    subject, spot, rng = (np.random.default_rng([seed, stream, number]) for stream, number in
                          ((SUBJECT, row.subject), (LESION, row.lesion), (PHOTOGRAPH, row.photograph)))
    tone = draw_tone(subject)
    hairs = int(subject.integers(4, 25)) if subject.random() < look["hair"] else int(subject.integers(0, 3))
    pixels = draw_skin(rng, tone, side)
    light, cover = draw_lesion(spot, row.target, side)                                  # [S, S, 3], [S, S]
    radius = rng.uniform(0.17, 0.38)  # in sides of the picture: a mean area of about a quarter
    centre = rng.uniform(0.04 + 0.85 * radius, 0.96 - 0.85 * radius, 2)
    moments = cv2.moments(cover)
    middle = np.array([moments["m10"], moments["m01"]]) / moments["m00"]
    place = cv2.getRotationMatrix2D(middle, rng.uniform(0, 360), 4 * radius)
    place[:, 2] += centre * side - middle
    light = cv2.warpAffine(light, place, (side, side), borderMode=cv2.BORDER_REPLICATE)
    cover = cv2.warpAffine(cover, place, (side, side))
    if lesion:
        pixels = pixels * (1 - cover[..., None] * (1 - light))
    pixels = draw_over(rng, pixels, look, hairs, 2 * centre - 1)
    photograph = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    if row.image_id.endswith("_downsampled"):
        small = cv2.resize(photograph, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
        photograph = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
    return photograph, np.where(cover > 0.5, 255, 0).astype(np.uint8)


def noise(rng: np.random.Generator, side: int, cells: int) -> np.ndarray:
    """Smooth random hills, [side, side], about `cells` across, mean 0 and deviation about 1."""
    return cv2.resize(rng.standard_normal((cells, cells)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)


def grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of each pixel's middle, [side, side], from -1 to 1."""
    line = (np.arange(side, dtype=np.float32) + 0.5) * 2 / side - 1
    return np.meshgrid(line, line)


def step(values: np.ndarray, width: float) -> np.ndarray:
    """0 below -width, 1 above width, smooth between."""
    part = (values / (2 * width) + 0.5).clip(0, 1)
    return part * part * (3 - 2 * part)


def draw_tone(rng: np.random.Generator) -> np.ndarray:
    """A skin colour [3]: mostly light, as in the real set."""
    tone = rng.beta(1.2, 2.2) * (len(TONES) - 1)
    return np.array([np.interp(tone, range(len(TONES)), TONES[:, channel]) for channel in range(3)])


def draw_skin(rng: np.random.Generator, tone: np.ndarray, side: int) -> np.ndarray:
    """Skin [side, side, 3]: the tone, darker and redder in places, with fine texture and freckles."""
    melanin = 0.04 * noise(rng, side, 4) + 0.02 * noise(rng, side, 14) + 0.025 * noise(rng, side, side // 2)
    blood = 0.03 * noise(rng, side, 5) + 0.02 * noise(rng, side, 24) + 0.03 * noise(rng, side, side // 3)
    freckles = step(noise(rng, side, 16) - rng.uniform(1.4, 4), 0.9) * rng.uniform(0.1, 0.4)
    melanin = melanin + freckles
    return tone * np.exp(-melanin[..., None] * MELANIN - blood[..., None] * BLOOD)


def draw_lesion(rng: np.random.Generator, target: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A lesion of radius 1 in a square from -2 to 2: what it leaves of the skin's light [S, S, 3], its cover [S, S].

    `target` enters here and nowhere else: through how asymmetric, ragged and many-coloured the lesion is. The signs of
    the two classes overlap; the area is the same for all.
    """
    severity = rng.beta(5, 2) if target else rng.beta(2, 5)
    asymmetry, border, colours = (severity + rng.normal(0, 0.12, 3)).clip(0, 1)
    x, y = (2 * axis for axis in grid(side))
    long = rng.uniform(1.0, 1.25)
    inside = 1 - np.hypot(x / long, y * long) + (0.06 + 0.22 * asymmetry) * noise(rng, side, 6)
    inside += (0.03 + 0.11 * border) * noise(rng, side, 13) + (0.02 + 0.08 * border) * noise(rng, side, 26)
    inside -= np.quantile(inside, 1 - np.pi / 16)  # > 0 inside, on as many pixels as the unit circle has
    cover = step(inside, rng.uniform(0.08, 0.2)).astype(np.float32)
    pigment = rng.uniform(0.5, 1.1) + rng.uniform(-0.2, 0.6) * inside + 0.1 * noise(rng, side, 12)
    pigment = pigment + 0.15 * noise(rng, side, 48) + draw_structure(rng, x, y)
    lean = rng.uniform(0, 2 * np.pi)
    slope = (x * np.cos(lean) + y * np.sin(lean)) * asymmetry
    pigment = (pigment + 0.35 * slope).clip(0.15, None)
    blood = np.full_like(pigment, 0.1)
    veil, scar = np.zeros((2, side, side))
    for paint in rng.permutation(4)[:round(4 * colours)]:
        where = step(noise(rng, side, 8) + 0.4 * noise(rng, side, 20) + rng.uniform(-1, 1) * slope - 0.2, 0.7)
        pigment = pigment + (paint == 0) * 2.2 * where
        blood = blood + (paint == 1) * 1.1 * where
        veil, scar = veil + (paint == 2) * 0.8 * where, scar + (paint == 3) * 0.75 * where
    light = np.exp(-pigment[..., None] * MELANIN - blood[..., None] * BLOOD)
    for share, colour in ((veil, VEIL), (scar, SCAR)):
        light = light + share[..., None] * (colour - light)
    return light.astype(np.float32), cover


def draw_structure(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """More pigment [S, S] along a warped honeycomb (a pigment network) or in dots (globules), or neither."""
    side, kind, cells = len(x), rng.integers(0, 3), rng.uniform(20, 28)
    x, y = x + 0.12 * noise(rng, side, 10), y + 0.12 * noise(rng, side, 10)
    waves = sum(np.cos(cells * (x * np.cos(turn) + y * np.sin(turn))) for turn in np.pi / 3 * np.arange(3))
    patch = step(noise(rng, side, 6) + 0.4, 0.8)
    return patch * (0, -0.15 * waves, 0.5 * step(waves - 1, 0.8))[kind]


def draw_over(rng: np.random.Generator, pixels: np.ndarray, look: dict, hairs: int, lesion: np.ndarray) -> np.ndarray:
    """What lies over skin and lesion: bubbles, ink, sticker, hair, ruler; then light, dark corners and the camera's noise.

    lesion: x and y of its middle, from -1 to 1; sticker and ink keep to the other side.
    """
    side = len(pixels)
    x, y = grid(side)
    chance = {extra: rng.random() < look[extra] for extra in ("bubbles", "ink", "sticker", "ruler", "dark", "round")}
    other = np.arctan2(*-lesion[::-1]) + rng.normal(0, 0.4)
    if chance["bubbles"]:
        for _ in range(rng.integers(2, 12)):
            away = np.hypot(x - rng.uniform(-1, 1), y - rng.uniform(-1, 1)) / rng.uniform(0.03, 0.12)
            shine = 0.25 * np.exp(-((away - 1) / 0.22) ** 2) + 0.06 * (away < 1)
            pixels = pixels + shine[..., None] * (1 - 0.5 * pixels)
    if chance["ink"]:
        dots = step(np.cos(other) * x + np.sin(other) * y - 0.75 + 0.25 * noise(rng, side, 9), 0.15)
        pixels = blend(pixels, dots * step(noise(rng, side, side // 2) + 0.8, 0.8), np.array([0.38, 0.22, 0.55]), 0.85)
    if chance["sticker"]:
        disc = step(0.45 - np.hypot(x - 1.25 * np.cos(other), y - 1.25 * np.sin(other)), 0.02)
        pixels = blend(pixels, disc, rng.permutation([0.25, 0.7, 0.9]) * rng.uniform(0.7, 1), 0.95)
    pixels = blend(pixels, draw_hairs(rng, side, hairs), np.array([0.16, 0.11, 0.09]) * rng.uniform(0.6, 2), 0.8)
    if chance["ruler"]:
        pixels = blend(pixels, draw_ruler(rng, side), np.array([0.15, 0.15, 0.15]), 0.75)
    lean = rng.uniform(0, 2 * np.pi)
    light = rng.uniform(0.88, 1.08) + rng.uniform(0, 0.08) * (x * np.cos(lean) + y * np.sin(lean))
    away = np.hypot(x - rng.normal(0, 0.05), y - rng.normal(0, 0.05))
    light = light * (1 - chance["dark"] * rng.uniform(0.15, 0.4) * away ** 2 / 2)
    light = light * (1 - chance["round"] * step(away - rng.uniform(0.95, 1.25), 0.03))
    return pixels * light[..., None] * look["tint"] * rng.normal(1, 0.02, 3) + rng.normal(0, 0.01, pixels.shape)


def blend(pixels: np.ndarray, share: np.ndarray, colour: np.ndarray, strength: float) -> np.ndarray:
    """Pixels [S, S, 3] painted with `colour` [3] where `share` [S, S] is above 0."""
    return pixels + strength * share[..., None] * (colour - pixels)


def draw_hairs(rng: np.random.Generator, side: int, count: int) -> np.ndarray:
    """How much hair covers each pixel [side, side], 0 to 1: curved strokes, thin against a pixel, so drawn four times larger."""
    canvas = np.zeros((4 * side, 4 * side), np.uint8)
    comb, along = rng.uniform(0, 2 * np.pi), np.linspace(0, 1, 24)
    for _ in range(count):
        turn = comb + rng.normal(0, 0.7) + rng.normal(0, 1.2) * along + rng.normal(0, 0.8) * along ** 2
        steps = rng.uniform(0.3, 1.2) / 24 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        points = rng.uniform(-0.1, 1, 2) + steps.cumsum(axis=0)                         # [24, 2], in sides
        width = max(1, round(rng.uniform(0.008, 0.022) * side * 4 / 4 * 2))
        cv2.polylines(canvas, [(points * 64 * side).round().astype(np.int32)], False, 255, width, cv2.LINE_AA, shift=4)
    return cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA) / 255


def draw_ruler(rng: np.random.Generator, side: int) -> np.ndarray:
    """How much of a ruler's ticks covers each pixel [side, side], 0 to 1: along one edge, every fifth tick longer."""
    canvas = np.zeros((4 * side, 4 * side), np.uint8)
    gap, line, lean = rng.uniform(0.03, 0.08), rng.uniform(0.04, 0.14), rng.normal(0, 0.06)
    for number, start in enumerate(np.arange(rng.uniform(0, 0.3), rng.uniform(0.7, 1), gap)):
        ends = np.array([[start, line + lean * start], [start, line + lean * start + (0.05 if number % 5 == 0 else 0.025)]])
        cv2.polylines(canvas, [(ends * 64 * side).round().astype(np.int32)], False, 255, max(1, side // 48), cv2.LINE_AA,
                      shift=4)
    return np.rot90(cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA) / 255, rng.integers(0, 4))
