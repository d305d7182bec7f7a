"""Sliders that need no kernel, for notebooks 03 to 06: they move in a stored notebook and the book.

Each function takes arrays and returns HTML that holds all it needs: numbers, small pictures, styles
(sliders.css) and a script (sliders.js). It asks nothing of any host and is moved by keyboard, mouse
or finger; where scripts are off, a table or a picture stands in its place. The same arrays give the
same bytes. What the browser computes, it computes from the numbers given here, by the same rule
(`tests/site/test_moving.py` compares).
"""

import base64
import hashlib
import html
import io
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from matplotlib.colors import to_hex
from PIL import Image
from torch import Tensor

from helpers.pictures.maps import min_max, overlay, upsample
from helpers.pictures.style import BLUE, COLOUR_MAP, ORANGE, VERMILION

HERE = Path(__file__).parent
SCRIPT = (HERE / "sliders.js").read_text(encoding="utf-8")
STYLES = (HERE / "sliders.css").read_text(encoding="utf-8")
# what `scores` adds to every score and multiplies it by: lowest, step, steps, where it starts
ADDED = {"lowest": -10.0, "step": 0.5, "steps": 40, "start": 20}
TIMES = {"lowest": 0.0, "step": 0.25, "steps": 12, "start": 4}
LEVELS = 100  # steps of `level` from the smallest value of a map to its largest
SHARE = 0.4  # of the map in the mixture, before the slider is moved
SAME = 1e-6  # a map whose values differ by less, of its largest, is constant: computers round
LESION = 128  # added to a pixel of `last_levels` that is lesion
TEMPLATE = """\
<div class="attention-slider" data-slider="{key}" style="--blue: {blue}; --vermilion: {vermilion}; \
--orange: {orange}">
<style>{styles}</style>
<p class="heading">{title}</p>
<div class="still" data-name="{name}">{still}</div>
<script>(() => {{
{script}
begin("{key}", "{kind}", {data});
}})();</script>
</div>"""


def scores(values: np.ndarray) -> HTML:
    """Scores moved together: bars of their softmax and of their sigmoid weights.

    One slider adds a number to every score, one multiplies every score by a number.

    Args:
        values: the scores of the positions, any shape; they stand in a row.

    >>> "sigmoid" in scores(np.array([[0.0, 1.0], [3.0, 0.0]])).data
    True
    """
    values = np.asarray(values, float).ravel()  # [K]
    rows = []
    for added in (-10, -3, 0, 3, 10):
        exponentials = np.exp(values + added)
        softmax = exponentials / exponentials.sum()  # [K]
        sigmoid = 1 / (1 + np.exp(-values - added))  # [K]
        row = [f"{added:+d}"]
        for weights in (softmax, sigmoid):
            row += [f"{weights.max():.3f}", f"{weights.sum():.3f}"]
        rows.append(row)
    heads = ["added to every score"]
    for kind in ("softmax", "sigmoid"):
        heads += [f"{kind}: largest weight", "sum"]
    data = {"scores": values.tolist(), "added": ADDED, "times": TIMES}
    return page("scores", "All scores, moved together", data, table(heads, rows))


def threshold(targets: np.ndarray, probabilities: np.ndarray, chosen: float) -> HTML:
    """The threshold of a decision: the point on the ROC curve, and who changes sides.

    From one position of the slider to the next, those photographs change sides that have the same
    probability: mostly one.

    Args:
        targets: 0 or 1, [N]; both occur.
        probabilities: of melanoma, [N].
        chosen: a probability from here on is called melanoma; where the slider starts.

    Raises:
        ValueError: the photographs are of one class.

    >>> "ROC" in threshold([0, 1, 1], [0.2, 0.1, 0.9], chosen=0.5).data
    True
    """
    targets = np.asarray(targets).astype(int)  # [N]
    probabilities = np.asarray(probabilities, float)  # [N]
    if set(targets.tolist()) != {0, 1}:
        raise ValueError(f"targets {sorted(set(targets.tolist()))}: expected both 0 and 1")
    positions = np.unique(probabilities)
    positions = np.append(positions, np.nextafter(positions[-1], np.inf))  # none is called
    # the chosen threshold calls the same photographs as the next probability above it
    start = min(int(np.searchsorted(positions, chosen)), len(positions) - 1)
    positions[start] = chosen
    rows = []
    for number in sorted({*np.linspace(0, len(positions) - 1, 7).astype(int).tolist(), start}):
        called = probabilities >= positions[number]  # [N]
        found = int(called[targets == 1].sum())
        alarms = int(called[targets == 0].sum())
        sensitivity = found / (targets == 1).sum()
        specificity = 1 - alarms / (targets == 0).sum()
        name = f"{positions[number]:.3f}"
        if number == start:
            name += ", the run's own"
        rows.append([name, found, alarms, f"{sensitivity:.3f}", f"{specificity:.3f}"])
    heads = ["threshold", "melanomas found", "false alarms", "sensitivity", "specificity"]
    data = {
        "targets": targets.tolist(),
        "probabilities": probabilities.tolist(),
        "thresholds": positions.tolist(),
        "start": start,
    }
    return page("threshold", "Where to draw the line", data, table(heads, rows))


def opacity(
    photographs: np.ndarray,
    titles: list[str],
    layers: dict[str, tuple[Tensor, str]],
) -> HTML:
    """Photographs under their maps, stretched as in `maps.overlay`, at any opacity.

    Takes what `explorer.explore` takes, and needs no kernel. A photograph of 96 pixels under three
    maps takes some 30 kB.

    Args:
        photographs: [N, H, W, 3], 0 to 1.
        titles: N of them.
        layers: maps [N, 1, h, w] in their own scale, and its unit, by name.
    """
    size = photographs.shape[1:3]
    titles = numbered(titles)
    described = []
    panels = [photographs[:1]]
    for name, (maps, unit) in layers.items():
        large = min_max(upsample(maps, size))  # [N, 1, H, W]
        panels.append(overlay(photographs[:1], large[:1], share=SHARE))
        described.append(
            {
                "name": name,
                "unit": unit,
                "images": [coloured(values[0].numpy()) for values in large],
                "low": [f"{grid.min().item():.2f}" for grid in maps],
                "high": [f"{grid.max().item():.3g}" for grid in maps],
            }
        )
    words = f"{titles[0]}: the photograph, and under {', '.join(layers)} at opacity {SHARE}"
    row = np.concatenate(panels, axis=2)[0]  # [H, W * panels, 3]
    ramp = plt.get_cmap(COLOUR_MAP)(np.linspace(0, 1, 17))
    data = {
        "titles": titles,
        "photographs": [photograph_file(one) for one in photographs],
        "layers": described,
        "colours": [to_hex(colour) for colour in ramp],
        "start": SHARE,
    }
    return page("opacity", "How much of the map to lay on", data, picture(row, words))


def level(
    photographs: np.ndarray,
    titles: list[str],
    masks: Tensor,
    layers: dict[str, Tensor],
) -> HTML:
    """Maps cut at a level, against the outline of the lesion, with IoU and energy.

    A pixel is kept where the map, stretched from its smallest to its largest value, is at least the
    level; a constant map is kept whole. That is the rule of `localisation.overlap`. A photograph of
    96 pixels with three maps takes some 45 kB.

    Args:
        photographs: [N, H, W, 3], 0 to 1.
        titles: N of them.
        masks: [N, 1, H, W]; lesion where at least 0.5, and some lesion in each.
        layers: maps [N, 1, h, w], 0 or more, by name.

    Raises:
        ValueError: a mask is empty, so that nothing could fit it.
    """
    lesions = masks[:, 0].numpy() >= 0.5  # [N, H, W]
    if not lesions.any(axis=(1, 2)).all():
        raise ValueError("a mask is empty: expected photographs with some lesion in view")
    titles = numbered(titles)
    size = lesions.shape[1:]
    described = []
    heads = ["level"]
    columns = []
    for name, maps in layers.items():
        large = upsample(maps, size)[:, 0].double().numpy()  # [N, H, W]
        pixels = []
        energies = []
        for values, lesion in zip(large, lesions, strict=True):
            values = np.ones_like(values) if constant(values) else values
            packed = last_levels(values) + LESION * lesion
            pixels.append(base64.b64encode(packed.astype(np.uint8).tobytes()).decode())
            energies.append(float(values[lesion].sum() / values.sum()))
        described.append({"name": name, "pixels": pixels, "energy": energies})
        heads.append(f"IoU, {name}")
        kept = last_levels(large[0])
        columns.append([iou_at(kept, lesions[0], cut) for cut in (25, 50, 75)])
    rows = []
    for number, cut in enumerate((25, 50, 75)):
        rows.append([f"{cut / LEVELS}", *(f"{column[number]:.3f}" for column in columns)])
    rows.append(["energy inside", *(f"{layer['energy'][0]:.3f}" for layer in described)])
    data = {
        "titles": titles,
        "photographs": [photograph_file(one) for one in photographs],
        "side": list(size),
        "layers": described,
        "levels": LEVELS,
        "start": LEVELS // 2,
    }
    still = f"<p>{html.escape(titles[0])}</p>" + table(heads, rows)
    return page("level", "The map, cut at a level", data, still)


def constant(values: np.ndarray) -> bool:
    """Whether a map [H, W] is the same everywhere, but for rounding; zeros are."""
    return bool(values.max() - values.min() <= SAME * values.max())


def last_levels(values: np.ndarray) -> np.ndarray:
    """The last of LEVELS + 1 levels, from 0, at which each pixel of a map is kept.

    So the browser compares whole numbers, and what it keeps is to the pixel what Python keeps.

    Args:
        values: the map [H, W], float64, 0 or more; a constant one is kept at every level.

    Returns:
        uint8 [H, W], 0 to LEVELS.

    >>> last_levels(np.array([[0.0, 1.0], [2.0, 4.0]])).tolist()
    [[0, 25], [50, 100]]
    """
    spread = 0.0 if constant(values) else values.max() - values.min()
    last = np.zeros(values.shape, np.uint8)
    for step in range(1, LEVELS + 1):
        last += values - values.min() >= step / LEVELS * spread
    return last


def iou_at(last: np.ndarray, lesion: np.ndarray, step: int) -> float:
    """IoU of a lesion (bool [H, W]) and of what is kept at a step of `last_levels`."""
    kept = last >= step
    return float((kept & lesion).sum() / (kept | lesion).sum())


def numbered(titles: list[str]) -> list[str]:
    """Titles in a line each, with their number before them.

    >>> numbered(["melanoma\\np = 0.25"])
    ['1: melanoma, p = 0.25']
    """
    return [f"{number}: " + title.replace("\n", ", ") for number, title in enumerate(titles, 1)]


def photograph_file(photograph: np.ndarray) -> str:
    """A photograph [H, W, 3], 0 to 1, as the address of a JPEG that holds its own bytes."""
    buffer = io.BytesIO()
    pixels = Image.fromarray((photograph * 255).round().astype(np.uint8))
    pixels.save(buffer, "JPEG", quality=90, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def coloured(values: np.ndarray) -> str:
    """A map [H, W], 0 to 1, in COLOUR_MAP: the address of a PNG that holds its own bytes."""
    places = (values * 256).clip(0, 255).astype(np.uint8)  # as matplotlib picks its colours
    drawn = Image.fromarray(places).convert("P")
    palette = plt.get_cmap(COLOUR_MAP)(range(256))[:, :3]  # [256, 3], 0 to 1
    drawn.putpalette((palette * 255).round().astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def picture(pixels: np.ndarray, words: str) -> str:
    """A picture [H, W, 3], 0 to 1, in HTML, with what it shows below it."""
    shown = html.escape(words)
    return f'<img src="{photograph_file(pixels)}" alt="{shown}"><p>{shown}</p>'


def table(heads: list[str], rows: list[list]) -> str:
    """A table in HTML; the first of each row is its head."""
    columns = "".join(f'<th scope="col">{html.escape(head)}</th>' for head in heads)
    lines = []
    for first, *rest in rows:
        cells = "".join(f"<td>{html.escape(str(value))}</td>" for value in rest)
        lines.append(f'<tr><th scope="row">{html.escape(str(first))}</th>{cells}</tr>')
    return f"<table><thead><tr>{columns}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def page(kind: str, title: str, data: dict, still: str) -> HTML:
    """A slider as a cell shows it.

    Args:
        kind: one of the `kinds` of sliders.js.
        title: above the slider.
        data: what that kind takes.
        still: HTML that stands there without scripts, and folded below the slider with them.

    Returns:
        HTML whose key follows from its content: the same content gives the same bytes, and where
        it stands twice on a page the script finds its own.
    """
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    key = hashlib.sha256(f"{kind} {text}".encode()).hexdigest()[:12]
    filled = TEMPLATE.format(
        key=key,
        kind=kind,
        title=html.escape(title),
        name="The same without a slider",
        still=still,
        data=text.replace("<", "\\u003c"),
        script=SCRIPT,
        styles=STYLES,
        blue=BLUE,
        vermilion=VERMILION,
        orange=ORANGE,
    )
    return HTML(filled)
