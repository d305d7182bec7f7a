"""Diagrams drawn by code: the series, the network, its attention block, and what a softmax over space does.

Shapes are read off one forward pass by hooks, so that another network or image size gives another, true diagram.
Figures are returned, neither shown nor saved; one unit of their axes is one inch, their background is white.
"""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import Tensor, nn

from helpers.model import POOL3, POOL4, AttnVGG
from helpers.pictures.style import BLUE, COLOUR_MAP, GREY, VERMILION

# what each notebook leaves in runs/<run>/ for those after it: the contract
LEAVES = {
    "01_download": ["dataset.json"],
    "02_preprocess": ["split.csv", "cache.json"],
    "03_attention_model": ["figures/"],
    "04_train": ["model.pt", "history.csv", "predictions.csv", "metrics.json"],
    "05_visualize_attention": ["figures/"],
    "06_audit": ["audit.json", "figures/"],
}
READS = (
    "02_preprocess",
    "04_train",
    "05_visualize_attention",
    "06_audit",
)  # those that need what others left
INK = "black"  # letters and most arrows


def series(here: str) -> Figure:
    """The six notebooks in order and the files that pass between them; `here`, one of LEAVES, is filled."""
    if here not in LEAVES:
        raise ValueError(f"here is one of {', '.join(LEAVES)}, not {here!r}")
    axis = _canvas(9.3, 2.5)
    axis.add_patch(
        Rectangle((0.05, 0.05), 9.2, 1.27, facecolor="white", edgecolor=GREY, linestyle="--")
    )
    axis.text(
        0.2,
        0.22,
        "\u2193 leaves   \u2191 reads   in runs/<run>/",
        va="center",
        fontsize=14,
        color=INK,
    )
    for number, (name, files) in enumerate(LEAVES.items()):
        x = 0.83 + 1.53 * number
        _box(axis, x, 2.04, name.replace("_", "\n"), width=1.4, height=0.86, filled=name == here)
        if number:
            _arrow(axis, (x - 0.83, 2.04), (x - 0.7, 2.04))
        _arrow(axis, (x + 0.25, 1.61), (x + 0.25, 1.32))
        if name in READS:
            _arrow(axis, (x - 0.25, 1.32), (x - 0.25, 1.61), colour=BLUE)
        axis.text(
            x,
            1.25,
            "\n".join(files),
            ha="center",
            va="top",
            fontsize=14,
            linespacing=1.15,
            color=INK,
        )
    return axis.figure


def shapes(network: AttnVGG, image_size: int | tuple[int, int]) -> dict[str, str]:
    """The shapes of one forward pass, "[B, C, H, W]" by name; image_size: a side, or (H, W), multiples of 32.

    Names: image, pool3 to pool5, features, logits, and of blocks 3 and 4 local3, guide3, W_l3, W_g3, map3, vector3.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    found, handles, training = {"image": (1, 3, *size)}, [], network.training

    def keep(module: nn.Module, names: str) -> None:  # of what goes in, then of what comes out
        def hook(_, given: tuple, made: Tensor | tuple) -> None:
            tensors = [*given, *(made if isinstance(made, tuple) else [made])]
            found.update(zip(names.split(), [tensor.shape for tensor in tensors], strict=True))

        handles.append(module.register_forward_hook(hook))

    for name, layer in (("pool3", POOL3), ("pool4", POOL4), ("pool5", -1)):
        keep(network.backbone[layer], f"before {name}")
    keep(network.classifier, "features logits")
    for number in (3, 4) if network.attention != "none" else ():
        block = getattr(network, f"attention{number}")
        keep(block, f"local{number} guide{number} map{number} vector{number}")
        keep(block.local_projection, f"before W_l{number}")
        keep(block.guide_projection, f"before W_g{number}")
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(found["image"], device=next(network.parameters()).device))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return {
        name: f"[B, {', '.join(map(str, shape[1:]))}]"
        for name, shape in found.items()
        if name != "before"
    }


def attention_block(
    network: AttnVGG, image_size: int | tuple[int, int], *, pool: int = 3
) -> Figure:
    """The attention block at pool-3 or pool-4: from local features and guide to the map and the vector, with shapes.

    Raises ValueError for another pool, and for a network without attention.
    """
    if network.attention == "none" or pool not in (3, 4):
        raise ValueError(
            "expected a network with attention and pool 3 or 4, "
            f"not attention {network.attention!r} and pool {pool!r}"
        )
    of = {
        name[:-1]: shape
        for name, shape in shapes(network, image_size).items()
        if name.endswith(str(pool))
    }
    pooled = "sum" if network.attention == "softmax" else "mean"
    axis, X, Y = _canvas(7.3, 3.6), (1.2, 3.65, 6.1), (2.75, 1.65, 0.55)
    axis.text(
        3.65,
        3.37,
        f"The attention block at pool-{pool}",
        ha="center",
        va="center",
        fontsize=14,
        color=INK,
    )
    # W_l l, the enlarged guide and their sum have one shape, scores and map another: what is added must agree
    for column, row, text in (
        (0, 0, f"guide $g$ (pool-5)\n{of['guide']}"),
        (1, 0, f"1x1 conv $W_g$\n{of['W_g']}"),
        (2, 0, f"up, bilinear\n{of['W_l']}"),
        (0, 1, f"local $l$ (pool-{pool})\n{of['local']}"),
        (1, 1, f"1x1 conv $W_l$\n{of['W_l']}"),
        (2, 1, f"sum, ReLU\n{of['W_l']}"),
        (2, 2, f"1x1 conv $\\varphi$: scores $c$\n{of['map']}"),
        (1, 2, f"{network.attention}: map $a$\n{of['map']}"),
        (0, 2, f"weighted {pooled}: $v$\n{of['vector']}"),
    ):
        _box(axis, X[column], Y[row], text, width=2.1, height=0.72, filled=(column, row) == (1, 2))
    for column, row, step in ((0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 1), (2, 2, -1), (1, 2, -1)):
        _arrow(axis, (X[column] + 1.05 * step, Y[row]), (X[column + step] - 1.05 * step, Y[row]))
    for column, row in ((2, 0), (2, 1), (0, 1)):
        _arrow(axis, (X[column], Y[row] - 0.36), (X[column], Y[row + 1] + 0.36))
    return axis.figure


def network(network: AttnVGG, image_size: int | tuple[int, int]) -> Figure:
    """The whole network with shapes: backbone, two attention blocks (or plain means without), classifier."""
    of, attention = shapes(network, image_size), network.attention != "none"
    axis, X, Y = _canvas(8.5, 3.75), (1.05, 3.2, 5.35, 7.5), (3.1, 1.8, 0.55)
    starts = (0, POOL3 + 1, POOL4 + 1, len(network.backbone))
    for column, pool in enumerate((3, 4, 5), start=1):
        layers = network.backbone[starts[column - 1] : starts[column]]
        count, block = sum(isinstance(layer, nn.Conv2d) for layer in layers), attention and pool < 5
        _box(
            axis,
            X[column],
            Y[0],
            f"{count} convolutions\npool-{pool}\n{of[f'pool{pool}']}",
            width=1.85,
            height=0.92,
        )
        text = (
            f"attention block\n{of[f'vector{pool}']}"
            if block
            else f"mean\n{of[f'pool{pool}'].rsplit(',', 2)[0]}]"
        )
        _box(axis, X[column], Y[1], text, width=1.85, height=0.72, filled=block)
        _arrow(axis, (X[column - 1] + 0.925, Y[0]), (X[column] - 0.925, Y[0]))
        _arrow(axis, (X[column], Y[0] - 0.46), (X[column], Y[1] + 0.36))
        _arrow(axis, (X[column], Y[1] - 0.36), (X[column], 1.17), (X[2], 1.17), (X[2], 0.91))
        if block:
            _arrow(
                axis,
                (7.1, Y[0] - 0.46),
                (7.1, 2.4),
                (X[column] + 0.6, 2.4),
                (X[column] + 0.6, Y[1] + 0.36),
                colour=VERMILION,
                line="--",
            )
            axis.text(
                6.42,
                2.26,
                "guide" if pool == 4 else "",
                ha="center",
                va="center",
                fontsize=12,
                color=INK,
            )
    _box(axis, X[0], Y[0], f"photographs\n{of['image']}", width=1.85, height=0.72)
    _box(axis, X[2], Y[2], f"concatenation\n{of['features']}", width=1.85, height=0.72)
    _box(axis, X[1], Y[2], f"linear: logit\n{of['logits']}", width=1.85, height=0.72)
    _arrow(axis, (X[2] - 0.925, Y[2]), (X[1] + 0.925, Y[2]))
    return axis.figure


def softmax_over_space(scores: Tensor, *, shift: float = -3.0) -> Figure:
    """Scores [H, W], their softmax over all positions and their sigmoid; below, the same with `shift` added to each."""
    H, W = scores.shape
    figure = Figure(
        figsize=(2.2 * max(W, 3) + 0.5, H + 1.5), layout="constrained", facecolor="white"
    )
    ends = [end.item() for end in torch.stack([scores, scores + shift]).aminmax()]
    for line, by in zip(figure.subplots(2, 3), (0, shift), strict=True):
        grid = scores + by
        softmax = grid.flatten().softmax(dim=0).view(H, W)
        panels = {
            f"scores {by:+g}" if by else "scores": grid,
            "softmax": softmax,
            "sigmoid": grid.sigmoid(),
        }
        for axis, (title, cells) in zip(line, panels.items(), strict=True):
            low, high = ends if cells is grid else (0, 1)
            axis.imshow(cells.numpy(), cmap=COLOUR_MAP, vmin=low, vmax=high, aspect="auto")
            axis.set(xticks=[], yticks=[])
            axis.set_title(
                title if cells is grid else f"{title}, sum {cells.sum():.2f}", fontsize=13
            )
            for place, value in enumerate(cells.flatten().tolist()):
                axis.text(
                    place % W,
                    place // W,
                    f"{value:.3g}" if cells is grid else f"{value:.2f}",
                    ha="center",
                    va="center",
                    fontsize=13,
                    color="white" if value < (low + high) / 2 else INK,
                )
    return figure


def _canvas(width: float, height: float) -> Axes:
    """Axes over a whole figure of so many inches; one unit is one inch."""
    figure = Figure(figsize=(width, height), facecolor="white")
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, width), ylim=(0, height))
    axis.axis("off")
    return axis


def _box(
    axis: Axes, x: float, y: float, text: str, *, width: float, height: float, filled: bool = False
) -> None:
    """A box around (x, y) with its text; a filled one has bold letters too."""
    axis.add_patch(
        FancyBboxPatch(
            (x - width / 2 + 0.08, y - height / 2 + 0.08),
            width - 0.16,
            height - 0.16,
            boxstyle="round,pad=0.08",
            facecolor=BLUE if filled else "white",
            edgecolor=BLUE,
        )
    )
    axis.text(
        x,
        y,
        text,
        ha="center",
        va="center",
        fontsize=12.5,
        linespacing=1.2,
        color="white" if filled else INK,
        weight="bold" if filled else "normal",
    )


def _arrow(axis: Axes, *points: tuple[float, float], colour: str = INK, line: str = "-") -> None:
    """A line through the points with its head at the last."""
    axis.plot(*zip(*points[:-1], strict=True), color=colour, linestyle=line, linewidth=1.2)
    axis.annotate(
        "",
        points[-1],
        points[-2],
        arrowprops={
            "arrowstyle": "-|>",
            "color": colour,
            "linestyle": line,
            "shrinkA": 0,
            "shrinkB": 0,
            "linewidth": 1.2,
        },
    )
