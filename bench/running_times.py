"""How long does each notebook take here? The series on the sample, then the deeper ones.

    python bench/running_times.py [--only NAME]... [--name NAME] [--out FOLDER] [-p NAME VALUE]...

Executes them in order in a temporary folder, as `make tutorial` does, and measures the wall time
and the processor time of each, all its processes together (Windows tells neither of children: 0).
On a CPU it times a step of training, too: the same step, timed on another machine, tells about how
long the notebooks take there (helpers/runs/estimate.py). `--name` names the results, where other
parameters are measured beside the default ones.
"""

import argparse
import os
import tempfile
from pathlib import Path

import pandas as pd
import record

from helpers import workspace
from helpers.photographs.sources import find_folder
from helpers.photographs.table import read_marking
from helpers.runs import estimate, parameters, series
from helpers.training.settings import Parameters

NOTEBOOKS = workspace.PROJECT / "notebooks"


def processor_seconds() -> float:
    """Of the processes that this one started and that have ended, and of theirs."""
    spent = os.times()
    return spent.children_user + spent.children_system


def measure(notebooks: list[Path], values: dict, folder: Path) -> pd.DataFrame:
    """A row a notebook: its name below notebooks/, seconds, processor_seconds."""
    rows = []
    for path in notebooks:
        name = path.relative_to(NOTEBOOKS).with_suffix("").as_posix()
        into = folder / path.parent.relative_to(NOTEBOOKS)
        into.mkdir(parents=True, exist_ok=True)
        before = processor_seconds()
        seconds = series.run_notebook(path, values, into)
        row = {
            "notebook": name,
            "seconds": seconds,
            "processor_seconds": processor_seconds() - before,
        }
        rows.append(row)
        print(
            f"{name:40s} {seconds:6.1f} s, {row['processor_seconds']:6.1f} s of processor",
            flush=True,
        )
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", default=[], help="names that start so: 01, 04")
    parser.add_argument("--name", default="running_times", help="of the results")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="not data/results/")
    options = parser.parse_args()
    notebooks = [*parameters.NOTEBOOKS, *sorted((NOTEBOOKS / "deeper").glob("*.ipynb"))]
    if options.only:
        wanted = tuple(options.only)
        notebooks = [path for path in notebooks if path.name.startswith(wanted)]
    if not notebooks:
        parser.error(f"no notebook starts with {' or '.join(options.only)}")
    published = options.name == "running_times" and options.out == record.RESULTS
    if published and not set(parameters.NOTEBOOKS) <= set(notebooks):
        parser.error("results of a part would take the place of those of all: name --name or --out")
    values = parameters.read_parameters("", options.p, vars(Parameters()))
    chosen = record.parameters_of(options.p, decided=("dataset", "masks"))
    device = workspace.choose_device(chosen.device)
    more = {}
    if device.type == "cpu":
        more["step_seconds"] = estimate.step_seconds(
            workspace.choose_precision(device, chosen.precision)
        )
    with tempfile.TemporaryDirectory() as place:
        os.environ |= {"ATTENTION_DATA": f"{place}/data", "ATTENTION_RUNS": f"{place}/runs"}
        table = measure(notebooks, values, workspace.run_folder(chosen.run))
        folder = find_folder("sample", "", chosen.split_seed)
        sample = read_marking(folder / "marking.csv")
    path = record.write(
        options.name,
        table.set_index("notebook").to_dict("index"),
        seeds=[chosen.seed],
        data=record.photographs_of("drawn sample", sample["image_id"], int(sample["target"].sum())),
        weights=chosen.weights,
        device=device,
        precision=chosen.precision,
        folder=options.out,
        more=more,
    )
    print(path)


if __name__ == "__main__":
    main()
