"""From the pixel cache to augmented batches, on the device that trains.

The photographs stay uint8 until a batch needs them. Rotation, flips, zoom, colour and normalisation of a whole batch
are one interpolation and one matrix product; each photograph has its own draw, and masks take the same geometry.
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
from helpers.photographs.split import read_split
from helpers.training.augment import plain, transform, warp_masks


class Photographs:
    """The cached photographs and masks that `cache.json` describes, ready to be taken by row.

    On a GPU they lie in its memory where they take at most a third of what is free; else they stay in the memory map
    and `stream` brings them through pinned memory ahead of need.
    """

    def __init__(self, cache: dict, device: torch.device):
        self.device, self.key = device, cache.get("key", cache["file"])
        self.pixels = open_cache(cache["file"])  # [N, S, S, 3]
        self.masks = open_cache(cache["masks_file"]) if cache["masks_file"] else None  # [N, S, S]
        size = self.pixels.nbytes + (self.masks.nbytes if self.masks is not None else 0)
        self.resident = device.type == "cuda" and 3 * size < torch.cuda.mem_get_info(device)[0]
        if self.resident:
            self.pixels = torch.from_numpy(np.array(self.pixels)).to(device)
            self.masks = (
                None if self.masks is None else torch.from_numpy(np.array(self.masks)).to(device)
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """Pixels uint8 [B, S, S, 3] and masks uint8 [B, S, S] (None without masks) of these rows, on the device."""
        return self._send(*self._gather(rows))

    def stream(self, batches: list[np.ndarray]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """`take` for one batch of rows after another; without room on the device the next one is read meanwhile."""
        if self.resident or self.device.type == "cpu":
            yield from map(self.take, batches)
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

        Returns normalised images [B, 3, side, side] and masks [B, 1, side, side], 0 to 1 (None without masks).
        """
        pixels, masks = self.take(rows)
        draws = plain(len(rows), config["view"])
        images = transform(
            pixels, draws, config["image_size"], mean=config["mean"], std=config["std"]
        )
        return images, None if masks is None else warp_masks(masks, draws, config["image_size"])

    def guessed(self) -> "Photographs":
        """The same photographs, each with `otsu` in place of a mask; takes a byte of memory for each pixel."""
        again, pixels = copy.copy(self), self.pixels.cpu().numpy() if self.resident else self.pixels
        masks = torch.from_numpy(np.stack([otsu(one) for one in pixels]))  # [N, S, S]
        again.masks = masks.to(self.device) if self.resident else masks.numpy()
        return again

    def _gather(self, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        if self.resident:
            rows = torch.from_numpy(rows).to(self.device, non_blocking=True)
            return self.pixels[rows], None if self.masks is None else self.masks[rows]
        found = [
            torch.from_numpy(array[rows])
            for array in (self.pixels, self.masks)
            if array is not None
        ]
        found = [tensor.pin_memory() for tensor in found] if self.device.type == "cuda" else found
        return found[0], found[1] if len(found) > 1 else None

    def _send(self, pixels: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return tuple(
            None if one is None else one.to(self.device, non_blocking=True)
            for one in (pixels, masks)
        )


def otsu(photograph: np.ndarray) -> np.ndarray:
    """A guess at the lesion that nobody drew: uint8 [H, W, 3] -> [H, W], 0 or 255.

    Where blue, in which pigment is darkest, is below Otsu's threshold (IEEE Transactions on SMC, 1979); of the
    connected parts the one with the most of a centred Gaussian on it.
    """
    blue = cv2.GaussianBlur(np.ascontiguousarray(photograph[..., 2]), (0, 0), len(photograph) / 48)
    _, dark = cv2.threshold(blue, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    _, part = cv2.connectedComponents(dark)  # [H, W], 0 is not dark
    down, across = (cv2.getGaussianKernel(side, side / 4)[:, 0] for side in part.shape)
    weight = np.bincount(part.ravel(), np.outer(down, across).ravel())
    weight[0] = 0
    return (255 * dark * (part == weight.argmax())).astype(np.uint8)


def open_prepared(folder: Path, device: torch.device) -> tuple[pd.DataFrame, Photographs]:
    """What 01 and 02 left in the folder of a run: the split, and the photographs of its kept rows, in their order.

    Raises FileNotFoundError that names the notebook to run, ValueError where the files are not of one another.
    """
    dataset = workspace.read_json(folder / "dataset.json", "01_download.ipynb")
    split = read_split(folder / "split.csv")
    cache = workspace.read_json(folder / "cache.json", "02_preprocess.ipynb")
    if cache["key"] != cache_key(dataset, split, cache["side"]):
        raise ValueError(
            f"dataset.json, split.csv and cache.json in {folder} are not of one another: 01 ran again, or "
            "two runs wrote there at once. Run 02_preprocess.ipynb again, and what comes after it"
        )
    return split, Photographs(cache, device)
