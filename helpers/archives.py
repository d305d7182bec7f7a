"""Zips, unpacked safely: into a new folder, whole or not at all, and with a list of what they held."""

import hashlib
import shutil
import stat
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
        raise FileNotFoundError(f"{parameter}: there is no folder and no whole zip archive at {path}")
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
    stands twice; OSError where the disk is full.
    """
    beside = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as zipped:
            members, seen = zipped.infolist(), set()
            for member in members:
                name = PurePosixPath(member.filename.replace("\\", "/"))
                outside = name.is_absolute() or ".." in name.parts or ":" in member.filename
                if outside or stat.S_ISLNK(member.external_attr >> 16):
                    raise ValueError(f"{archive} is refused: its member {member.filename!r} leaves the folder or links")
                if name in seen:
                    raise ValueError(f"{archive} is refused: its member {member.filename!r} stands twice")
                seen.add(name)
            needed, free = sum(member.file_size for member in members), shutil.disk_usage(beside).free
            if needed > GROWTH * max(archive.stat().st_size, 1_000_000):
                raise ValueError(f"{archive} is refused: its {archive.stat().st_size / 1e6:.1f} MB would become "
                                 f"{needed / 1e6:,.0f} MB, more than {GROWTH} times as much, as no photographs do")
            if needed > 0.95 * free:
                raise OSError(f"{archive} needs {needed / 1e9:.1f} GB in {folder.parent}, where {free / 1e9:.1f} GB "
                              "are free: make room, or set ATTENTION_DATA to a folder on a larger disk")
            for member in tqdm(members, desc="unpacking", disable=workspace.headless()):
                zipped.extract(member, beside)  # checks its CRC
        manifest = [(one.filename, one.file_size, f"{one.CRC:08x}") for one in members if not one.is_dir()]
        pd.DataFrame(manifest, columns=["member", "bytes", "crc32"]).to_csv(beside / "manifest.csv", index=False)
        beside.rename(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: encrypted
        raise ValueError(f"{archive} cannot be unpacked ({error}); download it again") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def checksums(folder: Path) -> dict[Path, int]:
    """CRC-32 of each file that was unpacked into `folder`, below data/raw/, by path; none for any other folder."""
    raw = workspace.data_folder() / "raw"
    for place in (folder, *folder.parents):
        if place.is_relative_to(raw) and (place / "manifest.csv").is_file():
            table = pd.read_csv(place / "manifest.csv", dtype=str)
            return {place / name: int(crc, 16) for name, crc in zip(table["member"], table["crc32"], strict=True)}
    return {}
