"""Runs of a grid beside each other, for notebook deeper/comparing_runs: figures, ranges over seeds, paired differences.

What chance there is in a figure has two sources, and each is shown by its own means: an interval draws other patients
(the bootstrap over groups), a range over seeds trains again.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers import workspace
from helpers.scores.bootstrap import auc_difference

CONTROLS = {
    "attention": "none",
    "gamma": 0.0,
}  # the value that a parameter's others are compared with
FIGURES = ["auc", "auc_low", "auc_high", "ap", "n", "positives"]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00")


def label(value: object) -> str:
    """A parameter's value as it stands in names: a path by its last part."""
    return Path(value).name if isinstance(value, str) else str(value)


def setting(values: dict) -> str:
    """What a run has in common with those that differ in the seed alone."""
    return (
        ", ".join(f"{name} {label(value)}" for name, value in values.items() if name != "seed")
        or "all"
    )


def gather(points: dict[str, dict]) -> pd.DataFrame:
    """`compare.csv`: a row for each point, from its name and values, that holds its test figures.

    Columns: run, the values, setting, FIGURES; seeds, auc_mean, auc_min, auc_max over the runs of its setting; and for
    each parameter of CONTROLS in the grid with that value, `less_<parameter>` with `_low` and `_high`: test AUC less
    that of the run with the control's value and all else equal, on the same photographs, with its interval over groups
    (empty for the control itself).
    """
    folders = {point: workspace.run_folder(point) for point in points}
    rows = [
        {"run": point, **values, "setting": setting(values)} for point, values in points.items()
    ]
    table = pd.DataFrame(rows)
    found = [
        workspace.read_json(folder / "metrics.json", "04_train.ipynb")["test"]
        for folder in folders.values()
    ]
    table[FIGURES] = pd.DataFrame(found)[FIGURES]
    by_setting = table.groupby("setting")["auc"]
    table["seeds"] = by_setting.transform("size")
    for name in ("mean", "min", "max"):
        table[f"auc_{name}"] = by_setting.transform(name)
    runs = {tuple(values.items()): point for point, values in points.items()}
    read = {
        point: pd.read_csv(one / "predictions.csv", dtype={"image_id": str})
        for point, one in folders.items()
    }
    for name in controls(table):
        table[[f"less_{name}", f"less_{name}_low", f"less_{name}_high"]] = np.nan
        for row, values in enumerate(points.values()):
            control = runs.get(tuple((values | {name: CONTROLS[name]}).items()))
            if control is not None and values[name] != CONTROLS[name]:
                one = auc_difference(read[table["run"][row]], read[control]) or {}
                for key in ("value", "low", "high"):
                    table.loc[row, f"less_{name}_{key}".removesuffix("_value")] = one.get(
                        key, np.nan
                    )
    return table


def controls(table: pd.DataFrame) -> list[str]:
    """The parameters of the grid that have a control among their values, and others beside it."""
    return [
        name
        for name, value in CONTROLS.items()
        if name in table and (table[name] == value).any() and (table[name] != value).any()
    ]


def verdicts(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """A row for each setting that has pairs with the control of `name`: pairs, mean, min, max, above, below.

    above and below count the pairs whose whole interval lies above, or below, 0.
    """
    pairs = table.dropna(subset=f"less_{name}")
    pairs = pairs.assign(above=pairs[f"less_{name}_low"] > 0, below=pairs[f"less_{name}_high"] < 0)
    return (
        pairs.groupby("setting", sort=False)
        .agg(
            pairs=("run", "size"),
            mean=(f"less_{name}", "mean"),
            min=(f"less_{name}", "min"),
            max=(f"less_{name}", "max"),
            above=("above", "sum"),
            below=("below", "sum"),
        )
        .reset_index()
    )


def write(name: str, points: dict[str, dict], failed: dict[str, str]) -> pd.DataFrame:
    """Write compare.csv, compare.md and figures/compare.png into runs/<name>/; returns the content of the first."""
    folder, table = workspace.run_folder(name), gather(points)
    with workspace.replacing(folder / "compare.csv") as beside:
        table.to_csv(beside, index=False)
    with workspace.replacing(folder / "compare.md") as beside:
        beside.write_text(describe(name, table, failed), encoding="utf-8")
    with workspace.replacing(folder / "figures" / "compare.png") as beside:
        draw(table).savefig(beside, dpi=120)
    return table


def describe(name: str, table: pd.DataFrame, failed: dict[str, str]) -> str:
    """The content of `compare.md`."""
    several = table["seeds"].max()
    parts = [
        f"# Runs of the grid {name}, compared",
        f"Test split: {table['n'].max()} photographs, "
        f"{table['positives'].max()} melanomas. Intervals: 95%, 2,000 draws of whole groups (patients, lesions).",
        markdown(table[["run", *FIGURES[:4]]]),
    ]
    parts += [
        "## Over seeds",
        markdown(
            table.drop_duplicates("setting")[["setting", "seeds", "auc_mean", "auc_min", "auc_max"]]
        ),
    ]
    parts += [
        f"Up to {several} runs a setting show how far training again moves an AUC. They are no test: so few give "
        "no p-value, and two ranges that do not meet are no proof."
        if several > 1
        else "One run a setting: nothing here says how far training again would move an AUC. Add `--grid seed=0,1,2`."
    ]
    for control in controls(table):
        column, pairs = f"less_{control}", table.dropna(subset=f"less_{control}")
        parts += [
            f"## Less the run with {control} {CONTROLS[control]}",
            "Difference in test AUC on the same photographs, all other parameters and the seed equal.",
            markdown(pairs[["run", column, f"{column}_low", f"{column}_high"]]),
            markdown(verdicts(table, control)),
            "above, below: how many pairs have their whole interval above or below 0. Of many such intervals one "
            "in twenty misses by chance: read all rows, not the best one.",
        ]
    parts += (
        [
            "No parameter of the grid has a control among its values (attention none, gamma 0): no differences."
        ]
        if not controls(table)
        else []
    )
    parts += (
        ["## Failed", *(f"- {point}: {reason}" for point, reason in failed.items())]
        if failed
        else []
    )
    return "\n\n".join(parts) + "\n"


def draw(table: pd.DataFrame) -> Figure:
    """Each run's AUC with its interval, by setting, with the setting's mean; a panel for each control's differences."""
    panels = ["auc", *(f"less_{name}" for name in controls(table))]
    order = {name: place for place, name in enumerate(table["setting"].unique())}
    figure = Figure(figsize=(2 + 4 * len(panels), 1.5 + 0.3 * len(table)), layout="constrained")
    for axis, panel in zip(
        figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True
    ):
        axis.axvline(0.5 if panel == "auc" else 0, color="#666666", linestyle=":")
        for place, (name, rows) in enumerate(table.groupby("setting", sort=False)):
            colour = COLOURS[place % len(COLOURS)]
            y = order[name] + (np.arange(len(rows)) - (len(rows) - 1) / 2) * 0.6 / max(1, len(rows))
            low, high = rows[panel] - rows[f"{panel}_low"], rows[f"{panel}_high"] - rows[panel]
            axis.errorbar(
                rows[panel], y, xerr=[low, high], fmt="o", color=colour, markersize=4, linewidth=1
            )
            axis.plot(
                [rows[panel].mean()] * 2,
                [order[name] - 0.38, order[name] + 0.38],
                color=colour,
                linewidth=3,
            )
        axis.set(
            title="test AUC"
            if panel == "auc"
            else f"AUC less that of {panel[5:]} {CONTROLS[panel[5:]]}",
            xlabel="95% interval; bar: mean of the runs",
            yticks=list(order.values()),
            yticklabels=list(order),
        )
        axis.locator_params(axis="x", nbins=6)
    axis.invert_yaxis()
    return figure


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown; floats with three decimals."""
    lines = [list(table), ["---"] * table.shape[1], *table.itertuples(index=False)]
    return "\n".join(
        "| "
        + " | ".join(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in line)
        + " |"
        for line in lines
    )
