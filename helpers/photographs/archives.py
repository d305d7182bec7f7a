"""Zips, unpacked safely: into a new folder, whole or not at all, with a list of their content."""

import difflib
import errno
import hashlib
import shutil
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pandas as pd

from helpers import workspace

LISTED = ["member", "bytes", "crc32"]  # columns of the list of an archive's files
GROWTH = 100  # times its size: what no archive of photographs unpacks to, and a zip bomb does
# zipfile's words for it; the last where a damaged byte asks for a zip of a later version
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, UnicodeDecodeError, NotImplementedError)
METHODS = {9: "Deflate64", 93: "Zstandard", 95: "xz", 98: "PPMd", 99: "AES"}
PACKING = 0x61  # the flags of a member that is encrypted, or a difference from another
UNPACK = "unpack it with a program that can, such as 7-Zip, and name the folder"
# what else people have, by its first bytes
KINDS = (
    (b"\x1f\x8b", f"is packed by gzip, as .tar.gz: {UNPACK}"),
    (b"BZh", f"is packed by bzip2, as .tar.bz2: {UNPACK}"),
    (b"\xfd7zXZ", f"is packed by xz, as .tar.xz: {UNPACK}"),
    (b"\x28\xb5\x2f\xfd", f"is packed by Zstandard, as .tar.zst: {UNPACK}"),
    (b"7z\xbc\xaf\x27\x1c", f"is an archive of 7-Zip: {UNPACK}"),
    (b"Rar!", f"is an archive of RAR: {UNPACK}"),
    (b"PK\x07\x08", f"is the first part of a zip in parts: {UNPACK}"),
    (
        b"PK\x03\x04",
        f"is a zip without its end: download it again; or if it is one of several parts, {UNPACK}",
    ),
    (b"<", "is a page of the web, or XML: download it again, signed in where that is asked"),
    (b"\xff\xd8\xff", "is one photograph: name the folder in which it and the table lie"),
)


def open_folder(place: str, parameter: str) -> Path:
    """A folder as it is, or the folder under data/raw/ into which a zip was unpacked.

    A zip is unpacked once for one content.

    Raises:
        FileNotFoundError: there is neither; it names the parameter, and what is there.
        ValueError, OSError: as `unpack`.
    """
    path = workspace.resolve(place)
    with workspace.saying_what_fails(path):
        if path.is_dir():
            return path
        if not path.is_file() or not zipfile.is_zipfile(path):
            raise FileNotFoundError(f"{parameter}: {what_is_at(path)}")
        if in_parts(path):
            raise ValueError(f"{parameter}: {path} is the last part of a zip in parts: {UNPACK}")
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    name = path.stem.encode()[:100].decode(errors="ignore")  # no disk takes names of any length
    folder = workspace.data_folder() / "raw" / f"{name}-{content[:8]}"
    with workspace.locked(folder):
        if not folder.exists():
            unpack(path, folder)
    return folder


def what_is_at(path: Path) -> str:
    """What there is in place of a folder or a zip, and what to do."""
    if not path.exists():
        there = next(folder for folder in path.parents if folder.is_dir())
        names = sorted(beside.name for beside in there.iterdir())
        if there != path.parent:
            return f"there is no folder and no zip at {path}; {there} has no {path.parent.name}"
        near = difflib.get_close_matches(path.name, names, n=3)
        like = f"; beside it are {', '.join(near)}" if near else ""
        return f"there is no folder and no zip at {path}{like}"
    if not path.is_file():
        return f"{path} is neither a folder nor a file"
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except PermissionError as error:
        return f"{path} cannot be opened ({error.strerror})"
    for start, words in KINDS:
        if head.startswith(start):
            return f"{path} {words}"
    if head[257:262] == b"ustar":
        return f"{path} is a tar: {UNPACK}"
    if path.suffix.lower() in (".csv", ".tsv", ".xlsx", ".xls"):
        return f"{path} is a table: name the folder in which it and the photographs lie"
    return f"{path} is neither a folder nor a zip: name one that data/README.md describes"


def in_parts(archive: Path) -> bool:
    """Whether a zip begins in other files: its end says in how many."""
    with archive.open("rb") as file:
        file.seek(max(0, archive.stat().st_size - (1 << 16) - 22))
        end = file.read().rpartition(b"PK\5\6")[2]
    return end[:2] not in (b"\0\0", b"\xff\xff")  # the latter: its fields of 64 bits say it


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip into a new folder, whole or not at all, and list its members beside it.

    Raises:
        ValueError: the zip is damaged, is packed in a way that Python cannot read, would grow
            beyond reason, or has a member that leaves the folder, links, or stands twice (in
            letters of another case, too: not every disk tells them apart).
        OSError: the disk is full.
    """
    beside = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with workspace.saying_what_to_do(folder):
            beside.mkdir(parents=True)
            with zipfile.ZipFile(archive) as zipped:
                members = zipped.infolist()
                for member in members:  # some programs of Windows write the other stroke
                    member.filename = member.filename.replace("\\", "/")
                refuse_names(archive, members)
                refuse_size(archive, members, beside)
                refuse_packing(archive, zipped)
                for member in workspace.progress("unpacking", members):
                    zipped.extract(member, beside)  # checks its CRC
            write_manifest(manifest_of(folder), members)
            workspace.move(beside, folder)
    except DAMAGE as error:
        raise ValueError(f"{archive} cannot be unpacked ({error}); download it again") from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # its directory points to a place before the file's first byte
        raise ValueError(
            f"{archive} cannot be unpacked (its directory is damaged); download it again"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def refuse_packing(archive: Path, zipped: zipfile.ZipFile) -> None:
    """Raises ValueError where Python cannot read a way in which members are packed.

    Windows packs files beyond 2 GB by Deflate64; others need a password.
    """
    kinds = {}
    for member in zipped.infolist():
        kinds.setdefault((member.compress_type, member.flag_bits & PACKING), member)
    for member in kinds.values():
        try:
            zipped.open(member).close()
        except RuntimeError as error:  # a password; NotImplementedError is one, too
            method = METHODS.get(member.compress_type, f"method {member.compress_type}")
            raise ValueError(
                f"{archive} cannot be unpacked here: {member.filename[:99]!r} is packed in a way "
                f"that Python does not read ({method}: {error}). If it is whole, {UNPACK}"
            ) from error


def refuse_size(archive: Path, members: list[zipfile.ZipInfo], folder: Path) -> None:
    """Raises ValueError for what grows as no photographs do, OSError where there is no room."""
    needed = sum(member.file_size for member in members)
    packed = archive.stat().st_size
    if needed > GROWTH * max(packed, 1_000_000):
        raise ValueError(
            f"{archive} is refused: its {packed / 1e6:.1f} MB would become {needed / 1e6:,.0f} MB, "
            f"more than {GROWTH} times as much, as no photographs do"
        )
    free = workspace.free_space(folder)
    if needed > 0.95 * free:
        raise OSError(
            f"{archive} needs {needed / 1e9:.1f} GB in {folder.parent}, where {free / 1e9:.1f} GB "
            "are free: make room, or set ATTENTION_DATA to a folder on a larger disk"
        )


def refuse_names(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    """Raises ValueError where members would not be the same files, in the folder, on every disk."""
    seen = set()
    files = set()
    folders = set()
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        name = PurePosixPath(unicodedata.normalize("NFC", str(path)).casefold())
        wrong = flaw(member, path)
        if not wrong and name in seen:
            wrong = "stands twice (names that differ in case alone count as one)"
        if wrong:
            raise ValueError(f"{archive} is refused: its member {member.filename[:99]!r} {wrong}")
        seen.add(name)
        folders.update(name.parents)
        if not member.is_dir():
            files.add(name)
    for name in files & folders:
        raise ValueError(f"{archive} is refused: its member {str(name)!r} is a file and a folder")


def flaw(member: zipfile.ZipInfo, path: PurePosixPath) -> str:
    """Why a member, whose path in the folder this is, cannot be unpacked as it says, or ""."""
    if path.is_absolute() or ".." in path.parts or ":" in member.filename:
        return "leaves the folder or links"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "leaves the folder or links"
    if len(member.filename.encode()) > 1000:
        return "has a name too long for a disk"
    if any(len(part.encode()) > 255 for part in path.parts):
        return "has a name too long for a disk"
    if not path.parts:
        return "has no name"
    return ""


def manifest_of(folder: Path) -> Path:
    """Where the list of what was unpacked into a folder lies: beside it, out of their way."""
    return folder.with_name(f"{folder.name}.manifest.csv")


def write_manifest(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """List the files of a zip: member, bytes, crc32 (eight hexadecimal digits)."""
    files = [member for member in members if not member.is_dir()]
    table = pd.DataFrame(
        {
            "member": [member.filename for member in files],
            "bytes": [member.file_size for member in files],
            "crc32": [f"{member.CRC:08x}" for member in files],
        }
    )
    with workspace.replacing(path) as beside:
        table.to_csv(beside, index=False)


def find_manifest(folder: Path) -> Path | None:
    """The list of the archive that a folder, or one above it below data/raw/, came from."""
    raw = workspace.data_folder() / "raw"
    for place in (folder, *folder.parents):
        if place.is_relative_to(raw) and is_manifest(manifest_of(place)):
            return manifest_of(place)
    return None


def is_manifest(path: Path) -> bool:
    """Whether this is a list of ours, and no table of the reader's own under the same name."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline().strip() == ",".join(LISTED)


def checksums(folder: Path) -> dict[Path, int]:
    """CRC-32 of each file that was unpacked into `folder`, by path; none for any other folder."""
    manifest = find_manifest(folder)
    if manifest is None:
        return {}
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    place = manifest.with_name(manifest.name.removesuffix(".manifest.csv"))
    sums = {}
    for name, crc in zip(table["member"], table["crc32"], strict=True):
        sums[place / name] = int(crc, 16)
    return sums


def only(found: Iterable[Path], what: str) -> Path:
    """The only member of `found`. Raises ValueError for none or several."""
    found = sorted(found)
    if len(found) != 1:
        examples = " (" + ", ".join(map(str, found[:2])) + ")" if found else ""
        raise ValueError(
            f"expected {what}, found {len(found)}{examples}; name the folder or zip of one data "
            "set, laid out as data/README.md describes"
        )
    return found[0]
