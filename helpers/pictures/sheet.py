"""Photographs side by side, for notebooks 01 and 02: no frames, no ticks, each in its own shape."""

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
from matplotlib.figure import Figure

from helpers.pictures.style import ORANGE

PANEL = 1.6  # inches a side


def sheet(
    pictures: Sequence[np.ndarray | None],
    titles: Sequence[str],
    *,
    columns: int,
    heading: str = "",
    row_names: Sequence[str] = (),
    outlines: Sequence[np.ndarray | None] = (),
) -> Figure:
    """Lay photographs out in rows, from left to right, with a title above each.

    Args:
        pictures: [H, W, 3], of any sizes, bytes or from 0 to 1; None leaves its place empty.
        titles: as many.
        columns: how many stand in a row.
        heading: of the whole sheet.
        row_names: what stands beside the first picture of each row, if anything.
        outlines: masks [H, W], from 0 to 255, whose outline is drawn over the picture of the same
            place; None, or a mask that marks nothing, draws none.

    Returns:
        The figure; without a picture it holds the heading alone.

    Raises:
        ValueError: there are not as many titles as pictures.

    >>> photograph = np.zeros((4, 6, 3), np.uint8)
    >>> figure = sheet([photograph] * 3, ["a", "b", "c"], columns=2, heading="Three photographs")
    >>> [axis.get_title() for axis in figure.axes if axis.images]
    ['a', 'b', 'c']
    """
    if len(titles) != len(pictures):
        raise ValueError(f"{len(titles)} titles for {len(pictures)} pictures: give one to each")
    rows = max(1, -(-len(pictures) // columns))
    size = (PANEL * columns, (PANEL + 0.3) * rows + 0.4)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    figure.suptitle(heading)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axis, name in zip(axes[:, 0], row_names, strict=False):
        axis.set_ylabel(name)
    for axis, picture, title, mask in zip_longest(axes.flat, pictures, titles, outlines):
        if picture is None:
            continue
        axis.imshow(picture)
        axis.set_title(title, fontsize=9)
        if mask is not None and mask.min() < 127 < mask.max():
            axis.contour(mask, levels=[127], colors=ORANGE, linewidths=1.5)
    return figure
