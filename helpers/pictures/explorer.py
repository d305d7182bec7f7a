"""One photograph at a time, for notebook 05: a file of the reader's own, an explorer with a slider.

A file of the reader's own is refused with a sentence where the network could not see it rightly.
The explorer puts PNG bytes into a plain image widget, which JupyterLab and Colab (ipywidgets 7)
have alike; `still` shows the same pictures where there are no widgets. Layers: a map's name -> maps
[N, 1, h, w] in their own scale, and its unit.
"""

import io
import math
from pathlib import Path

import cv2
import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from helpers.model import Output
from helpers.photographs import reading
from helpers.pictures.maps import grid_figure, min_max, overlay, own_scale, upsample
from helpers.pictures.style import COLOUR_MAP
from helpers.training.augment import plain, transform
from helpers.training.batches import Photographs

SHOWN = 384  # width of the explorer's picture on the page, in pixels


def own_photograph(path: Path) -> np.ndarray:
    """A colour photograph of the reader's own, as the network takes photographs in.

    It is read as all others are (`helpers.photographs.reading`); beyond that, it must be in colour.

    Args:
        path: the file, whatever its name.

    Returns:
        uint8 [H, W, 3], red first, upright as its EXIF says.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: `read_photograph` raises it, or the photograph is grey.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"photograph: there is nothing at {path}; name an image file, or '' for an example"
        )
    try:
        pixels = reading.read_photograph(path)
        refuse_grey(path, pixels)
    except ValueError as error:
        raise ValueError(f"photograph: {error}") from error
    return pixels


def refuse_grey(path: Path, pixels: np.ndarray) -> None:
    """Raises ValueError where red, green and blue are the same everywhere in [H, W, 3]."""
    if (pixels[..., :2] == pixels[..., 1:]).all():
        raise ValueError(
            f"{path.name} is grey; the network was trained on colours, take one in colour"
        )


def as_seen(pixels: np.ndarray, side: int, config: dict, device: torch.device) -> Tensor:
    """What a network sees of a photograph.

    Squashed to the square that the cache keeps, as the training photographs were, and then brought
    to the network's size as these are in evaluation.

    Args:
        pixels: uint8 [H, W, 3].
        side: of the cache's squares in pixels (`side` of cache.json).
        config: of the network's checkpoint.
        device: where the network is.

    Returns:
        Normalised [1, 3, S, S], with S the network's image_size.
    """
    squashed = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    square = torch.from_numpy(squashed)[None].to(device)  # [1, side, side, 3]
    draws = plain(1, config["view"])
    S = config["image_size"]
    return transform(square, draws, S, mean=config["mean"], std=config["std"])


def colour_rank(pixels: np.ndarray, photographs: Photographs, rows: np.ndarray) -> float:
    """How unusual the mean colour of a photograph is among others.

    Args:
        pixels: uint8 [H, W, 3].
        photographs: the cache.
        rows: of the cache, to compare with; at most 500 of them are.

    Returns:
        The share of these rows that lie nearer to the middle than the photograph, in Mahalanobis's
        distance: 0 (the most usual) to 1.
    """
    rows = rows[:: max(1, math.ceil(len(rows) / 500))]
    parts = []
    for start in range(0, len(rows), 64):
        squares, _ = photographs.take(rows[start : start + 64])  # [B, S, S, 3]
        parts.append(squares.float().mean(dim=(1, 2)).cpu())
    means = np.concatenate(parts)  # [N, 3]
    own = pixels.mean(axis=(0, 1), dtype=float)  # [3]
    inverse = np.linalg.pinv(np.cov(means.T))
    away = np.concatenate([means, own[None]]) - means.mean(axis=0)  # [N + 1, 3]
    distances = np.einsum("ni,ij,nj->n", away, inverse, away)  # [N + 1], squared
    return float((distances[:-1] < distances[-1]).mean())


def caveats(
    probability: float,
    config: dict,
    *,
    shape: tuple[int, ...],
    rank: float,
    prevalence: float,
    drawn: bool,
) -> str:
    """The figure for a photograph and, never apart from it, what a reader must know about it.

    Args:
        probability: calibrated.
        config: of the network's checkpoint.
        shape: [H, W, 3] of the photograph.
        rank: of `colour_rank`.
        prevalence: the share of melanomas where the probability was calibrated.
        drawn: whether the network has been trained on drawings.

    Returns:
        A line with the figure, and a list of warnings below it.
    """
    H, W = shape[:2]
    threshold = config["threshold"]
    side = config["image_size"]
    called = "at or above" if probability >= threshold else "below"
    if drawn:
        known = (
            "The network has seen drawings only: on a photograph of skin its figure means nothing."
        )
    else:
        known = (
            "The network knows only photographs such as it was trained on; from another camera "
            "they may be far from those."
        )
    if rank > 0.95:
        colour = ": far from what was seen."
    else:
        colour = "; that alone makes it no close relative of theirs."
    return f"""\
figure for melanoma: {probability:.2f}, {called} this run's threshold of {threshold:.2f}
- This is teaching material, not a medical device. Nobody has tested it on patients.
- A low figure is no all-clear. Have a doctor look at a mole that is new, changes, itches or bleeds.
- {known}
- By its mean colour this one is more unusual than {rank:.0%} of the training photographs{colour}
- Its {W} x {H} pixels were squashed to a square of {side}, as the training photographs were: \
shapes are distorted, detail is lost.
- The figure is a probability only among photographs of which {prevalence:.0%} show a melanoma. \
Of moles that people worry about, far fewer are one."""


def layers_of(output: Output, cam: Tensor, attention: str) -> dict[str, tuple[Tensor, str]]:
    """The layers of photographs: the network's attention maps, where it has any, and Grad-CAM.

    Args:
        output: of the network.
        cam: Grad-CAM's maps [N, 1, h, w].
        attention: of the network, as in `own_scale`.

    Returns:
        Maps on the CPU in their own scale, and its unit, by name.
    """
    layers = {}
    if output.pool3_map is not None:
        layers["pool-3"] = own_scale(output.pool3_map.cpu(), attention)
        layers["pool-4"] = own_scale(output.pool4_map.cpu(), attention)
    layers["Grad-CAM"] = own_scale(cam.cpu(), "grad_cam")
    return layers


def blend(photograph: np.ndarray, grid: Tensor, opacity: float) -> np.ndarray:
    """A photograph under a map stretched from min to max.

    Args:
        photograph: [H, W, 3], 0 to 1.
        grid: the map [1, h, w].
        opacity: share of the map in the mixture.

    Returns:
        [H, W, 3], 0 to 1.

    >>> blend(np.ones((8, 8, 3)), torch.rand(1, 2, 2), 0.4).shape
    (8, 8, 3)
    """
    large = min_max(upsample(grid[None], photograph.shape[:2]))  # [1, 1, H, W]
    return overlay(photograph[None], large, share=opacity)[0]


def still(
    photograph: np.ndarray,
    layers: dict[str, tuple[Tensor, str]],
    number: int = 0,
    *,
    opacities: tuple[float, ...] = (0.0, 0.4, 0.7, 1.0),
    panel: float = 1.45,
) -> Figure:
    """What the explorer shows of one photograph: a row for each layer, a column for each opacity.

    A row has one colour bar in the map's own units; that of a constant map names its value instead.

    Args:
        photograph: [H, W, 3], 0 to 1.
        layers: maps and their unit by name.
        number: the photograph's, among the maps of each layer.
        opacities: of the maps.
        panel: a panel's width in inches.
    """
    rows = {}
    ranges = {}
    units = {}
    for name, (grids, unit) in layers.items():
        grid = grids[number]
        low, high = grid.min().item(), grid.max().item()
        row = name if low < high else f"{name}\n{low:.3g} everywhere"
        rows[row] = np.stack([blend(photograph, grid, opacity) for opacity in opacities])
        if low < high:
            ranges[row] = (low, high)
            units[row] = unit
    titles = [f"opacity {opacity:g}" for opacity in opacities]
    return grid_figure(rows, titles, panel=panel, ranges=ranges, units=units)


def png(picture: np.ndarray) -> bytes:
    """A picture [H, W, 3], 0 to 1, as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def explore(
    photographs: np.ndarray,
    titles: list[str],
    layers: dict[str, tuple[Tensor, str]],
) -> widgets.VBox:
    """Photographs under their maps, with menus of photographs and maps and a slider of opacity.

    Args:
        photographs: [N, H, W, 3], 0 to 1.
        titles: N of them.
        layers: maps and their unit by name.

    Returns:
        A box of the three controls, the picture, a bar of the colours, and what their ends stand
        for.
    """
    options = []
    for number, title in enumerate(titles):
        options.append((f"{number + 1}: " + title.replace("\n", ", "), number))
    which = widgets.Dropdown(options=options, description="photograph")
    layer = widgets.Dropdown(options=list(layers), description="map")
    opacity = widgets.FloatSlider(0.4, min=0, max=1, step=0.05, description="opacity")
    picture = widgets.Image(format="png", width=SHOWN)
    caption = widgets.Label()

    def draw(_: object = None) -> None:
        grids, unit = layers[layer.value]
        grid = grids[which.value]
        picture.value = png(blend(photographs[which.value], grid, opacity.value))
        caption.value = f"dark blue {grid.min():.2f}, yellow {grid.max():.3g} ({unit})"

    for control in (which, layer, opacity):
        control.observe(draw, names="value")
    draw()
    ramp = plt.get_cmap(COLOUR_MAP)(np.linspace(0, 1, SHOWN))[:, :3]  # [SHOWN, 3]
    bar = np.broadcast_to(ramp, (12, SHOWN, 3))
    colours = widgets.Image(value=png(bar), format="png", width=SHOWN, height=len(bar))
    return widgets.VBox([which, layer, opacity, picture, colours, caption])
