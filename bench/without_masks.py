"""Can attention be made to look at the lesion without masks? Ideas, trained and measured as notebook 06 measures.

    python bench/without_masks.py --dataset FOLDER_OR_ZIP --masks FOLDER_OR_ZIP [--seeds 0 1 2] [--ideas NAME...]
                                  [--out FOLDER] [-p NAME VALUE]...

Each idea changes the network or its loss in one place; training is notebook 04's. It takes the photographs that have a
mask, and uses the masks to measure alone (but for the row that trains with them). What is done is not done again: each
network leaves a file in FOLDER, and the tables are of all that lie there.
"""

import argparse
import functools
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["ATTENTION_HEADLESS"] = "1"

from helpers import audit, batches, compare, download, metrics, parameters, pixel_cache, preprocess, train, workspace  # noqa: E402
from helpers.interventions import turn  # noqa: E402
from helpers.model import POOL3, POOL4, AttnVGG, Output  # noqa: E402

DICE = {"mask_weight_pool3": 0.1, "mask_weight_pool4": 0.1}
# name: (settings of training, changes to the network)
IDEAS = {
    "no attention": ({"attention": "none"}, {}),
    "softmax": ({}, {}),
    "sigmoid": ({"attention": "sigmoid"}, {}),
    "detached guide": ({}, {"detached": True}),
    "attended vectors alone": ({}, {"alone": True}),
    "attended alone, detached guide": ({}, {"alone": True, "detached": True}),
    "before pooling": ({}, {"before_pooling": True}),
    "mirrored padding": ({}, {"mirrored": True}),
    "same map when turned": ({}, {"turned": 0.1}),
    "same map when turned, weight 1": ({}, {"turned": 1.0}),
    "sigmoid, starts at 0.1": ({"attention": "sigmoid"}, {"start": 0.1}),
    "sigmoid, with Otsu's masks": ({"attention": "sigmoid", **DICE, "mask_target": "otsu"}, {}),
    "sigmoid, with masks": ({"attention": "sigmoid", **DICE}, {}),
}
BESIDE = {"otsu": "Otsu's threshold, no network", "centre": "centre, no network", "uniform": "uniform"}
MAPS = ("attention_pool3", "attention_pool4")


class Changed(AttnVGG):
    """`AttnVGG` with changes that might bring its maps to the lesion; without any it is `AttnVGG`.

    detached: the attention blocks read their guide, pool-5, and do not teach it. alone: the classifier sees the two
    attended vectors and not pool-5's average (Jetley et al., ICLR 2018). before_pooling: attention looks at the
    features before pool-3 and pool-4, on maps of twice the side. mirrored: convolutions see a mirror outside of the
    photograph, not zeros, by which they could tell where its edge is. turned: weight of a second loss, the distance
    (half of the sum of |a - a'|) between a softmax map and that of the photograph turned, turned back, for half of a
    batch. start: about where the values of a sigmoid map begin.
    """

    def __init__(self, *, detached: bool = False, alone: bool = False, before_pooling: bool = False,
                 mirrored: bool = False, turned: float = 0.0, start: float = 0.0, **options):
        super().__init__(**options)
        self.detached, self.alone, self.before_pooling, self.turned = detached, alone, before_pooling, turned
        if alone:
            self.classifier = nn.Linear(256 + 512, self.classifier.out_features)
            nn.init.normal_(self.classifier.weight, std=0.01)
            nn.init.zeros_(self.classifier.bias)
        if mirrored:
            for layer in self.backbone:
                if isinstance(layer, nn.Conv2d):
                    layer.padding_mode = "reflect"
        if start:  # scores scatter about the bias
            for block in (self.attention3, self.attention4):
                nn.init.constant_(block.score.bias, np.log(start / (1 - start)))

    def look(self, images: Tensor) -> tuple[Tensor, ...]:
        """pool-5, and of each block its map (None without attention) and its vector."""
        before3 = self.backbone[:POOL3](images)
        pool3 = self.backbone[POOL3](before3)
        before4 = self.backbone[POOL3 + 1:POOL4](pool3)
        pool4 = self.backbone[POOL4](before4)
        pool5 = self.backbone[POOL4 + 1:](pool4)
        if self.attention == "none":
            return pool5, None, pool3.mean(dim=(2, 3)), None, pool4.mean(dim=(2, 3))
        guide, local = pool5.detach() if self.detached else pool5, (pool3, pool4)
        local = (before3, before4) if self.before_pooling else local
        return pool5, *self.attention3(local[0], guide), *self.attention4(local[1], guide)

    def forward(self, images: Tensor) -> Output:
        pool5, map3, vector3, map4, vector4 = self.look(images)
        features = [vector3, vector4] if self.alone else [pool5.mean(dim=(2, 3)), vector3, vector4]
        with torch.autocast(images.device.type, enabled=False):
            logits = self.classifier(self.dropout(torch.cat(features, dim=1).float()))
        if self.turned and self.training:
            number = int(torch.randint(1, 8, ()))
            _, other3, _, other4, _ = self.look(turn(images[::2], number))
            apart = sum((one[::2] - turn(other, number, back=True)).abs().sum(dim=(1, 2, 3)).mean() / 2
                        for one, other in ((map3, other3), (map4, other4)))
            logits = AddLoss.apply(logits, self.turned * apart)
        return Output(logits, map3, map4)


class AddLoss(torch.autograd.Function):
    """Logits as they are, and a loss whose gradient is taken whenever theirs is: `train.fit` need not know of it."""

    @staticmethod
    def forward(context, logits: Tensor, loss: Tensor) -> Tensor:
        return logits.clone()

    @staticmethod
    def backward(context, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, gradient.new_ones(())


def prepare(dataset: dict, settings: train.Settings, known: dict) -> tuple[pd.DataFrame, batches.Photographs]:
    """Split and cache of the photographs that have a mask, by notebook 02's parameters."""
    split = preprocess.make_split(dataset, benign=known["benign"], split_seed=known["split_seed"])
    split = split[split["mask"] != ""].reset_index(drop=True)
    cache = pixel_cache.build_cache(dataset, split, image_size=settings.image_size)
    return split, batches.Photographs(cache, workspace.choose_device(settings.device))


def measure(name: str, settings: train.Settings, split: pd.DataFrame, photographs: batches.Photographs) -> dict:
    """Train one network; its test AUC and its maps' figures on the test photographs, and the logits."""
    changed, changes = IDEAS[name]
    settings = train.dataclasses.replace(settings, **changed)
    with mock.patch.object(train, "AttnVGG", functools.partial(Changed, **changes)):
        fitted = train.fit(settings, split, photographs, report=lambda line: print("   ", line, flush=True))
    used = train.used_rows(split)
    test = train.predict_held_out(fitted, split, photographs, settings.precision).query("split == 'test'")

    def look(images: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            output = fitted.network(images)
        maps = dict(zip(MAPS, output[1:], strict=True)) | {
            "otsu": audit.dark(images, fitted.config), "centre": audit.centre(images.shape[-2:]),
            "uniform": torch.ones(1, 1, *images.shape[-2:])}
        return {one: grid for one, grid in maps.items() if grid is not None}

    rows = np.flatnonzero(used["split"] == "test")
    found = {where: audit.localisation(audit.measure(look, photographs, used, fitted.config, rows=rows, draws=draws))
             for where, draws in (("whole", None), ("shifted", audit.shifted(len(rows))))}
    auc = metrics.discrimination(test["target"], test["logit"], test["group"], "test")
    return {"idea": name, "seed": settings.seed, "settings": train.dataclasses.asdict(settings), "changes": changes,
            "photographs": used["split"].value_counts().to_dict(), "melanomas": int(test["target"].sum()),
            "epoch": fitted.config["epoch"], "timing": fitted.timing, "auc": auc, "localisation": found,
            "test": test[["image_id", "split", "group", "source", "target", "logit"]].to_dict("list")}


def check(file: Path, settings: train.Settings, changed: dict) -> None:
    """Raises SystemExit where this file is of other parameters: a table compares like with like."""
    there, asked = workspace.read_json(file, "this program")["settings"], train.dataclasses.asdict(settings)
    if differ := [name for name in asked if name not in changed and there[name] != asked[name]]:
        raise SystemExit(f"{file} was trained with another {', '.join(differ)}: name another --out, or delete it")


def tables(folder: Path) -> str:
    """In Markdown all that lies in the folder: a row for each idea, with one figure a seed."""
    found = [workspace.read_json(path, "this program") for path in folder.glob("*.json")]
    found.sort(key=lambda one: one["seed"])
    by_idea = {name: [one for one in found if one["idea"] == name] for name in IDEAS}
    plainly = {one["seed"]: one for one in by_idea["softmax"]}
    rows = [{"network": name, "seeds": ", ".join(str(one["seed"]) for one in runs), "AUC": listed(
        one["auc"]["auc"] for one in runs), "less softmax (95%)": less(runs, plainly), **looks(runs, MAPS)}
        for name, runs in by_idea.items() if runs]
    rows += [{"network": title, "seeds": "", "AUC": "", "less softmax (95%)": "", **looks(found[:1], (name, name))}
             for name, title in BESIDE.items()]
    return compare.markdown(pd.DataFrame(rows))


def looks(runs: list[dict], maps: tuple[str, str]) -> dict[str, str]:
    """Cells of a row: each figure of the map of pool-3 and of that of pool-4."""
    return {f"{title} {pool}": listed(one["localisation"][where][name][figure] for one in runs
                                      if name in one["localisation"][where])
            for title, where, figure in (("energy", "whole", "energy"), ("IoU", "whole", "iou"),
                                         ("energy in crops,", "shifted", "energy"))
            for pool, name in zip(("pool-3", "pool-4"), maps, strict=True)}


def less(runs: list[dict], plainly: dict[int, dict]) -> str:
    """Test AUC less that of plain softmax attention of the same seed, mean over the seeds: the paired bootstrap."""
    pairs = [(one["test"], plainly[one["seed"]]["test"]) for one in runs if one["seed"] in plainly]
    if not pairs or runs[0]["idea"] == "softmax":
        return ""
    if any(one["image_id"] != pairs[0][0]["image_id"] for pair in pairs for one in pair):
        raise SystemExit("these networks were tested on different photographs: name another --out for each data set")
    truth = np.array(pairs[0][0]["target"])

    def difference(weights: np.ndarray) -> np.ndarray:
        return np.mean([metrics.weighted_auc_ap(truth, np.array(one["logit"]), weights)[0]
                        - metrics.weighted_auc_ap(truth, np.array(other["logit"]), weights)[0]
                        for one, other in pairs], axis=0)
    return "{value:+.3f} ({low:+.3f} to {high:+.3f})".format(**metrics.interval(difference, pairs[0][0]["group"]))


def listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.3f}".removeprefix("0") for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--masks", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ideas", nargs="+", default=list(IDEAS), choices=list(IDEAS), metavar="NAME")
    parser.add_argument("--out", type=Path, default=workspace.PROJECT / "runs" / "without_masks")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    options = parser.parse_args()
    known = parameters.known_parameters(parameters.NOTEBOOKS)
    given = parameters.read_parameters("", options.p, known)
    values = {name: default for name, (_, default) in known.items()} | {"benign": 0} | given
    settings = parameters.check(values, known)
    dataset = download.find_dataset(options.dataset, masks=options.masks, ids=values["ids"])
    split, photographs = prepare(dataset, settings, values)
    print(f"{len(split)} photographs with a mask: {split['split'].value_counts().to_dict()}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for name in options.ideas:
            file = options.out / f"{name.replace(' ', '-').replace(',', '').replace(chr(39), '')}-{seed}.json"
            if file.exists():
                check(file, train.dataclasses.replace(settings, seed=seed), IDEAS[name][0])
                continue
            started = time.perf_counter()
            print(f"{name}, seed {seed}", flush=True)
            found = measure(name, train.dataclasses.replace(settings, seed=seed), split, photographs)
            workspace.write_json(file, found)
            print(f"    AUC {found['auc']['auc']:.3f}; energy "
                  + ", ".join(f"{one} {kept['energy']:.3f}" for one, kept in found["localisation"]["whole"].items())
                  + f"; {time.perf_counter() - started:.0f} s", flush=True)
    print(tables(options.out))


if __name__ == "__main__":
    main()
