"""What do attention, its loss and masks do on real photographs, and can attention look at the lesion without masks?

    python bench/real_photographs.py --dataset FOLDER_OR_ZIP --masks FOLDER_OR_ZIP [--seeds 0 1 2] [--networks NAME...]
                                     [--masked] [--out FOLDER] [-p NAME VALUE]...

Trains each network with each seed as notebook 04 does, and measures its maps as notebook 06 does, on the test
photographs that have a mask. `--masked` takes those photographs alone, for training too. Without `--networks` it is the
five of the series; IDEAS change the network or its loss in one place each. Masks are for measuring alone but in the
rows that train with them. What is done is not done again: each network leaves a file in FOLDER, and the tables are of
all that lie there.
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

import dataclasses

from helpers import workspace  # noqa: E402
from helpers.audit import localisation  # noqa: E402
from helpers.audit.evidence import turn  # noqa: E402
from helpers.model import POOL3, POOL4, AttnVGG, Output  # noqa: E402
from helpers.photographs import sources  # noqa: E402
from helpers.photographs.cache import build_cache  # noqa: E402
from helpers.photographs.split import make_split  # noqa: E402
from helpers.runs import compare, parameters  # noqa: E402
from helpers.scores import bootstrap, metrics  # noqa: E402
from helpers.scores.baselines import baselines  # noqa: E402
from helpers.training import batches, loop  # noqa: E402
from helpers.training.loop import fit, predict_held_out, used_rows  # noqa: E402
from helpers.training.settings import Settings  # noqa: E402

DICE = {"mask_weight_pool3": 0.1, "mask_weight_pool4": 0.1}
# name: (settings of training, changes to the network)
SERIES = {
    "no attention": ({"attention": "none"}, {}),
    "softmax": ({}, {}),
    "sigmoid": ({"attention": "sigmoid"}, {}),
    "softmax, cross-entropy": ({"gamma": 0.0}, {}),
    "sigmoid, with masks": ({"attention": "sigmoid", **DICE}, {}),
}
IDEAS = {
    "detached guide": ({}, {"detached": True}),
    "attended vectors alone": ({}, {"alone": True}),
    "attended alone, detached guide": ({}, {"alone": True, "detached": True}),
    "before pooling": ({}, {"before_pooling": True}),
    "mirrored padding": ({}, {"mirrored": True}),
    "same map when turned": ({}, {"turned": 0.1}),
    "same map when turned, weight 1": ({}, {"turned": 1.0}),
    "sigmoid, starts at 0.1": ({"attention": "sigmoid"}, {"start": 0.1}),
    "sigmoid, with Otsu's masks": ({"attention": "sigmoid", **DICE, "mask_target": "otsu"}, {}),
}
NETWORKS = SERIES | IDEAS
CONTROLS = ("no attention", "softmax")  # what the others' AUC is compared with
BESIDE = {"otsu": "Otsu's threshold", "centre": "centre", "uniform": "uniform"}
MAPS = {"attention_pool3": "pool-3", "attention_pool4": "pool-4", "grad_cam": "Grad-CAM"}


class Changed(AttnVGG):
    """`AttnVGG` with changes that might bring its maps to the lesion; without any it is `AttnVGG`.

    detached: the attention blocks read their guide, pool-5, and do not teach it. alone: the classifier sees the two
    attended vectors and not pool-5's average (Jetley et al., ICLR 2018). before_pooling: attention looks at the
    features before pool-3 and pool-4, on maps of twice the side. mirrored: convolutions see a mirror outside of the
    photograph, not zeros, by which they could tell where its edge is. turned: weight of a second loss, the distance
    (half of the sum of |a - a'|) between a softmax map and that of the photograph turned, turned back, for half of a
    batch. start: about where the values of a sigmoid map begin.
    """

    def __init__(
        self,
        *,
        detached: bool = False,
        alone: bool = False,
        before_pooling: bool = False,
        mirrored: bool = False,
        turned: float = 0.0,
        start: float = 0.0,
        **options,
    ):
        super().__init__(**options)
        self.detached, self.alone, self.before_pooling, self.turned = (
            detached,
            alone,
            before_pooling,
            turned,
        )
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
        before4 = self.backbone[POOL3 + 1 : POOL4](pool3)
        pool4 = self.backbone[POOL4](before4)
        pool5 = self.backbone[POOL4 + 1 :](pool4)
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
            apart = sum(
                (one[::2] - turn(other, number, back=True)).abs().sum(dim=(1, 2, 3)).mean() / 2
                for one, other in ((map3, other3), (map4, other4))
            )
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


def prepare(
    dataset: dict, settings: Settings, values: dict, *, masked: bool
) -> tuple[pd.DataFrame, batches.Photographs]:
    """Split and cache by notebook 02's parameters, of all photographs or of those that have a mask."""
    split = make_split(dataset, benign=values["benign"], split_seed=values["split_seed"])
    split = split[split["mask"] != ""].reset_index(drop=True) if masked else split
    cache = build_cache(dataset, split, image_size=settings.image_size)
    return split, batches.Photographs(cache, workspace.choose_device(settings.device))


def measure(
    name: str, settings: Settings, split: pd.DataFrame, photographs: batches.Photographs
) -> dict:
    """Train one network; its test AUC, the logits, and its maps' figures on the test photographs with a mask."""
    changed, changes = NETWORKS[name]
    settings = dataclasses.replace(settings, **changed)
    with mock.patch.object(loop, "AttnVGG", functools.partial(Changed, **changes)):
        fitted = fit(
            settings, split, photographs, report=lambda line: print("   ", line, flush=True)
        )
    used = used_rows(split)
    test = predict_held_out(fitted, split, photographs, settings.precision).query("split == 'test'")

    def look(images: Tensor) -> dict[str, Tensor]:
        return localisation.maps_of(fitted.network, images) | {
            "otsu": localisation.dark(images, fitted.config)
        }

    rows = np.flatnonzero((used["split"] == "test") & (used["mask"] != ""))
    found = {
        where: localisation.localisation(
            localisation.measure(look, photographs, used, fitted.config, rows=rows, draws=draws)
        )
        for where, draws in (("whole", None), ("shifted", localisation.shifted(len(rows))))
    }
    auc = metrics.discrimination(test["target"], test["logit"], test["group"], "test")
    return {
        "network": name,
        "seed": settings.seed,
        "settings": dataclasses.asdict(settings),
        "changes": changes,
        "photographs": used["split"].value_counts().to_dict(),
        "melanomas": int(test["target"].sum()),
        "epoch": fitted.config["epoch"],
        "timing": fitted.timing,
        "auc": auc,
        "localisation": found,
        "test": test[["image_id", "split", "group", "source", "target", "logit"]].to_dict("list"),
    }


def check(file: Path, settings: Settings, changed: dict) -> None:
    """Raises SystemExit where this file is of other parameters: a table compares like with like."""
    there, asked = (
        workspace.read_json(file, "this program")["settings"],
        dataclasses.asdict(settings),
    )
    if differ := [name for name in asked if name not in changed and there[name] != asked[name]]:
        raise SystemExit(
            f"{file} was trained with another {', '.join(differ)}: name another --out, or delete it"
        )


def load(folder: Path, tested: list[str]) -> list[dict]:
    """All that lies in the folder. Raises SystemExit where one was tested on other photographs."""
    found = {
        path: workspace.read_json(path, "this program") for path in sorted(folder.glob("*.json"))
    }
    for path, one in found.items():
        if one["test"]["image_id"] != tested:
            raise SystemExit(
                f"{path} was tested on {len(one['test']['image_id'])} photographs and not on these "
                f"{len(tested)}: name another --out for each data set, with --masked or without"
            )
    return sorted(found.values(), key=lambda one: one["seed"])


def tables(found: list[dict]) -> str:
    """In Markdown what `load` gives: each network's AUC, and each map's figures; one figure a seed."""
    by_name = {
        name: runs
        for name in NETWORKS
        if (runs := [one for one in found if one["network"] == name])
    }
    scores = [
        {
            "network": name,
            "seeds": ", ".join(str(one["seed"]) for one in runs),
            **aucs(pd.DataFrame(one["test"]).rename(columns={"logit": "score"}) for one in runs),
            **{
                f"less {control} (95%)": less(runs, by_name[control])
                for control in CONTROLS
                if control in by_name
            },
        }
        for name, runs in by_name.items()
    ]
    looks = [
        looked(name, title, runs, one)
        for name, runs in by_name.items()
        for one, title in MAPS.items()
        if one in runs[0]["localisation"]["whole"]
    ]
    looks += [looked("no network", title, found[:1], one) for one, title in BESIDE.items()]
    return f"{compare.markdown(pd.DataFrame(scores))}\n\n{compare.markdown(pd.DataFrame(looks))}"


def blind(dataset: dict, split: pd.DataFrame) -> str:
    """In Markdown the AUC of notebook 04's baselines, which see no lesion, on the same test photographs."""
    table = baselines(dataset, split)
    names = [name for name in table if name.endswith("only")]
    return compare.markdown(
        pd.DataFrame(
            {"baseline": name, **aucs([table.rename(columns={name: "score"})])} for name in names
        )
    )


def aucs(tables: Iterable[pd.DataFrame]) -> dict[str, str]:
    """Cells: the AUC of the column `score` with its interval over groups, and of pairs within a source; one a table."""
    found = [metrics.auc_table(one, ["score"]).loc["score"].map(short) for one in tables]
    return {
        "AUC (95%)": ", ".join(
            f"{one['auc']} ({one['auc_low']} to {one['auc_high']})" for one in found
        ),
        "within source": ", ".join(one["within"] for one in found),
    }


def looked(network: str, title: str, runs: list[dict], name: str) -> dict[str, str]:
    """A row: the figures of one map of a network's runs."""
    return {"network": network, "map": title} | {
        column: ", ".join(short(one["localisation"][where][name][figure]) for one in runs)
        for column, where, figure in (
            ("hits", "whole", "hits"),
            ("energy", "whole", "energy"),
            ("IoU", "whole", "iou"),
            ("hits in crops", "shifted", "hits"),
            ("energy in crops", "shifted", "energy"),
        )
    }


def less(runs: list[dict], controls: list[dict]) -> str:
    """Test AUC less that of the control of the same seed, mean over the seeds: the paired bootstrap over groups."""
    by_seed = {one["seed"]: one["test"] for one in controls}
    pairs = [(one["test"], by_seed[one["seed"]]) for one in runs if one["seed"] in by_seed]
    if not pairs or runs is controls:
        return ""
    truth = np.array(pairs[0][0]["target"])

    def difference(weights: np.ndarray) -> np.ndarray:
        return np.mean(
            [
                bootstrap.weighted_auc_ap(truth, np.array(one["logit"]), weights)[0]
                - bootstrap.weighted_auc_ap(truth, np.array(other["logit"]), weights)[0]
                for one, other in pairs
            ],
            axis=0,
        )

    return "{value:+.3f} ({low:+.3f} to {high:+.3f})".format(
        **bootstrap.interval(difference, pairs[0][0]["group"])
    )


def short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def main() -> None:
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
    parser.add_argument("--out", type=Path, default=workspace.PROJECT / "runs" / "real_photographs")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    options = parser.parse_args()
    known = parameters.known_parameters(parameters.NOTEBOOKS)
    given = parameters.read_parameters("", options.p, known)
    values = {name: default for name, (_, default) in known.items()} | {"benign": 0} | given
    settings = parameters.check(values, known)
    dataset = sources.find_dataset(options.dataset, masks=options.masks, ids=values["ids"])
    split, photographs = prepare(dataset, settings, values, masked=options.masked)
    print(
        f"{len(split)} photographs, {(split['mask'] != '').sum()} with a mask: "
        f"{split['split'].value_counts().to_dict()}",
        flush=True,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    tested = split.loc[(split["split"] == "test") & (split["kept"] == 1), "image_id"].tolist()
    load(options.out, tested)  # before hours of training
    for seed in options.seeds:
        for name in options.networks:
            file = (
                options.out
                / f"{name.replace(' ', '-').replace(',', '').replace(chr(39), '')}-{seed}.json"
            )
            if file.exists():
                check(file, dataclasses.replace(settings, seed=seed), NETWORKS[name][0])
                continue
            started = time.perf_counter()
            print(f"{name}, seed {seed}", flush=True)
            found = measure(name, dataclasses.replace(settings, seed=seed), split, photographs)
            workspace.write_json(file, found)
            print(
                f"    AUC {found['auc']['auc']:.3f}; energy "
                + ", ".join(
                    f"{one} {kept['energy']:.3f}"
                    for one, kept in found["localisation"]["whole"].items()
                )
                + f"; {time.perf_counter() - started:.0f} s",
                flush=True,
            )
    print(tables(load(options.out, tested)), blind(dataset, split), sep="\n\n")


if __name__ == "__main__":
    main()
