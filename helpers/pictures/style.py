"""One look for all figures, and how a notebook shows and keeps them.

Without it every figure would choose its own colours, and some readers could not tell them apart.
"""

import io
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
from IPython import get_ipython
from IPython.core.pylabtools import print_figure
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

from helpers import workspace

# Okabe and Ito, "Color Universal Design" (2008), and a grey that all can tell from the green
BLUE = "#0072B2"
VERMILION = "#D55E00"
ORANGE = "#E69F00"
GREEN = "#009E73"
GREY = "#666666"
# rises evenly in lightness, the same to colour-blind eyes (Nunez and others, PLOS ONE 2018)
COLOUR_MAP = "cividis"
SAVED_DPI = 120  # pixels an inch of a figure's file
STYLE = {
    "font.family": "DejaVu Sans",
    "figure.dpi": 96,
    "savefig.dpi": SAVED_DPI,
    "figure.facecolor": "white",  # as on paper
    "axes.prop_cycle": plt.cycler(color=[BLUE, VERMILION, GREEN, ORANGE, GREY]),
    "image.cmap": COLOUR_MAP,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def use_style() -> None:
    """One look for all figures.

    A notebook shows them with twice the pixels, as JPEG where a photograph is in it.
    """
    plt.rcParams.update(STYLE)
    shell = get_ipython()
    if shell is None:
        return
    shell.enable_matplotlib("inline")  # now: loaded later, it would undo what follows
    for kind in ("png", "jpeg"):
        formatter = shell.display_formatter.formatters[f"image/{kind}"]
        formatter.for_type(Figure, partial(encode, kind=kind))


def show(figure: Figure, path: Path) -> None:
    """Keep a figure as a file, whole or not at all, show it in the notebook, and close it.

    The file has the figure's edges where the notebook has them: around all that is drawn. Outside
    a notebook nothing is shown.

    Args:
        figure: pyplot's, or one without it.
        path: where it goes; the ending says the format. The folder is made if need be.

    Raises:
        CannotWrite: the disk is full or may not be written; the file is as it was.

    >>> import tempfile
    >>> figure = Figure((2, 1))
    >>> lines = figure.subplots().plot([0, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "figures" / "line.png"
    ...     show(figure, path)
    ...     Image.open(path).format
    'PNG'
    """
    with workspace.replacing(path) as beside:
        figure.savefig(beside, dpi=SAVED_DPI, bbox_inches="tight")
    if get_ipython() is not None:
        display(figure)
    plt.close(figure)  # or the notebook would show it once more


def encode(figure: Figure, *, kind: str) -> tuple[bytes, dict] | None:
    """A figure as a notebook stores it, once: photographs as JPEG, all else as PNG.

    Args:
        figure: what is shown.
        kind: "png" or "jpeg", as IPython asks for both.

    Returns:
        The picture's bytes and its width on the page, or None if the other kind is its own.
    """
    if kind != ("jpeg" if shows_photograph(figure) else "png"):
        return None
    dpi = 2 * figure.dpi
    if kind == "jpeg":
        data = print_figure(figure, kind, dpi=dpi, pil_kwargs={"quality": 80})
        return data, {"width": Image.open(io.BytesIO(data)).width // 2}
    picture = Image.open(io.BytesIO(print_figure(figure, kind, dpi=dpi)))
    # 256 colours: a third of the bytes, the same to the eye
    file = io.BytesIO()
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, kind)
    return file.getvalue(), {"width": picture.width // 2}


def shows_photograph(figure: Figure) -> bool:
    """Whether a picture with colours of its own, [H, W, 3], is in the figure."""
    for axis in figure.axes:
        for image in axis.images:
            if image.get_array().ndim == 3:
                return True
    return False
