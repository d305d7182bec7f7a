"""From the pixel cache to the device that trains, rows at a time.

The photographs stay uint8 until a batch needs them; `augment` turns a whole batch of them into what
the network takes.
"""

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from helpers import workspace
from helpers.photographs.cache import cache_key, open_cache
from helpers.photographs.places import changed_table, need_places
from helpers.photographs.split import read_split
from helpers.training.augment import plain, transform, warp_masks

PIECE = 1024  # photographs that are copied to a GPU at once


class Photographs:
    """The cached photographs and masks that `cache.json` describes, ready to be taken by row.

    On a GPU they lie in its memory where they take at most a third of what is free; else they stay
    in the memory map and `stream` brings them through pinned memory ahead of need.

    Attributes:
        key: of the cache; another key is other photographs.
        pixels: uint8 [N, S, S, 3].
        masks: uint8 [N, S, S], 0 to 255; None where nobody has drawn any.
    """

    def __init__(self, cache: dict, device: torch.device):
        self.device = device
        self.key = cache.get("key", cache["file"])
        self.pixels = open_cache(cache["file"])
        self.masks = None
        size = self.pixels.nbytes
        if cache["masks_file"]:
            self.masks = open_cache(cache["masks_file"])
            size += self.masks.nbytes
        self.resident = device.type == "cuda" and 3 * size < torch.cuda.mem_get_info(device)[0]
        if self.resident:
            self.pixels = copied_to(device, self.pixels)
            if self.masks is not None:
                self.masks = copied_to(device, self.masks)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def side(self) -> int:
        """Of the stored photographs, in pixels."""
        return self.pixels.shape[1]

    def take(self, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """Pixels uint8 [B, S, S, 3] and masks uint8 [B, S, S] (or None) of these rows."""
        return self._send(*self._gather(rows))

    def stream(self, batches: list[np.ndarray]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """`take` for one batch of rows after another.

        Where the device has no room for all, two batches are read ahead.
        """
        if self.resident or self.device.type == "cpu":
            for rows in batches:
                yield self.take(rows)
            return
        with ThreadPoolExecutor(1) as reader:
            ahead = [reader.submit(self._gather, rows) for rows in batches[:2]]
            for number in range(len(batches)):
                ready = ahead.pop(0).result()
                if number + 2 < len(batches):
                    ahead.append(reader.submit(self._gather, batches[number + 2]))
                yield self._send(*ready)

    def evaluation(self, rows: np.ndarray, config: dict) -> tuple[Tensor, Tensor | None]:
        """What the network of `config` sees of these rows when it is evaluated.

        Returns:
            Normalised images [B, 3, side, side], and masks [B, 1, side, side], 0 to 1 (or None).
        """
        return as_evaluated(*self.take(rows), config)

    def stream_evaluation(
        self, batches: list[np.ndarray], config: dict
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """`evaluation` for one batch of rows after another, read ahead as in `stream`."""
        for pixels, masks in self.stream(batches):
            yield as_evaluated(pixels, masks, config)

    def guessed(self) -> "Photographs":
        """The same photographs, each with `otsu` in place of a mask.

        It takes a byte of memory for each pixel.
        """
        pixels = self.pixels.cpu().numpy() if self.resident else self.pixels
        with ThreadPoolExecutor() as pool:
            masks = np.stack(list(pool.map(otsu, pixels)))  # [N, S, S]
        guesses = copy.copy(self)
        guesses.masks = torch.from_numpy(masks).to(self.device) if self.resident else masks
        return guesses

    def _gather(self, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        if self.resident:
            rows = workspace.send(torch.tensor(rows), self.device)  # pandas's may be read-only
            return self.pixels[rows], None if self.masks is None else self.masks[rows]
        pixels = torch.from_numpy(self.pixels[rows])
        masks = None if self.masks is None else torch.from_numpy(self.masks[rows])
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()
            masks = None if masks is None else masks.pin_memory()
        return pixels, masks

    def _send(self, pixels: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if masks is not None:
            masks = workspace.send(masks, self.device)
        return workspace.send(pixels, self.device), masks


def copied_to(device: torch.device, photographs: np.ndarray) -> Tensor:
    """All of a memory map on a device, some photographs at a time.

    So the host's memory never holds the whole set, which each of several processes reads.
    """
    there = torch.empty(photographs.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(photographs), PIECE):
        piece = np.array(photographs[start : start + PIECE])
        there[start : start + PIECE] = torch.from_numpy(piece).to(device)
    return there


def as_evaluated(
    pixels: Tensor, masks: Tensor | None, config: dict
) -> tuple[Tensor, Tensor | None]:
    """Photographs and masks of `take` as `evaluation` returns them."""
    draws = plain(len(pixels), config["view"])
    side = config["image_size"]
    images = transform(pixels, draws, side, mean=config["mean"], std=config["std"])
    if masks is None:
        return images, None
    return images, warp_masks(masks, draws, side)


def otsu(photograph: np.ndarray) -> np.ndarray:
    """A guess at the lesion that nobody drew: uint8 [H, W, 3] -> [H, W], 0 or 255.

    Where blue, in which pigment is darkest, is below Otsu's threshold (IEEE Transactions on SMC,
    1979); of the connected parts the one with the most of a centred Gaussian on it.
    """
    H, W = photograph.shape[:2]
    blue = np.ascontiguousarray(photograph[..., 2])
    blue = cv2.GaussianBlur(blue, (0, 0), H / 48)
    _, dark = cv2.threshold(blue, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    _, part = cv2.connectedComponents(dark)  # [H, W], 0 is not dark
    centred = np.outer(cv2.getGaussianKernel(H, H / 4), cv2.getGaussianKernel(W, W / 4))
    weight = np.bincount(part.ravel(), centred.ravel())
    weight[0] = 0
    return (255 * dark * (part == weight.argmax())).astype(np.uint8)


def open_prepared(folder: Path, device: torch.device) -> tuple[pd.DataFrame, Photographs]:
    """What 01 and 02 left in the folder of a run.

    Returns:
        The split, and the photographs of its kept rows, in their order.

    Raises:
        FileNotFoundError: a file is not there; the message names the notebook that makes it.
            Where what 01 found has moved as well as the cache, it is 01.
        ValueError: the files are not of one another.
    """
    dataset = workspace.read_json(folder / "dataset.json", "01_download.ipynb")
    split = read_split(folder / "split.csv")
    cache = workspace.read_json(folder / "cache.json", "02_preprocess.ipynb")
    if cache.get("key") != cache_key(dataset, split, cache["side"]):
        raise ValueError(
            f"dataset.json, split.csv and cache.json in {folder} are not of one another: 01 ran "
            "again, or two runs wrote there at once. Run 02_preprocess.ipynb again, and what comes "
            "after it"
        )
    if not Path(cache["file"]).exists():
        need_places(dataset)
    changed = changed_table(dataset)
    if changed:
        print(f"{changed}. Until then all is of the table as it was")
    return split, Photographs(cache, device)
