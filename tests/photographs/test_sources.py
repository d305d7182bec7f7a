"""Finding, unpacking and checking the photographs of a folder, a zip and the sample."""

import functools
import hashlib
import json
import shutil
import stat
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest

from helpers import workspace
from helpers.photographs import archives, reading, sample, sources
from helpers.photographs.sample import make_sample
from helpers.photographs.split import read_table
from helpers.photographs.table import read_marking
from tests.conftest import PATIENCE, checksums, files, zip_of

MIB = 1 << 20  # Kaggle's client writes in pieces of so many bytes


@pytest.fixture
def copy(tiny, tmp_path) -> Path:
    """A copy of the folder, to spoil."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


# a folder, a zip, the sample


def test_a_folder_is_used_in_place_and_described(tiny, folders):
    found = sources.find_dataset(str(tiny))
    photographs = tiny / "512x512-dataset-melanoma" / "512x512-dataset-melanoma"
    assert found["folder"] == str(photographs)
    assert found["csv"] == str(tiny / "marking.csv")
    assert (found["rows"], found["images"], found["masks"]) == (40, 40, 40)
    assert found["bytes"] == sum(len(path.read_bytes()) for path in photographs.iterdir())
    assert found["sha256"] == hashlib.sha256((tiny / "marking.csv").read_bytes()).hexdigest()
    assert found["masks_folder"] == str(tiny / "masks")
    assert "not known" in found["licence"] and "ISIC" not in found["attribution"]
    assert files(folders.data) == set()
    json.dumps(found)


@pytest.mark.parametrize(
    "dataset, name, fact",
    [
        ("kaggle", sources.KAGGLE_DATASET, "CC BY-NC 4.0"),
        ("kaggle", f"{sources.KAGGLE_DATASET}/3", "CC BY-NC 4.0"),
        ("kaggle", "me/moles/2", "not known: see https://www.kaggle.com/datasets/me/moles"),
        ("mine.zip", sources.KAGGLE_DATASET, "not known"),
    ],
)
def test_a_licence_is_said_of_those_photographs_alone_that_have_it(dataset, name, fact):
    """Formerly a clinic's own photographs were the ISIC Archive's, under CC BY-NC."""
    terms = sources.terms_of(dataset, Path("folder"), name)
    assert fact in terms["licence"]
    known = "CC" in fact
    assert ("CC" in terms["licence"]) == ("ISIC" in terms["attribution"]) == known


def test_photographs_beside_the_table_are_found_too(tiny, tmp_path, folders):
    for path in [*tiny.glob("512x512-dataset-melanoma/*/*.jpg"), tiny / "marking.csv"]:
        shutil.copy(path, tmp_path)
    assert sources.find_dataset(str(tmp_path))["folder"] == str(tmp_path)


def test_a_zip_is_unpacked_once_for_one_content(tiny_zip, folders, tmp_path, monkeypatch):
    archive = Path(shutil.copy(tiny_zip, tmp_path / "mine.zip"))
    found = sources.find_dataset(str(archive))
    folder = Path(found["csv"]).parent
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert folder == folders.data / "raw" / f"mine-{digest[:8]}"
    assert archive.exists()
    with zipfile.ZipFile(archive) as zipped:
        expected = {
            one.filename: (one.file_size, f"{one.CRC:08x}")
            for one in zipped.infolist()
            if not one.is_dir()
        }
    manifest = pd.read_csv(archives.manifest_of(folder), dtype={"crc32": str})
    assert {row.member: (row.bytes, row.crc32) for row in manifest.itertuples()} == expected
    assert files(folder) == set(expected)
    with monkeypatch.context() as patch:
        patch.setattr(archives, "unpack", None)
        assert sources.find_dataset(str(archive)) == found
    with zipfile.ZipFile(archive, "a") as zipped:
        zipped.writestr("more.txt", "more")
    assert Path(sources.find_dataset(str(archive))["csv"]).parent != folder


def test_a_manifest_of_the_readers_own_is_left_as_it_is(folders, tiny, tmp_path):
    content = {"marking.csv": (tiny / "marking.csv").read_bytes(), "manifest.csv": b"theirs"}
    for path in (tiny / "512x512-dataset-melanoma").rglob("*.jpg"):
        content[path.name] = path.read_bytes()
    archive = zip_of(tmp_path / "set.zip", content)
    found = sources.find_dataset(str(archive))
    assert (Path(found["folder"]) / "manifest.csv").read_bytes() == b"theirs"
    assert found["checked_against_archive"]
    shutil.copytree(tiny, folders.data / "raw" / "mine")
    (folders.data / "raw" / "mine" / "manifest.csv").write_text("page,title\n")
    (folders.data / "raw" / "mine.manifest.csv").write_text("page,title\n1,a\n")
    assert sources.find_dataset(str(folders.data / "raw" / "mine"))["rows"] == 40


@pytest.mark.parametrize("ending", [".JPG", ".jpeg", ".Png"])
def test_photographs_are_found_whatever_their_ending(ending, copy, folders):
    kind = ending.lower()
    for path in list(copy.rglob("512*/*.jpg")):
        pixels = cv2.imread(str(path))
        path.unlink()
        path.with_suffix(ending).write_bytes(cv2.imencode(kind, pixels)[1])
    found = sources.find_dataset(str(copy))
    assert found["rows"] == len(found["checksums"]["photographs"]) == 40
    assert all(name.endswith(ending) for name in found["checksums"]["photographs"])


def test_a_photograph_that_is_there_as_two_files_is_told(copy, folders):
    path = next(copy.rglob("512*/SAMPLE*.jpg"))
    shutil.copy(path, path.with_suffix(".JPEG"))
    with pytest.raises(ValueError, match=f"{path.stem} twice"):
        sources.find_dataset(str(copy))


def test_links_that_lead_round_in_a_circle_end(copy, folders):
    (copy / "512x512-dataset-melanoma" / "again").symlink_to(copy / "512x512-dataset-melanoma")
    assert sources.find_dataset(str(copy))["rows"] == 40


def test_every_photograph_and_mask_has_its_checksum(tiny, folders):
    found = sources.find_dataset(str(tiny))
    photographs = tiny / "512x512-dataset-melanoma" / "512x512-dataset-melanoma"
    assert found["checksums"] == checksums(photographs, tiny / "masks")


def test_the_sample_is_made_once_for_one_seed(folders, monkeypatch):
    monkeypatch.setattr(sources, "make_sample", functools.partial(make_sample, count=40, side=32))
    found = sources.find_dataset("sample", split_seed=3)
    folder = Path(found["csv"]).parent
    assert folder == folders.data / "raw" / f"sample-v{sample.VERSION}-3"
    assert (found["masks"], found["colour_order"], found["kaggle_dataset"]) == (40, "bgr", "")
    assert "no photograph of a patient" in found["licence"]
    monkeypatch.setattr(sources, "make_sample", None)
    assert sources.find_dataset("sample", split_seed=3) == found


def test_other_drawings_never_meet_the_old_ones(folders, monkeypatch):
    before = sample.sample_folder(3)
    monkeypatch.setattr(sample, "VERSION", sample.VERSION + 1)
    assert sample.sample_folder(3) != before


FIND = """
import functools
from helpers.photographs import sources
sources.make_sample = functools.partial(sources.make_sample, count=60, side=64)
print(sources.find_dataset("sample", split_seed=4)["rows"])
"""


def test_two_processes_that_start_from_nothing_make_one_sample(folders):
    """And what a killed maker left is no hindrance, and does not stay."""
    left = folders.data / "raw" / f".sample-v{sample.VERSION}-4.making"
    (left / "masks").mkdir(parents=True)
    both = []
    for _ in range(2):
        both.append(
            subprocess.Popen(
                [sys.executable, "-c", FIND],
                cwd=workspace.PROJECT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    ended = [process.communicate(timeout=PATIENCE) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert all(output.endswith("60\n") for output, _ in ended)
    assert not left.exists()


def test_what_is_not_there_is_named(tmp_path, tiny_zip, folders):
    cut = tmp_path / "cut.zip"
    cut.write_bytes(tiny_zip.read_bytes()[:-100])
    for place in (tmp_path / "nowhere", cut):
        with pytest.raises(FileNotFoundError, match=f"dataset: .*{place}"):
            sources.find_dataset(str(place))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"marking\.csv in .*empty.* data/README\.md"):
        sources.find_dataset(str(empty))


def test_several_tables_or_folders_of_the_same_photographs_are_refused(copy, folders):
    photographs = next(copy.glob("512x512-dataset-melanoma/*/*.jpg")).parent
    shutil.copytree(photographs, copy / "again")
    with pytest.raises(ValueError, match="SAMPLE_.* twice, as .*again/SAMPLE_"):
        sources.find_dataset(str(copy))
    shutil.copy(copy / "marking.csv", copy / "again")
    with pytest.raises(ValueError, match=r"marking\.csv in .*, found 2 .*again"):
        sources.find_dataset(str(copy))


def test_files_that_a_mac_adds_are_no_photographs(copy, folders):
    beside = copy / "__MACOSX"
    beside.mkdir()
    for path in [*copy.rglob("*.jpg"), *copy.rglob("*.png"), copy / "marking.csv"]:
        (beside / f"._{path.name}").write_bytes(b"attributes")
    assert sources.find_dataset(str(copy), masks=str(copy))["masks"] == 40


def test_missing_photographs_are_counted_and_ids_leave_them_out(copy, folders, tmp_path):
    table = read_marking(copy / "marking.csv")
    for name in table["image_id"][:2]:
        next(copy.rglob(f"512*/{name}.jpg")).unlink()
    first = f"{table['image_id'][0]}.jpg cannot be decoded"
    with pytest.raises(ValueError, match=f"2 of 40 photographs .*`unusable`.* 1.0%.*{first}"):
        sources.find_dataset(str(copy), unusable=0.01)
    table["image_id"][2:].to_frame().to_csv(tmp_path / "ids.csv", index=False)
    found = sources.find_dataset(str(copy), ids=str(tmp_path / "ids.csv"))
    assert (found["rows"], found["images"], found["masks"], found["ids"]) == (
        38,
        38,
        38,
        str(tmp_path / "ids.csv"),
    )
    for path in copy.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(ValueError, match=f"no photograph .*{copy}"):
        sources.find_dataset(str(copy))


def test_few_unusable_photographs_are_left_out_and_listed(copy, folders):
    table = read_marking(copy / "marking.csv")
    gone, cut, text = (
        next(copy.rglob(f"512*/{name}.jpg")) for name in table["image_id"][[3, 5, 8]]
    )
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-400])
    text.write_text("<html>not found</html>")
    found = sources.find_dataset(str(copy), unusable=0.1)
    assert (
        set(found["unusable"]) == {path.stem for path in (gone, cut, text)} and found["rows"] == 37
    )
    reasons = [found["unusable"][path.stem] for path in (gone, cut, text)]
    for reason, fact in zip(reasons, ("No such file", "cut short", "no photograph"), strict=True):
        assert fact in reason
    kept = read_table(found)["image_id"]
    assert len(kept) == 37 and not kept.isin(found["unusable"]).any()


def test_where_no_photograph_can_be_used_that_is_told_whatever_unusable_allows(copy, folders):
    for path in copy.rglob("512*/*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="40 of 40 photographs"):
        sources.find_dataset(str(copy), unusable=1.0)


def test_a_mask_that_cannot_be_used_is_found_by_01(copy, folders):
    masks = sorted((copy / "masks").iterdir())
    masks[0].write_bytes(b"no picture")
    cv2.imwrite(str(masks[1]), np.zeros((32, 32), np.uint8))
    with pytest.raises(ValueError, match=f"2 of 40 masks .*{masks[0].name}.*01_download"):
        sources.find_dataset(str(copy))


def test_a_byte_changed_after_unpacking_is_found_by_its_checksum(tiny_zip, folders):
    found = sources.find_dataset(str(tiny_zip))
    assert found["checked_against_archive"] and found["unusable"] == {}
    path = sorted(Path(found["folder"]).glob("SAMPLE*.jpg"))[0]
    content = bytearray(path.read_bytes())
    content[-20] ^= 1  # it still decodes
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path.name} cannot be decoded.*CRC-32"):
        sources.find_dataset(str(tiny_zip))
    assert list(sources.find_dataset(str(tiny_zip), unusable=0.1)["unusable"]) == [path.stem]


@pytest.mark.parametrize(
    "content, message",
    [
        ("image_id\nSAMPLE_0000001\nISIC_7\n", "2, 1 of them unknown, such as ISIC_7"),
        ("image_id\n", "has no rows"),
        ("", "has no rows"),
        ("image_id\nSAMPLE_\xe9\n", "not UTF-8"),
        ("name\nSAMPLE_0000001\n", "has the columns name; image_id missing"),
    ],
)
def test_ids_that_are_not_in_the_table_are_refused(content, message, tiny, folders, tmp_path):
    (tmp_path / "ids.csv").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        sources.find_dataset(str(tiny), ids=str(tmp_path / "ids.csv"))


def test_a_link_to_nothing_is_a_missing_photograph(copy, folders):
    found = sources.find_dataset(str(copy))
    path = sorted(Path(found["folder"]).glob("SAMPLE*.jpg"))[0]
    path.unlink()
    path.symlink_to("nowhere.jpg")
    with pytest.raises(ValueError, match=f"{path.name} cannot be decoded: No such file"):
        sources.find_dataset(str(copy))
    assert list(sources.find_dataset(str(copy), unusable=0.1)["unusable"]) == [path.stem]


def test_masks_from_a_folder_a_zip_or_none(tiny, folders, tmp_path):
    assert sources.find_dataset(str(tiny), masks="")["masks_folder"] == ""
    one = next((tiny / "masks").iterdir())
    deep = tmp_path / "masks" / "deep"
    deep.mkdir(parents=True)
    for name in (one.name, "ISIC_7_segmentation.png"):
        shutil.copy(one, deep / name)
    found = sources.find_dataset(str(tiny), masks=str(tmp_path / "masks"))
    assert (found["masks_folder"], found["masks"]) == (str(deep), 1)
    zipped = shutil.make_archive(tmp_path / "masks", "zip", tmp_path / "masks")
    found = sources.find_dataset(str(tiny), masks=zipped)
    assert found["masks"] == 1 and Path(found["masks_folder"]).is_relative_to(folders.data / "raw")
    (deep / one.name).unlink()
    with pytest.raises(ValueError, match="masks: no mask in .* has the image id of one of the 40"):
        sources.find_dataset(str(tiny), masks=str(tmp_path / "masks"))
    with pytest.raises(ValueError, match="masks: no mask in .*512x512-test"):
        sources.find_dataset(str(tiny), masks=str(tiny / "512x512-test"))


# unpacking


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "a/../../evil.jpg", "/tmp/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg"]
)
def test_members_that_would_leave_the_folder_are_refused(name, tmp_path):
    archive = zip_of(tmp_path / "slip.zip", {"marking.csv": b"", name: b"evil"})
    with pytest.raises(ValueError, match=r"slip\.zip is refused: its member .*evil.jpg"):
        archives.unpack(archive, tmp_path / "raw" / "slip")
    assert files(tmp_path) == {"slip.zip"}


def test_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("photographs")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = zip_of(tmp_path / "link.zip", {link: b"/etc"})
    with pytest.raises(ValueError, match=r"link\.zip is refused: its member 'photographs'"):
        archives.unpack(archive, tmp_path / "raw" / "link")
    assert files(tmp_path) == {"link.zip"}


def damage(content: bytes) -> bytes:
    """One byte changed, of a member that is stored as it is: only its CRC tells."""
    at = len(content) // 4
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


def test_a_bomb_and_a_member_that_stands_twice_are_refused(tmp_path):
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("marking.csv", bytes(200_000_000))
    with pytest.raises(
        ValueError,
        match=r"bomb\.zip is refused: its 0\.2 MB would become 200 MB, more than 100 times",
    ):
        archives.unpack(bomb, tmp_path / "raw" / "bomb")
    twice = tmp_path / "twice.zip"
    with zipfile.ZipFile(twice, "w") as zipped, warnings.catch_warnings(action="ignore"):
        zipped.writestr("a/b.jpg", b"one")
        zipped.writestr("a/b.jpg", b"other")
    with pytest.raises(
        ValueError, match=r"twice\.zip is refused: its member 'a/b\.jpg' stands twice"
    ):
        archives.unpack(twice, tmp_path / "raw" / "twice")
    assert files(tmp_path) == {"bomb.zip", "twice.zip"}


def test_a_member_larger_than_it_says_is_refused(tmp_path):
    """The directory says 10 bytes, the data hold a million: what is read ends there, and the
    checksum tells.
    """
    lying = zip_of(tmp_path / "lying.zip", {"a.jpg": bytes(1_000_000)})
    content = lying.read_bytes().replace(
        (1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    )
    lying.write_bytes(content)
    with pytest.raises(ValueError, match=r"lying\.zip cannot be unpacked"):
        archives.unpack(lying, tmp_path / "raw" / "lying")
    assert files(tmp_path) == {"lying.zip"}


@pytest.mark.parametrize(
    "spoil", [damage, lambda content: content[:-100], lambda content: b"<html>sorry"]
)
def test_a_damaged_zip_leaves_nothing(spoil, tmp_path):
    photograph = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    archive = zip_of(tmp_path / "set.zip", {"a.jpg": photograph, "b.jpg": photograph})
    archive.write_bytes(spoil(archive.read_bytes()))
    with pytest.raises(ValueError, match=r"set\.zip cannot be unpacked \(.*\); download it again"):
        archives.unpack(archive, tmp_path / "raw" / "set")
    assert files(tmp_path) == {"set.zip"}


def test_a_full_disk_is_said_before_anything_is_written(tiny_zip, tmp_path, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: SimpleNamespace(free=3 * MIB, total=9 * MIB)
    )
    with pytest.raises(OSError, match=r"needs 0\.0 GB in .*: make room, or set ATTENTION_DATA"):
        archives.unpack(tiny_zip, tmp_path / "raw" / "set")
    assert files(tmp_path) == set()
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: SimpleNamespace(free=4 * MIB, total=9 * MIB)
    )
    archives.unpack(tiny_zip, tmp_path / "raw" / "set")


def test_what_a_killed_run_left_half_unpacked_is_replaced(tiny_zip, tmp_path):
    left = tmp_path / ".set.unpacking"
    left.mkdir()
    (left / "stray.jpg").touch()
    archives.unpack(tiny_zip, tmp_path / "set")
    assert (tmp_path / "set" / "marking.csv").is_file()
    assert not (tmp_path / "set" / "stray.jpg").exists() and not left.exists()


# colours


def test_real_photographs_are_stored_swapped_and_a_corrected_copy_is_not(
    real_data, folders, tmp_path
):
    found = sources.find_dataset(str(real_data / "melanoma-512.zip"))
    assert (found["rows"], found["masks"]) == (503, 0)
    assert set(found["colour_order_by_source"]) == {"ISIC19", "ISIC20"}
    for one in [found, *found["colour_order_by_source"].values()]:
        assert one.get("order", found["colour_order"]) == "bgr" and one.get("share", 1) >= 0.97
    paths = sorted(Path(found["folder"]).glob("*.jpg"))[::20]
    for path in paths:
        cv2.imwrite(str(tmp_path / path.name), cv2.imread(str(path))[..., ::-1])
    corrected = sources.colour_order([tmp_path / path.name for path in paths])
    assert corrected == {**sources.colour_order(paths), "order": "rgb"}


def test_each_source_has_its_own_order_and_the_largest_speaks_for_the_set(copy, folders):
    table = read_marking(copy / "marking.csv")
    table["source"] = table["source"].replace(
        table["source"].value_counts().idxmax(), largest := "the last by name"
    )
    table.to_csv(copy / "marking.csv", index=False)
    for name in table.loc[table["source"] == largest, "image_id"]:
        path = next(copy.rglob(f"512*/{name}.jpg"))
        cv2.imwrite(str(path), cv2.imread(str(path))[..., ::-1])
    found = sources.find_dataset(str(copy))
    orders = {source: one["order"] for source, one in found["colour_order_by_source"].items()}
    assert orders == {
        source: "rgb" if source == largest else "bgr" for source in table["source"].unique()
    }
    assert found["colour_order"] == "rgb"
    assert (
        found["colour_order_by_source"][largest]["photographs"]
        == (table["source"] == largest).sum()
    )


@pytest.mark.parametrize(
    "count, expected", [(1, 1), (100, 100), (101, 51), (199, 100), (1000, 100)]
)
def test_the_colours_are_measured_over_the_whole_list(count, expected, tmp_path, monkeypatch):
    read = []

    def blue(path, *, at_least):
        read.append(int(str(path)))
        return np.full((4, 6, 3), [5, 0, 9])

    monkeypatch.setattr(reading, "read_photograph", blue)
    found = sources.colour_order([Path(str(number)) for number in range(count)])
    assert found == {"order": "bgr", "share": 1.0, "photographs": expected}
    assert read[0] == 0 and count - read[-1] <= max(2, count // 100)


@pytest.mark.parametrize("stored", ["rgb", "bgr"])
@pytest.mark.parametrize("few, own", [(1, False), (2, False), (4, False), (5, True), (9, True)])
def test_a_source_of_a_handful_has_the_order_of_the_table(few, own, stored, monkeypatch, capsys):
    """`few` photographs of one source say the contrary of the 30 others."""
    table = pd.DataFrame({"source": ["many"] * 30 + ["few"] * few})
    table["image_id"] = [f"{row}" for row in range(len(table))]

    def painted(path, *, at_least):
        red_first = (int(path.name) < 30) == (stored == "rgb")
        return np.full((4, 6, 3), [9, 5, 0] if red_first else [0, 5, 9])

    monkeypatch.setattr(reading, "read_photograph", painted)
    files = {name: name for name in table["image_id"]}
    orders = sources.colour_orders(table, Path("photographs"), files)
    assert orders["many"] == {"order": stored, "share": 1.0, "photographs": 30}
    assert orders["few"]["photographs"] == few
    assert (orders["few"]["order"] != stored) == own
    assert orders["few"]["share"] == (1 if own else 0)
    assert ("few" in capsys.readouterr().out) == (not own)


def test_a_file_that_is_no_photograph_is_named(tmp_path):
    (tmp_path / "a.jpg").write_text("<html>")
    with pytest.raises(ValueError, match="a.jpg cannot be decoded"):
        sources.colour_order([tmp_path / "a.jpg"])


def test_no_data_set_at_all_is_refused():
    """The project's own folder, which an empty path stands for, holds the drawn sample's table."""
    with pytest.raises(ValueError, match="dataset is empty; expected 'sample'"):
        sources.find_dataset("")
