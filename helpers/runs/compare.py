"""Runs of a grid beside each other: figures, ranges over seeds, paired differences.

What chance there is in a figure has two sources, and each is shown by its own means: an interval
draws other patients (the bootstrap over groups), a range over seeds trains again. Where the groups
of a class are too few for an interval, its ends are missing, and no run is called better.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers import workspace
from helpers.pictures.style import BLUE, GREEN, GREY, ORANGE, VERMILION
from helpers.scores.bootstrap import FEW, auc_difference
from helpers.training.checkpoint import PREDICTIONS

# the value that a parameter's others are compared with
CONTROLS = {"attention": "none", "gamma": 0.0}
FIGURES = ["auc", "auc_low", "auc_high", "ap", "n", "positives"]
COLOURS = (BLUE, VERMILION, GREEN, ORANGE)


def label(value: object) -> str:
    """A parameter's value as it stands in names: a path by its last part.

    >>> label("/home/me/vgg.pth"), label(2.0)
    ('vgg.pth', '2.0')
    """
    return Path(value).name if isinstance(value, str) else str(value)


def setting(values: dict) -> str:
    """What a run has in common with those that differ in the seed alone.

    >>> setting({"attention": "none", "seed": 1})
    'attention none'
    """
    parts = [f"{name} {label(value)}" for name, value in values.items() if name != "seed"]
    return ", ".join(parts) or "all"


# the table


def gather(points: dict[str, dict]) -> pd.DataFrame:
    """`compare.csv`: the test figures of the runs of a grid, a row each.

    Args:
        points: the values of the grid's parameters, by the name of the run.

    Returns:
        Columns: run, the values, setting, FIGURES; seeds, auc_mean, auc_min, auc_max over the runs
        of its setting; and for each parameter that has its control in the grid
        `less_<parameter>`, with `_low` and `_high`: see `subtract_control`.

    Raises:
        FileNotFoundError: a run has no metrics.json or predictions.csv.
        ValueError: one of them is damaged, or lacks a column.
    """
    rows = []
    for point, values in points.items():
        file = workspace.run_folder(point) / "metrics.json"
        test = workspace.read_json(file, "04_train.ipynb")["test"]
        figures = {name: test[name] for name in FIGURES}
        rows.append({"run": point, **values, "setting": setting(values), **figures})
    table = pd.DataFrame(rows).astype({"auc_low": float, "auc_high": float})  # None is NaN
    by_setting = table.groupby("setting")["auc"]
    table["seeds"] = by_setting.transform("size")
    for statistic in ("mean", "min", "max"):
        table[f"auc_{statistic}"] = by_setting.transform(statistic)
    for name in controls(table):
        columns = [f"less_{name}", f"less_{name}_low", f"less_{name}_high"]
        table[columns] = subtract_control(points, name)
    return table


def subtract_control(points: dict[str, dict], name: str) -> list[list[float]]:
    """Test AUC of each run less that of its control, and the interval over groups of this: [N, 3].

    The control has the value of CONTROLS for the parameter `name`, and all else equal; the
    photographs are the same. NaN for a control itself, and where the grid has none; NaN for the
    ends where the groups are too few.
    """
    runs = {tuple(values.items()): point for point, values in points.items()}
    rows = []
    for point, values in points.items():
        control = runs.get(tuple((values | {name: CONTROLS[name]}).items()))
        less = None
        if control not in (None, point):
            less = auc_difference(read_predictions(point), read_predictions(control))
        rows.append([less["value"], less["low"], less["high"]] if less else [np.nan] * 3)
    return rows


def read_predictions(point: str) -> pd.DataFrame:
    """What a run predicts, of validation and test photographs. Raises as `read_table`.

    That they are of the network beside them is known: a point whose files have changed runs again.
    """
    file = workspace.run_folder(point) / "predictions.csv"
    return workspace.read_table(file, "04_train.ipynb", PREDICTIONS)


def controls(table: pd.DataFrame) -> list[str]:
    """The parameters of the grid that have their control among their values, and others."""
    names = []
    for name, value in CONTROLS.items():
        if name in table and (table[name] == value).any() and (table[name] != value).any():
            names.append(name)
    return names


def verdicts(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """How the runs of each setting differ from their controls.

    Args:
        table: of `gather`.
        name: the parameter that has a control.

    Returns:
        A row for each setting that has pairs: pairs, mean, min, max of the differences, and above
        and below: how many have their whole interval above or below 0; NaN where no pair has one.
    """
    pairs = table.dropna(subset=f"less_{name}")
    low, high = pairs[f"less_{name}_low"], pairs[f"less_{name}_high"]
    pairs = pairs.assign(above=low > 0, below=high < 0)
    by_setting = pairs.groupby("setting", sort=False)
    rows = by_setting.agg(
        pairs=("run", "size"),
        mean=(f"less_{name}", "mean"),
        min=(f"less_{name}", "min"),
        max=(f"less_{name}", "max"),
        above=("above", "sum"),
        below=("below", "sum"),
    )
    if low.isna().all():  # one test split: all pairs have an interval, or none
        rows[["above", "below"]] = np.nan
    return rows.reset_index()


# what is written


def write(name: str, points: dict[str, dict], failed: dict[str, str]) -> pd.DataFrame:
    """Write compare.csv, compare.md and figures/compare.png into the grid's folder.

    Args:
        name: of the grid.
        points: the values of the runs that are done, by the run's name.
        failed: the reason of each other run, by its name.

    Returns:
        The content of compare.csv.
    """
    folder = workspace.run_folder(name)
    table = gather(points)
    with workspace.replacing(folder / "compare.csv") as beside:
        table.to_csv(beside, index=False)
    with workspace.replacing(folder / "compare.md") as beside:
        beside.write_text(describe(name, table, failed), encoding="utf-8")
    with workspace.replacing(folder / "figures" / "compare.png") as beside:
        draw(table).savefig(beside, dpi=120)
    return table


def describe(name: str, table: pd.DataFrame, failed: dict[str, str]) -> str:
    """The content of `compare.md`."""
    photographs = table["n"].max()
    melanomas = table["positives"].max()
    several = table["seeds"].max()
    by_setting = table.drop_duplicates("setting")
    parts = [
        f"# Runs of the grid {name}, compared",
        f"Test split: {photographs} photographs, {melanomas} melanomas. Intervals: 95%, 2,000 "
        "draws of whole groups (patients, lesions).",
        markdown(table[["run", *FIGURES[:4]]]),
        "## Over seeds",
        markdown(by_setting[["setting", "seeds", "auc_mean", "auc_min", "auc_max"]]),
    ]
    if several > 1:
        parts.append(
            f"Up to {several} runs a setting show how far training again moves an AUC. They are no "
            "test: so few give no p-value, and two ranges that do not meet are no proof."
        )
    else:
        parts.append(
            "One run a setting: nothing here says how far training again would move an AUC. Add "
            "`--grid seed=0,1,2`."
        )
    for control in controls(table):
        parts += describe_control(table, control)
    if not controls(table):
        parts.append(
            "No parameter of the grid has a control among its values (attention none, gamma 0): "
            "no differences."
        )
    if failed:
        parts.append("## Failed")
        parts += [f"- {point}: {reason}" for point, reason in failed.items()]
    return "\n\n".join(parts) + "\n"


def describe_control(table: pd.DataFrame, name: str) -> list[str]:
    """The paragraphs on the differences from the control of the parameter `name`."""
    column = f"less_{name}"
    pairs = table.dropna(subset=column)
    if pairs.empty:
        reading = "No run here has its control beside it, so there is no difference to read."
    elif pairs[f"{column}_low"].isna().all():
        reading = (
            f"The test photographs are of fewer than {FEW} patients or lesions with melanoma, or "
            "without: too few to tell any two of these runs apart."
        )
    else:
        reading = (
            "above, below: how many pairs have their whole interval above or below 0. Of many such "
            "intervals one in twenty misses by chance: read all rows, not the best one."
        )
    return [
        f"## Less the run with {name} {CONTROLS[name]}",
        "Difference in test AUC on the same photographs, all other parameters and the seed equal.",
        markdown(pairs[["run", column, f"{column}_low", f"{column}_high"]]),
        markdown(verdicts(table, name)),
        reading,
    ]


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown; floats with three decimals, "too few" for those that are missing.

    >>> print(markdown(pd.DataFrame({"run": ["a"], "auc": [0.51234]})))
    | run | auc |
    | --- | --- |
    | a | 0.512 |
    """
    lines = [list(table), ["---"] * table.shape[1], *table.itertuples(index=False)]
    return "\n".join(markdown_row(line) for line in lines)


def markdown_row(cells: Sequence) -> str:
    texts = []
    for cell in cells:
        if not isinstance(cell, float):
            texts.append(str(cell))
        elif np.isnan(cell):
            texts.append("too few")
        else:
            texts.append(f"{cell:.3f}")
    return f"| {' | '.join(texts)} |"


# the figure


def draw(table: pd.DataFrame) -> Figure:
    """Each run's AUC with its interval, by setting; beside it a panel for each control.

    Args:
        table: of `gather`.
    """
    names = controls(table)
    size = (2 + 4 * (1 + len(names)), 1.5 + 0.3 * len(table))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, 1 + len(names), sharey=True, squeeze=False)[0]
    draw_panel(axes[0], table, "auc", 0.5)
    axes[0].set_title("test AUC")
    for axis, name in zip(axes[1:], names, strict=True):
        draw_panel(axis, table, f"less_{name}", 0)
        axis.set_title(f"AUC less that of {name} {CONTROLS[name]}")
    axes[0].invert_yaxis()
    return figure


def draw_panel(axis: Axes, table: pd.DataFrame, column: str, chance: float) -> None:
    """One figure of each run with its interval, a line a setting, and the setting's mean."""
    axis.axvline(chance, color=GREY, linestyle=":")
    settings = list(table["setting"].unique())
    for place, name in enumerate(settings):
        rows = table[table["setting"] == name]
        colour = COLOURS[place % len(COLOURS)]
        beside = (np.arange(len(rows)) - (len(rows) - 1) / 2) * 0.6 / len(rows)
        ends = [rows[column] - rows[f"{column}_low"], rows[f"{column}_high"] - rows[column]]
        axis.errorbar(
            rows[column],
            place + beside,
            xerr=ends,
            fmt="o",
            color=colour,
            markersize=4,
            linewidth=1,
        )
        mean = rows[column].mean()
        axis.plot([mean, mean], [place - 0.38, place + 0.38], color=colour, linewidth=3)
    axis.set_xlabel("95% interval; bar: mean of the runs")
    axis.set_yticks(range(len(settings)), settings)
    axis.locator_params(axis="x", nbins=6)
