"""Zips that are damaged, hostile, odd or very full: each is refused in a sentence, or unpacked
whole.

`../`, absolute, drive and backslash names, links, a bomb, a member twice, a lying length,
a cut, a page of HTML and a changed byte of stored data are in tests/photographs/test_sources.py;
other archives and other ways of packing in tests/photographs/test_packing.py; two processes at
once in test_server.py.
"""

import io
import random
import shutil
import struct
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from helpers.photographs import archives, sources
from helpers.photographs.split import read_table
from tests.conftest import zip_of


def unpacks_or_says(archive: Path, folder: Path) -> bool:
    """Whether the zip unpacks; if not, that a sentence says why and nothing is left of it."""
    try:
        archives.unpack(archive, folder)
    except ValueError as error:
        said = str(error)
        assert said.startswith(str(archive)), said
        assert (
            not folder.exists()
            and [path for path in folder.parent.iterdir() if path != archive] == []
        )
        return False
    return True


@pytest.mark.parametrize("step", [23, pytest.param(1, marks=pytest.mark.long)])
def test_a_changed_byte_anywhere_is_noticed_or_harmless(step, tmp_path):
    """Every byte of a small zip, changed in three ways.

    What unpacks all the same holds the photographs' own bytes.
    """
    contents = {
        name: name.encode() * 20 + random.Random(name).randbytes(40)
        for name in ("marking.csv", "deep/a.jpg", "deep/b.jpg")
    }
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("deep/", "")
        for name, content in contents.items():
            zipped.writestr(name, content)
    whole, archive, folder, outcomes = whole.getvalue(), tmp_path / "set.zip", tmp_path / "set", []
    for at in range(0, len(whole), step):
        for flip in (255, 1, 128):
            archive.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
            outcomes.append(unpacks_or_says(archive, folder))
            if outcomes[-1]:  # a changed name is another name; the bytes are as they were
                held = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
                table = pd.read_csv(archives.manifest_of(folder))
                assert len(held) == len(table)
                assert sum(content in contents.values() for content in held) == len(table)
                shutil.rmtree(folder)
                archives.manifest_of(folder).unlink()
    assert 0.3 < sum(outcomes) / len(outcomes) < 0.6, (
        "dates and the like may change; names, sizes and data may not"
    )


def test_a_member_of_a_later_version_of_zip_is_told(tmp_path):
    archive = zip_of(tmp_path / "set.zip", {"a.jpg": b"one"})
    packed = bytearray(archive.read_bytes())
    packed[packed.index(b"PK\1\2") + 6] = 235  # the version that it takes, 23.5
    archive.write_bytes(packed)
    assert not unpacks_or_says(archive, tmp_path / "set")


@pytest.mark.parametrize(
    "name, what",
    [
        ("a/" + "x" * 300 + ".jpg", "has a name too long for a disk"),
        ("deep/" * 3000 + "a.jpg", "has a name too long"),
        ("ä" * 130, "has a name too long"),
        (".", "has no name"),
        ("D\u00e9ep/A.JPG", "stands twice .names that differ in case alone count as one."),
        ("de\u0301ep/a.jpg", "stands twice"),
        ("d\u00e9ep", "is a file and a folder"),
        ("d\u00e9ep/a.jpg/b.jpg", "is a file and a folder"),
        ("..", "leaves the folder"),
        ("a/../b.jpg", "leaves the folder"),
        ("\\\\host\\share\\a.jpg", "leaves the folder"),
        ("//host/a.jpg", "leaves the folder"),
        ("a.jpg:stream", "leaves the folder"),
        ("C:a.jpg", "leaves the folder"),
    ],
)
def test_names_that_not_every_disk_takes_are_refused(name, what, tmp_path):
    archive = zip_of(
        tmp_path / "set.zip", {"d\u00e9ep/a.jpg": b"one", "other/b.jpg": b"two", name: b"three"}
    )
    with pytest.raises(ValueError, match=rf"set\.zip is refused: its member .* {what}"):
        archives.unpack(archive, tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]


def test_a_name_ends_where_it_holds_a_zero_and_one_in_no_alphabet_is_refused(tmp_path):
    archive = zip_of(tmp_path / "set.zip", {"a.jpg": b"one", "bbbé.jpg": b"two"})
    content = archive.read_bytes()
    archive.write_bytes(content.replace(b"a.jpg", b"a\0jpg"))
    archives.unpack(archive, tmp_path / "zero")
    assert (tmp_path / "zero" / "a").read_bytes() == b"one"
    archive.write_bytes(content.replace(b"a.jpg", b"\0.jpg"))
    with pytest.raises(ValueError, match=r"set\.zip is refused: its member '' has no name"):
        archives.unpack(archive, tmp_path / "no")
    archive.write_bytes(content.replace("é".encode(), b"\xff\xff"))
    with pytest.raises(
        ValueError, match=r"set\.zip cannot be unpacked \('utf-8' codec.*\); download it again"
    ):
        archives.unpack(archive, tmp_path / "no")


def test_names_in_the_alphabet_of_old_zips_unpack(tmp_path):
    """Without the mark for UTF-8 a name is in code page 437, in which every byte is a letter."""
    archive = zip_of(tmp_path / "set.zip", {"bbbb.jpg": b"two"})
    archive.write_bytes(archive.read_bytes().replace(b"bbbb", b"\xe4\xff\x80\xa9"))
    archives.unpack(archive, tmp_path / "set")
    assert sorted(path.suffix for path in (tmp_path / "set").iterdir()) == [".jpg"]


def test_names_that_a_table_takes_for_missing_are_names(folders, tmp_path):
    """ "NA" and "null" in the manifest."""
    archive = zip_of(tmp_path / "set.zip", {"NA": b"one", "null": b"two", 'a,"b".jpg': b"three"})
    folder = archives.open_folder(str(archive), "dataset")
    assert {path.name for path in archives.checksums(folder)} == {"NA", "null", 'a,"b".jpg'}


@pytest.mark.parametrize(
    "sizes", [(200_000_000,), (60_000_000, 60_000_000), (2**63 - 1,), (2**32 - 1,)]
)
def test_what_claims_to_grow_beyond_reason_is_refused_unread(sizes, tmp_path, monkeypatch):
    """The directory alone says so, in fields of 64 bits where it must; no byte is unpacked."""
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for number, _ in enumerate(sizes):
            zipped.writestr(f"{number}.jpg", bytes(1000))
        for one, size in zip(zipped.infolist(), sizes, strict=True):
            one.file_size = size
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda *wanted: pytest.fail("it is read"))
    with pytest.raises(ValueError, match="100 times|Overlapped"):
        archives.unpack(archive, tmp_path / "bomb")
    assert [path.name for path in tmp_path.iterdir()] == ["bomb.zip"]


def test_members_that_share_their_bytes_are_refused(tmp_path):
    """A bomb without nesting: a hundred names for one piece of data."""
    archive = zip_of(
        tmp_path / "set.zip", {f"{number:03d}.jpg": b"same" * 9 for number in range(100)}
    )
    content = bytearray(archive.read_bytes())
    at = content.index(b"PK\x01\x02")
    for _ in range(100):
        content[at + 42 : at + 46] = struct.pack("<I", 0)  # every member begins at the first byte
        at = content.find(b"PK\x01\x02", at + 1)
    archive.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"set\.zip cannot be unpacked \((Overlapped|File name in directory)"
    ):
        archives.unpack(archive, tmp_path / "set")


def test_fields_of_64_bits_unpack(tmp_path):
    archive = tmp_path / "set.zip"
    with (
        zipfile.ZipFile(archive, "w") as zipped,
        zipped.open("a.jpg", "w", force_zip64=True) as file,
    ):
        file.write(b"photograph")
    archives.unpack(archive, tmp_path / "set")
    assert (tmp_path / "set" / "a.jpg").read_bytes() == b"photograph"


@pytest.mark.parametrize(
    "members, found",
    [
        ({}, "found 0"),
        ({"a.jpg": b"", "512x512-test/b.jpg": b""}, "found 0"),
        ({"marking.csv/a.jpg": b""}, "found 0"),
        (
            {"one/marking.csv": b"", "two/marking.csv": b""},
            r"found 2 .*one/marking\.csv, .*two/marking\.csv",
        ),
    ],
)
def test_a_zip_without_one_table_is_named(members, found, folders, tmp_path):
    archive = zip_of(tmp_path / "set.zip", members)
    with pytest.raises(ValueError, match=rf"marking\.csv in .*, {found}.*name the folder or zip"):
        sources.find_dataset(str(archive))


@pytest.mark.parametrize("count", [1000, pytest.param(20_000, marks=pytest.mark.long)])
def test_thousands_of_files_that_nobody_asked_for_do_no_harm(count, tiny_zip, folders, tmp_path):
    """Empty ones, photographs of nobody, tables of other names."""
    crowded = tmp_path / "crowded.zip"
    shutil.copy(tiny_zip, crowded)
    with zipfile.ZipFile(crowded, "a") as zipped:
        for number in range(count):
            zipped.writestr(
                f"extra/{number % 97}/{number}.{('txt', 'jpg', 'csv')[number % 3]}", b""
            )
    for _ in range(2):  # the first call unpacks, the second finds
        found = sources.find_dataset(str(crowded))
        assert (found["rows"], found["images"], found["masks"]) == (40, 40, 40)
        assert found["checked_against_archive"]
        assert len(read_table(found)) == 40
