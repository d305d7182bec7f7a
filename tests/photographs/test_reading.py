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
