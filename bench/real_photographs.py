"""What do attention, its loss and masks do on real photographs, and can attention look at lesions?

    python bench/real_photographs.py --dataset FOLDER_OR_ZIP --masks FOLDER_OR_ZIP
        [--seeds 0 1 2] [--networks NAME...] [--masked] [--keep FOLDER] [--out FOLDER]
        [-p NAME VALUE]...

Trains each network with each seed as notebook 04 does, and measures its maps as notebook 06 does,
on the test photographs that have a mask. `--masked` takes those photographs alone, for training
too. Without `--networks` it is the five of the series; `ideas.py` has more, which change the
network or its loss in one place each. Masks are for measuring alone but in the rows that train with
them. What is done is not done again: each network leaves a file in the folder `--keep`, and the
tables are of all that lie there. A file that anything else has shaped (parameters, photographs,
weights) is refused.
"""

import argparse
import hashlib
from collections.abc import Mapping
from pathlib import Path

import kept
import numpy as np
import pandas as pd
import publish
import record
import torch
from ideas import NETWORKS, SERIES, Candidate, train
from torch import Tensor

from helpers import workspace
from helpers.audit import localisation
from helpers.photographs.cache import build_cache
from helpers.photographs.sources import find_dataset
from helpers.photographs.split import make_split
from helpers.scores import metrics
from helpers.scores.baselines import baselines
from helpers.scores.bootstrap import independent_pairs, interval, weighted_auc_ap
from helpers.training import checkpoint
from helpers.training.batches import Photographs
from helpers.training.loop import predict_held_out, used_rows
from helpers.training.settings import RECIPES, Parameters, Settings, training_parameters

CONTROLS = ("no attention", "softmax")  # what the others' AUC is compared with
BESIDE = {"otsu": "Otsu's threshold", "centre": "centre", "uniform": "uniform"}
MAPS = {"attention_pool3": "pool-3", "attention_pool4": "pool-4", "grad_cam": "Grad-CAM"}


def prepare(dataset: dict, chosen: Parameters, *, masked: bool) -> tuple[pd.DataFrame, dict]:
    """Split and cache.json as notebook 02 makes them, of all photographs or those with a mask.

    Raises:
        SystemExit: no test photograph has a mask, so that no map's place can be measured.
    """
    split = make_split(
        dataset,
        subsample=chosen.subsample,
        benign=chosen.benign,
        split_seed=chosen.split_seed,
    )
    if masked:
        split = split[split["mask"] != ""].reset_index(drop=True)
    used = used_rows(split)
    with_mask = used["mask"] != ""
    print(f"{len(used)} photographs, {with_mask.sum()} with a mask", flush=True)
    if not (with_mask & (used["split"] == "test")).any():
        raise SystemExit(
            "none of the test photographs has a mask of its lesion, with which the maps are "
            "compared: name a folder or zip of theirs with --masks"
        )
    view = RECIPES[chosen.recipe].view
    return split, build_cache(dataset, split, image_size=chosen.image_size, view=view)


def decided_by(networks: Mapping[str, Candidate]) -> set[str]:
    """Names of the parameters by which these networks differ, and of what the options say."""
    names = {name for candidate in networks.values() for name in candidate.settings}
    return names | {"seed", "dataset", "masks"}


def settings_of(name: str, chosen: Parameters, seed: int) -> Settings:
    """The settings of a network of NETWORKS."""
    values = training_parameters(chosen) | NETWORKS[name].settings | {"seed": seed}
    return Settings(**values)


def shaped_by(
    candidate: Candidate, settings: Settings, chosen: Parameters, split: pd.DataFrame, cache: dict
) -> dict:
    """All that a trained network depends on; a file is used again only where all of it is the same.

    Weights count by their content and not by their path, "auto" by what it is on this machine.
    """
    device = workspace.choose_device(settings.device)
    precision = workspace.choose_precision(device, settings.precision)
    return training_parameters(settings) | {
        "device": device.type,
        "precision": str(precision).removeprefix("torch."),
        "weights": record.weights_of(settings.weights)["crc32"],
        "changes": dict(candidate.changes),
        "loss": list(candidate.loss),
        "benign": chosen.benign,
        "split_seed": chosen.split_seed,
        "split": hashlib.sha256(split.to_csv(index=False).encode()).hexdigest()[:16],
        "photographs": cache["key"],
        "version": checkpoint.TRAINING_VERSION,
    }


def measure(name: str, settings: Settings, split: pd.DataFrame, photographs: Photographs) -> dict:
    """Train one network; its test rows, and its maps' figures on those with a mask."""
    fitted = train(NETWORKS[name], settings, split, photographs)
    held_out = predict_held_out(fitted, split, photographs, settings.precision)
    test = held_out[held_out["split"] == "test"]
    used = used_rows(split)
    rows = np.flatnonzero((used["split"] == "test") & (used["mask"] != ""))

    def look(images: Tensor) -> dict[str, Tensor]:
        otsu = localisation.dark(images, fitted.config)
        return localisation.maps_of(fitted.network, images) | {"otsu": otsu}

    figures = {}
    for where, draws in (("whole", None), ("crops", localisation.shifted(len(rows)))):
        measured = localisation.measure(
            look, photographs, used, fitted.config, rows=rows, draws=draws
        )
        figures[where] = localisation.localisation(measured)
    columns = ["image_id", "group", "source", "target", "logit"]
    return {
        "network": name,
        "seed": settings.seed,
        "epoch": fitted.config["epoch"],
        "timing": fitted.timing,
        "localisation": figures,
        "test": test[columns].to_dict("list"),
    }


def score_table(runs: list[dict]) -> pd.DataFrame:
    """A row for each network and seed: AUC and AUC within source on test, with their intervals."""
    rows = []
    for run in runs:
        scores = metrics.auc_table(pd.DataFrame(run["test"]), ["logit"]).loc["logit"]
        seconds = run["timing"]["seconds"]
        name = {"network": run["network"], "seed": run["seed"]}
        rows.append(name | scores.to_dict() | {"seconds": seconds})
    return pd.DataFrame(rows)


def difference_table(runs: list[dict]) -> pd.DataFrame:
    """Each network's test AUC less each control's of the same seeds, mean over these, interval."""
    rows = []
    for control in CONTROLS:
        by_seed = {run["seed"]: run["test"] for run in runs if run["network"] == control}
        for name in NETWORKS:
            own = [run for run in runs if run["network"] == name and run["seed"] in by_seed]
            if own and name != control:
                pairs = [(run["test"], by_seed[run["seed"]]) for run in own]
                row = {"network": name, "control": control, "seeds": len(pairs)}
                rows.append(row | auc_difference(pairs))
    return pd.DataFrame(rows, columns=["network", "control", "seeds", "value", "low", "high", "n"])


def auc_difference(pairs: list[tuple[dict, dict]]) -> dict:
    """AUC of the first less that of the second, mean over the pairs: the paired group bootstrap."""
    truth = np.array(pairs[0][0]["target"])

    def mean(weights: np.ndarray) -> np.ndarray:
        differences = []
        for first, second in pairs:
            own = weighted_auc_ap(truth, np.array(first["logit"]), weights)[0]
            other = weighted_auc_ap(truth, np.array(second["logit"]), weights)[0]
            differences.append(own - other)
        return np.mean(differences, axis=0)

    groups = pairs[0][0]["group"]
    return interval(mean, groups, independent=independent_pairs(truth, groups))


def map_table(runs: list[dict]) -> pd.DataFrame:
    """A row for each map of each network and seed, in whole photographs and in crops."""
    rows = []
    for run in runs:
        for where, figures in run["localisation"].items():
            for key, title in MAPS.items():
                if key in figures:
                    name = {"network": run["network"], "map": title, "seed": run["seed"]}
                    rows.append(name | map_figures(where, figures[key]))
    for where, figures in runs[0]["localisation"].items():
        for key, title in BESIDE.items():
            name = {"network": "no network", "map": title, "seed": ""}
            rows.append(name | map_figures(where, figures[key]))
    return pd.DataFrame(rows)


def map_figures(where: str, figures: dict) -> dict:
    """Where the map was measured, and hits, energy and IoU; n photographs have a lesion there."""
    return {"where": where} | {name: figures[name] for name in ("n", "hits", "energy", "iou")}


def baseline_table(dataset: dict, split: pd.DataFrame) -> pd.DataFrame:
    """AUC of notebook 04's baselines, which see no lesion, on the same test photographs."""
    table = baselines(dataset, split)
    names = [name for name in table if name.endswith("only")]
    return metrics.auc_table(table, names).rename_axis("baseline").reset_index()


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--masks", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--networks", nargs="+", default=list(SERIES), choices=list(NETWORKS), metavar="NAME"
    )
    parser.add_argument(
        "--masked", action="store_true", help="only the photographs that have a mask"
    )
    parser.add_argument("--keep", type=Path, help="not runs/real_photographs[_masked]/")
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="not data/results/")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    return parser.parse_args()


def main() -> None:
    options = options_of()
    program = "real_photographs_masked" if options.masked else "real_photographs"
    keep = options.keep or workspace.runs_folder() / program
    chosen = record.parameters_of(options.p, decided=decided_by(NETWORKS), benign=0)
    dataset = find_dataset(options.dataset, masks=options.masks, ids=chosen.ids)
    split, cache = prepare(dataset, chosen, masked=options.masked)
    photographs = Photographs(cache, workspace.choose_device(chosen.device))

    def expected(name: str, seed: int) -> dict:
        settings = settings_of(name, chosen, seed)
        return shaped_by(NETWORKS[name], settings, chosen, split, cache)

    def measured(name: str, seed: int) -> dict:
        return measure(name, settings_of(name, chosen, seed), split, photographs)

    wanted = [(name, seed) for seed in options.seeds for name in options.networks]
    runs = kept.complete_and_all(keep, wanted, expected, measured, list(NETWORKS))
    leave(program, runs, dataset, split, chosen, options.out)


def leave(
    program: str,
    runs: list[dict],
    dataset: dict,
    split: pd.DataFrame,
    chosen: Parameters,
    out: Path,
) -> None:
    """Write the results of all networks, and print them."""
    used = used_rows(split)
    test = used[used["split"] == "test"]
    ids = Path(chosen.ids).name if chosen.ids else ""
    figures = {
        "split": used["split"].value_counts().to_dict(),
        "test_melanomas": int(test["target"].sum()),
        "test_with_mask": int((test["mask"] != "").sum()),
        "list": ids,
        "parameters": training_parameters(chosen) | {"weights": Path(chosen.weights).name},
    }
    tables = {
        "scores": score_table(runs),
        "differences": difference_table(runs),
        "maps": map_table(runs),
        "baselines": baseline_table(dataset, split),
    }
    path = record.write(
        program,
        figures,
        seeds=sorted({run["seed"] for run in runs}),
        data=record.photographs_of(
            Path(dataset["dataset"]).name, used["image_id"], int(used["target"].sum())
        ),
        weights=chosen.weights,
        device=torch.device(workspace.choose_device(chosen.device)),
        precision=chosen.precision,
        folder=out,
        tables=tables,
    )
    result = record.read(program, out)
    for block in (publish.real_scores, publish.real_maps, publish.real_baselines):
        print(block(result), end="\n\n")
    print(path)


if __name__ == "__main__":
    main()
