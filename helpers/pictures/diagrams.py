"""Diagrams drawn by code: the series, the network, its attention block, a softmax over space.

Shapes are read off one forward pass by hooks, so that another network or image size gives another,
true diagram. Figures are returned, neither shown nor saved; one unit of their axes is one inch,
their background is white.
"""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import Tensor, nn

from helpers.model import POOL3, POOL4, AttnVGG
from helpers.pictures.style import BLUE, COLOUR_MAP, GREY, VERMILION

# what each notebook leaves in runs/<run>/ for those after it
LEAVES = {
    "01_download": ["dataset.json"],
    "02_preprocess": ["split.csv", "cache.json"],
    "03_attention_model": ["figures/"],
    "04_train": ["model.pt", "history.csv", "predictions.csv", "metrics.json"],
    "05_visualize_attention": ["figures/"],
    "06_audit": ["audit.json", "figures/"],
    "07_evidence": ["evidence.json", "figures/"],
    "08_mend": ["mend.json", "figures/"],
}
# those that need what others left
READS = (
    "02_preprocess",
    "04_train",
    "05_visualize_attention",
    "06_audit",
    "07_evidence",
    "08_mend",
)
A_LINE = 4  # notebooks side by side
LINE_HEIGHT = 2.65
INK = "black"  # letters and most arrows
CENTRED = {"ha": "center", "va": "center", "color": INK}


def series(here: str) -> Figure:
    """The notebooks in order and the files that pass between them.

    Args:
        here: one of LEAVES; its box is filled.

    Raises:
        ValueError: there is no such notebook.
    """
    if here not in LEAVES:
        raise ValueError(f"here is one of {', '.join(LEAVES)}, not {here!r}")
    lines = -(-len(LEAVES) // A_LINE)
    width = 0.12 + 1.53 * A_LINE
    axis = _canvas(width, LINE_HEIGHT * lines - 0.15)
    for line in range(lines):
        folder = {"facecolor": "white", "edgecolor": GREY, "linestyle": "--"}
        bottom = LINE_HEIGHT * line + 0.05
        axis.add_patch(Rectangle((0.05, bottom), width - 0.1, 1.27, **folder))
    legend = "\u2193 leaves   \u2191 reads   in runs/<run>/"
    axis.text(0.2, 0.22, legend, fontsize=14, va="center", color=INK)
    for number, (name, files) in enumerate(LEAVES.items()):
        line, column = divmod(number, A_LINE)
        x = 0.83 + 1.53 * column
        y = LINE_HEIGHT * (lines - 1 - line)  # the bottom of its line
        title = name.replace("_", "\n")
        _box(axis, x, y + 2.04, title, width=1.4, height=0.86, filled=name == here)
        if column > 0:
            _arrow(axis, (x - 0.83, y + 2.04), (x - 0.7, y + 2.04))
        _arrow(axis, (x + 0.25, y + 1.61), (x + 0.25, y + 1.32))
        if name in READS:
            _arrow(axis, (x - 0.25, y + 1.32), (x - 0.25, y + 1.61), colour=BLUE)
        words = "\n".join(files)
        place = {"ha": "center", "va": "top", "color": INK}
        axis.text(x, y + 1.25, words, fontsize=14, linespacing=1.15, **place)
    return axis.figure


def shapes(network: AttnVGG, image_size: int | tuple[int, int]) -> dict[str, str]:
    """The shapes of one forward pass, "[B, C, H, W]" by name.

    The network is left as it was, each of its modules in its own mode.

    Args:
        network: on any device.
        image_size: a side, or (H, W); multiples of 32.

    Returns:
        By the names image, pool3 to pool5, features, logits, and of blocks 3 and 4 local3, guide3,
        W_l3, W_g3, map3, vector3.

    Raises:
        ValueError: the size is no multiple of 32.

    >>> shapes(AttnVGG(), 64)["pool3"]
    '[B, 256, 8, 8]'
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    image = torch.zeros(1, 3, *size, device=next(network.parameters()).device)
    traced = {"image": image.shape}
    handles = []

    def keep(module: nn.Module, *names: str | None) -> None:
        """Names of what goes in, then of what comes out; None for what is not kept."""

        def hook(_: nn.Module, inputs: tuple, outputs: Tensor | tuple) -> None:
            if isinstance(outputs, Tensor):
                outputs = (outputs,)
            for name, tensor in zip(names, (*inputs, *outputs), strict=True):
                if name is not None:
                    traced[name] = tensor.shape

        handles.append(module.register_forward_hook(hook))

    keep(network.backbone[POOL3], None, "pool3")
    keep(network.backbone[POOL4], None, "pool4")
    keep(network.backbone[-1], None, "pool5")
    keep(network.classifier, "features", "logits")
    if network.attention != "none":
        for pool, block in ((3, network.attention3), (4, network.attention4)):
            keep(block, f"local{pool}", f"guide{pool}", f"map{pool}", f"vector{pool}")
            keep(block.local_projection, None, f"W_l{pool}")
            keep(block.guide_projection, None, f"W_g{pool}")
    modes = {module: module.training for module in network.modules()}
    try:
        with torch.no_grad():
            network.eval()(image)
    finally:
        for module, training in modes.items():
            module.training = training
        for handle in handles:
            handle.remove()
    return {name: _bracketed(shape) for name, shape in traced.items()}


def attention_block(
    network: AttnVGG,
    image_size: int | tuple[int, int],
    *,
    pool: int = 3,
) -> Figure:
    """The attention block from local features and guide to the map and the vector, with shapes.

    Args:
        network: one with attention.
        image_size: as in `shapes`.
        pool: 3 or 4, of the local features.

    Raises:
        ValueError: another pool, or a network without attention.
    """
    if network.attention == "none" or pool not in (3, 4):
        raise ValueError(
            "expected a network with attention and pool 3 or 4, "
            f"not attention {network.attention!r} and pool {pool!r}"
        )
    traced = shapes(network, image_size)
    how, pooled = {
        "softmax": ("softmax", "weighted sum"),
        "sigmoid": ("sigmoid", "weighted mean"),
        "weighted": ("sigmoid", r"$\sum a\,l\,/\,\sum a$"),
    }[network.attention]
    x = (1.2, 3.65, 6.1)  # of the three columns
    y = (2.75, 1.65, 0.55)  # of the three rows
    axis = _canvas(7.3, 3.6)
    axis.text(3.65, 3.37, f"The attention block at pool-{pool}", fontsize=14, **CENTRED)
    # W_l l, the enlarged guide and their sum have one shape, scores and map another
    boxes = [
        (0, 0, "guide $g$ (pool-5)", "guide"),
        (1, 0, "1x1 conv $W_g$", "W_g"),
        (2, 0, "up, bilinear", "W_l"),
        (0, 1, f"local $l$ (pool-{pool})", "local"),
        (1, 1, "1x1 conv $W_l$", "W_l"),
        (2, 1, "sum, ReLU", "W_l"),
        (2, 2, "1x1 conv $\\varphi$: scores $c$", "map"),
        (1, 2, f"{how}: map $a$", "map"),
        (0, 2, f"{pooled}: $v$", "vector"),
    ]
    for column, row, title, name in boxes:
        text = f"{title}\n{traced[f'{name}{pool}']}"
        filled = (column, row) == (1, 2)
        _box(axis, x[column], y[row], text, width=2.1, height=0.72, filled=filled)
    for row in (0, 1):  # to the right
        for column in (0, 1):
            _arrow(axis, (x[column] + 1.05, y[row]), (x[column + 1] - 1.05, y[row]))
    for column in (2, 1):  # back to the left
        _arrow(axis, (x[column] - 1.05, y[2]), (x[column - 1] + 1.05, y[2]))
    for column, row in ((2, 0), (2, 1), (0, 1)):  # down
        _arrow(axis, (x[column], y[row] - 0.36), (x[column], y[row + 1] + 0.36))
    return axis.figure


def network(network: AttnVGG, image_size: int | tuple[int, int]) -> Figure:
    """The whole network with shapes: backbone, attention blocks, classifier.

    Without attention, plain means stand where the blocks would; without the bypass, pool-5's mean
    is not there.

    Args:
        network: any.
        image_size: as in `shapes`.
    """
    traced = shapes(network, image_size)
    x = (1.05, 3.2, 5.35, 7.5)  # of the four columns
    y = (3.1, 1.8, 0.55)  # of the three rows
    axis = _canvas(8.5, 3.75)
    _box(axis, x[0], y[0], f"photographs\n{traced['image']}", width=1.85, height=0.72)
    first = 0  # layer of the stage
    for pool, last, column in ((3, POOL3, 1), (4, POOL4, 2), (5, len(network.backbone) - 1, 3)):
        layers = network.backbone[first : last + 1]
        convolutions = sum(isinstance(layer, nn.Conv2d) for layer in layers)
        shape = traced[f"pool{pool}"]
        stage = f"{convolutions} convolutions\npool-{pool}\n{shape}"
        _box(axis, x[column], y[0], stage, width=1.85, height=0.92)
        attended = pool < 5 and network.attention != "none"
        if attended:
            text = f"attention block\n{traced[f'vector{pool}']}"
            _guide(axis, (7.1, y[0] - 0.46), (x[column] + 0.6, y[1] + 0.36))
        else:
            text = f"mean\n{shape.rsplit(',', 2)[0]}]"
        _arrow(axis, (x[column - 1] + 0.925, y[0]), (x[column] - 0.925, y[0]))
        if pool == 5 and not network.bypass:
            continue
        _box(axis, x[column], y[1], text, width=1.85, height=0.72, filled=attended)
        _arrow(axis, (x[column], y[0] - 0.46), (x[column], y[1] + 0.36))
        _arrow(axis, (x[column], y[1] - 0.36), (x[column], 1.17), (x[2], 1.17), (x[2], 0.91))
        first = last + 1
    if network.attention != "none":
        axis.text(6.42, 2.26, "guide", fontsize=12, **CENTRED)
    _box(axis, x[2], y[2], f"concatenation\n{traced['features']}", width=1.85, height=0.72)
    _box(axis, x[1], y[2], f"linear: logit\n{traced['logits']}", width=1.85, height=0.72)
    _arrow(axis, (x[2] - 0.925, y[2]), (x[1] + 0.925, y[2]))
    return axis.figure


def softmax_over_space(scores: Tensor, *, shift: float = -3.0) -> Figure:
    """Scores, their softmax over all positions and their sigmoid, before and after a shift.

    A constant cancels in the softmax and not in the sigmoid.

    Args:
        scores: [H, W].
        shift: what the second row adds to each.
    """
    H, W = scores.shape
    size = (2.2 * max(W, 3) + 0.5, H + 1.5)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    low, high = torch.stack([scores, scores + shift]).aminmax()
    score_range = (low.item(), high.item())
    for axes, added in zip(figure.subplots(2, 3), (0, shift), strict=True):
        shifted = scores + added
        softmax = shifted.flatten().softmax(dim=0).view(H, W)
        sigmoid = shifted.sigmoid()
        title = f"scores {added:+g}" if added else "scores"
        _cells(axes[0], shifted, title, score_range, digits=".3g")
        _cells(axes[1], softmax, f"softmax, sum {softmax.sum():.2f}", (0, 1), digits=".2f")
        _cells(axes[2], sigmoid, f"sigmoid, sum {sigmoid.sum():.2f}", (0, 1), digits=".2f")
    return figure


def _cells(
    axis: Axes,
    cells: Tensor,
    title: str,
    ends: tuple[float, float],
    *,
    digits: str,
) -> None:
    """Cells [H, W] in colours between these ends, with the value in each."""
    low, high = ends
    axis.imshow(cells.numpy(), cmap=COLOUR_MAP, vmin=low, vmax=high, aspect="auto")
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=13)
    for y, row in enumerate(cells.tolist()):
        for x, value in enumerate(row):
            colour = "white" if value < (low + high) / 2 else INK
            words = f"{value:{digits}}"
            axis.text(x, y, words, fontsize=13, ha="center", va="center", color=colour)


def _bracketed(shape: torch.Size) -> str:
    """A shape with B for the number of photographs."""
    return f"[B, {', '.join(str(length) for length in shape[1:])}]"


def _canvas(width: float, height: float) -> Axes:
    """Axes over a whole figure of so many inches; one unit is one inch."""
    figure = Figure(figsize=(width, height), facecolor="white")
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, width), ylim=(0, height))
    axis.axis("off")
    return axis


def _box(
    axis: Axes,
    x: float,
    y: float,
    text: str,
    *,
    width: float,
    height: float,
    filled: bool = False,
) -> None:
    """A box around (x, y) with its text; a filled one has bold letters, too."""
    pad = 0.08  # by which the rounded rim grows
    box = FancyBboxPatch(
        (x - width / 2 + pad, y - height / 2 + pad),
        width - 2 * pad,
        height - 2 * pad,
        boxstyle=f"round,pad={pad}",
        facecolor=BLUE if filled else "white",
        edgecolor=BLUE,
    )
    axis.add_patch(box)
    words = axis.text(x, y, text, fontsize=12.5, linespacing=1.2, **CENTRED)
    if filled:
        words.set(color="white", weight="bold")


def _guide(axis: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """The dashed way of the guide from pool-5 down, across and into an attention block."""
    corner = (start[0], 2.4)
    _arrow(axis, start, corner, (end[0], 2.4), end, colour=VERMILION, line="--")


def _arrow(axis: Axes, *points: tuple[float, float], colour: str = INK, line: str = "-") -> None:
    """A line through the points with its head at the last."""
    x, y = zip(*points[:-1], strict=True)
    axis.plot(x, y, color=colour, linestyle=line, linewidth=1.2)
    head = {
        "arrowstyle": "-|>",
        "color": colour,
        "linestyle": line,
        "shrinkA": 0,
        "shrinkB": 0,
        "linewidth": 1.2,
    }
    axis.annotate("", points[-1], points[-2], arrowprops=head)
