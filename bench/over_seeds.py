"""What would another training say? Notebooks 04 and 06 once a seed, and their verdicts in a row.

    python bench/over_seeds.py [--seeds 0 1 2] [--keep FOLDER] [--out FOLDER] [-p NAME VALUE]...

Runs notebooks 01, 02, 04 and 06 on the sample for each seed, as `python -m helpers.run --grid
seed=0,1,2` does: the same photographs and split, another training and another draw of the crops
and of the photographs for the slow methods. Each seed's run lies in --keep, and one that is done
there is not done again; a folder that other parameters have shaped is refused.
"""

import argparse
import dataclasses
import os
from pathlib import Path

import pandas as pd
import record

from helpers import workspace
from helpers.audit import localisation
from helpers.photographs.sources import find_dataset
from helpers.photographs.table import read_marking
from helpers.runs import parameters, series
from helpers.scores import bootstrap
from helpers.training import checkpoint
from helpers.training.control import CONTROL
from helpers.training.settings import Parameters, training_parameters

NOTEBOOKS = ("01_download", "02_preprocess", "04_train", "06_audit")
MAPS = {"attention_pool3": "pool-3", "attention_pool4": "pool-4", "grad_cam": "Grad-CAM"}
FIGURES = ("energy", "iou")
CLASSES = (*localisation.CLASSES, localisation.DIFFERENCE)


def check_shape(keep: Path, shaped_by: dict) -> None:
    """Raises SystemExit if runs lie in `keep` that something else has shaped; else notes this."""
    file = keep / "shaped_by.json"
    if file.exists():
        there = workspace.read_json(file, "bench/over_seeds.py")["parameters"]
        if there != shaped_by:
            raise SystemExit(
                f"{keep} holds runs of {there} and not of {shaped_by}: name another --keep, or "
                "delete it"
            )
    workspace.write_json(file, {"parameters": shaped_by})


def run(seed: int, given: dict) -> Path:
    """Run NOTEBOOKS with a seed, unless that is done; the folder of the run."""
    name = f"seed-{seed}"
    folder = workspace.run_folder(name)
    if not (folder / "audit.json").exists():
        values = given | {"run": name, "seed": seed}
        for path in parameters.NOTEBOOKS:
            if path.stem in NOTEBOOKS:
                seconds = series.run_notebook(path, values, folder)
                print(f"{name}: {path.stem} in {seconds:.0f} s", flush=True)
    return folder


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
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--keep", type=Path, help="where the runs go; runs/over_seeds")
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="not data/results/")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    options = parser.parse_args()
    known = [field.name for field in dataclasses.fields(Parameters)]
    given = parameters.read_parameters("", options.p, known)
    chosen = Parameters(**given)
    keep = (options.keep or workspace.runs_folder() / "over_seeds").resolve()
    keep.mkdir(parents=True, exist_ok=True)
    check_shape(keep, given | {"training": checkpoint.TRAINING_VERSION})
    os.environ["ATTENTION_RUNS"] = str(keep)
    tables = {"scores": [], "claims": [], "classes": []}
    for seed in options.seeds:
        folder = run(seed, given)
        audit = localisation.read_audit(folder)
        tables["scores"].append(scores(seed, folder))
        tables["claims"] += verdicts(seed, audit)
        tables["classes"] += places(seed, audit)
    dataset = find_dataset("sample", split_seed=chosen.split_seed)
    sample = read_marking(Path(dataset["csv"]))
    path = record.write(
        "over_seeds",
        {"parameters": training_parameters(chosen)},
        seeds=options.seeds,
        data=record.photographs_of("drawn sample", sample["image_id"], int(sample["target"].sum())),
        weights=chosen.weights,
        device=workspace.choose_device(chosen.device),
        folder=options.out,
        tables={name: pd.DataFrame(rows) for name, rows in tables.items()},
    )
    print(pd.DataFrame(tables["scores"]).round(3).to_string())
    print(path)


if __name__ == "__main__":
    main()
