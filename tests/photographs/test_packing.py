"""Archives as other programs write them: what is unpacked, and what is refused with a way on.

Damage and hostile members are in tests/faults/test_archives.py.
"""

import shutil
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from helpers import workspace
from helpers.photographs import archives, sources
from tests.conftest import files, zip_of

CONTENT = {"set/marking.csv": b"image_id\n" * 99, "set/photographs/a.jpg": b"one" * 99}


def marked(archive: Path, *, method: int | None = None, flags: int = 0, member: int = 0) -> Path:
    """A zip whose headers say that a member is packed by another method, or has these flags."""
    content = bytearray(archive.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the member's own header; the directory
        at = -1
        for _ in range(member + 1):
            at = content.index(mark, at + 1)
        content[at + place] |= flags
        if method is not None:
            content[at + place + 2 : at + place + 4] = struct.pack("<H", method)
    archive.write_bytes(content)
    return archive


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_ways_of_packing_that_python_reads_are_unpacked(method, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w", method) as zipped:
        for name, content in CONTENT.items():
            zipped.writestr(name, content)
    archives.unpack(tmp_path / "set.zip", tmp_path / "set")
    assert files(tmp_path / "set") == set(CONTENT)


@pytest.mark.parametrize(
    "marks, fact",
    [
        ({"method": 9}, "Deflate64"),  # what Windows writes for files beyond 2 GB
        ({"method": 9, "member": 1}, "photographs/a.jpg"),
        ({"method": 98}, "PPMd"),
        ({"method": 97}, "97"),
        ({"method": 99, "flags": 1}, "AES"),
        ({"flags": 1}, "password"),
        ({"flags": 0x41}, "encryption"),
        ({"flags": 0x20}, "patched"),
    ],
)
def test_ways_of_packing_that_python_does_not_read_name_a_program_that_does(marks, fact, tmp_path):
    archive = marked(zip_of(tmp_path / "set.zip", CONTENT), **marks)
    with pytest.raises(ValueError, match=rf"(?s)set\.zip.*{fact}.*7-Zip"):
        archives.unpack(archive, tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]


def test_names_with_the_strokes_of_windows_become_folders(tiny, folders, tmp_path):
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in sorted(tiny.rglob("*")):
            if path.is_file():
                name = str(path.relative_to(tiny.parent)).replace("/", "\\")
                member = zipfile.ZipInfo("placeholder")
                member.filename = name
                zipped.writestr(member, path.read_bytes())
        member = zipfile.ZipInfo("placeholder")
        member.filename = "set\\empty\\"
        zipped.writestr(member, b"")
    found = sources.find_dataset(str(archive))
    assert (found["rows"], found["masks"], found["checked_against_archive"]) == (40, 40, True)


def tar(folder: Path, mode: str) -> bytes:
    with tarfile.open(folder / "set.tar", f"w{mode}") as packed:
        packed.add(__file__, "marking.csv")
    content = (folder / "set.tar").read_bytes()
    (folder / "set.tar").unlink()
    return content


KINDS = {
    "set.tar": (lambda folder: tar(folder, ""), "tar"),
    "set.tar.gz": (lambda folder: tar(folder, ":gz"), "gzip"),
    "set.tar.bz2": (lambda folder: tar(folder, ":bz2"), "bzip2"),
    "set.tar.xz": (lambda folder: tar(folder, ":xz"), "xz"),
    "set.rar": (lambda _: b"Rar!\x1a\7\1\0" + bytes(99), "RAR"),
    "set.7z": (lambda _: b"7z\xbc\xaf\x27\x1c" + bytes(99), "7-Zip"),
    "set.zip.001": (lambda _: b"PK\7\x08PK\3\4" + bytes(99), "parts"),
    "set.z01": (lambda _: b"PK\3\4" + bytes(99), "parts"),
    "set.zip": (lambda _: b"\n<!DOCTYPE html><html>Sign in</html>".strip(), "page of the web"),
    "marking.csv": (lambda _: b"image_id,target\n", "folder in which it"),
    "a.jpg": (lambda _: b"\xff\xd8\xff\xe0" + bytes(99), "folder in which it"),
    "notes.txt": (lambda _: b"notes", "neither a folder nor a zip"),
    "empty.zip": (lambda _: b"", "neither a folder nor a zip"),
}


@pytest.mark.parametrize("parameter", ["dataset", "masks"])
@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_zip_is_named_by_its_kind(name, parameter, folders, tmp_path):
    make, fact = KINDS[name]
    path = tmp_path / name
    path.write_bytes(make(tmp_path))
    with pytest.raises(FileNotFoundError) as raised:
        archives.open_folder(str(path), parameter)
    for part in (parameter, str(path), fact):
        assert part in str(raised.value)
    assert files(tmp_path) == {name}


def test_the_last_part_of_a_zip_in_parts_is_told(folders, tmp_path):
    archive = zip_of(tmp_path / "set.zip", CONTENT)
    content = bytearray(archive.read_bytes())
    at = content.rindex(b"PK\5\6")
    content[at + 4 : at + 8] = struct.pack("<HH", 2, 0)  # this is the third; it began in the first
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"dataset: .*set\.zip is the last part.*7-Zip"):
        archives.open_folder(str(archive), "dataset")


def test_a_zip_whose_end_is_in_fields_of_64_bits_is_in_one_part(tmp_path):
    archive = zip_of(tmp_path / "set.zip", CONTENT)
    content = bytearray(archive.read_bytes())
    at = content.rindex(b"PK\5\6")
    content[at + 4 : at + 12] = b"\xff" * 8
    archive.write_bytes(content)
    assert not archives.in_parts(archive)


def test_a_mistyped_place_names_what_is_beside_it(folders, tmp_path):
    zip_of(tmp_path / "melanoma-512.zip", CONTENT)
    with pytest.raises(FileNotFoundError, match=r"melanoma-512\.zip"):
        archives.open_folder(str(tmp_path / "melanoma_512.zip"), "dataset")
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} has no gone"):
        archives.open_folder(str(tmp_path / "gone" / "set"), "dataset")


@pytest.mark.parametrize("stem", ["x" * 250, "ü" * 120, "set of photographs (1)"])
def test_a_long_name_of_a_zip_makes_no_name_too_long_for_a_disk(stem, tiny_zip, folders, tmp_path):
    archive = Path(shutil.copy(tiny_zip, tmp_path / f"{stem}.zip"))
    assert sources.find_dataset(str(archive))["rows"] == 40
    assert sources.find_dataset(str(archive))["checked_against_archive"]


def test_what_other_systems_add_to_a_zip_is_passed_over(tiny_zip, folders, tmp_path):
    archive = Path(shutil.copy(tiny_zip, tmp_path / "set.zip"))
    with zipfile.ZipFile(tiny_zip) as zipped:
        inside = "512x512-dataset-melanoma/512x512-dataset-melanoma"
        photographs = [name for name in zipped.namelist() if name.startswith(f"{inside}/SAMPLE")]
    with zipfile.ZipFile(archive, "a") as zipped:
        for name in ("Thumbs.db", "desktop.ini", ".DS_Store", f"{inside}/Thumbs.db"):
            zipped.writestr(name, b"system")
        zipped.writestr("__MACOSX/marking.csv", b"attributes")
        zipped.writestr(".Trash-1000/files/marking.csv", b"deleted")
        for name in photographs:
            zipped.writestr(f"__MACOSX/{name}", b"attributes")
            zipped.writestr(f"@eaDir/{Path(name).name}", b"thumbnail")
            zipped.writestr(f"{inside}/._{Path(name).name}", b"attributes")
    assert sources.find_dataset(str(archive))["rows"] == 40


def test_a_disk_that_does_not_say_what_is_free_is_tried(tiny_zip, tmp_path, monkeypatch):
    nothing = shutil.disk_usage(tmp_path)._replace(total=0, used=0, free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: nothing)
    archives.unpack(tiny_zip, tmp_path / "set")
    assert (tmp_path / "set" / "marking.csv").is_file()
    assert workspace.free_space(tmp_path) > 1e30
