"""Photographs and masks that are not what their names say: other kinds, animated, no files at all,
too large, not ours.

What is plainly damaged (empty, cut, text, a folder, 20,000 pixels a side, turned by EXIF, CMYK,
grey) is in tests/test_pixel_cache.py and tests/test_download.py; random damage in test_fuzz.py.
Where a reader might wait or take all memory, a child process reads, under a time limit.
"""

import io
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers import workspace
from helpers.photographs import reading, sources
from helpers.photographs.cache import build_cache
from helpers.photographs.split import make_split
from helpers.pictures import explorer
from tests.conftest import PATIENCE
from tests.faults import limits

NO_PHOTOGRAPH = "it is no photograph of a kind known here"
SPECIAL = "it is a folder, a pipe or a device, not a file"


def picture(W: int = 64, H: int = 48, seed: int = 0) -> Image.Image:
    """Smooth colours, redder than blue."""
    colours = (
        np.random.default_rng(seed)
        .integers((120, 60, 20), (250, 190, 120), (6, 8, 3))
        .astype(np.uint8)
    )
    return Image.fromarray(colours).resize((W, H), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **more) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def animation(kind: str) -> bytes:
    return encoded(picture(), kind, save_all=True, append_images=[picture(seed=1)])


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def without_adobe(jpeg: bytes) -> bytes:
    """A JPEG without its APP14 segment, which says that CMYK is stored inverted."""
    at = jpeg.index(b"\xff\xee")
    return jpeg[:at] + jpeg[at + 2 + struct.unpack(">H", jpeg[at + 2 : at + 4])[0] :]


def saying(jpeg: bytes, W: int, H: int) -> bytes:
    """A JPEG whose header says another size."""
    at = re.search(b"\xff[\xc0\xc2]\0\x11\x08", jpeg).end()
    return jpeg[:at] + struct.pack(">HH", H, W) + jpeg[at + 4 :]


# kinds of file, all named .jpg

READ = {
    "PNG": encoded(picture(), "PNG"),
    "WebP": encoded(picture(), "WEBP", quality=95),
    "BMP": encoded(picture(), "BMP"),
    "a progressive JPEG": encoded(picture(), "JPEG", quality=95, progressive=True),
    "a telephone's JPEG of two pictures": encoded(
        picture(), "MPO", save_all=True, append_images=[picture(seed=1)]
    ),
    "a palette": encoded(picture().quantize(256), "PNG"),
    "a layer of transparency": encoded(picture().convert("RGBA"), "PNG"),
    "CMYK as Adobe inverts it": encoded(picture().convert("CMYK"), "JPEG", quality=95),
    "CMYK that does not say so": without_adobe(
        encoded(picture().convert("CMYK"), "JPEG", quality=95)
    ),
    "more behind its end": encoded(picture(), "JPEG", quality=95) + 500 * b"more",
}
REFUSED = {
    **{f"an animated {kind}": (animation(kind), "it is animated") for kind in ("PNG", "WEBP")},
    **{
        kind: (encoded(picture(), kind), NO_PHOTOGRAPH)
        for kind in ("GIF", "PPM", "EPS", "PDF", "JPEG2000")
    },
    "an animated GIF": (animation("GIF"), NO_PHOTOGRAPH),
    "15 pixels a side": (
        encoded(picture(15, 64), "PNG"),
        "15 x 64 pixels; expected 16 a side to 80,000,000 in all",
    ),
    "2,000,000 x 20": (
        encoded(Image.new("1", (2_000_000, 20)), "PNG"),
        "it is damaged or cut short",
    ),
    "a JPEG that says 20,000 x 20,000": (
        saying(encoded(picture(), "JPEG"), 20_000, 20_000),
        "its header says more",
    ),
    "a JPEG that says 10,000 x 9,000": (
        saying(encoded(picture(), "JPEG"), 10_000, 9_000),
        "10000 x 9000 pixels; exp",
    ),
    "cut and filled with zeros": (
        encoded(picture(), "JPEG")[:900] + bytes(5000),
        "it is damaged or cut short",
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_another_kind_of_photograph_is_read_as_pillow_reads_it(kind, tmp_path):
    path = put(tmp_path, "x.jpg", READ[kind])
    with Image.open(path) as opened:
        expected = np.asarray(opened.convert("RGB")).astype(int)
    assert np.abs(reading.read_photograph(path) - expected).mean() < 4
    assert reading.inspect([path], {}).unusable == {}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_still_photograph_of_a_usual_size_is_refused(kind, tmp_path):
    content, reason = REFUSED[kind]
    path = put(tmp_path, "x.jpg", content)
    for side in (None, 1, 32):
        with pytest.raises(ValueError, match=f"x.jpg cannot be decoded: {reason}"):
            reading.read_photograph(path, at_least=side)


def test_a_jpeg_that_ends_early_and_says_so_is_known_by_its_checksum_alone(tmp_path):
    """An end marker in the middle, as a repair leaves it: a decoder fills the rest with grey and
    calls it whole.
    """
    whole = encoded(picture(), "JPEG", quality=95)
    path = put(tmp_path, "x.jpg", whole[: len(whole) // 2] + b"\xff\xd9")
    in_place = reading.inspect([path], {})
    assert in_place.unusable == {}, "a folder used in place: nobody knows what it was"
    unpacked = reading.inspect([path], {path: zlib.crc32(whole)})
    assert "CRC-32" in unpacked.unusable["x.jpg"]


# what is no file, and what may not be read: in a child, which would otherwise wait for ever or be
# killed

CHILD = """
import json, pathlib, re, sys
from helpers.photographs import reading
from helpers.pictures import explorer
def memory():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024  # MB
paths, before, said = [pathlib.Path(name) for name in sys.argv[1:]], memory(), {}
found = {pathlib.Path(name).stem: why for name, why in reading.inspect(paths, {}).unusable.items()}
for path in paths:
    try:
        explorer.own_photograph(path)
    except (ValueError, OSError) as error:
        said[path.stem] = str(error)
print(json.dumps([found, said, memory() - before]))
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the most memory is read from Linux's /proc"
)
def test_what_is_no_file_is_neither_waited_for_nor_read_without_end(tmp_path):
    """Pipe, socket, device, links to nothing and to itself, no right to read, 100 GB of holes, 400
    million pixels.
    """
    names = (
        "pipe",
        "socket",
        "device",
        "nothing",
        "itself",
        "forbidden",
        "holes",
        "pixels",
        "folder",
        260 * "x",
    )
    path = {name: tmp_path / f"{name}.jpg" for name in names}
    os.mkfifo(path["pipe"])
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path["socket"]))
    path["device"].symlink_to("/dev/zero")
    path["nothing"].symlink_to("gone.jpg")
    path["itself"].symlink_to("itself.jpg")
    put(tmp_path, "forbidden.jpg", READ["PNG"]).chmod(0)
    with path["holes"].open("wb") as file:
        file.truncate(100 * 10**9)
    put(tmp_path, "pixels.jpg", saying(encoded(picture(), "JPEG"), 20_000, 20_000))
    path["folder"].mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, path.values())],
        cwd=workspace.PROJECT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=limits.no_overrides,
        check=False,
    )
    assert not done.returncode, done.stderr
    found, said, memory = json.loads(done.stdout)
    reasons = {name: found[name].partition("cannot be decoded: ")[2] for name in names}
    print(f"\n{memory:.0f} MiB more than before at most")
    assert reasons == {
        "pipe": SPECIAL,
        "socket": SPECIAL,
        "device": SPECIAL,
        "folder": SPECIAL,
        "forbidden": "Permission denied",
        "nothing": "No such file or directory",
        "itself": "Too many levels of symbolic links",
        260 * "x": "File name too long",
        "holes": "100,000,000,000 bytes, more than 80,000,000 pixels take",
        "pixels": "its header says more than 80,000,000 pixels",
    }
    assert set(said) == set(names) and all(
        said[name].startswith("photograph: ") for name in names[:-1]
    ), said
    assert "forbidden.jpg" in said["forbidden"] and "Permission denied" in said["forbidden"]
    assert memory < 100


# through 01 and 02


@pytest.fixture
def folder(photographs, tmp_path) -> Path:
    """Forty photographs in images/, ten masks in masks/, and marking.csv."""
    return tmp_path


def test_few_of_other_kinds_are_left_out_and_the_rest_is_cached(folder):
    """GIF, animated WebP, a pipe and a folder among forty, a tenth: listed with their reasons,
    never decoded after.
    """
    images = folder / "images"
    put(images, "X_3.jpg", encoded(picture(), "GIF"))
    put(images, "X_7.jpg", animation("WEBP"))
    for name in ("X_11.jpg", "X_15.jpg"):
        (images / name).unlink()
    os.mkfifo(images / "X_11.jpg")
    (images / "X_15.jpg").mkdir()
    with pytest.raises(
        ValueError,
        match="4 of 40 photographs .*`unusable` allows 9.9%.*X_3.jpg cannot",
    ):
        sources.find_dataset(str(folder), unusable=0.099)
    found = sources.find_dataset(str(folder), unusable=0.1)
    reasons = [reason.partition("decoded: ")[2] for reason in found["unusable"].values()]
    expected = [NO_PHOTOGRAPH, "it is animated", SPECIAL, SPECIAL]
    for reason, start in zip(reasons, expected, strict=True):
        assert reason.startswith(start)
    cache = build_cache(found, make_split(found), image_size=28)
    assert len(cache["rows"]) == 36 and not set(cache["rows"]) & set(found["unusable"])


def test_a_folder_in_place_may_have_an_odd_name_links_and_other_files(folder):
    """Spaces, brackets, umlauts; a photograph that is a link to one elsewhere is used: the folder
    is the reader's.
    """
    odd = folder / "Fotos [1] *ü*  Kopie"
    odd.mkdir()
    for name in ("images", "masks", "marking.csv"):
        shutil.move(folder / name, odd / name)
    elsewhere = shutil.move(odd / "images" / "X_0.jpg", folder / "elsewhere.jpg")
    (odd / "images" / "X_0.jpg").symlink_to(elsewhere)
    put(odd / "images", "X 1 (copy) é.jpg", b"not in the table")
    found = sources.find_dataset(str(odd))
    assert (found["rows"], found["images"], found["masks"], found["unusable"]) == (40, 41, 10, {})
    cache = build_cache(found, make_split(found), image_size=28)
    swapped = found["colour_order_by_source"]["S"]["order"] == "bgr"
    assert np.array_equal(
        np.load(cache["file"])[0], reading.square(Path(elsewhere), 32, swapped=swapped)
    )


def test_a_photograph_that_goes_after_01_stops_02_with_its_name(folder):
    found = sources.find_dataset(str(folder))
    split = make_split(found)
    (folder / "images" / "X_5.jpg").unlink()
    (folder / "images" / "X_6.jpg").write_bytes(encoded(picture(), "GIF"))
    with pytest.raises(
        ValueError,
        match="2 of 40 photographs .*X_5.jpg cannot be decoded: No such file.*01_download.ipynb",
    ):
        build_cache(found, split, image_size=28)


# masks

MASK = np.pad(np.full((20, 30), 255, np.uint8), 14)
BAD_MASKS = {
    "cut short": (
        encoded(Image.fromarray(MASK), "PNG")[:-30],
        "cannot be decoded: it is damaged or cut short",
    ),
    "empty": (b"", "cannot be decoded: it is empty"),
    "text": (b"lesion", f"cannot be decoded: {NO_PHOTOGRAPH}"),
    "all black": (encoded(Image.fromarray(0 * MASK), "PNG"), "marks nothing: every pixel is 0"),
    "transparency alone": (
        encoded(Image.merge("LA", [Image.fromarray(0 * MASK), Image.fromarray(MASK)]), "PNG"),
        "cannot be decoded: it is see-through in places",
    ),
    "animated": (animation("PNG"), "cannot be decoded: it is animated"),
    "too large": (
        encoded(Image.new("1", (20_000, 20_000)), "PNG"),
        "cannot be decoded: its header says more than",
    ),
}


@pytest.mark.parametrize("kind", [*BAD_MASKS, "a pipe", "gone"])
def test_a_mask_that_cannot_be_used_is_named_with_what_to_do(kind, folder):
    found = sources.find_dataset(str(folder))
    split, path = make_split(found), folder / "masks" / "X_4_segmentation.png"
    content, reason = BAD_MASKS.get(kind, (b"", SPECIAL if kind == "a pipe" else "No such file"))
    path.write_bytes(content)
    if kind in ("a pipe", "gone"):
        path.unlink()
    if kind == "a pipe":
        os.mkfifo(path)
    with pytest.raises(ValueError, match=f"1 of 40 masks .*{path.name}.*01_download.ipynb"):
        build_cache(found, split, image_size=28)
    if kind == "gone":
        with pytest.raises(ValueError, match=f"1 masks .*{path.name}.*01_download.ipynb"):
            make_split(found)
        found = sources.find_dataset(str(folder))
    else:
        with pytest.raises(ValueError, match=f"1 of 10 masks .*{path.name}.*{reason}"):
            sources.find_dataset(str(folder))
        path.unlink()  # what the sentence says
        found = sources.find_dataset(str(folder))
    again = make_split(found)
    assert again["mask"][4] == "" and build_cache(found, again, image_size=28)["masks_file"]


# one photograph of the reader's own, in 05


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animated_photograph_of_the_readers_own_is_refused(kind, tmp_path):
    path = put(tmp_path, "x.jpg", animation(kind))
    with pytest.raises(ValueError, match="photograph: .*x.jpg.*animated"):
        explorer.own_photograph(path)
    assert cv2.imread(str(path)) is not None, "a decoder takes the first picture without a word"
