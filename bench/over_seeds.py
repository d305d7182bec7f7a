"""What would another training say? Notebooks 04 and 06 once a seed, and their verdicts in a row.

    python bench/over_seeds.py [--name NAME] [--seeds 0 1 2] [--out FOLDER] [-p NAME VALUE]...

A grid of seeds on the sample, each with its control (`python -m helpers.run --run over_seeds --grid
seed=0,1,2 -p control own`), and notebook 06 of each of its runs: the same photographs and split,
another training, another draw of the crops and of the photographs for the slow methods. What the
grid has done is not trained again. `--name` names the grid and the results, where other parameters
are measured beside the default ones.
"""

import argparse
from pathlib import Path

import pandas as pd
import record
from mend import MAPS

from helpers import workspace
from helpers.audit import localisation
from helpers.photographs.split import read_split
from helpers.runs import command, grid, parameters, series
from helpers.scores import bootstrap
from helpers.training import checkpoint
from helpers.training.control import CONTROL
from helpers.training.settings import Parameters, training_parameters

FIGURES = ("energy", "iou")
CLASSES = (*localisation.CLASSES, localisation.DIFFERENCE)


def run(name: str, seeds: list[int], pairs: list[list[str]]) -> dict[int, Path]:
    """Run the grid of this name, and notebook 06 of each run; the folder of each seed."""
    options = [word for pair in pairs for word in ("-p", *pair)]
    axis = f"seed={','.join(map(str, seeds))}"
    code = command.main(["--run", name, "--grid", axis, "-p", "control", "own", *options])
    if code:
        raise SystemExit(code)
    audit = next(path for path in parameters.NOTEBOOKS if path.stem == "06_audit")
    given = parameters.read_parameters("", pairs, vars(Parameters()))
    folders = {}
    for point, values in grid.name_points(name, {"seed": seeds}).items():
        folders[values["seed"]] = folder = workspace.run_folder(point)
        seconds = series.run_notebook(audit, given | values | {"run": point}, folder)
        print(f"{point}: {audit.stem} in {seconds:.0f} s", flush=True)
    return folders


def collect(folders: dict[int, Path]) -> dict[str, pd.DataFrame]:
    """What the notebooks found, from the folder of each seed: scores, claims and classes."""
    rows = {"scores": [], "claims": [], "classes": []}
    for seed, folder in folders.items():
        audit = localisation.read_audit(folder)
        rows["scores"].append(scores(seed, folder))
        rows["claims"] += verdicts(seed, audit)
        rows["classes"] += places(seed, audit)
    return {name: pd.DataFrame(of_all) for name, of_all in rows.items()}


def scores(seed: int, folder: Path) -> dict:
    """A seed's test AUC, and what it is less the control's, with their intervals."""
    test = workspace.read_json(folder / "metrics.json", "04_train.ipynb")["test"]
    row = {"seed": seed} | {name: test[name] for name in ("auc", "auc_low", "auc_high")}
    row |= {"n": test["n"], "positives": test["positives"]}
    control = checkpoint.read_predictions(folder / CONTROL)
    gap = bootstrap.auc_difference(checkpoint.read_predictions(folder), control)
    return row | bootstrap.as_columns("less_control", gap)


def verdicts(seed: int, audit: dict) -> list[dict]:
    """A row for each claim of audit.json."""
    names = ("said", "claim", "photographs", "test", "measured", "verdict")
    return [{"seed": seed} | {name: row[name] for name in names} for row in audit["claims"]]


def places(seed: int, audit: dict) -> list[dict]:
    """A row for each map and class: how much of it lies on the lesion."""
    rows = []
    for key, title in MAPS.items():
        for kind in CLASSES:
            figures = audit["localisation"][kind][key]
            row = {"map": title, "seed": seed, "class": kind}
            for figure in FIGURES:
                for end in ("", "_low", "_high"):
                    row[figure + end] = figures[figure + end]
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="over_seeds", help="of the grid and of the results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="not data/results/")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    options = parser.parse_args()
    chosen = record.parameters_of(options.p, decided=("seed", "dataset", "control"))
    folders = run(options.name, options.seeds, options.p)
    tables = collect(folders)
    split = read_split(workspace.run_folder(options.name) / "split.csv")
    path = record.write(
        options.name,
        {"parameters": training_parameters(chosen)},
        seeds=options.seeds,
        data=record.photographs_of("drawn sample", split["image_id"], int(split["target"].sum())),
        weights=chosen.weights,
        device=workspace.choose_device(chosen.device),
        precision=chosen.precision,
        folder=options.out,
        tables=tables,
    )
    print(tables["scores"].round(3).to_string())
    print(path)


if __name__ == "__main__":
    main()
