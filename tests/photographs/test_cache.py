"""The pixel cache, against Pillow and OpenCV; cut off, killed, damaged, without room, and built by two at once."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from helpers import workspace
from helpers.photographs import cache as module
from helpers.photographs import reading
from helpers.photographs.cache import build_cache, cache_side, open_cache
from helpers.photographs.split import make_split
from helpers.training.batches import Photographs


def block_means(pixels: np.ndarray, side: int) -> np.ndarray:
    """[H, W, ...] -> [side, side, ...]: the mean of each block of H/side rows and W/side columns."""
    H, W = pixels.shape[:2]
    return (
        pixels.reshape(side, H // side, side, W // side, -1)
        .mean(axis=(1, 3))
        .reshape(side, side, *pixels.shape[2:])
    )


def test_the_cache_holds_every_used_photograph_in_true_colours(photographs):
    split = make_split(photographs, benign=3)
    used = split[split["kept"] == 1]
    cache = build_cache(photographs, split, image_size=28)
    pixels = np.load(cache["file"], mmap_mode="r")
    assert (
        cache["side"] == 32 and pixels.shape == (len(used), 32, 32, 3) and pixels.dtype == np.uint8
    )
    assert cache["rows"] == used["image_id"].tolist() and 0 < len(used) < len(split)
    assert json.loads(json.dumps(cache)) == cache
    for row, (name, source) in enumerate(zip(used["path"], used["source"], strict=True)):
        direct = np.asarray(Image.open(f"{photographs['folder']}/{name}")).astype(
            float
        )  # as any decoder gives it
        direct = block_means(direct[..., ::-1] if source == "S" else direct, 32)
        assert np.abs(direct - pixels[row]).max() <= 4  # two decoders round differently


def test_masks_are_squashed_as_their_photographs_were(photographs):
    split = make_split(photographs)
    cache = build_cache(photographs, split, image_size=28)
    masks = np.load(cache["masks_file"], mmap_mode="r")
    assert masks.shape == (40, 32, 32) and masks.dtype == np.uint8
    for row, name in enumerate(split["mask"]):
        if not name:
            assert not masks[row].any()
            continue
        whole = np.asarray(Image.open(f"{photographs['masks_folder']}/{name}"))
        assert np.abs(block_means((whole > 0) * 255.0, 32) - masks[row]).max() <= 1
    assert masks.max() == 255


def test_without_masks_there_is_no_file_of_masks(photographs):
    one = {**photographs, "masks_folder": ""}
    assert build_cache(one, make_split(one), image_size=28)["masks_file"] == ""


def test_a_row_equals_the_photograph_decoded_by_opencv(photographs):
    split = make_split(photographs)
    cache = build_cache(
        photographs, split, image_size=64
    )  # a side that divides nothing, and enlarges
    pixels = np.load(cache["file"], mmap_mode="r")
    for row in (0, 1, 2, 37, 38, 39):
        direct = cv2.imread(f"{photographs['folder']}/X_{row}.jpg")
        direct = cv2.resize(direct, (73, 73), interpolation=cv2.INTER_AREA)
        assert np.array_equal(
            pixels[row], direct if row < 20 else cv2.cvtColor(direct, cv2.COLOR_BGR2RGB)
        )


def test_the_key_follows_what_goes_in(photographs, monkeypatch):
    monkeypatch.setattr(module, "fill", lambda *arguments: None)
    split = make_split(photographs)
    fewer = split.assign(kept=[0] + [1] * 39)
    reordered = split.iloc[[0, 2, 1, *range(3, 40)]]
    unmasked = split.assign(mask=[""] + split["mask"].tolist()[1:])
    swapped = {
        **photographs,
        "colour_order_by_source": {"S": {"order": "bgr"}, "T": {"order": "bgr"}},
    }
    calls = [
        (photographs, split, 28),
        (photographs, split, 32),
        (photographs, fewer, 28),
        (photographs, unmasked, 28),
        (photographs, reordered, 28),
        (swapped, split, 28),
        ({**photographs, "sha256": "1" * 64}, split, 28),
        ({**photographs, "folder": "elsewhere"}, split, 28),
        ({**photographs, "masks_folder": "elsewhere"}, split, 28),
        ({**photographs, "bytes": 1}, split, 28),
    ]
    keys = [build_cache(*call[:2], image_size=call[2])["key"] for call in calls]
    assert len(set(keys)) == len(calls)
    again = {
        **photographs,
        "colour_order_by_source": json.loads(json.dumps(photographs["colour_order_by_source"])),
    }
    assert build_cache(again, split, image_size=28)["key"] == keys[0]


def test_a_second_call_decodes_nothing(photographs, monkeypatch):
    split = make_split(photographs)
    first = build_cache(photographs, split, image_size=28)
    monkeypatch.setattr(module, "decode", None)
    monkeypatch.setattr(module, "decode_mask", None)
    assert build_cache(photographs, split, image_size=28) == first


@pytest.mark.parametrize("times", [1, 2, 4, 8])
def test_a_large_photograph_is_decoded_smaller_and_looks_the_same(times, tmp_path):
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(90, 170, (12, 12, 3)).astype(np.uint8))
    colours.resize((32 * times, 32 * times), Image.Resampling.BICUBIC).save(
        tmp_path / "a.jpg", quality=95
    )
    assert reading.load(tmp_path / "a.jpg", side=32).shape == (32, 32, 3)
    assert (
        reading.load(tmp_path / "a.jpg", side=33).shape == (64, 64, 3) if times > 1 else (32, 32, 3)
    )
    whole = cv2.imread(str(tmp_path / "a.jpg"))[..., ::-1].astype(float)
    difference = np.abs(reading.decode(tmp_path / "a.jpg", 32, False) - block_means(whole, 32))
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
    reasons = reading.find_unusable(list(files.values()), {})
    said = {
        name: reasons.get(path.stem, "").rpartition("cannot be decoded: ")[2]
        for name, path in files.items()
    }
    broken = "it is no photograph, or its header is damaged"
    assert said == {
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
    colour = np.asarray(Image.open(files["colour"])).astype(int)
    assert np.abs(reading.load(files["colour"])[..., ::-1] - colour).max() <= 3
    assert np.abs(reading.load(files["CMYK"])[..., ::-1] - colour).mean() < 5
    assert np.ptp(reading.load(files["grey"]), axis=2).max() == 0
    assert reading.load(files["16-bit PNG"]).dtype == np.uint8
    assert reading.load(files["turned"]).shape == (64, 48, 3), "upright, as a viewer shows it"


def test_a_checksum_tells_a_changed_byte_that_still_decodes(photographs):
    paths = [Path(photographs["folder"]) / f"X_{row}.jpg" for row in range(4)]
    sums = {path: zlib.crc32(path.read_bytes()) for path in paths[:3]}
    for path in paths[1:]:
        content = bytearray(path.read_bytes())
        content[-10] ^= 1
        path.write_bytes(content)
    found = reading.find_unusable(paths, sums)
    assert list(found) == ["X_1", "X_2"], "of the last nobody knows what it was"
    assert all(why.endswith("its bytes are not those that were unpacked") for why in found.values())


def chunked(monkeypatch, rows: int) -> None:
    """So many rows a chunk, on one core: 40 photographs become several chunks, made one after another."""
    monkeypatch.setattr(module, "CHUNK", rows)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_build_goes_on_where_it_stopped(error, photographs, monkeypatch):
    chunked(monkeypatch, 8)
    split, real, calls = make_split(photographs), reading.decode, []

    def interrupted(path, *arguments):
        calls.append(path)
        if len(calls) == 20:
            raise error("stopped")
        return real(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "decode", interrupted)
        with pytest.raises(error):
            build_cache(photographs, split, image_size=28)
    folder = workspace.data_folder() / "cache"
    assert not list(folder.glob("*.npy")), "half a cache must not look like one"
    [journal] = folder.glob("*.crc")
    made = {int(line.split()[0]) for line in journal.read_text().splitlines()}
    assert {0, 1} <= made < {0, 1, 2, 3, 4}
    again = []
    monkeypatch.setattr(
        module, "decode", lambda path, *rest: again.append(path) or real(path, *rest)
    )
    cache = build_cache(photographs, split, image_size=28)
    assert [path.stem for path in again] == [
        f"X_{row}" for row in range(40) if row // 8 not in made
    ]
    for row, path in enumerate(split["path"]):
        direct = real(Path(photographs["folder"]) / path, 32, split["source"][row] == "S")
        assert np.array_equal(np.load(cache["file"])[row], direct)
    assert not list(folder.glob("*.part"))


KILLED = """
import sys, time
from helpers.photographs import cache as pixel_cache
real = pixel_cache.decode
pixel_cache.CHUNK = 2
pixel_cache.decode = lambda *arguments: time.sleep(0.1) or real(*arguments)
from helpers import preprocess
import json
import os
import shutil
dataset = json.load(open(sys.argv[1]))
print("ready", flush=True)
pixel_cache.build_cache(dataset, make_split(dataset), image_size=28)
"""


def test_a_killed_build_goes_on(photographs, tmp_path, monkeypatch):
    """kill -9 in the middle; what the next process decodes is what the journal lacks."""
    monkeypatch.setattr(module, "CHUNK", 2)
    (tmp_path / "dataset.json").write_text(json.dumps(photographs))
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "dataset.json")],
        stdout=subprocess.PIPE,
        cwd=workspace.PROJECT,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        folder = workspace.data_folder() / "cache"
        while not any(len(path.read_text().splitlines()) >= 4 for path in folder.glob("*.crc")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    [journal] = folder.glob("*.crc")
    written = len(journal.read_text().splitlines())
    real, calls = reading.decode, []
    monkeypatch.setattr(module, "decode", lambda *arguments: calls.append(1) or real(*arguments))
    cache = build_cache(photographs, make_split(photographs), image_size=28)
    assert 4 <= written < 20 and len(calls) == 40 - 2 * written
    assert open_cache(cache["file"]).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("damage", ["flip a byte", "cut off", "no checksums", "another file"])
def test_damage_is_found_and_repaired(damage, photographs, monkeypatch):
    chunked(monkeypatch, 8)
    split = make_split(photographs)
    cache = build_cache(photographs, split, image_size=28)
    file = Path(cache["file"])
    sound = file.read_bytes()
    if damage == "flip a byte":
        file.write_bytes(sound[:-5000] + bytes([sound[-5000] ^ 1]) + sound[-4999:])
    elif damage == "cut off":
        file.write_bytes(sound[:-5000])
    elif damage == "no checksums":
        file.with_suffix(".crc").unlink()
    else:
        file.write_bytes(b"not a cache")
    with pytest.raises(
        ValueError, match=r"run 02_preprocess.ipynb again|Run 02_preprocess.ipynb again"
    ):
        Photographs(cache, torch.device("cpu"))
    real, calls = reading.decode, []
    monkeypatch.setattr(module, "decode", lambda *arguments: calls.append(1) or real(*arguments))
    assert build_cache(photographs, split, image_size=28) == cache
    assert file.read_bytes() == sound
    assert len(calls) == (8 if damage == "flip a byte" else 40), (
        "only what is damaged is decoded again"
    )
    assert len(Photographs(cache, torch.device("cpu"))) == 40


def test_a_disk_without_room_is_named_before_anything_is_written(photographs, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000)
    )  # a mock: no quota
    with pytest.raises(
        OSError, match=r"the cache of photographs takes 0.00 GB.*set ATTENTION_DATA"
    ):
        build_cache(photographs, make_split(photographs), image_size=28)
    assert not list((workspace.data_folder() / "cache").glob("[!.]*"))


def test_two_processes_build_one_cache(photographs, tmp_path):
    """The second waits and decodes nothing: both end well, and the file is whole."""
    (tmp_path / "dataset.json").write_text(json.dumps(photographs))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "dataset.json")]
    both = [
        subprocess.Popen(command, cwd=workspace.PROJECT, stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    [file] = (workspace.data_folder() / "cache").glob("*[0-9a-f].npy")
    sums = file.with_suffix(".crc").read_text().splitlines()
    assert sorted(int(line.split()[0]) for line in sums) == list(range(20)), (
        "each chunk was written once"
    )


def test_a_damaged_photograph_or_mask_is_named(photographs):
    split = make_split(photographs)
    name = f"{photographs['masks_folder']}/X_4_segmentation.png"
    with open(name, "wb") as file:
        file.write(b"not a picture")
    with pytest.raises(ValueError, match="X_4_segmentation.png cannot be decoded"):
        build_cache(photographs, split, image_size=28)
    with open(f"{photographs['folder']}/X_7.jpg", "wb") as file:
        file.write(b"not a picture")
    with pytest.raises(ValueError, match="X_7.jpg cannot be decoded"):
        build_cache(photographs, split, image_size=32)


@pytest.mark.parametrize("image_size, side", [(64, 73), (96, 109), (224, 256)])
def test_the_cached_side(image_size, side):
    assert cache_side(image_size) == side
