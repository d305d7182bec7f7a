"""Can attention lie on the lesion, be needed, and cost no AUC? Which part of the mend does it?

    python bench/mend.py [--dataset sample|FOLDER_OR_ZIP --masks FOLDER_OR_ZIP] [--seeds 0 1 2]
        [--networks NAME...] [--keep FOLDER] [--out FOLDER] [--name NAME] [-p NAME VALUE]...

Trains every combination of three parts, each with each seed, beside the control of the same budget:

    teacher   what the maps learn beside the labels: nothing ("labels"), a guess from the pixels
              ("Otsu"), or drawn masks ("masks")
    mean      how a sigmoid map weighs the features: "plain", the mean of map times features, or
              "weighted", divided by the map's sum
    bypass    whether the classifier sees pool-5's mean, too ("open"), or the two attended vectors
              alone ("closed")

and some further ideas (FURTHER) on the mend that takes no drawn masks. Measures on the test
photographs that have a mask, as 06 and 07 do: where the maps lie, by class; the AUC less the
control's; what is lost when both maps are replaced; the AUC where the background or the lesion is
hidden. What is done is not done again: each network leaves a file in `--keep`, and the tables are
of all that lie there. A file that anything else has shaped is refused.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import kept
import numpy as np
import pandas as pd
import real_photographs
import record
import torch
from ideas import Candidate, train
from real_photographs import auc_difference
from torch import Tensor

from helpers import workspace
from helpers.audit import evidence, localisation
from helpers.photographs.sources import find_dataset
from helpers.scores.bootstrap import as_columns, independent_pairs, interval, weighted_auc_ap
from helpers.training.batches import Photographs
from helpers.training.loop import predict_held_out, used_rows
from helpers.training.settings import Parameters, Settings, training_parameters

CONTROL = "no attention"
TEACHERS = {
    "labels": {},
    "Otsu": {"mask_weight_pool3": 0.1, "mask_weight_pool4": 0.1, "mask_target": "otsu"},
    "masks": {"mask_weight_pool3": 0.1, "mask_weight_pool4": 0.1},
}
MEANS = {"plain": {"attention": "sigmoid"}, "weighted": {"attention": "weighted"}}
BYPASSES = {"open": {"bypass": True}, "closed": {"bypass": False}}
NETWORKS = {
    CONTROL: Candidate({"attention": "none"}),
    "no attention, closed": Candidate({"attention": "none", "bypass": False}),
    "softmax": Candidate(),
}
for teacher, taught in TEACHERS.items():
    for mean, weighed in MEANS.items():
        for bypass, seen in BYPASSES.items():
            NETWORKS[f"{teacher}, {mean}, {bypass}"] = Candidate({**taught, **weighed, **seen})
# further ways to have the network need its maps, tried on the mend that takes no drawn masks
MENDED = NETWORKS["Otsu, weighted, closed"].settings
FURTHER = {
    "and pool-3's map alone": Candidate(MENDED, changes={"pool3_alone": True}),
    "and taught in the first half alone": Candidate(MENDED, loss=("taught", 0.5)),
    "and others' maps punished": Candidate(MENDED, loss=("exchanged", 0.1)),
    "and others' maps punished, weight 1": Candidate(MENDED, loss=("exchanged", 1.0)),
}
for name, candidate in FURTHER.items():
    NETWORKS[f"Otsu, weighted, closed, {name}"] = candidate
MAPS = {"attention_pool3": "pool-3", "attention_pool4": "pool-4", "grad_cam": "Grad-CAM"}
FIGURES = ("hits", "energy", "iou")
CLASSES = {"all": (0, 1), "melanoma": (1,), "benign": (0,)}
# both maps replaced at once
CHANGES = ("uniform", "another's", "reversed", "outside")
# what the aim asks of pool-3's and pool-4's mean IoU on the sample
ON_THE_LESION = {"pool-3": 0.70, "pool-4": 0.60}


def settings_of(name: str, chosen: Parameters, seed: int) -> Settings:
    """The settings of a network of NETWORKS."""
    return Settings(**training_parameters(chosen) | NETWORKS[name].settings | {"seed": seed})


def measure(name: str, settings: Settings, split: pd.DataFrame, photographs: Photographs) -> dict:
    """Train one network, and look at the test photographs that have a mask.

    Returns:
        network, seed, epochs (a row each), timing; test, whose columns are image_id, group,
        source, target, logit, and a logit for each of CHANGES and `evidence.VIEWS`; maps, by map
        and figure a number for each of these photographs.
    """
    fitted = train(NETWORKS[name], settings, split, photographs)
    network, config = fitted.network, fitted.config
    used = used_rows(split)
    rows = np.flatnonzero((used["split"] == "test") & (used["mask"] != ""))
    held_out = predict_held_out(fitted, split, photographs, settings.precision)
    test = held_out.set_index("image_id").loc[used["image_id"].iloc[rows]].reset_index()
    test = test[["image_id", "group", "source", "target", "logit"]]
    looked = evidence.hidden(network, photographs, rows, config)
    test = test.join(looked.drop(columns="whole").reset_index(drop=True))
    if settings.attention != "none":
        parts = evidence.take_apart(network, photographs, rows, config)
        test["exact"] = evidence.logits_of(parts).numpy()  # in float32, as the changed ones are
        crowded = 2 * test["group"].value_counts().max() > len(test)
        for change in CHANGES:
            if change == "another's" and crowded:  # nobody else's map for each
                continue
            maps = {
                block: evidence.replace(change, own, groups=test["group"], masks=parts.masks)
                for block, own in parts.maps.items()
            }
            test[change] = evidence.logits_of(parts, maps).numpy()
    return {
        "network": name,
        "seed": settings.seed,
        "epochs": fitted.history.to_dict("records"),
        "epoch": config["epoch"],
        "timing": fitted.timing,
        "test": test.replace({np.nan: None}).to_dict("list"),
        "maps": locate(network, photographs, used, config, rows),
    }


def locate(network, photographs: Photographs, used, config: dict, rows: np.ndarray) -> dict:
    """By map and figure, a number for each row; of maps that the network has."""

    def look(images: Tensor) -> dict[str, Tensor]:
        maps = localisation.maps_of(network, images)
        return {name: maps[name] for name in MAPS if name in maps}

    measured = localisation.measure(look, photographs, used, config, rows=rows)
    located = {}
    for name, part in measured.groupby("map"):
        figures = part.set_index("row").loc[rows, list(FIGURES)]
        located[name] = figures.astype(float).round(5).to_dict("list")
    return located


# tables


def mean_of(statistics: list[Callable]) -> Callable:
    """A mean over seeds, as `interval` takes it."""

    def mean(weights: np.ndarray) -> np.ndarray:
        return np.mean([statistic(weights) for statistic in statistics], axis=0)

    return mean


def auc_of(runs: list[dict], column: str = "logit") -> dict | None:
    """The AUC of a column of `test`, a mean over runs, with its interval over groups."""
    truth = np.array(runs[0]["test"]["target"])
    groups = np.array(runs[0]["test"]["group"])
    scores = [np.array(run["test"][column], dtype=float) for run in runs]
    seen = np.isfinite(np.sum(scores, axis=0))  # a view needs a lesion to be seen
    statistics = [
        lambda weights, score=score: weighted_auc_ap(truth[seen], score[seen], weights)[0]
        for score in scores
    ]
    independent = independent_pairs(truth[seen], groups[seen])
    return interval(mean_of(statistics), groups[seen], independent=independent, share=True)


def difference(
    pairs: list[tuple[dict, dict]], first: str = "logit", second: str = "logit"
) -> dict | None:
    """The AUC of a column of the first runs less that of one of the second, paired."""
    named = []
    for one, other in pairs:
        own = np.array(one["test"][first], dtype=float)
        theirs = np.array(other["test"][second], dtype=float)
        seen = np.isfinite(own) & np.isfinite(theirs)
        truth = np.array(one["test"]["target"])[seen]
        groups = np.array(one["test"]["group"])[seen]
        same = {"target": truth, "group": groups}
        named.append((same | {"logit": own[seen]}, same | {"logit": theirs[seen]}))
    return auc_difference(named)


def of(runs: list[dict], name: str) -> list[dict]:
    return [run for run in runs if run["network"] == name]


def network_table(runs: list[dict], names: list[str]) -> pd.DataFrame:
    """A row for each network: AUC, AUC less the control's, each map's IoU, loss by replacement.

    Means over seeds, with 95% intervals over groups; the control is that of the same seeds.
    """
    controls = {run["seed"]: run for run in of(runs, CONTROL)}
    rows = []
    for name in names:
        own = of(runs, name)
        row = {"network": name, "seeds": len(own)} | as_columns("auc", auc_of(own))
        pairs = [(run, controls[run["seed"]]) for run in own if run["seed"] in controls]
        row |= as_columns("less_control", difference(pairs) if pairs and name != CONTROL else None)
        for key, title in MAPS.items():
            row |= as_columns(f"iou_{title}", located(own, key, "iou", CLASSES["all"]))
        for change in CHANGES:
            replaced = [(run, run) for run in own if change in run["test"]]
            gap = difference(replaced, change, "exact") if replaced else None
            row |= as_columns(change, gap)
        for view in evidence.VIEWS[1:]:
            row |= as_columns(view, auc_of(own, view))
        rows.append(row)
    return pd.DataFrame(rows)


def located(runs: list[dict], key: str, figure: str, targets: tuple[int, ...]) -> dict | None:
    """A figure of a map on photographs of these classes, a mean over runs, with its interval."""
    if any(key not in run["maps"] for run in runs):
        return None
    truth = np.array(runs[0]["test"]["target"])
    values = np.mean([run["maps"][key][figure] for run in runs], axis=0)
    kept = np.isin(truth, targets) & np.isfinite(values)
    groups = np.array(runs[0]["test"]["group"])[kept]

    def mean(weights: np.ndarray) -> np.ndarray:
        return weights @ values[kept] / weights.sum(axis=1)

    return interval(mean, groups, share=True) if kept.any() else None


def class_gap(runs: list[dict], key: str, figure: str) -> dict | None:
    """A figure of a map on melanomas less that on benign lesions, a mean over runs."""
    truth = np.array(runs[0]["test"]["target"])
    values = np.mean([run["maps"][key][figure] for run in runs], axis=0)
    rows = pd.DataFrame({"target": truth, "group": runs[0]["test"]["group"], figure: values})
    return localisation.class_gap(rows, figure)


def class_rows(runs: list[dict], key: str) -> list[dict]:
    """The figures of a map on each of CLASSES, and how melanoma and benign differ; a row each."""
    rows = []
    for label, targets in CLASSES.items():
        row = {"class": label}
        for figure in FIGURES:
            row |= as_columns(figure, located(runs, key, figure, targets))
        rows.append(row)
    row = {"class": localisation.DIFFERENCE}
    for figure in FIGURES:
        row |= as_columns(figure, class_gap(runs, key, figure))
    return [*rows, row]


def class_table(runs: list[dict], names: list[str]) -> pd.DataFrame:
    """Where each map lies on all, melanoma and benign photographs, and melanoma less benign.

    A row a seed, and their mean.
    """
    rows = []
    for name in names:
        own = of(runs, name)
        for key, title in MAPS.items():
            for seeds in [[run] for run in own] + [own]:
                seed = seeds[0]["seed"] if len(seeds) == 1 else "mean"
                if key not in seeds[0]["maps"] or (seed == "mean" and len(own) == 1):
                    continue
                place = {"network": name, "map": title, "seed": seed}
                rows += [place | row for row in class_rows(seeds, key)]
    return pd.DataFrame(rows).drop_duplicates(["network", "map", "seed", "class"], keep="last")


def seed_table(runs: list[dict]) -> pd.DataFrame:
    """A row for each network and seed: what the aim asks, and whether it is reached.

    `on_the_lesion`: the mean IoU of both maps is at least that of ON_THE_LESION. `costs_no_auc`:
    the interval of the AUC less the control's reaches 0 or lies above it. `needed`: that of the AUC
    lost lies below 0, with maps that are uniform, another's and outside of the lesion.
    """
    controls = {run["seed"]: run for run in of(runs, CONTROL)}
    rows = []
    for run in runs:
        last = run["epochs"][run["epoch"] - 1]
        row = {
            "network": run["network"],
            "seed": run["seed"],
            "auc": auc_of([run])["value"],
            "train_auc": last["train_auc"],
            "val_auc": last["val_auc"],
            "epoch": run["epoch"],
            "seconds": run["timing"]["seconds"],
        }
        aims = {}
        if "exact" in run["test"]:
            for key, title in list(MAPS.items())[:2]:
                row[f"iou_{title}"] = located([run], key, "iou", CLASSES["all"])["value"]
            for change in CHANGES:
                measured = change in run["test"]
                gap = difference([(run, run)], change, "exact") if measured else None
                row |= as_columns(change, gap)
            aims["on_the_lesion"] = all(
                row[f"iou_{title}"] >= least for title, least in ON_THE_LESION.items()
            )
            aims["needed"] = all(
                (row[f"{change}_high"] or 0) < 0 for change in ("uniform", "another's", "outside")
            )
        if run["seed"] in controls and run["network"] != CONTROL:
            row |= as_columns("less_control", difference([(run, controls[run["seed"]])]))
            if aims:
                aims["costs_no_auc"] = row["less_control_high"] is not None and (
                    row["less_control_high"] >= 0
                )
        rows.append(row | aims)
    return pd.DataFrame(rows)


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="sample")
    parser.add_argument("--masks", default="auto")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS), metavar="NAME"
    )
    parser.add_argument("--name", default="mend", help="of the results, such as mend_real")
    parser.add_argument("--keep", type=Path, help="not runs/NAME/")
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="not data/results/")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    return parser.parse_args()


def main() -> None:
    options = options_of()
    keep = options.keep or workspace.runs_folder() / options.name
    chosen = record.parameters_of(options.p, decided=real_photographs.decided_by(NETWORKS))
    dataset = find_dataset(options.dataset, masks=options.masks, ids=chosen.ids)
    split, cache = real_photographs.prepare(dataset, chosen, masked=options.dataset != "sample")
    photographs = Photographs(cache, workspace.choose_device(chosen.device))

    def expected(name: str, seed: int) -> dict:
        settings = settings_of(name, chosen, seed)
        return real_photographs.shaped_by(NETWORKS[name], settings, chosen, split, cache)

    def measured(name: str, seed: int) -> dict:
        return measure(name, settings_of(name, chosen, seed), split, photographs)

    wanted = [(name, seed) for seed in options.seeds for name in options.networks]
    runs = kept.complete_and_all(keep, wanted, expected, measured, list(NETWORKS))
    leave(options.name, runs, dataset, split, chosen, options.out)


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
    names = [name for name in NETWORKS if of(runs, name)]
    tables = {
        "networks": network_table(runs, names),
        "classes": class_table(runs, names),
        "seeds": seed_table(runs),
    }
    path = record.write(
        program,
        {
            "split": used["split"].value_counts().to_dict(),
            "test": len(runs[0]["test"]["target"]),
            "test_melanomas": int(sum(runs[0]["test"]["target"])),
            "parameters": training_parameters(chosen) | {"weights": Path(chosen.weights).name},
        },
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
    columns = ["auc", "less_control", "iou_pool-3", "iou_pool-4", *CHANGES]
    print(tables["networks"].set_index("network")[["seeds", *columns]].round(3).to_string())
    print(path)


if __name__ == "__main__":
    main()
