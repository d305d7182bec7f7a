"""Zips, unpacked safely: into a new folder, whole or not at all, and with a list of what they held."""

import errno
import hashlib
import shutil
import stat
import unicodedata
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import pandas as pd
from tqdm.auto import tqdm

from helpers import workspace

GROWTH = 100  # times its size: what no archive of photographs unpacks to, and a zip bomb does


def open_folder(place: str, parameter: str) -> Path:
    """A folder as it is, or the folder under data/raw/ into which a zip was unpacked (once for one content)."""
    path = workspace.resolve(place)
    if path.is_dir():
        return path
    if not zipfile.is_zipfile(path):
        raise FileNotFoundError(
            f"{parameter}: there is no folder and no whole zip archive at {path}"
        )
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    folder = workspace.data_folder() / "raw" / f"{path.stem}-{content[:8]}"
    with workspace.locked(folder):
        if not folder.exists():
            unpack(path, folder)
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip into a new folder, whole or not at all, and list its members in `manifest.csv`.

    Raises ValueError for a damaged zip, one that would grow beyond reason, or a member that leaves the folder, links or
    stands twice (in another case of letters too: not every disk tells them apart); OSError where the disk is full.
    """
    beside = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as zipped, workspace.saying_what_to_do(folder):
            beside.mkdir(parents=True)
            members = zipped.infolist()
            refuse_names(archive, members)
            needed, free = (
                sum(member.file_size for member in members),
                shutil.disk_usage(beside).free,
            )
            if needed > GROWTH * max(archive.stat().st_size, 1_000_000):
                raise ValueError(
                    f"{archive} is refused: its {archive.stat().st_size / 1e6:.1f} MB would become "
                    f"{needed / 1e6:,.0f} MB, more than {GROWTH} times as much, as no photographs do"
                )
            if needed > 0.95 * free:
                raise OSError(
                    f"{archive} needs {needed / 1e9:.1f} GB in {folder.parent}, where {free / 1e9:.1f} GB "
                    "are free: make room, or set ATTENTION_DATA to a folder on a larger disk"
                )
            for member in tqdm(members, desc="unpacking", disable=workspace.headless()):
                zipped.extract(member, beside)  # checks its CRC
            manifest = [
                (one.filename, one.file_size, f"{one.CRC:08x}")
                for one in members
                if not one.is_dir()
            ]
            pd.DataFrame(manifest, columns=["member", "bytes", "crc32"]).to_csv(
                beside / "manifest.csv", index=False
            )
            beside.rename(folder)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        UnicodeDecodeError,
        RuntimeError,
    ) as error:  # Runtime: encrypted
        raise ValueError(f"{archive} cannot be unpacked ({error}); download it again") from error
    except OSError as error:
        if (
            error.errno == errno.EINVAL
        ):  # a directory that points to a place before the file's first byte
            raise ValueError(
                f"{archive} cannot be unpacked (its directory is damaged); download it again"
            ) from error
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def refuse_names(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    """Raises ValueError where a member would leave the folder, or would not be the same file on every disk."""
    seen, files, folders = set(), set(), set()
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        name = unicodedata.normalize("NFC", str(path)).casefold()
        outside = path.is_absolute() or ".." in path.parts or ":" in member.filename
        long = len(member.filename.encode()) > 1000 or any(
            len(part.encode()) > 255 for part in path.parts
        )
        what = (
            "leaves the folder or links"
            if outside or stat.S_ISLNK(member.external_attr >> 16)
            else "has a name too long for a disk"
            if long
            else "has no name"
            if not path.parts
            else "stands twice (names that differ in case alone count as one)"
            if name in seen
            else ""
        )
        if what:
            raise ValueError(f"{archive} is refused: its member {member.filename[:99]!r} {what}")
        seen.add(name)
        folders.update(PurePosixPath(name).parents)
        if not member.is_dir():
            files.add(PurePosixPath(name))
    for name in files & folders:
        raise ValueError(f"{archive} is refused: its member {str(name)!r} is a file and a folder")


def checksums(folder: Path) -> dict[Path, int]:
    """CRC-32 of each file that was unpacked into `folder`, below data/raw/, by path; none for any other folder."""
    raw = workspace.data_folder() / "raw"
    for place in (folder, *folder.parents):
        if place.is_relative_to(raw) and (place / "manifest.csv").is_file():
            table = pd.read_csv(place / "manifest.csv", dtype=str, keep_default_na=False)
            return {
                place / name: int(crc, 16)
                for name, crc in zip(table["member"], table["crc32"], strict=True)
            }
    return {}
