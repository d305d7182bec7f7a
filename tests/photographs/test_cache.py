"""The pixel cache, against Pillow and OpenCV; killed, without room, made by two, never stale."""

import json
import os
import shutil
import subprocess
import sys
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
from tests.conftest import PATIENCE, checksums, zip_of


def block_means(pixels: np.ndarray, side: int) -> np.ndarray:
    """[H, W, ...] -> [side, side, ...]: the mean of each block of H/side by W/side pixels."""
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
    monkeypatch.setattr(module, "square", None)
    monkeypatch.setattr(module, "read_mask", None)
    assert build_cache(photographs, split, image_size=28) == first


def stop_after(photographs: int, error, monkeypatch) -> None:
    """One core, eight rows at a time; the reader is stopped at this photograph."""
    calls = []
    real = reading.square

    def stopped(path, *arguments, **options):
        calls.append(path)
        if len(calls) == photographs:
            raise error("stopped")
        return real(path, *arguments, **options)

    monkeypatch.setattr(module, "CHUNK", 8)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr(module, "square", stopped)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_stopped_build_leaves_nothing_and_starts_again(error, photographs, monkeypatch):
    split = make_split(photographs)
    with monkeypatch.context() as patch:
        stop_after(20, error, patch)
        with pytest.raises(error):
            build_cache(photographs, split, image_size=28)
    assert not list((workspace.data_folder() / "cache").glob("*.npy"))
    assert [path.name[-5:] for path in (workspace.data_folder() / "cache").iterdir()] == [".lock"]
    cache = build_cache(photographs, split, image_size=28)
    for row, path in enumerate(split["path"]):
        swapped = split["source"][row] == "S"
        direct = reading.square(Path(photographs["folder"]) / path, 32, swapped=swapped)
        assert np.array_equal(np.load(cache["file"])[row], direct)


WATCHED = """
import itertools, json, sys
from helpers.photographs import cache
from helpers.photographs.split import make_split
real = cache.square
calls = itertools.count(1)
def watched(*arguments, **options):
    if next(calls) > 5:
        sys.stdin.read()  # until the test closes it
    # with its end in it: threads that print at once would part a line from its end
    print("decoded\\n", end="", flush=True)
    return real(*arguments, **options)
cache.CHUNK = 2
cache.square = watched
dataset = json.load(open(sys.argv[1]))
cache.build_cache(dataset, make_split(dataset), image_size=28)
"""


def start_watched(tmp_path: Path) -> subprocess.Popen:
    """A build of the cache that waits for the end of its stdin after five photographs."""
    return subprocess.Popen(
        [sys.executable, "-c", WATCHED, str(tmp_path / "dataset.json")],
        cwd=workspace.PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_build_leaves_no_cache_and_the_next_is_whole(photographs, tmp_path):
    """kill -9 in the middle: what is on the disk has another name, and goes with the next build."""
    (tmp_path / "dataset.json").write_text(json.dumps(photographs))
    with start_watched(tmp_path) as process:
        for _ in range(5):
            assert process.stdout.readline() == "decoded\n"
        process.kill()
    folder = workspace.data_folder() / "cache"
    assert not list(folder.glob("[!.]*.npy")) and len(list(folder.glob(".*.npy"))) == 1
    cache = build_cache(photographs, make_split(photographs), image_size=28)
    assert open_cache(cache["file"]).any(axis=(1, 2, 3)).all()
    assert not list(folder.glob(".*.npy"))


@pytest.mark.parametrize(
    "damage", ["cut off", "empty", "a zip", "another file", "gone", "of another type"]
)
def test_what_is_no_whole_cache_is_told_and_made_again(damage, photographs):
    split = make_split(photographs)
    cache = build_cache(photographs, split, image_size=28)
    file = Path(cache["file"])
    sound = file.read_bytes()
    if damage == "cut off":
        file.write_bytes(sound[:-5000])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "a zip":
        zip_of(file, {"pixels.npy": sound})
    elif damage == "another file":
        file.write_bytes(b"not a cache")
    elif damage == "gone":
        file.unlink()
    else:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match="02_preprocess.ipynb"):
        Photographs(cache, torch.device("cpu"))
    assert build_cache(photographs, split, image_size=28) == cache
    assert file.read_bytes() == sound
    assert len(Photographs(cache, torch.device("cpu"))) == 40


def test_a_disk_without_room_is_named_before_anything_is_written(photographs, monkeypatch):
    """A mock says that the disk is full: there is no quota here."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000, total=2000))
    with pytest.raises(OSError, match="ATTENTION_DATA"):
        build_cache(photographs, make_split(photographs), image_size=28)
    assert not list((workspace.data_folder() / "cache").glob("[!.]*"))


def test_two_processes_build_one_cache(photographs, tmp_path):
    """The second waits and decodes nothing: both end well, and the file is whole."""
    (tmp_path / "dataset.json").write_text(json.dumps(photographs))
    first = start_watched(tmp_path)
    assert first.stdout.readline() == "decoded\n"
    second = start_watched(tmp_path)
    while "another process is writing" not in (line := second.stdout.readline()):
        assert line and "decoded" not in line, line
    printed = [process.communicate("", timeout=PATIENCE)[0] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0]
    assert [text.count("decoded\n") for text in printed] == [39, 0]
    [file] = (workspace.data_folder() / "cache").glob("*[0-9a-f].npy")
    assert open_cache(str(file)).any(axis=(1, 2, 3)).all()


def inspected(dataset: dict) -> dict:
    """The data set as 01 describes it now: the sums of its files are taken again."""
    return {
        **dataset,
        "checksums": checksums(Path(dataset["folder"]), Path(dataset["masks_folder"])),
    }


def redraw_masks(dataset: dict) -> None:
    for path in Path(dataset["masks_folder"]).iterdir():
        with Image.open(path) as mask:
            size = mask.size
        Image.new("L", size, 255).save(path)


def exchange_two(dataset: dict) -> None:
    first = Path(dataset["folder"]) / "X_0.jpg"
    second = Path(dataset["folder"]) / "X_3.jpg"
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def encode_again(dataset: dict) -> None:
    path = Path(dataset["folder"]) / "X_7.jpg"
    with Image.open(path) as photograph:
        pixels = np.asarray(photograph)
    Image.fromarray(pixels).save(path, quality=60)


@pytest.mark.parametrize("change", [redraw_masks, exchange_two, encode_again])
def test_changed_content_never_meets_an_old_cache(change, photographs):
    """The sizes of two exchanged files add up to the same, and masks have the same names."""
    split = make_split(photographs)
    before = build_cache(photographs, split, image_size=28)
    change(photographs)
    with pytest.raises(ValueError, match="01_download"):  # as long as 01 has not looked again
        build_cache(photographs, split, image_size=32)
    after = build_cache(inspected(photographs), split, image_size=28)
    assert after["key"] != before["key"]
    key = "masks_file" if change is redraw_masks else "file"
    assert (np.load(after[key]) != np.load(before[key])).any()


def test_a_moved_data_set_meets_its_cache_again(photographs, tmp_path):
    split = make_split(photographs)
    before = build_cache(photographs, split, image_size=28)
    shutil.move(photographs["folder"], tmp_path / "elsewhere")
    moved = {**photographs, "folder": str(tmp_path / "elsewhere")}
    assert build_cache(moved, split, image_size=28) == before


def test_a_data_set_of_an_earlier_edition_is_told_to_run_01(photographs):
    split = make_split(photographs)
    del photographs["checksums"]
    with pytest.raises(ValueError, match="01_download.ipynb"):
        build_cache(photographs, split, image_size=28)


@pytest.mark.parametrize("image_size, side", [(64, 73), (96, 109), (224, 256)])
def test_the_cached_side(image_size, side):
    assert cache_side(image_size) == side
