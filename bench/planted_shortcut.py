"""A shortcut that we planted ourselves: which map shows it?

    python bench/planted_shortcut.py [--seeds 0 1 2] [--networks NAME...] [--count 600]
        [--keep FOLDER] [--out FOLDER] [-p NAME VALUE]...

In the planted sample a ruler lies beside melanomas, in training and validation, and beside anything
in test. Each network is trained on it and on the unplanted sample, with as large rulers that go
with nothing anywhere. Every test photograph is drawn twice more, with its ruler and without, the
same but for that: what the ruler adds to an answer is known, and where it lies. So maps can be
measured on the ruler as notebook 06 measures them on the lesion. What is done is not done again:
each network leaves a file in the folder `--keep`, and one that anything else has shaped is refused.
"""

import argparse
import hashlib
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import kept
import numpy as np
import pandas as pd
import publish
import record
import torch
from torch import Tensor

from helpers import workspace
from helpers.audit import attribution, evidence, localisation
from helpers.model import AttnVGG
from helpers.photographs.cache import build_cache
from helpers.photographs.sample import make_sample, plan, plant_rulers
from helpers.photographs.sources import find_dataset
from helpers.photographs.split import group_rows, make_split, split_groups
from helpers.pictures.maps import upsample
from helpers.scores import metrics
from helpers.scores.bootstrap import as_columns, interval, mean, ratio, weighted_auc_ap
from helpers.training import checkpoint
from helpers.training.batches import Photographs
from helpers.training.loop import Fitted, fit, predict, used_rows
from helpers.training.settings import RECIPES, Parameters, Settings, training_parameters

NETWORKS = {
    "no attention": {"attention": "none"},
    "softmax": {},
    "weighted, taught by masks, bypass closed": {
        "attention": "weighted",
        "bypass": False,
        "mask_weight_pool3": 0.1,
        "mask_weight_pool4": 0.1,
    },
}
SAMPLES = ("planted", "unplanted")  # what a network is trained on
MAPS = {
    "attention_pool3": "pool-3",
    "attention_pool4": "pool-4",
    "contributions": "contributions",
    "grad_cam": "Grad-CAM",
    "occlusion": "occlusion",
    "centre": "centre",
    "uniform": "uniform",
}
# rulers on the test photographs: as in training, by chance, on none
TESTS = ("as in training", "by chance", "none")


class Scene(NamedTuple):
    """All drawn photographs; row n is the same lesion in each of them."""

    split: pd.DataFrame  # of every set: they differ in their rulers alone
    planted: Photographs
    unplanted: Photographs
    with_ruler: Photographs  # a ruler on each
    without_ruler: Photographs
    rulers: Photographs  # `with_ruler` again, with the ruler's strip as the mask
    as_in_training: np.ndarray  # [rows], a ruler goes with melanoma on all sides
    by_chance: np.ndarray  # [rows], whether the planted sample has a ruler

    @property
    def test(self) -> np.ndarray:
        """Rows of the test photographs."""
        return np.flatnonzero(used_rows(self.split)["split"] == "test")


def draw_scene(folder: Path, chosen: Parameters, count: int) -> Scene:
    """Draw every set that is trained and measured on into a folder, and cache it."""
    seed = chosen.split_seed
    table = plan(seed, count)
    table["split"] = split_groups(table.assign(group=group_rows(table)), seed)
    by_chance = plant_rulers(table, seed=seed)
    as_in_training = plant_rulers(table, sides=("train", "val", "test"), seed=seed)
    sets = {
        "planted": by_chance,
        "unplanted": plant_rulers(table, sides=(), seed=seed),
        "with_ruler": dict.fromkeys(by_chance, True),
        "without_ruler": dict.fromkeys(by_chance, False),
    }
    opened = {}
    for name, rulers in sets.items():
        make_sample(folder / name, seed=seed, count=count, rulers=rulers)
        split, opened[name] = prepare(folder / name, chosen)
        pd.testing.assert_frame_equal(split[["image_id", "split"]], table[["image_id", "split"]])
    _, opened["rulers"] = prepare(folder / "with_ruler", chosen, masks="rulers")
    ids = used_rows(split)["image_id"]
    return Scene(
        split,
        **opened,
        as_in_training=ids.map(as_in_training).to_numpy(),
        by_chance=ids.map(by_chance).to_numpy(),
    )


def prepare(
    folder: Path, chosen: Parameters, masks: str = "masks"
) -> tuple[pd.DataFrame, Photographs]:
    """Split and cache as notebooks 01 and 02 make them; masks: a folder below this one."""
    dataset = find_dataset(str(folder), masks=str(folder / masks))
    split = make_split(dataset, benign=chosen.benign, split_seed=chosen.split_seed)
    view = RECIPES[chosen.recipe].view
    cache = build_cache(dataset, split, image_size=chosen.image_size, view=view)
    return split, Photographs(cache, workspace.choose_device(chosen.device))


def settings_of(name: str, chosen: Parameters, seed: int) -> Settings:
    """The settings of a network of NETWORKS."""
    return Settings(**training_parameters(chosen) | NETWORKS[name] | {"seed": seed})


def shaped_by(name: str, sample: str, seed: int, chosen: Parameters, scene: Scene) -> dict:
    """All that a network and its figures depend on; only what has all of it the same is kept."""
    settings = settings_of(name, chosen, seed)
    device = workspace.choose_device(settings.device)
    precision = workspace.choose_precision(device, settings.precision)
    return training_parameters(settings) | {
        "device": device.type,
        "precision": str(precision).removeprefix("torch."),
        "weights": record.weights_of(settings.weights)["crc32"],
        "split": hashlib.sha256(scene.split.to_csv(index=False).encode()).hexdigest()[:16],
        "photographs": getattr(scene, sample).key,
        "measured_on": [scene.rulers.key, scene.without_ruler.key],
        "version": checkpoint.TRAINING_VERSION,
    }


def maps_of(network: AttnVGG, images: Tensor) -> dict[str, Tensor]:
    """The maps of MAPS that a network has, 0 or more, each [B or 1, 1, h, w] on the CPU."""
    cam, output = attribution.grad_cam(network, images)
    maps = {}
    if network.attention != "none":
        maps["attention_pool3"] = output.pool3_map
        maps["attention_pool4"] = output.pool4_map
        added = evidence.contribution_maps(network, images)["contribution_sum"]
        maps["contributions"] = added.relu()
    maps["grad_cam"] = cam
    maps["occlusion"] = attribution.occlusion(network, images).relu()
    maps["centre"] = localisation.centre(images.shape[-2:])
    maps["uniform"] = torch.ones(1, 1, *images.shape[-2:])
    return {name: grid.cpu() for name, grid in maps.items()}


def on_rulers(fitted: Fitted, scene: Scene, batch_size: int = 32) -> dict[str, dict]:
    """Where the maps of all test photographs lie when a ruler is there, and when it is not.

    Returns:
        By map: hits and energy (on the ruler), lesion (energy on the lesion), without (energy in
        the ruler's place in the photograph without it), a list each with a figure a photograph.
    """
    figures: dict[str, dict] = {}
    rows = scene.test
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        images, rulers = scene.rulers.evaluation(part, fitted.config)
        _, lesions = scene.with_ruler.evaluation(part, fitted.config)
        bare, _ = scene.without_ruler.evaluation(part, fitted.config)
        bare_maps = maps_of(fitted.network, bare)
        for name, maps in maps_of(fitted.network, images).items():
            large = enlarged(maps, rulers)
            found = {
                "hits": localisation.hits(large, rulers),
                "energy": localisation.energy(large, rulers),
                "lesion": localisation.energy(large, lesions),
                "without": localisation.energy(enlarged(bare_maps[name], rulers), rulers),
            }
            own = figures.setdefault(name, {figure: [] for figure in found})
            for figure, values in found.items():
                own[figure] += values.tolist()
    return figures


def enlarged(maps: Tensor, masks: Tensor) -> Tensor:
    """Maps [B or 1, 1, h, w] in the size and number of masks [B, 1, H, W]."""
    return upsample(maps, masks.shape[-2:]).expand(len(masks), -1, -1, -1)


def measure(name: str, sample: str, seed: int, chosen: Parameters, scene: Scene) -> dict:
    """Train one network on one sample; what it says of the test photographs, and its maps."""
    settings = settings_of(name, chosen, seed)
    photographs = getattr(scene, sample)
    fitted = fit(settings, scene.split, photographs, report=lambda line: print("   ", line))
    precision = workspace.choose_precision(photographs.device, settings.precision)
    logits = {}
    for ruler in ("with_ruler", "without_ruler"):
        drawn = getattr(scene, ruler)
        answers = predict(fitted.network, drawn, scene.test, fitted.config, precision)
        logits[ruler] = answers.tolist()
    test = used_rows(scene.split).iloc[scene.test]
    about = test[["image_id", "group", "source", "target"]].to_dict("list")
    rulers = {
        "as_in_training": scene.as_in_training[scene.test].tolist(),
        "by_chance": scene.by_chance[scene.test].tolist(),
    }
    return {
        "network": name,
        "sample": sample,
        "seed": seed,
        "epoch": fitted.config["epoch"],
        "seconds": fitted.timing["seconds"],
        "test": about | rulers | logits,
        "maps": on_rulers(fitted, scene),
    }


def answers_of(run: dict) -> pd.DataFrame:
    """The test photographs, and the logits of each of TESTS."""
    table = pd.DataFrame(run["test"])
    for name in TESTS[:2]:
        has_ruler = table[name.replace(" ", "_")]
        table[name] = table["with_ruler"].where(has_ruler, table["without_ruler"])
    table["none"] = table["without_ruler"]
    return table


def score_table(runs: list[dict]) -> pd.DataFrame:
    """A row for each network, sample, seed and one of TESTS: its AUC, and that within source."""
    rows = []
    for run in runs:
        scores = metrics.auc_table(answers_of(run), TESTS)
        for name, figures in scores.iterrows():
            rows.append(about(run) | {"rulers": name} | figures.to_dict())
    return pd.DataFrame(rows)


def about(run: dict) -> dict:
    """Which network it is."""
    return {name: run[name] for name in ("network", "sample", "seed")}


def by_kind(runs: list[dict]) -> dict[tuple[str, str], list[dict]]:
    """The runs of each network and sample, over the seeds."""
    kinds: dict[tuple[str, str], list[dict]] = {}
    for run in runs:
        kinds.setdefault((run["network"], run["sample"]), []).append(run)
    return kinds


def flat(**intervals: dict | None) -> dict:
    """Intervals as columns: name, name_low, name_high; None where there is none."""
    columns = {}
    for name, figure in intervals.items():
        columns |= as_columns(name, figure)
    return columns


def answer_table(runs: list[dict]) -> pd.DataFrame:
    """A row for each network and sample, means over the seeds, with 95% intervals over groups.

    `fall`: AUC with rulers as in training less that with rulers by chance. `moved`: what a ruler
    adds to a photograph's logit, in standard deviations of the logits without.
    """
    rows = []
    for (network, sample), own in by_kind(runs).items():
        tables = [answers_of(run) for run in own]
        groups = tables[0]["group"]
        moved = np.mean([standard_moves(table) for table in tables], axis=0)
        figures = flat(
            planted=interval(mean_auc(tables, TESTS[0]), groups, share=True),
            free=interval(mean_auc(tables, TESTS[1]), groups, share=True),
            fall=interval(mean_auc(tables, TESTS[0], less=TESTS[1]), groups),
            moved=interval(mean(moved), groups),
        )
        rows.append({"network": network, "sample": sample, "seeds": len(own)} | figures)
    return pd.DataFrame(rows)


def standard_moves(table: pd.DataFrame) -> np.ndarray:
    """How far a ruler moves each logit, in standard deviations of the logits without one."""
    moves = table["with_ruler"] - table["without_ruler"]
    return (moves / table["without_ruler"].std()).to_numpy()


def mean_auc(tables: list[pd.DataFrame], score: str, less: str = ""):
    """A statistic: the AUC of a score, less that of another if named, mean over the tables."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        values = []
        for table in tables:
            truth = table["target"].to_numpy()
            auc = weighted_auc_ap(truth, table[score].to_numpy(), weights)[0]
            if less:
                auc = auc - weighted_auc_ap(truth, table[less].to_numpy(), weights)[0]
            values.append(auc)
        return np.mean(values, axis=0)

    return statistic


def map_table(runs: list[dict]) -> pd.DataFrame:
    """A row for each map of each network, sample and seed."""
    rows = []
    for run in runs:
        for name in run["maps"]:
            rows.append(about(run) | {"map": MAPS[name]} | map_figures([run], name))
    return pd.DataFrame(rows)


def map_figures(runs: list[dict], name: str) -> dict:
    """A map's figures on the ruler, means over the runs, with 95% intervals over groups.

    hits: how often its maximum is on the ruler; energy: the share of its sum there; times: this by
    the ruler's share of the area, which is chance; more: the energy less that in the same place
    where the photograph has no ruler; lesion: the energy on the lesion.
    """
    groups = runs[0]["test"]["group"]
    figures = {}
    for figure in ("hits", "energy", "lesion", "without"):
        figures[figure] = np.mean([run["maps"][name][figure] for run in runs], axis=0)
    area = np.array(runs[0]["maps"]["uniform"]["energy"])

    def times(weights: np.ndarray) -> np.ndarray:
        return ratio(weights @ figures["energy"], weights @ area)

    return flat(
        hits=interval(mean(figures["hits"]), groups, share=True),
        energy=interval(mean(figures["energy"]), groups, share=True),
        times=interval(times, groups),
        more=interval(mean(figures["energy"] - figures["without"]), groups),
        lesion=interval(mean(figures["lesion"]), groups, share=True),
    )


def finding_table(runs: list[dict]) -> pd.DataFrame:
    """A row for each map of each network trained on the planted sample, over the seeds.

    The figures of `map_figures`. found: in how many seeds the interval of `times` lies above 1, and
    followed: in how many that of `more` lies above 0. tells: how well the energy on the ruler tells
    the network of the planted sample from that of the unplanted one, an AUC over photographs.
    """
    each = map_table(runs)
    kinds = by_kind(runs)
    rows = []
    for (network, sample), own in kinds.items():
        if sample != "planted":
            continue
        for name in own[0]["maps"]:
            mine = each[
                (each["network"] == network)
                & (each["sample"] == sample)
                & (each["map"] == MAPS[name])
            ]
            row = {"network": network, "map": MAPS[name], "seeds": len(own)}
            row["found"] = int((mine["times_low"] > 1).sum())
            row["followed"] = int((mine["more_low"] > 0).sum())
            told = flat(tells=telling(own, kinds.get((network, "unplanted"), []), name))
            rows.append(row | map_figures(own, name) | told)
    return pd.DataFrame(rows)


def telling(planted: list[dict], unplanted: list[dict], name: str) -> dict | None:
    """AUC of a map's energy on the ruler between two networks of a seed, mean over the seeds."""
    others = {run["seed"]: run for run in unplanted}
    pairs = [(run, others[run["seed"]]) for run in planted if run["seed"] in others]
    if not pairs:
        return None
    N = len(planted[0]["test"]["group"])
    truth = np.repeat([1, 0], N)

    def statistic(weights: np.ndarray) -> np.ndarray:
        aucs = []
        for pair in pairs:
            scores = np.concatenate([run["maps"][name]["energy"] for run in pair])
            aucs.append(weighted_auc_ap(truth, scores, np.hstack([weights, weights]))[0])
        return np.mean(aucs, axis=0)

    return interval(statistic, planted[0]["test"]["group"], share=True)


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS), metavar="NAME"
    )
    parser.add_argument("--count", type=int, default=600, help="photographs in a sample")
    parser.add_argument("--keep", type=Path, help="not runs/planted_shortcut/")
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="not data/results/")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    return parser.parse_args()


def main() -> None:
    options = options_of()
    keep = options.keep or workspace.runs_folder() / "planted_shortcut"
    decided = {name for settings in NETWORKS.values() for name in settings}
    decided |= {"seed", "dataset", "masks"}
    chosen = record.parameters_of(options.p, decided=decided, image_size=64, epochs=6)
    with tempfile.TemporaryDirectory() as place:
        os.environ["ATTENTION_DATA"] = place
        scene = draw_scene(Path(place), chosen, options.count)

        def expected(name: str, sample: str, seed: int) -> dict:
            return shaped_by(name, sample, seed, chosen, scene)

        def measured(name: str, sample: str, seed: int) -> dict:
            return measure(name, sample, seed, chosen, scene)

        wanted = [
            (name, sample, seed)
            for seed in options.seeds
            for name in options.networks
            for sample in SAMPLES
        ]
        runs = kept.complete(keep, wanted, expected, measured)
        leave(runs, scene, chosen, options.out)


def leave(runs: list[dict], scene: Scene, chosen: Parameters, out: Path) -> None:
    """Write the results of all networks, and print them."""
    used = used_rows(scene.split)
    test = used.iloc[scene.test]
    figures = {
        "split": used["split"].value_counts().to_dict(),
        "test_melanomas": int(test["target"].sum()),
        "chance": float(np.mean(runs[0]["maps"]["uniform"]["energy"])),
        "parameters": training_parameters(chosen),
    }
    path = record.write(
        "planted_shortcut",
        figures,
        seeds=sorted({run["seed"] for run in runs}),
        data=record.photographs_of(
            "drawn sample with planted rulers", used["image_id"], int(used["target"].sum())
        ),
        weights=chosen.weights,
        device=workspace.choose_device(chosen.device),
        precision=chosen.precision,
        folder=out,
        tables={
            "scores": score_table(runs),
            "answers": answer_table(runs),
            "maps": map_table(runs),
            "findings": finding_table(runs),
        },
    )
    result = record.read("planted_shortcut", out)
    for block in (publish.planted_answers, publish.planted_maps):
        print(block(result), end="\n\n")
    print(path)


if __name__ == "__main__":
    main()
