"""Does the built-in sample teach, and only through its lesions?

    python bench/sample_teaches.py [--seeds 0 1 2] [--count 600] [--out FOLDER] [-p NAME VALUE]...

Trains notebook 04's defaults once a seed on the sample, and on the same sample with skin painted
over every lesion, in a temporary folder. Measures the test AUC within source, which the source
alone cannot raise above one half.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import record
from sklearn.metrics import roc_auc_score

from helpers import workspace
from helpers.photographs.cache import build_cache
from helpers.photographs.sample import make_sample
from helpers.photographs.sources import find_dataset
from helpers.photographs.split import make_split
from helpers.scores.bootstrap import independent_pairs, interval, or_none, span, within
from helpers.training.batches import Photographs
from helpers.training.loop import fit, predict_held_out
from helpers.training.settings import RECIPES, Parameters, Settings, training_parameters

SETS = {"with lesions": True, "painted over": False}


def train(chosen: Parameters, folder: Path, seed: int) -> tuple[pd.DataFrame, float]:
    """Train as notebook 04 does on the set in this folder.

    Returns:
        The test rows of `predictions.csv`, without `probability`, and the seconds of training.
    """
    settings = Settings(**training_parameters(chosen) | {"seed": seed})
    dataset = find_dataset(str(folder))
    split = make_split(dataset, benign=chosen.benign, split_seed=chosen.split_seed)
    view = RECIPES[settings.recipe].view
    cache = build_cache(dataset, split, image_size=settings.image_size, view=view)
    photographs = Photographs(cache, workspace.choose_device(settings.device))
    fitted = fit(settings, split, photographs, report=lambda line: None)
    held_out = predict_held_out(fitted, split, photographs, settings.precision)
    return held_out[held_out["split"] == "test"], fitted.timing["seconds"]


def mean_within(tests: list[pd.DataFrame]) -> dict:
    """The AUC within source, a mean over the seeds, with its 95% interval over groups.

    The ends are None where the groups are too few.
    """
    statistics = [within(test) for test in tests]

    def mean(weights: np.ndarray) -> np.ndarray:
        return np.mean([statistic(weights) for statistic in statistics], axis=0)

    rows = tests[0]
    independent = independent_pairs(rows["target"], rows["group"], rows["source"])
    figure = interval(mean, rows["group"], independent=independent)
    return figure | {end: or_none(figure[end]) for end in ("low", "high")}


def measure(chosen: Parameters, folder: Path, name: str, seeds: list[int]) -> tuple[dict, list]:
    """`mean_within` of one of SETS, and a row for each seed: set, seed, auc, within, seconds."""
    tests, rows = [], []
    for seed in seeds:
        test, seconds = train(chosen, folder, seed)
        tests.append(test)
        row = {
            "set": name,
            "seed": seed,
            "auc": float(roc_auc_score(test["target"], test["logit"])),
            "within": mean_within([test])["value"],
            "seconds": seconds,
        }
        rows.append(row)
        print(
            f"{name}, seed {seed}: test AUC {row['auc']:.3f}, within source {row['within']:.3f}, "
            f"{seconds:.0f} s",
            flush=True,
        )
    return mean_within(tests), rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--count", type=int, default=600, help="photographs in the sample")
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="not data/results/")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    options = parser.parse_args()
    chosen = record.parameters_of(options.p, decided=("seed", "dataset", "masks"))
    figures, rows = {}, []
    with tempfile.TemporaryDirectory() as place:
        os.environ["ATTENTION_DATA"] = place
        for name, lesions in SETS.items():
            folder = Path(place) / name
            table = make_sample(folder, count=options.count, lesions=lesions)
            figures[name], each = measure(chosen, folder, name, options.seeds)
            rows += each
            ends = [figures[name][key] for key in ("value", "low", "high")]
            print(f"{name}: within source {span(*ends)}")
    data = record.photographs_of("drawn sample", table["image_id"], int(table["target"].sum()))
    path = record.write(
        "sample_teaches",
        {"within": figures, "parameters": training_parameters(chosen)},
        seeds=options.seeds,
        data=data,
        weights=chosen.weights,
        device=workspace.choose_device(chosen.device),
        precision=chosen.precision,
        folder=options.out,
        tables={"seeds": pd.DataFrame(rows)},
    )
    print(path)


if __name__ == "__main__":
    main()
