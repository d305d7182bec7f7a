"""The one reader of photographs, against Pillow and OpenCV, on good and bad files."""

import io
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from helpers.photographs import reading
from helpers.pictures import explorer


def block_means(pixels: np.ndarray, side: int) -> np.ndarray:
    """[H, W, ...] -> [side, side, ...]: the mean of each block of H/side by W/side pixels."""
    H, W = pixels.shape[:2]
    return (
        pixels.reshape(side, H // side, side, W // side, -1)
        .mean(axis=(1, 3))
        .reshape(side, side, *pixels.shape[2:])
    )


@pytest.mark.parametrize("times", [1, 2, 4, 8])
def test_a_large_photograph_is_decoded_smaller_and_looks_the_same(times, tmp_path):
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(90, 170, (12, 12, 3)).astype(np.uint8))
    colours.resize((32 * times, 32 * times), Image.Resampling.BICUBIC).save(
        tmp_path / "a.jpg", quality=95
    )
    path = tmp_path / "a.jpg"
    assert reading.read_photograph(path, at_least=32).shape == (32, 32, 3)
    larger = (64, 64, 3) if times > 1 else (32, 32, 3)
    assert reading.read_photograph(path, at_least=33).shape == larger
    assert reading.read_photograph(path).shape == (32 * times, 32 * times, 3)
    whole = cv2.imread(str(tmp_path / "a.jpg"))[..., ::-1].astype(float)
    difference = np.abs(reading.square(path, 32, swapped=False) - block_means(whole, 32))
    assert difference.mean() < 2 and difference.max() <= 16


def write_each_kind(folder: Path) -> dict[str, Path]:
    """Real files, good and bad, all named .jpg: by what they are."""
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
    photograph = colours.resize((64, 48), Image.Resampling.BICUBIC)
    held = Image.Exif()
    held[0x0112] = 6  # turned by a quarter
    buffer = io.BytesIO()
    photograph.save(buffer, "JPEG", quality=95)
    jpeg = buffer.getvalue()
    found = {
        name: folder / f"{name.replace(' ', '_')}.jpg"
        for name in (
            "colour",
            "grey",
            "CMYK",
            "16-bit PNG",
            "turned",
            "missing",
            "empty",
            "text",
            "html",
            "cut at the end",
            "cut in the middle",
            "header alone",
            "1 pixel",
            "20000 x 20000",
            "a folder",
        )
    }
    photograph.save(found["colour"], "JPEG", quality=95)
    photograph.convert("L").save(found["grey"], "JPEG")
    photograph.convert("CMYK").save(found["CMYK"], "JPEG", quality=95)
    Image.fromarray(rng.integers(0, 65536, (48, 64)).astype(np.uint16)).save(
        found["16-bit PNG"], "PNG"
    )
    photograph.save(found["turned"], "JPEG", exif=held)
    found["empty"].write_bytes(b"")
    found["text"].write_text("benign")
    found["html"].write_text("<!DOCTYPE html><html></html>")
    found["cut at the end"].write_bytes(jpeg[:-200])
    found["cut in the middle"].write_bytes(jpeg[: len(jpeg) // 2])
    found["header alone"].write_bytes(jpeg[:20])
    Image.new("RGB", (1, 1)).save(found["1 pixel"], "JPEG")
    Image.new("1", (20000, 20000)).save(found["20000 x 20000"], "PNG")
    found["a folder"].mkdir()
    return found


def test_each_kind_of_file_is_read_or_refused_with_a_reason(tmp_path):
    files = write_each_kind(tmp_path)
    reasons = reading.inspect(list(files.values()), {}).unusable
    said = {
        name: reasons.get(path.name, "").rpartition("cannot be decoded: ")[2]
        for name, path in files.items()
    }
    broken = "it is no photograph of a kind known here"
    expected = {
        "colour": "",
        "grey": "",
        "CMYK": "",
        "16-bit PNG": "",
        "turned": "",
        "missing": "No such file or directory",
        "empty": "it is empty",
        "text": broken,
        "html": broken,
        "cut at the end": "it is damaged or cut short",
        "cut in the middle": "it is damaged or cut short",
        "header alone": broken,
        "1 pixel": "1 x 1 pixels; expected 16 a side to 80,000,000 in all",
        "20000 x 20000": "its header says more than 80,000,000 pixels",
        "a folder": "it is a folder, a pipe or a device, not a file",
    }
    for name, reason in expected.items():
        assert said[name].startswith(reason) and bool(said[name]) == bool(reason), name
    colour = np.asarray(Image.open(files["colour"])).astype(int)
    assert np.abs(reading.read_photograph(files["colour"]) - colour).max() <= 3
    assert np.abs(reading.read_photograph(files["CMYK"]) - colour).mean() < 5
    assert np.ptp(reading.read_photograph(files["grey"]), axis=2).max() == 0
    assert reading.read_photograph(files["16-bit PNG"]).dtype == np.uint8
    turned = reading.read_photograph(files["turned"])
    assert turned.shape == (64, 48, 3), "upright, as a viewer shows it"


def colour_pattern() -> np.ndarray:
    """Smooth colours, uint8 [48, 64, 3], red first."""
    colours = np.random.default_rng(1).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(colours).resize((64, 48), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_16_bits_become_8_as_65535_becomes_255(kind, tmp_path):
    path = tmp_path / f"deep.{kind}"
    colours = colour_pattern()
    rest = np.random.default_rng(0).integers(-128, 129, colours.shape)  # what rounding takes away
    deep = np.clip(colours.astype(int) * 257 + rest, 0, 65535).astype(np.uint16)
    cv2.imwrite(str(path), deep[..., ::-1])
    assert (reading.read_photograph(path) == colours).all()
    grey = tmp_path / f"grey.{kind}"
    cv2.imwrite(str(grey), deep[..., 0])
    assert (reading.read_photograph(grey) == colours[..., :1]).all()


@pytest.mark.parametrize("most", [255, 1023, 4095])
def test_fewer_bits_in_a_file_of_16_are_refused(most, tmp_path):
    """What a camera of 10 or 12 bits writes: taken as 16, the photograph would be black."""
    deep = (colour_pattern() / 255.0 * most).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    with pytest.raises(ValueError, match="deep.png.*16 bits"):
        reading.read_photograph(tmp_path / "deep.png")


@pytest.mark.parametrize("mode", ["F", "I", "LAB", "YCbCr"])
def test_numbers_that_are_no_colours_are_refused(mode, tmp_path):
    image = Image.fromarray(colour_pattern())
    if mode in ("F", "I"):
        image = image.convert("L")
    image.convert(mode).save(tmp_path / "x.tiff")
    with pytest.raises(ValueError, match=f"x.tiff.*kind {mode}"):
        reading.read_photograph(tmp_path / "x.tiff")


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_printing_inks_become_the_colours_they_print(kind, tmp_path):
    """Upright, and squashed as all others are; so for a data set as for one photograph in 05."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(colour_pattern()).convert("CMYK")
    image.save(tmp_path / "print", kind, quality=95, exif=exif)
    pixels = reading.read_photograph(tmp_path / "print", at_least=16)
    assert np.abs(pixels - np.rot90(colour_pattern(), -1).astype(int)).mean() < 5
    assert (explorer.own_photograph(tmp_path / "print") == pixels).all()
    assert reading.square(tmp_path / "print", 32, swapped=True).shape == (32, 32, 3)


def test_a_checksum_tells_a_changed_byte_that_still_decodes(photographs):
    paths = [Path(photographs["folder"]) / f"X_{row}.jpg" for row in range(4)]
    sums = {path: zlib.crc32(path.read_bytes()) for path in paths[:3]}
    for path in paths[1:]:
        content = bytearray(path.read_bytes())
        content[-10] ^= 1
        path.write_bytes(content)
    found = reading.inspect(paths, sums)
    assert list(found.unusable) == ["X_1.jpg", "X_2.jpg"], "of the last nobody knows what it was"
    assert all("CRC-32" in why for why in found.unusable.values())
    last = paths[3].read_bytes()
    assert found.checksums == {
        "X_0.jpg": f"{sums[paths[0]]:08x}",
        "X_3.jpg": f"{zlib.crc32(last):08x}",
    }


def test_red_and_blue_are_exchanged_where_a_source_stores_them_so(tmp_path):
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 200
    Image.fromarray(red).save(tmp_path / "red.png")
    assert (reading.square(tmp_path / "red.png", 32, swapped=False) == [200, 0, 0]).all()
    assert (reading.square(tmp_path / "red.png", 32, swapped=True) == [0, 0, 200]).all()


@pytest.mark.parametrize("swapped", [False, True])
def test_a_square_can_become_a_tensor(swapped, tmp_path):
    Image.new("RGB", (64, 48), (200, 10, 0)).save(tmp_path / "a.png")
    square = reading.square(tmp_path / "a.png", 32, swapped=swapped)
    assert torch.from_numpy(square).shape == (32, 32, 3)
