"""bench/mend.py: it runs, and its tables say what its networks' files do."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from helpers.photographs.sample import make_sample
from tests.bench.conftest import record

import mend  # isort: skip

FEW = ["-p", "image_size", "32", "-p", "epochs", "1", "-p", "precision", "fp32"]


def test_it_runs_once_and_leaves_tables(run_program, tmp_path):
    folder = tmp_path / "drawn"
    make_sample(folder, count=60, side=64)
    kept = tmp_path / "kept"
    options = ["--dataset", str(folder), "--masks", str(folder / "masks"), "--seeds", "0"]
    options += ["--keep", str(kept), "--networks", mend.CONTROL, "Otsu, weighted, closed", *FEW]
    result = run_program("mend", *options)
    written = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert len(written) == 2
    again = run_program("mend", *options)
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == written, "trained twice"
    networks = result["tables"]["mend-networks.csv"].set_index("network")
    assert networks.equals(again["tables"]["mend-networks.csv"].set_index("network"))
    assert networks["iou_pool-3"].notna().tolist() == [False, True]
    classes = result["tables"]["mend-classes.csv"]["class"]
    assert set(classes) == {"all", "melanoma", "benign", "melanoma less benign"}
    assert record.RESULTS not in (tmp_path, *tmp_path.parents)


def made_up(network: str, seed: int, logits: list, uniform: list, iou: float) -> dict:
    """What `measure` leaves, of 40 photographs of as many patients."""
    return {
        "network": network,
        "seed": seed,
        "epochs": [{"train_auc": 0.9, "val_auc": 0.8}],
        "epoch": 1,
        "timing": {"seconds": 1.0},
        "test": {
            "target": [0, 1] * 20,
            "group": list(range(40)),
            "logit": logits,
            "exact": logits,
            "uniform": uniform,
            "another's": uniform,
            "reversed": uniform,
            "outside": uniform,
            **dict.fromkeys(mend.evidence.VIEWS[1:], [0.5, None] * 19 + [1.0, 2.0]),
        },
        "maps": {
            name: {figure: [iou, iou / 2] * 20 for figure in mend.FIGURES} for name in mend.MAPS
        },
    }


def test_the_tables_are_means_over_seeds_and_the_aim_is_judged_by_seed():
    rng = np.random.default_rng(0)
    target = np.array([0, 1] * 20)
    good = [(target + rng.normal(0, 0.3, 40)).tolist() for _ in range(2)]
    poor = rng.normal(0, 1, 40).tolist()
    runs = [made_up(mend.CONTROL, seed, good[seed], good[seed], 0.1) for seed in (0, 1)]
    name = "masks, weighted, closed"
    runs += [made_up(name, seed, good[1 - seed], poor, 0.99) for seed in (0, 1)]
    table = mend.network_table(runs, [mend.CONTROL, name]).set_index("network").loc[name]
    aucs = [roc_auc_score(target, logits) for logits in good]
    assert table["auc"] == pytest.approx(np.mean(aucs)) and table["seeds"] == 2
    assert table["less_control"] == pytest.approx(0), "the seeds are the other's, exchanged"
    assert table["uniform"] == pytest.approx(roc_auc_score(target, poor) - np.mean(aucs))
    assert table["uniform_high"] < 0
    assert table["iou_pool-3"] == pytest.approx(0.75 * 0.99)
    seeds = mend.seed_table(runs).set_index(["network", "seed"])
    assert seeds.loc[name, "needed"].all() and seeds.loc[name, "on_the_lesion"].all()
    assert seeds.loc[mend.CONTROL, "costs_no_auc"].isna().all()
    classes = mend.class_table(runs, [name]).set_index(["map", "seed", "class"])["iou"]
    assert classes["pool-3", "mean", "benign"] == pytest.approx(0.99)
    assert classes["pool-3", 0, "melanoma"] == pytest.approx(0.99 / 2)
    assert classes["pool-3", 0, "melanoma less benign"] == pytest.approx(-0.99 / 2)


def test_a_map_that_is_not_used_is_not_needed():
    logits = np.random.default_rng(1).normal(0, 1, 40).tolist()
    row = mend.seed_table([made_up("softmax", 0, logits, logits, 0.9)]).iloc[0]
    assert row["uniform_low"] == row["uniform_high"] == 0
    assert not row["needed"] and row["on_the_lesion"] == (0.75 * 0.9 >= 0.7)
