"""The one reader of a photograph or mask: judged by its header, decoded, squashed to a square."""

import io
import os
import stat
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from helpers import workspace

LEAST, MOST = (
    16,
    80_000_000,
)  # pixels a side of a photograph, and in all: what is larger is not decoded
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # whatever the file's name says
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
CHUNK = 64  # rows that one core decodes, writes and sums up at a time; what bounds the memory: a chunk a core


def load(path: Path, *, side: int | None = None, crc: int | None = None) -> np.ndarray:
    """A photograph as OpenCV decodes it, uint8 [H, W, 3], upright where its EXIF says how the camera was held.

    side: what it will be squashed to; where the photograph is at least twice, four or eight times as large, the decoder
    halves it as often itself, which saves most of the time. crc: of the bytes that were unpacked, None where that is
    not known. Raises ValueError, that names the file and what is wrong with it: missing, empty, changed, damaged, cut
    short, no photograph, too small or too large.
    """

    def refuse(why: str) -> ValueError:
        return ValueError(f"{path} cannot be decoded: {why}")

    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for, a device read without end
            raise refuse("it is a folder, a pipe or a device, not a file")
        if found.st_size > 3 * MOST:
            raise refuse(f"{found.st_size:,} bytes, more than {MOST:,} pixels take")
        content = path.read_bytes()
    except OSError as error:
        raise refuse(error.strerror or "it cannot be read") from error
    if crc is not None and zlib.crc32(content) != crc:
        raise refuse("its bytes are not those that were unpacked")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as header:  # no pixel is decoded
            width, height = header.size
            moves = header.format != "MPO" and getattr(
                header, "is_animated", False
            )  # MPO: a telephone's JPEG
            ends = (
                header.format != "JPEG" or content.find(b"\xff\xd9", header.fp.tell()) > 0
            )  # zeros decode too
    except Image.DecompressionBombError as error:
        raise refuse(f"its header says more than {MOST:,} pixels") from error
    except (OSError, SyntaxError, ValueError) as error:
        why = "it is empty" if not content else "it is no photograph, or its header is damaged"
        raise refuse(why) from error
    if moves:
        raise refuse("it is animated")
    if min(width, height) < LEAST or width * height > MOST:
        raise refuse(f"{width} x {height} pixels; expected {LEAST} a side to {MOST:,} in all")
    times = next((times for times in (8, 4, 2) if side and min(width, height) >= times * side), 1)
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), REDUCED[times])  # [H, W, 3], blue first
    if pixels is None or not ends:
        raise refuse("it is damaged or cut short")
    return pixels


def decode(path: Path, side: int, swapped: bool) -> np.ndarray:
    """A photograph as a uint8 square [side, side, 3], red first. Raises ValueError as `load` does."""
    pixels = cv2.resize(load(path, side=side), (side, side), interpolation=cv2.INTER_AREA)
    return pixels if swapped else pixels[..., ::-1]


def find_unusable(paths: list[Path], sums: dict[Path, int]) -> dict[str, str]:
    """Why each photograph that cannot be used cannot, by file name without ending; all are decoded, on all cores.

    sums: CRC-32 by path, of those where it is known.
    """

    def inspect(start: int) -> dict[str, str]:
        found = {}
        for path in paths[
            start : start + CHUNK
        ]:  # a job for each would cost more than to decode a small photograph
            try:
                load(path, side=1, crc=sums.get(path))
            except ValueError as error:
                found[path.stem] = str(error)
            bar.update()
        return found

    with (
        tqdm(desc="checking", total=len(paths), disable=workspace.headless()) as bar,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        jobs = pool.map(inspect, range(0, len(paths), CHUNK))
        return {name: why for found in jobs for name, why in found.items()}


def decode_mask(path: Path | None, side: int) -> np.ndarray:
    """A lesion mask squashed as its photograph was: uint8 [side, side], 0 to 255; zeros where there is none.

    Its size need not be the photograph's; lesion is what is not black. Raises ValueError as `load`, and for all black.
    """
    if path is None:
        return np.zeros((side, side), np.uint8)
    mask = load(path).max(axis=2)  # [H, W]
    if not mask.any():
        raise ValueError(f"{path} marks nothing: every pixel is 0")
    return cv2.resize((mask > 0).astype(np.uint8) * 255, (side, side), interpolation=cv2.INTER_AREA)
