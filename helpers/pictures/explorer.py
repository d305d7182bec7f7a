"""One photograph at a time, for notebook 05: a file of the reader's own, and an explorer with a
slider.

A file is judged before anything is decoded, and refused with a sentence where the network could not
read it rightly. The explorer puts PNG bytes into a plain image widget, which JupyterLab and Colab
(ipywidgets 7) have alike; `still` shows the same pictures where there are no widgets. Layers: a
map's name -> maps [N, 1, h, w] in their own scale, unit.
"""

import io
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

# Pillow's words for 8 bits a channel, in colours that mean what those of the training photographs
# do
MODES = ("RGB", "RGBA", "P", "PA", "L", "LA", "1")
SHOWN = 384  # width of the explorer's picture on the page, in pixels


def own_photograph(path: Path) -> np.ndarray:
    """A colour photograph of the reader's own, upright as its EXIF says.

    Args:
        path: the file that the parameter `photograph` names.

    Returns:
        uint8 [H, W, 3], red first.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: what `reading.read_photograph` refuses; and pixels that the network could not
            read rightly: CMYK, 16 or 32 bits grey, see-through, grey.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"photograph: there is nothing at {path}; name an image file, or '' for an example"
        )
    try:
        content = reading.read_bytes(path)
        header = reading.judge(path, content)
        pixels = reading.decode(path, content, None)
    except ValueError as error:
        raise ValueError(f"photograph: {error}") from error
    if header.mode not in MODES:
        raise ValueError(
            f"photograph: {path.name} has pixels of kind {header.mode}, which cannot be turned "
            "into the colours of the training photographs faithfully; export it as RGB with 8 bits "
            "a channel"
        )
    if see_through(content):
        raise ValueError(
            f"photograph: {path.name} is see-through in places, which no photograph is; save it as "
            "JPEG"
        )
    if (pixels == pixels[..., :1]).all():
        raise ValueError(
            f"photograph: {path.name} is grey; the network was trained on colours, take one in "
            "colour"
        )
    return pixels


def see_through(content: bytes) -> bool:
    """Whether an image has pixels that are not wholly opaque."""
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels.ndim < 3 or pixels.shape[2] < 4:
        return False
    return bool((pixels[..., 3] < np.iinfo(pixels.dtype).max).any())


def as_seen(pixels: np.ndarray, side: int, config: dict, device: torch.device) -> Tensor:
    """What the network of `config` sees of a photograph [H, W, 3]: normalised [1, 3, S, S].

    Squashed to the square of `side` pixels that the cache keeps (`side` of cache.json), as the
    training photographs were, and then brought to the network's size as these are in evaluation.
    """
    square = torch.from_numpy(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA))[
        None
    ].to(device)
    return transform(
        square,
        plain(1, config["view"]),
        config["image_size"],
        mean=config["mean"],
        std=config["std"],
    )


def colour_rank(pixels: np.ndarray, photographs: Photographs, rows: np.ndarray) -> float:
    """How unusual the mean colour of a photograph [H, W, 3] is: the share of these rows that lie
    nearer to the middle.

    0 (the most usual) to 1; distances are Mahalanobis's, over at most some 500 of the rows' mean
    colours.
    """
    rows = rows[:: max(1, len(rows) // 500)]
    parts = [
        photographs.take(part)[0].float().mean(dim=(1, 2)).cpu()  # [B, 3]
        for part in np.array_split(rows, -(-len(rows) // 64))
    ]
    means = np.concatenate(
        [*parts, pixels.mean(axis=(0, 1), dtype=float)[None]]
    )  # [N + 1, 3], the last its own
    away = means - means[:-1].mean(axis=0)
    distances = np.einsum("ni,ij,nj->n", away, np.linalg.pinv(np.cov(means[:-1].T)), away)
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
    """The figure for a photograph of `shape` [H, W, 3] and, never apart from it, what a reader must
    know about it.

    rank: of `colour_rank`. prevalence: the share of melanomas where the probability was calibrated.
    drawn: the network has been trained on drawings.
    """
    called = "at or above" if probability >= config["threshold"] else "below"
    lines = [
        "This is teaching material, not a medical device. Nobody has tested it on patients.",
        "A low figure is no all-clear. Have a doctor look at a mole that is new, changes, itches or bleeds.",
        "The network has seen drawings only: on a photograph of skin its figure means nothing."
        if drawn
        else "The network knows only photographs such as it was trained on; from another camera they may be far from those.",
        f"By its mean colour this one is more unusual than {rank:.0%} of the training photographs"
        + (
            ": far from what was seen."
            if rank > 0.95
            else "; that alone makes it no close relative of theirs."
        ),
        f"Its {shape[1]} x {shape[0]} pixels were squashed to a square of {config['image_size']}, as the training "
        "photographs were: shapes are distorted, detail is lost.",
        f"The figure is a probability only among photographs of which {prevalence:.0%} show a melanoma. Of moles that "
        "people worry about, far fewer are one.",
    ]
    figure = f"figure for melanoma: {probability:.2f}, {called} this run's threshold of {config['threshold']:.2f}"
    return "\n".join([figure, *(f"- {line}" for line in lines)])


def layers_of(output: Output, cam: Tensor, attention: str) -> dict[str, tuple[Tensor, str]]:
    """The layers of photographs: the attention maps of the network's output, where it has any, and
    Grad-CAM.
    """
    maps = {
        "pool-3": (output.pool3_map, attention),
        "pool-4": (output.pool4_map, attention),
        "Grad-CAM": (cam, "grad_cam"),
    }
    return {
        name: own_scale(grids.cpu(), kind)
        for name, (grids, kind) in maps.items()
        if grids is not None
    }


def blend(photograph: np.ndarray, grid: Tensor, opacity: float) -> np.ndarray:
    """A photograph [H, W, 3], 0 to 1, under a map [1, h, w] stretched from min to max: [H, W, 3]."""
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
    """What the explorer shows of a photograph [H, W, 3] and map `number` of each layer: a column
    for each opacity.

    A row has one colour bar in the map's own units.
    """
    rows = {
        name: np.stack([blend(photograph, grids[number], opacity) for opacity in opacities])
        for name, (grids, _) in layers.items()
    }
    ranges = {
        name: (grids[number].min().item(), grids[number].max().item())
        for name, (grids, _) in layers.items()
    }
    return grid_figure(
        rows,
        [f"opacity {opacity:g}" for opacity in opacities],
        panel=panel,
        ranges=ranges,
        units={name: unit for name, (_, unit) in layers.items()},
    )


def png(picture: np.ndarray) -> bytes:
    """A picture [H, W, 3], 0 to 1, as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def explore(
    photographs: np.ndarray, titles: list[str], layers: dict[str, tuple[Tensor, str]]
) -> widgets.VBox:
    """Photographs [N, H, W, 3] under their maps, with a menu of photographs, one of maps, and a
    slider of opacity.

    Children of the box: the three controls, the picture, a bar of the colours, and what their ends
    stand for.
    """
    which = widgets.Dropdown(
        options=[
            (f"{number + 1}: " + title.replace("\n", ", "), number)
            for number, title in enumerate(titles)
        ],
        description="photograph",
    )
    layer = widgets.Dropdown(options=list(layers), description="map")
    opacity = widgets.FloatSlider(0.4, min=0, max=1, step=0.05, description="opacity")
    picture, caption = widgets.Image(format="png", width=SHOWN), widgets.Label()
    ramp = np.broadcast_to(
        plt.get_cmap(COLOUR_MAP)(np.linspace(0, 1, SHOWN))[None, :, :3], (12, SHOWN, 3)
    )

    def draw(_: object = None) -> None:
        grids, unit = layers[layer.value]
        picture.value = png(blend(photographs[which.value], grids[which.value], opacity.value))
        low, high = grids[which.value].min(), grids[which.value].max()
        caption.value = f"dark blue {low:.2f}, yellow {high:.3g} ({unit})"

    for control in (which, layer, opacity):
        control.observe(draw, names="value")
    draw()
    bar = widgets.Image(value=png(ramp), format="png", width=SHOWN, height=len(ramp))
    return widgets.VBox([which, layer, opacity, picture, bar, caption])
