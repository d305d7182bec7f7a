"""The one reader of a photograph: judged by its header, decoded, squashed to a square.

Whatever asks for pixels asks here, so that there is one set of limits and one sentence for each
thing that can be wrong.
"""

import io
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps

from helpers import workspace

TURNS = range(1, 9)  # EXIF's orientations
LEAST = 16  # pixels a side
MOST = 80_000_000  # pixels in all: what is larger is not decoded
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")  # whatever the file's name says
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # in letters of any case
# Pillow's words for pixels that become 8-bit RGB without a guess; 16-bit colour is "RGB" to it
KINDS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I;16B", "I;16L")
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# what it warns of is refused below, in a sentence
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
CHUNK = 64  # files that one core reads at a time: a job for each would cost more than a small file


class Header(NamedTuple):
    """What a file says of itself before a pixel is decoded."""

    width: int  # pixels
    height: int
    mode: str  # Pillow's word for the kind of pixels: "RGB", "L", "CMYK", "I;16" ...
    transparency: bool  # whether its pixels may be see-through
    orientation: int = 1  # EXIF's, 1 to 8: how its pixels have to be turned to stand upright


class Inspected(NamedTuple):
    """What reading every byte of many files has shown, by file name."""

    checksums: dict[str, str]  # CRC-32 of the files that can be used, as eight hexadecimal digits
    unusable: dict[str, str]  # why each of the others cannot be
    seen: dict[str, Any]  # what the check has found in those that can be used


def read_photograph(
    path: Path, *, at_least: int | None = None, crc: int | None = None
) -> np.ndarray:
    """A photograph as a standard decoder gives it, upright as its EXIF says.

    Not in true colours: where a source stores red and blue exchanged, so are they here.

    Args:
        path: the file.
        at_least: the smallest side that is needed, in pixels. A JPEG is decoded at 1/2, 1/4 or 1/8
            of its size where both sides stay at least as long; None decodes all pixels.
        crc: the CRC-32 that its bytes must have; None: not known.

    Returns:
        uint8 [H, W, 3], red first.

    Raises:
        ValueError: the file's name and what is wrong with it: missing, empty, changed, damaged, cut
            short, animated, see-through, no photograph, of values that are no colours of 8 or 16
            bits, too small or too large.
    """
    return decode(path, read_bytes(path, crc), at_least)


def square(path: Path, side: int, *, swapped: bool, crc: int | None = None) -> np.ndarray:
    """A photograph squashed to a square in true colours: uint8 [side, side, 3], red first.

    Args:
        path: the file.
        side: of the square, in pixels.
        swapped: whether the file holds red and blue exchanged.
        crc: as in `read_photograph`, which says what is raised.
    """
    pixels = read_photograph(path, at_least=side, crc=crc)
    pixels = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    if swapped:
        return cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return pixels


def decode_whole(path: Path, content: bytes) -> Header:
    """The header of a photograph all of whose pixels can be decoded, else raises ValueError."""
    decode(path, content, 1)
    return judge(path, content)


def inspect(
    paths: list[Path],
    expected: dict[Path, int],
    check: Callable[[Path, bytes], Any] = decode_whole,
    what: str = "checking",
) -> Inspected:
    """Read and decode every one of these files, on all cores.

    Args:
        paths: files with different names.
        expected: CRC-32 by path, of those where it is known.
        check: is given the path and bytes of each, and raises ValueError for what cannot be used.
        what: what they are called beside the progress bar.
    """
    checksums, unusable, seen = {}, {}, {}

    def look(start: int) -> None:
        for path in paths[start : start + CHUNK]:
            try:
                content = read_bytes(path, expected.get(path))
                seen[path.name] = check(path, content)
                checksums[path.name] = f"{zlib.crc32(content):08x}"
            except ValueError as error:
                unusable[path.name] = str(error)
            bar.update()

    bar = workspace.progress(what, total=len(paths))
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(look, range(0, len(paths), CHUNK)))
    names = [path.name for path in paths]  # threads end in any order
    return Inspected(
        {name: checksums[name] for name in names if name in checksums},
        {name: unusable[name] for name in names if name in unusable},
        {name: seen[name] for name in names if name in checksums},
    )


def refusal(path: Path, why: str) -> ValueError:
    return ValueError(f"{path} cannot be decoded: {why}")


def read_bytes(path: Path, crc: int | None = None) -> bytes:
    """All bytes of a file, which must have this CRC-32 if one is given.

    Raises:
        ValueError: what is wrong with the file.
        CannotRead: what is wrong with the disk, which says nothing of the file.
    """
    try:
        with workspace.saying_what_fails(path):
            status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, a device has no end
            raise refusal(path, "it is a folder, a pipe or a device, not a file")
        if status.st_size > 3 * MOST:
            raise refusal(path, f"{status.st_size:,} bytes, more than {MOST:,} pixels take")
        with workspace.saying_what_fails(path):
            content = path.read_bytes()
    except workspace.CannotRead:
        raise
    except OSError as error:
        raise refusal(path, error.strerror or "it cannot be read") from error
    if crc is not None and zlib.crc32(content) != crc:
        raise refusal(path, f"its bytes have changed: their CRC-32 is not {crc:08x}")
    return content


def judge(path: Path, content: bytes) -> Header:
    """What the bytes of a file say of themselves; no pixel is decoded. Raises ValueError."""
    if not content:
        raise refusal(path, "it is empty")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            header = Header(*image.size, image.mode, image.has_transparency_data)
            header = header._replace(orientation=orientation_of(image))
            # MPO is a telephone's JPEG with a second picture in it
            animated = image.format != "MPO" and getattr(image, "is_animated", False)
            # zeros in place of a JPEG's end decode, too
            ends = image.format != "JPEG" or content.find(b"\xff\xd9", image.fp.tell()) > 0
    except Image.DecompressionBombError as error:
        raise refusal(path, f"its header says more than {MOST:,} pixels") from error
    except (OSError, SyntaxError, ValueError) as error:
        known = ", ".join(FORMATS)
        raise refusal(
            path,
            f"it is no photograph of a kind known here ({known}), or its header is damaged; a HEIC "
            "of a telephone has to be exported as JPEG first",
        ) from error
    if animated:
        raise refusal(path, "it is animated; save one picture of it")
    if min(header[:2]) < LEAST or header.width * header.height > MOST:
        size = f"{header.width} x {header.height} pixels"
        raise refusal(path, f"{size}; expected {LEAST} a side to {MOST:,} in all")
    if not ends:
        raise refusal(path, "it is damaged or cut short")
    return header


def orientation_of(image: Image.Image) -> int:
    """EXIF's orientation of an image whose header alone is read; 1, upright, where it has none."""
    # of a TIFF Pillow says the size as it stands upright; a PNG's EXIF may lie behind its pixels
    if image.format == "TIFF" or "exif" not in image.info:
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, SyntaxError, ValueError, struct.error):  # damaged, which OpenCV passes over
        return 1
    return orientation if orientation in TURNS else 1


def decode(path: Path, content: bytes, at_least: int | None) -> np.ndarray:
    """The pixels in the bytes of a file, as `read_photograph` returns them. Raises ValueError."""
    header = judge(path, content)
    if header.mode not in KINDS:
        raise refusal(
            path,
            f"its pixels are of kind {header.mode}, which cannot be turned into colours "
            "faithfully; export it as RGB with 8 bits a channel",
        )
    if header.mode == "CMYK":
        return decode_print(path, content)
    times = 1
    if at_least:
        for factor in (2, 4, 8):
            if min(header[:2]) >= factor * at_least:
                times = factor
    flags = REDUCED[times] | cv2.IMREAD_ANYDEPTH
    pixels = decode_opaque(path, content, header, flags)
    return cv2.cvtColor(to_8_bits(path, pixels), cv2.COLOR_BGR2RGB)


def decode_print(path: Path, content: bytes) -> np.ndarray:
    """The colours of printing inks (CMYK) as Pillow makes them RGB: uint8 [H, W, 3], upright.

    By the inks' plain mixture, without a profile of the press: red stays red.

    Raises:
        ValueError: it is damaged.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise refusal(path, "it is damaged or cut short") from error


def to_8_bits(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Pixels of 8 or 16 bits as 8: 65535 becomes 255.

    Raises:
        ValueError: they fill a sixteenth of their range at most, as 12 bits in a file of 16 do:
            where white is, nobody knows.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.max() < 1 << 12:
        raise refusal(
            path,
            f"its pixels have 16 bits and reach {pixels.max()} of 65535: as a photograph it would "
            "be nearly black; export it with 8 bits a channel",
        )
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def decode_opaque(path: Path, content: bytes, header: Header, flags: int) -> np.ndarray:
    """What OpenCV decodes, [H, W, 3], blue first. Raises ValueError for damage, and see-through.

    OpenCV leaves transparency out: a mask that is white everywhere, and see-through where no lesion
    is, would mark all of its photograph.
    """
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if pixels is None:
        raise refusal(path, "it is damaged or cut short")
    if header.transparency:
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
        except (OSError, SyntaxError, ValueError) as error:  # Pillow forgives less than OpenCV
            raise refusal(path, "it is damaged or cut short") from error
        if lowest < 255:
            raise refusal(path, "it is see-through in places; save it without transparency")
    return pixels
