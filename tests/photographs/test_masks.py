"""Masks as people store them: what is lesion, whose a mask is, how it lies on its photograph."""

import io
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.photographs import mask_values, masks, reading, sources
from helpers.photographs.cache import build_cache
from helpers.photographs.split import make_split

COUNT = 24
H, W = 48, 64


def lesions() -> list[np.ndarray]:
    """Ellipses of many sizes, some over the border, uint8 [48, 64], 255 within."""
    drawn = []
    for number in range(COUNT):
        mask = np.zeros((H, W), np.uint8)
        centre = (20 + number, 12 + number)
        cv2.ellipse(mask, centre, (8 + number % 9, 5 + number % 7), 20.0 * number, 0, 360, 255, -1)
        drawn.append(mask)
    return drawn


def encoded(pixels: np.ndarray | Image.Image, kind: str = "PNG", **more) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def painted(mask: np.ndarray, lesion: tuple, background: tuple) -> np.ndarray:
    """A mask in two colours, [H, W, 3]."""
    inside = (mask > 0)[..., None]
    return np.where(inside, np.array(lesion, np.uint8), np.array(background, np.uint8))


def with_palette(mask: np.ndarray, lesion: int, background: int, colours: dict) -> Image.Image:
    """Indices into a palette of these colours."""
    image = Image.fromarray(np.where(mask > 0, lesion, background).astype(np.uint8), "P")
    palette = [0] * 768
    for index, colour in colours.items():
        palette[3 * index : 3 * index + 3] = colour
    image.putpalette(palette)
    return image


def one_bit(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask).convert("1")


def opaque(mask: np.ndarray) -> Image.Image:
    return Image.merge("LA", [Image.fromarray(mask), Image.new("L", (W, H), 255)])


def soft(mask: np.ndarray) -> np.ndarray:
    """A map of probabilities, 0 to 255, a half at the lesion's edge."""
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    outside = cv2.distanceTransform(255 - mask, cv2.DIST_L2, 5)
    return (255 / (1 + np.exp(outside - inside))).round().astype(np.uint8)


def framed(mask: np.ndarray, value: int) -> np.ndarray:
    return np.pad(mask[3:-3, 3:-3], 3, constant_values=value)


def structures(mask: np.ndarray, *values: int) -> np.ndarray:
    """Background, lesion, and within it further labels."""
    labels = np.where(mask > 0, values[1], values[0]).astype(np.uint8)
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    for step, value in enumerate(values[2:]):
        labels[depth > depth.max() * (0.3 + 0.2 * step)] = value
    return labels


def overlay(mask: np.ndarray) -> np.ndarray:
    """A photograph of a dark lesion."""
    skin = np.random.default_rng(int(mask.sum())).normal(180, 30, (H, W, 3))
    skin[mask > 0] *= 0.6
    return skin.clip(0, 255).astype(np.uint8)


def bars() -> np.ndarray:
    """White above and below, as a film has black."""
    return np.pad(np.zeros((H - 16, W), np.uint8), ((8, 8), (0, 0)), constant_values=255)


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, (H, W)).astype(np.uint8)


def in_turn(*kinds):
    """Every kind for one mask after the other."""
    return lambda mask, number: kinds[number % len(kinds)](mask)


# how a mask is written, and which of its values 01 must find: background, lesion
READ = {
    "0 and 255": (lambda m: encoded(m), 0, 255),
    "0 and 1": (lambda m: encoded(m // 255), 0, 1),
    "labels 1 and 2": (lambda m: encoded(m // 255 + 1), 1, 2),
    "background 10": (lambda m: encoded(np.maximum(m, 10)), 10, 255),
    "background 127": (lambda m: encoded(np.maximum(m, 127)), 127, 255),
    "inverted": (lambda m: encoded(255 - m), 255, 0),
    "inverted, 1 and 0": (lambda m: encoded(1 - m // 255), 1, 0),
    "JPEG": (lambda m: encoded(m, "JPEG", quality=75), 0, 255),
    "inverted JPEG": (lambda m: encoded(255 - m, "JPEG", quality=90), 255, 0),
    "lossy WebP": (lambda m: encoded(Image.fromarray(m).convert("RGB"), "WEBP"), 0, 255),
    "16 bits": (lambda m: encoded(m.astype(np.uint16) * 257), 0, 65535),
    "1 of 16 bits": (lambda m: encoded(m.astype(np.uint16) // 255), 0, 1),
    "300 of 16 bits": (lambda m: encoded((m > 0) * np.uint16(300)), 0, 300),
    "one bit": (lambda m: encoded(one_bit(m)), 0, 255),
    "inverted, one bit": (lambda m: encoded(one_bit(255 - m)), 255, 0),
    "palette, red is 1": (
        lambda m: encoded(with_palette(m, 1, 0, {1: (255, 0, 0)})),
        0,
        76,
    ),
    "palette whose index 0 is white": (
        lambda m: encoded(with_palette(m, 1, 0, {0: (255, 255, 255)})),
        255,
        0,
    ),
    "opaque transparency": (lambda m: encoded(opaque(m)), 0, 255),
    "red on black": (lambda m: encoded(painted(m, (255, 0, 0), (0, 0, 0))), 0, 76),
    "red on white": (lambda m: encoded(painted(m, (255, 0, 0), (255, 255, 255))), 255, 76),
    "red on green as bright": (lambda m: encoded(painted(m, (255, 0, 0), (0, 130, 0))), 0, 255),
    "TIFF": (lambda m: encoded(m, "TIFF", compression="tiff_lzw"), 0, 255),
    "TIFF of floats": (lambda m: encoded(m.astype(np.float32) / 255, "TIFF"), 0, 1),
    "TIFF of 32 bits": (lambda m: encoded(m.astype(np.int32) // 255, "TIFF"), 0, 1),
    "BMP": (lambda m: encoded(m, "BMP"), 0, 255),
    "254 and 255": (lambda m: encoded(np.where(np.arange(W) % 32 < 16, m, m // 255 * 254)), 0, 255),
    "soft edges": (lambda m: encoded(cv2.GaussianBlur(m, (0, 0), 1)), 0, 255),
    "larger": (lambda m: encoded(cv2.resize(m, (4 * W, 4 * H), interpolation=0)), 0, 255),
    "black frame": (lambda m: encoded(framed(m, 0)), 0, 255),
}


@pytest.fixture
def data_set(folders, tmp_path):
    """A function that writes COUNT photographs, masks as they are given, and their table."""

    def write(contents: list[bytes | None], name: str = "{}_segmentation.png") -> Path:
        folder = tmp_path / "set"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "images").mkdir(parents=True)
        (folder / "masks").mkdir()
        lines = ["image_id,patient_id,target,source"]
        for number, content in enumerate(contents):
            skin = np.random.default_rng(number).integers(150, 200, (H, W, 3)).astype(np.uint8)
            skin[..., 2] = 90
            Image.fromarray(skin).save(folder / "images" / f"X_{number}.png")
            if content is not None:
                (folder / "masks" / name.format(f"X_{number}")).write_bytes(content)
            lines.append(f"X_{number},p{number},{number % 2},S")
        (folder / "marking.csv").write_text("\n".join(lines))
        return folder

    return write


def shares(found: dict) -> np.ndarray:
    """The share of lesion in each mask of the cache [COUNT]."""
    cache = build_cache(found, make_split(found), image_size=56)
    rows = pd.Series(range(COUNT), index=[f"X_{number}" for number in range(COUNT)])
    order = rows[cache["rows"]]
    cached = np.load(cache["masks_file"])[np.argsort(order)]
    return (cached > 127).mean(axis=(1, 2))


@pytest.mark.parametrize("kind", READ)
def test_lesion_is_lesion_however_a_folder_stores_it(kind, data_set):
    write, background, lesion = READ[kind]
    drawn = lesions()
    found = sources.find_dataset(str(data_set([write(mask) for mask in drawn])))
    say = found["masks_say"]
    if kind == "black frame":
        drawn = [framed(mask, 0) for mask in drawn]
    expected = [(mask > 0).mean() for mask in drawn]
    assert np.abs(shares(found) - expected).max() < 0.04
    assert say["inverted"] == (lesion < background)
    low, high = sorted((background, lesion))
    assert np.abs(np.subtract(say["levels"], (low, high))).max() <= 0.03 * (high - low)
    assert found["masks"] == COUNT and say["thresholds"] == {}


MIXED = {
    "255 and 1": in_turn(lambda m: encoded(m), lambda m: encoded(m // 255)),
    "8 and 16 bits": in_turn(lambda m: encoded(m), lambda m: encoded(m.astype(np.uint16) * 257)),
    "a class each": in_turn(*(lambda m, n=n: encoded(m // 255 * n) for n in (1, 2, 3))),
    "PNG and JPEG": in_turn(lambda m: encoded(m), lambda m: encoded(m, "JPEG", quality=60)),
}


@pytest.mark.parametrize("kind", MIXED)
def test_a_folder_of_two_ways_is_read_mask_by_mask(kind, data_set):
    drawn = lesions()
    contents = [MIXED[kind](mask, number) for number, mask in enumerate(drawn)]
    found = sources.find_dataset(str(data_set(contents)))
    assert np.abs(shares(found) - [(mask > 0).mean() for mask in drawn]).max() < 0.04


def test_a_mask_that_is_all_lesion_is_known_by_the_levels_of_others(data_set):
    drawn = lesions()
    contents = [encoded(mask // (255 if number % 3 else 1)) for number, mask in enumerate(drawn)]
    contents[3] = encoded(np.full((H, W), 255, np.uint8))
    contents[4] = encoded(np.full((H, W), 1, np.uint8))
    found = sources.find_dataset(str(data_set(contents)))
    assert shares(found)[[3, 4]].tolist() == [1, 1] and found["masks_say"]["nearly_all"] == 2
    contents = [encoded(255 - mask) for mask in drawn]
    contents[3] = encoded(np.zeros((H, W), np.uint8))
    found = sources.find_dataset(str(data_set(contents)))
    assert shares(found)[3] == 1


def some(kind, *numbers: int):
    """This kind for masks of these numbers, 0 and 255 for the others."""
    return lambda mask, number: kind(mask) if number in numbers else encoded(mask)


# what cannot be known: how it is written, and a mask that must be named (X_0: the first)
REFUSED = {
    "labels 0, 1, 2": (lambda m, n: encoded(structures(m, 0, 1, 2)), "X_"),
    "labels 0, 1, 2, 3": (lambda m, n: encoded(structures(m, 0, 1, 2, 3)), "X_"),
    "a margin of 255": (lambda m, n: encoded(structures(m, 0, 1, 255)), "X_"),
    "labels in a JPEG": (lambda m, n: encoded(structures(m, 0, 128, 255), "JPEG"), "X_"),
    "not sure, 127": (some(lambda m: encoded(structures(m, 0, 127, 255)), 5), "X_5"),
    "photographs": (lambda m, n: encoded(overlay(m)), "X_0"),
    "one photograph": (some(lambda m: encoded(overlay(m)), 5), "X_5"),
    "white frames": (lambda m, n: encoded(framed(m, 255)), "X_0"),
    "one white frame": (some(lambda m: encoded(framed(m, 255)), 5), "X_5"),
    "black frames, inverted": (lambda m, n: encoded(framed(255 - m, 0)), "X_0"),
    "white bars": (lambda m, n: encoded(m | bars()), "X_0"),
    "one inverted": (some(lambda m: encoded(255 - m), 5), "X_5"),
    "half inverted": (in_turn(lambda m: encoded(m), lambda m: encoded(255 - m)), "X_"),
    "all white": (lambda m, n: encoded(m | 255), "X_0"),
    "all black": (lambda m, n: encoded(0 * m), "X_0"),
    "one black": (some(lambda m: encoded(0 * m), 5), "X_5"),
    "one of noise": (some(lambda m: encoded(noise()), 5), "X_5"),
    "one grey": (some(lambda m: encoded(0 * m + 100), 5), "X_5"),
    "outlines": (lambda m, n: encoded(m - cv2.erode(m, np.ones((3, 3)))), "X_"),
    "transparency": (
        lambda m, n: encoded(Image.merge("LA", [Image.fromarray(m), Image.fromarray(m)])),
        "X_0",
    ),
    "not a number": (
        lambda m, n: encoded(np.where(m > 0, 1, np.nan).astype(np.float32), "TIFF"),
        "X_0",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_known_is_refused_and_named(kind, data_set):
    write, name = REFUSED[kind]
    contents = [write(mask, number) for number, mask in enumerate(lesions())]
    with pytest.raises(ValueError, match=f"masks.*{name}"):
        sources.find_dataset(str(data_set(contents)))


def test_what_was_assumed_is_said(data_set):
    contents = [encoded(255 - mask, "JPEG", quality=60) for mask in lesions()]
    contents[3] = encoded(np.zeros((H, W), np.uint8))  # all lesion, since the rest is inverted
    contents[4] = contents[5] = None
    folder = data_set(contents)
    (folder / "masks" / "Y_1_segmentation.jpg").write_bytes(contents[0])
    found = sources.find_dataset(str(folder))
    say = found["masks_say"]
    assert (found["masks"], say["inverted"], say["noisy"]) == (COUNT - 2, True, COUNT - 3)
    assert (say["nearly_all"], say["without_photograph"]) == (1, 1)
    said = "\n".join(masks.describe(found))
    for fact in (f"{COUNT - 2} of {COUNT}", "127.5", "DARK", f"{COUNT - 3} ", "Y_1_segmentation"):
        assert fact in said
    assert masks.describe(sources.find_dataset(str(folder), masks="")) == ["masks: none"]


def test_masks_of_other_photographs_are_shouted_about(data_set):
    folder = data_set([encoded(lesions()[0]), *[None] * (COUNT - 1)])
    for number in range(9):
        shutil.copy(
            folder / "masks" / "X_0_segmentation.png", folder / "masks" / f"Z{number}_seg.png"
        )
    said = "\n".join(masks.describe(sources.find_dataset(str(folder))))
    assert f"1 of {COUNT}" in said and "FEW" in said and "9 belong to no photograph" in said


def test_the_cache_follows_what_the_values_mean(data_set):
    found = sources.find_dataset(str(data_set([encoded(mask) for mask in lesions()])))
    split = make_split(found)
    keys = {build_cache(found, split, image_size=56)["key"]}
    for change in (
        {"threshold": 200.0},
        {"inverted": True},
        {"thresholds": {"X_1_segmentation.png": 3.0}},
        {"turned": {"X_1": 6}},
    ):
        other = {**found, "masks_say": {**found["masks_say"], **change}}
        keys.add(build_cache(other, split, image_size=56)["key"])
    assert len(keys) == 5


@pytest.mark.parametrize("entry", ["mask_names", "masks_say"])
def test_a_data_set_of_an_earlier_edition_leads_to_01(entry, photographs):
    del photographs[entry]
    with pytest.raises(ValueError, match="01_download.ipynb"):
        make_split(photographs)


def test_real_masks_mean_what_they_meant(real_data, tmp_path):
    """One bit, white on the lesion; a lesion may reach the border all round, or cover all."""
    shutil.unpack_archive(real_data / "lesion-masks-256.zip", tmp_path)
    paths = sorted((tmp_path / "masks").iterdir())
    marks = reading.inspect(paths, {}, mask_values.look).seen
    say, why = mask_values.understand(marks)
    assert (len(marks), why, say["thresholds"], say["inverted"]) == (2593, {}, {}, False)
    black = [(cv2.imread(str(path), 0) == 0).mean() for path in paths[::20]]
    for path, share in zip(paths[::20], black, strict=True):
        lesion = masks.read_mask(path, 256, masks.Reading(say["threshold"]))
        assert (lesion == 0).mean() == share
    upside_down = {}
    for name, mark in marks.items():
        if len(mark.levels) == 2:
            upside_down[name] = mark._replace(area=1 - mark.area, border=1 - mark.border)
    assert mask_values.understand(upside_down)[0]["inverted"]


# whose a mask is


@pytest.mark.parametrize(
    "name",
    [
        "{}_mask.png",
        "{}_Segmentation.PNG",
        "{}_lesion.bmp",
        "{}-seg.tif",
        "{} mask .jpeg",
        "{}_segmentation_mask.png",
        "{}.jpg_segmentation.png",
        "{}.png",
    ],
)
def test_a_mask_is_found_by_the_names_that_people_give(name, data_set):
    drawn = lesions()
    found = sources.find_dataset(str(data_set([encoded(mask) for mask in drawn], name)))
    assert found["mask_names"] == {f"X_{n}": name.format(f"X_{n}") for n in range(COUNT)}
    assert (found["images"], Path(found["folder"]).name) == (COUNT, "images")
    assert np.abs(shares(found) - [(mask > 0).mean() for mask in drawn]).max() < 0.04


def test_capitals_signs_and_forms_of_a_character_part_no_mask_from_its_photograph():
    names = ["isic-01_SEGMENTATION.png", "X_e\u0301_mask.png", " b _mask.png", "ISIC_1_mask.png"]
    ids = ["ISIC_01", "X_\u00e9", "B", "C"]
    joined, others = masks.join(ids, names, plain=False)
    assert joined == {"ISIC_01": names[0], "X_\u00e9": names[1], "B": names[2]}
    assert others == [names[3]], "a digit more is another photograph"


def test_a_name_that_may_mean_two_photographs_means_none():
    assert masks.join(["a", "A"], ["a_mask.png"], plain=False)[0] == {"a": "a_mask.png"}
    assert masks.join(["x_1", "x-1"], ["X 1_mask.png"], plain=False)[0] == {}


def test_an_id_may_end_as_a_mask_does():
    ids = ["P", "P_lesion"]
    names = ["P_lesion_mask.png", "P_mask.png"]
    assert masks.join(ids, names, plain=False)[0] == {"P_lesion": names[0], "P": names[1]}
    names = ["P.png", "P_lesion.png"]
    assert masks.join(ids, names, plain=True)[0] == {"P": names[0], "P_lesion": names[1]}


@pytest.mark.parametrize(
    "names",
    [
        ["A_mask.png", "A_segmentation.png"],
        ["A_segmentation.png", "A_segmentation.jpg"],
        ["one/A_mask.png", "two/A_mask.png"],
        ["a_mask.png", "A _mask.png"],
    ],
)
def test_two_masks_of_one_photograph_are_refused(names):
    with pytest.raises(ValueError, match=f"{names[0]} and {names[1]}|{names[1]} and {names[0]}"):
        masks.join(["A"] if names[0] != "a_mask.png" else ["A_"], names, plain=False)


def test_a_twin_takes_the_mask_of_its_photograph_where_it_has_none_of_its_own():
    names = [f"{name}_segmentation.png" for name in ("ISIC_1", "ISIC_2", "ISIC_2_downsampled")]
    ids = ["ISIC_1_downsampled", "ISIC_2_downsampled", "ISIC_2", "ISIC_3_downsampled"]
    joined, others = masks.join(ids, names, plain=False)
    assert joined == dict(zip(ids, [names[0], names[2], names[1]], strict=False))
    assert others == []


def test_masks_among_photographs_are_masks(data_set):
    folder = data_set([encoded(mask) for mask in lesions()])
    for path in (folder / "masks").iterdir():
        path.rename(folder / "images" / path.name)
    (folder / "masks").rmdir()
    found = sources.find_dataset(str(folder))
    assert (found["masks"], found["images"]) == (COUNT, COUNT)
    assert found["masks_folder"] == found["folder"] == str(folder / "images")
    assert sources.find_dataset(str(folder), masks=str(folder))["masks"] == COUNT


def test_masks_with_their_photographs_names_lie_anywhere(data_set):
    folder = data_set([encoded(mask) for mask in lesions()], "{}.png")
    (folder / "masks").rename(folder / "labels")
    found = sources.find_dataset(str(folder), masks=str(folder / "labels"))
    assert (Path(found["folder"]).name, found["masks"]) == ("images", COUNT)
    for number, path in enumerate(sorted((folder / "labels").iterdir())):
        (folder / "labels" / str(number % 2)).mkdir(exist_ok=True)
        path.rename(folder / "labels" / str(number % 2) / path.name)
    found = sources.find_dataset(str(folder), masks=str(folder / "labels"))
    assert found["masks"] == len(found["checksums"]["masks"]) == COUNT
    assert (shares(found) > 0).all()


# how a mask lies on its photograph


def photograph_of(mask: np.ndarray, path: Path, orientation: int) -> None:
    """A dark lesion stored so that EXIF has to turn it."""
    skin = np.full((*mask.shape, 3), (210, 170, 150), np.uint8)
    skin[mask > 0] = (90, 60, 50)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(skin).save(path, quality=95, exif=exif)


@pytest.mark.parametrize("drawn_on", ["the file's pixels", "the upright photograph"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_is_turned_with_its_photograph(orientation, drawn_on, data_set):
    folder = data_set([encoded(mask) for mask in lesions()])
    mask = lesions()[5]
    (folder / "images" / "X_5.png").unlink()
    photograph_of(mask, folder / "images" / "X_5.jpg", orientation)
    upright = reading.read_photograph(folder / "images" / "X_5.jpg")[..., 0] < 150
    if drawn_on == "the upright photograph":
        Image.fromarray(upright).save(folder / "masks" / "X_5_segmentation.png")
    elif orientation in (2, 3, 4):
        return  # has the shape of the other; what is said then is tested below
    found = sources.find_dataset(str(folder))
    cache = build_cache(found, make_split(found), image_size=56)
    lesion = np.load(cache["masks_file"])[cache["rows"].index("X_5")]
    expected = cv2.resize(upright * np.uint8(255), (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(lesion.astype(int) - expected).mean() < 4
    turned = orientation >= 5 and drawn_on == "the file's pixels"
    assert found["masks_say"]["turned"] == ({"X_5": orientation} if turned else {})


def test_turning_is_what_pillow_does():
    from PIL import ImageOps

    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for orientation in range(1, 9):
        image = Image.fromarray(pixels)
        image.getexif()[0x0112] = orientation
        assert (masks.turn(pixels, orientation) == np.asarray(ImageOps.exif_transpose(image))).all()


Header = reading.Header


@pytest.mark.parametrize(
    "size, photograph, expected",
    [
        ((60, 45), Header(600, 450, "RGB", False), (1, "")),
        ((1022, 767), Header(600, 450, "RGB", False), (1, "")),
        ((1022, 767), Header(512, 512, "RGB", False), (1, "squashed")),
        ((256, 256), Header(600, 450, "RGB", False), (1, "squashed")),
        ((450, 600), Header(600, 450, "RGB", False), (1, "unlike")),
        ((550, 450), Header(600, 450, "RGB", False), (1, "unlike")),
        ((450, 600), Header(600, 450, "RGB", False, 6), (1, "")),
        ((600, 450), Header(600, 450, "RGB", False, 8), (8, "")),
        ((600, 450), Header(600, 450, "RGB", False, 3), (1, "unknown")),
        ((512, 512), Header(512, 512, "RGB", False, 6), (1, "unknown")),
        ((512, 512), Header(600, 450, "RGB", False, 6), (1, "unknown")),
        ((300, 450), Header(600, 450, "RGB", False, 6), (1, "unlike")),
    ],
)
def test_a_shape_tells_how_a_mask_lies_or_that_it_does_not(size, photograph, expected):
    mark = mask_values.Marks(
        *size, (0.0, 255.0), False, True, 0.0, 0.0, 0.2, 0.0, False, False, frozenset()
    )
    assert masks.fit(mark, photograph) == expected


def test_a_mask_that_was_cropped_is_named_with_both_sizes(data_set):
    contents = [encoded(mask) for mask in lesions()]
    contents[7] = encoded(lesions()[7][:, 10:])
    with pytest.raises(ValueError, match=f"1 of {COUNT} masks.*X_7_seg.*{W - 10} x {H}.*{W} x {H}"):
        sources.find_dataset(str(data_set(contents)))


def test_what_a_shape_does_not_tell_is_said(data_set):
    folder = data_set([encoded(mask) for mask in lesions()])
    (folder / "images" / "X_5.png").unlink()
    photograph_of(lesions()[5], folder / "images" / "X_5.jpg", 3)
    Image.fromarray(lesions()[6][:, :H]).save(folder / "masks" / "X_6_segmentation.png")
    found = sources.find_dataset(str(folder))
    assert (found["masks_say"]["turn_unknown"], found["masks_say"]["squashed"]) == (1, 1)
    said = "\n".join(masks.describe(found))
    assert "1 are of photographs that EXIF turns" in said and "1 are of another shape" in said


# one mask


def test_a_mask_that_marks_nothing_is_none(tmp_path):
    Image.fromarray(lesions()[0]).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png marks nothing"):
        masks.read_mask(tmp_path / "a.png", 20, masks.Reading(255))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_mask_that_is_see_through_is_refused(mode, tmp_path):
    """White everywhere and see-through outside the lesion: without its alpha, all is lesion."""
    file = tmp_path / "white.png"
    alpha = Image.fromarray(lesions()[5])
    if mode == "P":
        alpha.convert("P").save(file, transparency=0)
    else:
        Image.merge("LA", (Image.new("L", (W, H), 255), alpha)).convert(mode).save(file)
    for read in (
        lambda: mask_values.look(file, file.read_bytes()),
        lambda: reading.read_photograph(file),
    ):
        with pytest.raises(ValueError, match="white.png.*see-through"):
            read()
