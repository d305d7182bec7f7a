"""Finding, fetching, unpacking and checking the photographs; Kaggle's own client against a server on this machine."""

import functools
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import warnings
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import papermill
import pytest
from loopback_kaggle import KEY, OAUTH, SECRETS, TOKEN, USER, LoopbackKaggle

from helpers import hosts, workspace
from helpers.photographs import archives, kaggle, sources
from helpers.photographs.sample import make_sample
from helpers.photographs.split import read_table
from helpers.photographs.table import read_marking

NAME = kaggle.KAGGLE_DATASET
SLUG = NAME.split("/")[1]
MIB = 1 << 20  # Kaggle's client writes in pieces of so many bytes


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A folder in the Kaggle layout: 40 drawn photographs with masks, and an unlabelled photograph."""
    folder = tmp_path_factory.mktemp("tiny") / "set"
    make_sample(folder, count=40, side=32)
    other = folder / "512x512-test" / "512x512-test"
    other.mkdir(parents=True)
    shutil.copy(next(folder.rglob("*.jpg")), other / "ISIC_9999999.jpg")
    return folder


@pytest.fixture(scope="module")
def tiny_zip(tiny) -> Path:
    """The same as a zip of some 3 MiB, since the client keeps nothing of its first MiB when that is cut."""
    archive = Path(shutil.make_archive(tiny.with_name("tiny"), "zip", tiny))
    with zipfile.ZipFile(archive, "a") as zipped:
        zipped.writestr("512x512-test/noise.bin", np.random.default_rng(0).bytes(3 * MIB))
    return archive


@pytest.fixture
def copy(tiny, tmp_path) -> Path:
    """A copy of the folder, to spoil."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)
    return path


def files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


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
    assert found["licence"] == sources.LICENCES
    assert files(folders.data) == set()
    json.dumps(found)


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
    manifest = pd.read_csv(folder / "manifest.csv", dtype={"crc32": str})
    assert {row.member: (row.bytes, row.crc32) for row in manifest.itertuples()} == expected
    assert files(folder) == {*expected, "manifest.csv"}
    with monkeypatch.context() as patch:
        patch.setattr(archives, "unpack", None)
        assert sources.find_dataset(str(archive)) == found
    with zipfile.ZipFile(archive, "a") as zipped:
        zipped.writestr("more.txt", "more")
    assert Path(sources.find_dataset(str(archive))["csv"]).parent != folder


def test_the_sample_is_made_once_for_one_seed(folders, monkeypatch):
    monkeypatch.setattr(sources, "make_sample", functools.partial(make_sample, count=40, side=32))
    found = sources.find_dataset("sample", split_seed=3)
    assert found["csv"] == str(folders.data / "raw" / "sample-3" / "marking.csv")
    assert (found["masks"], found["colour_order"], found["kaggle_dataset"]) == (40, "bgr", "")
    assert "no photograph of a patient" in found["licence"]
    monkeypatch.setattr(sources, "make_sample", None)
    assert sources.find_dataset("sample", split_seed=3) == found


def test_what_is_not_there_is_named(tmp_path, tiny_zip, folders):
    cut = tmp_path / "cut.zip"
    cut.write_bytes(tiny_zip.read_bytes()[:-100])
    for place in (tmp_path / "nowhere", cut):
        with pytest.raises(
            FileNotFoundError,
            match=f"dataset: there is no folder and no whole zip archive at {place}",
        ):
            sources.find_dataset(str(place))
    with pytest.raises(
        ValueError, match=r"expected a marking\.csv in .*, found 0;.* data/README\.md"
    ):
        sources.find_dataset(str(tmp_path))


def test_several_tables_or_folders_of_the_same_photographs_are_refused(copy, folders):
    photographs = next(copy.glob("512x512-dataset-melanoma/*/*.jpg")).parent
    shutil.copytree(photographs, copy / "again")
    with pytest.raises(
        ValueError, match="expected one folder in .* with the photographs of its rows.*, found 2"
    ):
        sources.find_dataset(str(copy))
    shutil.copy(copy / "marking.csv", copy / "again")
    with pytest.raises(
        ValueError, match=r"expected a marking\.csv in .*, found 2: .*again.*name the folder or zip"
    ):
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
    first = f"{table['image_id'][0]}.jpg cannot be decoded: No such file"
    with pytest.raises(
        ValueError, match=f"2 of 40 photographs .* cannot be used; .* allows 1.0%.*{first}"
    ):
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
    with pytest.raises(
        ValueError, match="with the photographs of its rows, <image_id>.jpg, found 0"
    ):
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
    assert [reason.rsplit(": ", 1)[1] for reason in found["unusable"].values()] == [
        "No such file or directory",
        "it is damaged or cut short",
        "it is no photograph, or its header is damaged",
    ]
    kept = read_table(found)["image_id"]
    assert len(kept) == 37 and not kept.isin(found["unusable"]).any()


def test_a_byte_changed_after_unpacking_is_found_by_its_checksum(tiny_zip, folders):
    found = sources.find_dataset(str(tiny_zip))
    assert found["checked_against_archive"] and found["unusable"] == {}
    path = sorted(Path(found["folder"]).glob("SAMPLE*.jpg"))[0]
    content = bytearray(path.read_bytes())
    content[-20] ^= 1  # it still decodes
    path.write_bytes(content)
    with pytest.raises(
        ValueError,
        match=f"{path.name} cannot be decoded: its bytes are not those that were unpacked",
    ):
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
    with pytest.raises(ValueError, match="expected a folder of masks .*, found 0"):
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


def encrypt(content: bytes) -> bytes:
    """The first member marked as encrypted."""
    content, central = bytearray(content), content.index(b"PK\x01\x02")
    content[6] |= 1
    content[central + 8] |= 1
    return bytes(content)


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
    """The directory says 10 bytes, the data hold a million: what is read ends there, and the checksum tells."""
    lying = zip_of(tmp_path / "lying.zip", {"a.jpg": bytes(1_000_000)})
    content = lying.read_bytes().replace(
        (1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    )
    lying.write_bytes(content)
    with pytest.raises(ValueError, match=r"lying\.zip cannot be unpacked"):
        archives.unpack(lying, tmp_path / "raw" / "lying")
    assert files(tmp_path) == {"lying.zip"}


@pytest.mark.parametrize(
    "spoil", [damage, encrypt, lambda content: content[:-100], lambda content: b"<html>sorry"]
)
def test_a_damaged_zip_leaves_nothing(spoil, tmp_path):
    photograph = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    archive = zip_of(tmp_path / "set.zip", {"a.jpg": photograph, "b.jpg": photograph})
    archive.write_bytes(spoil(archive.read_bytes()))
    with pytest.raises(ValueError, match=r"set\.zip cannot be unpacked \(.*\); download it again"):
        archives.unpack(archive, tmp_path / "raw" / "set")
    assert files(tmp_path) == {"set.zip"}


def test_a_full_disk_is_said_before_anything_is_written(tiny_zip, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=3 * MIB))
    with pytest.raises(OSError, match=r"needs 0\.0 GB in .*: make room, or set ATTENTION_DATA"):
        archives.unpack(tiny_zip, tmp_path / "raw" / "set")
    assert files(tmp_path) == set()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=4 * MIB))
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
    monkeypatch.setattr(
        cv2, "imread", lambda path, mode: read.append(int(path)) or np.full((4, 6, 3), [9, 0, 5])
    )
    found = sources.colour_order([Path(str(number)) for number in range(count)])
    assert found == {"order": "bgr", "share": 1.0, "photographs": expected}
    assert read[0] == 0 and count - read[-1] <= max(2, count // 100)


def test_a_file_that_is_no_photograph_is_named(tmp_path):
    (tmp_path / "a.jpg").write_text("<html>")
    with pytest.raises(ValueError, match="a.jpg cannot be decoded"):
        sources.colour_order([tmp_path / "a.jpg"])


# Kaggle, without its client


@pytest.mark.parametrize(
    "name",
    [
        "",
        "set",
        "owner/",
        "owner/../x",
        "https://www.kaggle.com/datasets/a/b",
        "a/b/c",
        "a/b/3/4",
        "a/b\n",
    ],
)
def test_names_of_another_form_are_refused(name, folders):
    with pytest.raises(ValueError, match="is owner/name or owner/name/version"):
        kaggle.fetch(name)


@pytest.mark.parametrize("place", [SLUG, f"datasets/{NAME}"])
def test_on_kaggle_what_was_added_to_the_notebook_is_used_in_place(
    place, tiny, folders, tmp_path, monkeypatch
):
    monkeypatch.setattr(hosts, "ROOT", tmp_path)
    monkeypatch.setattr(kaggle, "download", None)
    shutil.copytree(tiny, tmp_path / "kaggle" / "input" / place)
    for name in (NAME, f"{NAME}/3"):
        found = sources.find_dataset("kaggle", kaggle_dataset=name)
        assert found["csv"] == str(tmp_path / "kaggle" / "input" / place / "marking.csv")
        assert found["kaggle_dataset"] == name
    assert files(folders.data) == set()


@pytest.fixture
def arriving(folders, monkeypatch):
    """Content that "Kaggle" sends next; without any, it may not be asked. With the folders of a data set."""
    folder = folders.data / "raw" / "kaggle" / NAME
    found = SimpleNamespace(
        content=[], folder=folder, archive=folder.with_name(f"{SLUG}.download") / f"{SLUG}.zip"
    )

    def arrive(name, folder):
        folder.mkdir(parents=True, exist_ok=True)
        found.archive.write_bytes(found.content.pop(0))

    monkeypatch.setattr(kaggle, "download", arrive)
    return found


def test_a_zip_that_arrived_and_was_not_unpacked_is_not_asked_for_again(arriving, tiny_zip):
    arriving.archive.parent.mkdir(parents=True)
    shutil.copy(tiny_zip, arriving.archive)
    (arriving.folder.with_name(f".{SLUG}.unpacking")).mkdir()
    assert kaggle.fetch(NAME) == arriving.folder
    assert sorted(os.listdir(arriving.folder.parent)) == [f".{SLUG}.lock", SLUG]


def test_a_zip_stays_where_the_disk_is_full(arriving, tiny_zip, monkeypatch):
    arriving.content = [tiny_zip.read_bytes()]
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
        with pytest.raises(OSError, match="make room"):
            kaggle.fetch(NAME)
    assert kaggle.fetch(NAME) == arriving.folder


@pytest.mark.parametrize("spoil", [damage, lambda content: content[:-100]])
def test_a_damaged_arrival_is_removed_and_asked_for_again(spoil, arriving, tiny_zip):
    arriving.content = [spoil(tiny_zip.read_bytes()), tiny_zip.read_bytes()]
    with pytest.raises(
        kaggle.KaggleFailed, match=f"came from Kaggle as {NAME} was removed; run this again"
    ):
        kaggle.fetch(NAME)
    assert files(arriving.folder.parent) == set()
    assert kaggle.fetch(NAME) == arriving.folder


def test_a_zip_left_beside_an_unpacked_set_is_removed(arriving, tiny_zip):
    arriving.content = [tiny_zip.read_bytes()]
    kaggle.fetch(NAME)
    arriving.archive.parent.mkdir()
    arriving.archive.touch()
    assert kaggle.fetch(NAME) == arriving.folder
    assert sorted(os.listdir(arriving.folder.parent)) == [f".{SLUG}.lock", SLUG]


def test_versions_lie_side_by_side(arriving, tiny_zip):
    arriving.content = 2 * [tiny_zip.read_bytes()]
    arriving.archive = arriving.folder.with_name(f"{SLUG}@3.download") / f"{SLUG}.zip"
    assert kaggle.fetch(f"{NAME}/3") == arriving.folder.with_name(f"{SLUG}@3")


# Kaggle's client. It reads its environment when it is imported, so each of these runs in a process of its own: one that
# forks from a process which has imported the rest, since PyTorch takes seconds.

FORK = """
import json, os, sys, traceback
from helpers import download
for line in sys.stdin:
    variables, output, code = json.loads(line)
    child = os.fork()
    if not child:
        os.environ.clear()
        os.environ.update(variables)
        for stream in (1, 2):
            os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        try:
            exec(code)
            status = 0
        except download.KaggleFailed:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def forks():
    """The process that forks: a line of JSON in, the exit status out."""
    with subprocess.Popen(
        [sys.executable, "-c", FORK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=workspace.PROJECT,
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def reader(forks, folders, tmp_path):
    """A reader with an empty home folder, who runs code in a process of their own against a server."""
    home = tmp_path / "home"
    home.mkdir()

    def run(
        server, code=f"print('at', download.fetch({NAME!r}).name)", **variables
    ) -> SimpleNamespace:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("KAGGLE_", "XDG_"))
        }
        environment |= {"ATTENTION_HEADLESS": "1", **server.environment(home), **variables}
        output = tmp_path / "output.txt"
        output.unlink(missing_ok=True)
        forks.stdin.write(json.dumps([environment, str(output), code]) + "\n")
        forks.stdin.flush()
        status = int(forks.stdout.readline())
        text = output.read_text()
        for secret in (*SECRETS, "mistyped-key"):
            assert secret not in text
            assert not any(
                secret.encode() in path.read_bytes()
                for path in folders.data.rglob("*")
                if path.is_file()
            )
        return SimpleNamespace(status=status, output=text, last=text.strip().rpartition("\n")[2])

    return SimpleNamespace(home=home, run=run, folder=folders.data / "raw" / "kaggle" / NAME)


def sign_in(home: Path, kind: str) -> dict[str, str]:
    """Leave credentials of one kind in `home`, or in the variables that are returned."""
    legacy = json.dumps({"username": USER, "key": KEY})
    later = (datetime.now(UTC) + timedelta(hours=6)).isoformat()
    oauth = {
        "refresh_token": "refresh",
        "access_token": OAUTH,
        "access_token_expiration": later,
        "username": USER,
    }
    places = {
        "access_token": (".kaggle/access_token", TOKEN + "\n"),
        "access_token.txt": (".kaggle/access_token.txt", TOKEN),
        "kaggle.json": (".kaggle/kaggle.json", legacy),
        "XDG": (".config/kaggle/kaggle.json", legacy),
        "KAGGLE_CONFIG_DIR": ("elsewhere/kaggle.json", legacy),
        "OAuth": (".kaggle/credentials.json", json.dumps(oauth)),
        "OAuth, old": (".kaggle/credentials.json", json.dumps({**oauth, "access_token": ""})),
    }
    if kind in places:
        place, content = places[kind]
        (home / place).parent.mkdir(parents=True)
        (home / place).write_text(content)
        (home / place).chmod(0o600)
    return {
        "KAGGLE_API_TOKEN": {"KAGGLE_API_TOKEN": TOKEN},
        "KAGGLE_CONFIG_DIR": {kind: str(home / "elsewhere")},
        "KAGGLE_KEY": {"KAGGLE_USERNAME": USER, "KAGGLE_KEY": KEY},
    }.get(kind, {})


@pytest.mark.parametrize(
    "kind, scheme",
    [
        ("KAGGLE_API_TOKEN", f"Bearer {TOKEN}"),
        ("access_token", f"Bearer {TOKEN}"),
        ("access_token.txt", f"Bearer {TOKEN}"),
        ("KAGGLE_KEY", "Basic "),
        ("kaggle.json", "Basic "),
        ("XDG", "Basic "),
        ("KAGGLE_CONFIG_DIR", "Basic "),
        ("OAuth", f"Bearer {OAUTH}"),
        ("OAuth, old", f"Bearer {OAUTH}"),
    ],
)
def test_every_kind_of_credentials_fetches_the_set(kind, scheme, reader, tiny_zip):
    with LoopbackKaggle(tiny_zip) as server:
        result = reader.run(server, **sign_in(reader.home, kind))
    assert (result.status, result.output) == (0, f"at {SLUG}\n")
    assert server.names()[-2:] == ["DownloadDataset", "zip"]
    asked = server.requests[-2]
    assert asked["headers"]["Authorization"].startswith(scheme)
    assert json.loads(asked["body"]) == {"ownerSlug": NAME.split("/")[0], "datasetSlug": SLUG}
    assert len(files(reader.folder)) == 40 * 2 + 4  # table, unlabelled photograph, noise, manifest
    assert sorted(os.listdir(reader.folder.parent)) == [f".{SLUG}.lock", SLUG]


def test_a_second_run_downloads_nothing_and_a_version_is_asked_for(reader, tiny_zip):
    signed_in = sign_in(reader.home, "KAGGLE_API_TOKEN")
    with LoopbackKaggle(tiny_zip) as server:
        assert reader.run(server, **signed_in).status == 0
        came = len(server.requests)
        assert reader.run(server).last == f"at {SLUG}"  # without credentials, too
        assert len(server.requests) == came
        assert (
            reader.run(server, f"print(download.fetch('{NAME}/3').name)", **signed_in).last
            == f"{SLUG}@3"
        )
        assert json.loads(server.requests[-2]["body"])["datasetVersionNumber"] == 3


def test_a_cut_download_goes_on_where_it_was_cut_and_shows_how_far_it_is(reader, tiny_zip):
    with LoopbackKaggle(tiny_zip, cuts=(5 * MIB // 2,)) as server:
        result = reader.run(server, ATTENTION_HEADLESS="", **sign_in(reader.home, "KAGGLE_KEY"))
    assert (result.status, server.names().count("zip")) == (0, 2)
    assert server.requests[-1]["headers"]["Range"] == f"bytes={2 * MIB}-"
    assert "B/s]" in result.output and "unpacking" in result.output
    assert str(reader.home) not in result.output


def test_a_killed_download_goes_on_in_the_next_run(reader, tiny_zip):
    kill = "import os, time\ntime.sleep = lambda seconds: os._exit(9)\n"  # as the client waits to try again
    signed_in = sign_in(reader.home, "KAGGLE_KEY")
    with LoopbackKaggle(tiny_zip, cuts=(3 * MIB // 2,)) as server:
        assert reader.run(server, f"{kill}download.fetch({NAME!r})", **signed_in).status == 9
        assert not reader.folder.exists()
        assert reader.run(server, **signed_in).last == f"at {SLUG}"
    assert server.names() == 2 * ["DownloadDataset", "zip"] + ["zip"]
    assert server.requests[-1]["headers"]["Range"] == f"bytes={MIB}-"


@pytest.mark.parametrize(
    "variables, answers, expected",
    [
        (
            {},
            {},
            "No credentials for Kaggle were found, so {name} was not downloaded. Create a token",
        ),
        (
            {"KAGGLE_API_TOKEN": "mistyped-key"},
            {},
            "did not accept the credentials in KAGGLE_API_TOKEN, so {name}",
        ),
        (
            {"KAGGLE_API_TOKEN": "mistyped-key"},
            {"bad_token": 401},
            "did not accept the credentials in KAGGLE_API_TOKEN",
        ),
        (
            {"KAGGLE_API_TOKEN": "mistyped-key\nx"},
            {},
            "did not accept the credentials in KAGGLE_API_TOKEN",
        ),
        (
            {"KAGGLE_USERNAME": USER, "KAGGLE_KEY": "mistyped-key"},
            {},
            "credentials in KAGGLE_USERNAME and KAGGLE_KEY",
        ),
        (
            {"KAGGLE_API_TOKEN": TOKEN},
            {"status": 403},
            "does not give {name} to this account .* accept its terms",
        ),
        (
            {"KAGGLE_API_TOKEN": TOKEN},
            {"status": 404},
            "Kaggle has no data set {name} .*kaggle.com/datasets/{name}",
        ),
        (
            {"KAGGLE_API_TOKEN": TOKEN},
            {"status": 503},
            r"did not arrive from Kaggle \(error 503\). Check the network",
        ),
    ],
)
def test_a_refusal_is_one_paragraph(variables, answers, expected, reader, tiny_zip, folders):
    with LoopbackKaggle(tiny_zip, **answers) as server:
        result = reader.run(server, **variables)
    check_refusal(result, expected, folders)


@pytest.mark.parametrize("kind", ["KAGGLE_API_TOKEN", "KAGGLE_KEY"])
def test_no_network_is_one_paragraph(kind, reader, tiny_zip, folders):
    with LoopbackKaggle(tiny_zip) as server:
        pass
    result = reader.run(server, **sign_in(reader.home, kind))
    check_refusal(result, r"did not arrive from Kaggle \(ProxyError\). Check the network", folders)


def check_refusal(result, expected: str, folders) -> None:
    assert result.status == 1
    with pytest.raises(AssertionError, match=expected.format(name=NAME)):
        raise AssertionError(result.last)
    assert result.last.startswith("helpers.download.KaggleFailed: ") and result.last.endswith(
        kaggle.WITHOUT.strip()
    )
    assert result.output.count("Traceback") == 1 and "site-packages" not in result.output
    assert files(folders.data) == set()


def test_a_broken_kaggle_json_is_named(reader, tiny_zip, folders):
    (reader.home / ".kaggle").mkdir()
    (reader.home / ".kaggle" / "kaggle.json").write_text("[]")
    with LoopbackKaggle(tiny_zip) as server:
        check_refusal(reader.run(server), "did not accept the credentials in kaggle.json", folders)


def test_masks_come_from_kaggle_too_and_are_joined_by_image_id(reader, tiny, tmp_path):
    masks = tmp_path / "masks" / "deep"
    masks.mkdir(parents=True)
    for path in sorted((tiny / "masks").iterdir())[:7]:
        shutil.copy(path, masks)
    archive = Path(shutil.make_archive(tmp_path / "masks", "zip", tmp_path / "masks"))
    code = (
        f"found = download.find_dataset({str(tiny)!r}, masks='kaggle:tschandl/ham10000-lesion-segmentations')\n"
        "print(found['masks'], found['masks_folder'])"
    )
    with LoopbackKaggle(archive) as server:
        result = reader.run(server, code, **sign_in(reader.home, "access_token"))
    folder = reader.folder.parent.parent / "tschandl" / "ham10000-lesion-segmentations" / "deep"
    assert result.last == f"7 {folder}"


# the notebook


@pytest.fixture
def notebook(folders, tmp_path, monkeypatch):
    """Runs notebook 01 with `dataset` "kaggle" against a server; returns the executed notebook and its text."""
    home = tmp_path / "home"
    home.mkdir()
    for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
        monkeypatch.delenv(name)

    def run(server) -> SimpleNamespace:
        stored = folders.runs / "real" / "01_download.ipynb"
        stored.parent.mkdir(parents=True)
        for name, value in server.environment(home).items():
            monkeypatch.setenv(name, value)
        folder = workspace.PROJECT / "notebooks"
        try:
            papermill.execute_notebook(
                str(folder / stored.name),
                str(stored),
                {"run": "real", "dataset": "kaggle"},
                cwd=str(folder),
                kernel_name="python3",
                progress_bar=False,
            )
            error = None
        except papermill.PapermillExecutionError as caught:
            error = caught
        return SimpleNamespace(error=error, content=json.loads(stored.read_text()))

    return SimpleNamespace(home=home, run=run)


def test_the_notebook_fetches_the_set_and_keeps_the_secret(notebook, tiny_zip, folders):
    sign_in(notebook.home, "kaggle.json")
    with LoopbackKaggle(tiny_zip) as server:
        result = notebook.run(server)
    assert result.error is None
    assert server.names() == ["DownloadDataset", "zip"]
    found = workspace.read_json(folders.runs / "real" / "dataset.json", "01_download.ipynb")
    assert (found["rows"], found["kaggle_dataset"]) == (40, NAME)
    kept = [
        path
        for folder in (folders.runs, folders.data)
        for path in folder.rglob("*")
        if path.is_file()
    ]
    assert len(kept) > 80
    for path in kept:
        assert not any(secret.encode() in path.read_bytes() for secret in SECRETS), path


def test_the_notebook_shows_the_paragraph_alone(notebook, tiny_zip):
    with LoopbackKaggle(tiny_zip) as server:
        result = notebook.run(server)
    assert result.error.ename == "KaggleFailed"
    shown = [
        output
        for cell in result.content["cells"]
        for output in cell.get("outputs", ())
        if output["output_type"] == "error"
    ]
    assert len(shown) == 1 and len(shown[0]["traceback"]) == 1
    assert shown[0]["traceback"][0] == f"KaggleFailed: {shown[0]['evalue']}"
    assert shown[0]["evalue"].startswith("No credentials for Kaggle were found")
