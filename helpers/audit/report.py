"""How the audit is shown: names of maps and figures, tables for readers, and two figures.

For notebook 06; what is shown is measured by `localisation` and judged by `claims`.
"""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers.audit.claims import CONTRADICTED, IDENTITY, NOT_MEASURED, SUPPORTED, UNDECIDED
from helpers.audit.localisation import CLASSES, DIFFERENCE, paired
from helpers.pictures.style import BLUE, GREEN, GREY, ORANGE, VERMILION
from helpers.scores.bootstrap import span

LABELS = {
    "attention_pool3": "attention pool-3",
    "attention_pool4": "attention pool-4",
    "grad_cam": "Grad-CAM",
    "activation": "activation of block 5",
    "integrated_gradients": "Integrated Gradients",
    "occlusion": "Occlusion",
    "centre": "centre",
    "uniform": "uniform (chance)",
    "sobel": "edges",
    "otsu": "Otsu's threshold",
    "random_pool3": "random pool-3",
    "random_pool4": "random pool-4",
    "ceiling_pool3": "ceiling of pool-3",
    "ceiling_pool4": "ceiling of pool-4",
}
LABELS |= {f"control_{name}": f"control: {label}" for name, label in LABELS.items()}
OWN = ("attention_pool3", "attention_pool4", "grad_cam")  # of the trained network
TITLES = {
    "hits": "hits",
    "energy": "energy",
    "pixel_auc": "pixel AUC",
    "iou": "IoU",
    "iou_best": "best IoU",
    "concentration": "concentration",
}
COLOURS = {"melanoma": VERMILION, "benign": BLUE}
VERDICT_COLOURS = {
    SUPPORTED: BLUE,
    CONTRADICTED: VERMILION,
    UNDECIDED: ORANGE,
    NOT_MEASURED: GREY,
    IDENTITY: GREEN,
}
WRAPPED = 104  # letters in a line of the scorecard


def told(figures: dict, figure: str, form: str = ".2f") -> str:
    """A figure of `localisation` with its interval in words; "" where it was not measured.

    >>> told({"energy": 0.4, "energy_low": 0.31, "energy_high": 0.52}, "energy")
    '0.40 (0.31-0.52)'
    """
    if figures.get(figure) is None:
        return ""
    between = "-" if form == ".2f" else " to "
    return span(figures[figure], figures[f"{figure}_low"], figures[f"{figure}_high"], form, between)


def in_words(figure: dict | None, form: str = ".2f") -> str:
    """A figure of `bootstrap.interval` with its interval; None was not measured.

    >>> in_words({"value": 0.4, "low": 0.31, "high": 0.52, "n": 20}), in_words(None)
    ('0.40 (0.31 to 0.52)', 'not measured')
    """
    if figure is None:
        return "not measured"
    return span(figure["value"], figure["low"], figure["high"], form)


def gaps_table(measured: pd.DataFrame, figure: str, others: Sequence[str]) -> pd.DataFrame:
    """The network's own maps less others, on the same photographs: a row a map, a column an other.

    Args:
        measured: rows of `localisation.measure`.
        figure: one of `localisation.FIGURES`.
        others: names of maps.
    """
    rows = {}
    for name in OWN:
        if name in set(measured["map"]):
            row = {}
            for other in others:
                gap = paired(measured, figure, name, other)
                row[f"less {LABELS[other]}"] = in_words(gap, "+.2f")
            rows[LABELS[name]] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def readable(located: dict) -> pd.DataFrame:
    """What `localisation.localisation` gives as a table: a row a map, a column a figure."""
    rows = {}
    for name, figures in located.items():
        rows[LABELS[name]] = {title: told(figures, figure) for figure, title in TITLES.items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(TITLES.values()))
    return table.loc[:, (table != "").any()]


def by_class_table(located: dict, figure: str = "energy") -> pd.DataFrame:
    """One figure of each map for all, melanomas and benign lesions, and the difference.

    Args:
        located: of `localisation.by_class`.
        figure: one of `localisation.FIGURES`.
    """
    rows = {}
    for name in located["all"]:
        row = {}
        for kind in ("all", *CLASSES):
            row[kind] = told(located[kind].get(name, {}), figure)
        row[DIFFERENCE] = told(located[DIFFERENCE][name], figure, "+.2f")
        rows[LABELS[name]] = row
    return pd.DataFrame.from_dict(rows, orient="index", columns=["all", *CLASSES, DIFFERENCE])


def by_class_figure(panels: dict[str, dict], figure: str = "energy") -> Figure:
    """One figure of each map by class with its interval; a panel for each set of photographs.

    Dashed lines are chance, the uniform map, in the class's own colour.

    Args:
        panels: `localisation.by_class` by what its photographs are.
        figure: one of `localisation.FIGURES`.
    """
    names = [name for name in next(iter(panels.values()))["all"] if name != "uniform"]
    drawing, axes = plt.subplots(
        1,
        len(panels),
        figsize=(5 * len(panels) + 1, 0.36 * len(names) + 1.4),
        layout="constrained",
        sharey=True,
        squeeze=False,
    )
    for axis, (what, located) in zip(axes[0], panels.items(), strict=True):
        for shift, (kind, colour) in zip((-0.14, 0.14), COLOURS.items(), strict=True):
            found = pd.DataFrame(located[kind]).T.reindex(names)
            ends = [figure, f"{figure}_low", f"{figure}_high"]
            found = found.reindex(columns=ends).astype(float)
            places = np.arange(len(names)) + shift
            axis.hlines(places, found[ends[1]], found[ends[2]], colour)
            axis.plot(found[figure], places, "o", markersize=5, color=colour, label=kind)
            chance = located[kind].get("uniform", {}).get(figure)
            if chance is not None:
                axis.axvline(chance, color=colour, linestyle="--", linewidth=1)
        axis.set(title=what, xlabel=f"{TITLES[figure]}, with its 95% interval", xlim=(-0.02, 1.02))
    axes[0, 0].set(ylim=(len(names) - 0.5, -0.5), yticks=range(len(names)))
    axes[0, 0].set_yticklabels([LABELS[name] for name in names])
    axes[0, -1].legend(loc="lower right", frameon=False)
    return drawing


def claims_table(judged: list[dict]) -> pd.DataFrame:
    """The rows of `claims.claims` as a table, the tutorial's own words first."""
    table = pd.DataFrame(judged).sort_values("said", kind="stable")
    columns = ["said", "claim", "photographs", "test", "measured", "verdict"]
    return table[columns].set_index(["said", "claim"])


def scorecard(judged: list[dict], title: str) -> Figure:
    """All claims in their own words, each with its verdict in the verdict's colour."""
    ordered = sorted(judged, key=lambda row: row["said"])
    texts = []
    for row in ordered:
        said = f"“{row['claim']}”" if row["said"] == "by the tutorial" else row["claim"]
        texts.append(textwrap.fill(f"{said} ({row['test']})", WRAPPED))
    heights = [text.count("\n") + 1.6 for text in texts]
    drawing, axis = plt.subplots(figsize=(10, 0.18 * sum(heights) + 0.5), layout="constrained")
    axis.set(xlim=(0, 1), ylim=(sum(heights), 0), title=title)
    axis.axis("off")
    top = 0.0
    for row, text, height in zip(ordered, texts, heights, strict=True):
        axis.text(0, top, text, va="top", fontsize=9)
        axis.text(
            1,
            top,
            row["verdict"],
            ha="right",
            va="top",
            fontsize=9,
            color="white",
            bbox={"facecolor": VERDICT_COLOURS[row["verdict"]], "edgecolor": "none"},
        )
        top += height
    return drawing


def by_seed_figure(verdicts: pd.DataFrame, title: str) -> Figure:
    """The verdicts of several trainings beside each other: a line a claim, a square a seed.

    Claims whose verdict is the same in every training stand below those whose verdict is not.

    Args:
        verdicts: of `claims.by_seed`.
        title: of the figure.
    """
    moved = verdicts.nunique(axis=1) > 1
    ordered = verdicts.loc[moved.sort_values(ascending=False, kind="stable").index]
    texts = [textwrap.fill(f"{claim} ({test})", WRAPPED) for claim, test in ordered.index]
    heights = [text.count("\n") + 1.6 for text in texts]
    drawing, axis = plt.subplots(figsize=(10, 0.18 * sum(heights) + 1.0), layout="constrained")
    axis.set(xlim=(0, 1), ylim=(sum(heights), -1.6), title=title)
    axis.axis("off")
    places = 0.98 - 0.04 * np.arange(len(ordered.columns))[::-1]
    for place, seed in zip(places, ordered.columns, strict=True):
        axis.text(place, -1.4, str(seed), ha="center", va="top", fontsize=9)
    axis.text(places[0] - 0.03, -1.4, "seed", ha="right", va="top", fontsize=9)
    top = 0.0
    for text, height, row in zip(texts, heights, ordered.to_numpy(), strict=True):
        axis.text(0, top, text, va="top", fontsize=9)
        for place, verdict in zip(places, row, strict=True):
            box = {"facecolor": VERDICT_COLOURS[verdict], "edgecolor": "none"}
            letter = verdict[0]  # who cannot tell the colours apart reads it
            middle = {"ha": "center", "va": "top", "bbox": box, "family": "monospace"}
            axis.text(place, top, letter, color="white", fontsize=9, **middle)
        top += height
    shown = [verdict for verdict in VERDICT_COLOURS if (ordered == verdict).to_numpy().any()]
    handles = [axis.plot([], [], "s", color=VERDICT_COLOURS[verdict])[0] for verdict in shown]
    labels = [f"{verdict[0]}: {verdict}" for verdict in shown]
    drawing.legend(handles, labels, loc="outside lower center", ncols=len(shown))
    return drawing
