"""The whole series through papermill on a small set with other parameters, and its files against
the contract.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import brier_score_loss, roc_auc_score

from helpers.audit import claims
from helpers.model import AttnVGG
from helpers.runs import parameters
from helpers.runs.series import FIRST_FIGURE
from helpers.scores import bootstrap
from tests.conftest import PATIENCE
from tests.notebooks.conftest import series

PROJECT = Path(__file__).resolve().parents[2]
MAPS = {"attention_pool3", "attention_pool4", "grad_cam", "centre", "uniform"}


@pytest.fixture(scope="module")
def left(place):
    """The folder that the run left."""
    return place[0] / "runs" / "small"


def read(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content.pop("format") == (2 if path.name == "audit.json" else 1)
    return content


def test_all_are_stored_and_named(place, left):
    output = place[2]
    for notebook in parameters.NOTEBOOKS:
        assert str(left / notebook.name) in output
        cells = nbformat.read(left / notebook.name, as_version=4).cells
        assert all(
            cell.execution_count
            for cell in cells
            if cell.cell_type == "code" and cell.source.strip()
        )
    assert f"First figure to open: {left / 'figures' / FIRST_FIGURE}" in output


def test_no_notebook_warns(left):
    for notebook in parameters.NOTEBOOKS:
        for cell in nbformat.read(left / notebook.name, as_version=4).cells:
            loud = [
                output.text for output in cell.get("outputs", []) if output.get("name") == "stderr"
            ]
            assert not loud, f"{notebook.name} {cell.id}: {loud}"


def test_dataset(place, left):
    found = read(left / "dataset.json")
    assert (found["rows"], found["images"], found["colour_order"]) == (60, 60, "bgr")
    assert {"dataset", "folder", "masks_folder", "csv", "sha256", "bytes", "licence"} <= set(found)
    assert Path(found["folder"]).is_relative_to(place[0] / "small"), "a folder is used in place"


def test_split_and_cache(place, left):
    split = pd.read_csv(left / "split.csv", keep_default_na=False)
    assert list(split) == ["image_id", "path", "mask", "target", "source", "group", "split", "kept"]
    assert (split.groupby("group")["split"].nunique() == 1).all()
    assert ((split["split"] == "train") & (split["target"] == 0) & (split["kept"] == 1)).sum() == 20
    cache = read(left / "cache.json")
    assert not Path(cache["file"]).is_absolute(), "a run may be moved with its data"
    assert cache["rows"] == split.loc[split["kept"] == 1, "image_id"].tolist()
    assert np.load(place[0] / "data" / cache["file"], mmap_mode="r").shape == (
        len(cache["rows"]),
        cache["side"],
        cache["side"],
        3,
    )


def test_what_training_leaves(left):
    history = pd.read_csv(left / "history.csv")
    assert list(history) == [
        "epoch",
        "train_loss",
        "train_auc",
        "val_loss",
        "val_auc",
        "learning_rate",
    ]
    assert history["epoch"].tolist() == [1]
    assert {"device", "precision", "seconds", "images_per_second"} <= set(
        read(left / "timing.json")
    )
    stored = torch.load(left / "model.pt", weights_only=True)
    config = stored["config"]
    assert {
        "image_size",
        "mean",
        "std",
        "colour_order",
        "weights",
        "calibration",
        "threshold",
    } <= set(config)
    network = AttnVGG(attention=config["attention"])
    network.load_state_dict(stored["state_dict"])


def test_the_control_is_the_same_training_without_attention(left):
    network, control = (
        torch.load(place / "model.pt", weights_only=True)["config"]["made_from"]
        for place in (left, left / "control")
    )
    assert (network["attention"], control["attention"]) == ("sigmoid", "none")
    assert {name for name in network if network[name] != control[name]} == {
        "attention",
        "mask_weight_pool4",
    }
    ours, theirs = (pd.read_csv(place / "predictions.csv") for place in (left, left / "control"))
    assert ours["image_id"].tolist() == theirs["image_id"].tolist()
    assert (ours["logit"] != theirs["logit"]).all()
    for name in ("history.csv", "timing.json", "metrics.json"):
        assert (left / "control" / name).exists()
    assert not list(left.rglob("progress*"))
    audit = read(left / "audit.json")
    assert audit["control"] == "own"


def test_metrics_are_those_of_the_predictions(left):
    rows = pd.read_csv(left / "predictions.csv")
    assert list(rows) == ["image_id", "split", "source", "group", "target", "logit", "probability"]
    found = read(left / "metrics.json")
    for name in ("val", "test"):
        part = rows[rows["split"] == name]
        one = found[name]
        assert one["auc"] == pytest.approx(roc_auc_score(part["target"], part["logit"]))
        groups = part.groupby("target")["group"].nunique()
        if groups.min() < bootstrap.FEW:
            assert one["auc_low"] is one["auc_high"] is None
        else:
            assert one["auc_low"] <= one["auc"] <= one["auc_high"]
        assert (one["n"], one["positives"]) == (len(part), part["target"].sum())
        assert set(one["by_source"]) == set(part["source"])
        assert all(
            source["auc"] is not None or source["reason"] for source in one["by_source"].values()
        )
    val, test = (rows[rows["split"] == name] for name in ("val", "test"))
    called = test["probability"] >= found["threshold"]
    assert found["test"]["sensitivity"] == pytest.approx(called[test["target"] == 1].mean())
    assert found["test"]["specificity"] == pytest.approx(1 - called[test["target"] == 0].mean())
    assert found["test"]["brier"] == pytest.approx(
        brier_score_loss(test["target"], test["probability"])
    )
    assert (val["probability"] >= found["threshold"])[val["target"] == 1].mean() >= 0.9
    assert 0 <= found["test"]["ece"] <= 1


def test_audit_and_figures(left):
    found = read(left / "audit.json")
    located = found["localisation"]
    assert set(located) == {"all", "melanoma", "benign", "melanoma less benign"}
    for kind in ("all", "melanoma", "benign"):
        assert set(located[kind]) >= MAPS
        for figures in located[kind].values():
            assert {"hits", "energy", "iou", "concentration", "n"} <= set(figures)
    assert set(located["melanoma less benign"]) == set(located["all"])
    assert {row["verdict"] for row in found["claims"]} <= set(claims.VERDICTS)
    assert found["seed"] in found["claims"][0]["seeds"]
    names = {path.name for path in (left / "figures").iterdir()}
    assert {"attention_malignant.png", "attention_benign.png"} <= names, names


def test_evidence_is_what_the_answer_is_made_of(left):
    found = read(left / "evidence.json")
    stored = torch.load(left / "model.pt", weights_only=True)["config"]
    assert found["network_key"] == stored["network_key"]
    assert sum(share["value"] for share in found["shares"].values()) == pytest.approx(1, abs=1e-4)
    assert set(found["replaced"]) == {"pool-3", "pool-4", "both"}
    for changes in found["replaced"].values():
        assert {"uniform", "reversed", "lesion", "outside"} <= set(changes)
        for figures in changes.values():
            assert -1 <= figures["value"] <= 1 and {"low", "high", "n", "moved"} <= set(figures)
    compared = MAPS | {f"contribution_{name}" for name in ("pool3", "pool4", "pool5", "sum")}
    assert set(found["localisation"]["all"]) == compared
    for areas in (found["areas"]["deletion"], found["areas"]["insertion"]):
        assert set(areas) == compared | {"blobs"}
        assert all(0 <= area["value"] <= 1 for area in areas.values())
    # of a picture of one colour nothing but the border's zeros makes a map
    for rim in found["rim"].values():
        assert rim["one colour, border of own values"] == pytest.approx(
            rim["share of the area"], abs=1e-3
        )
    test = pd.read_csv(left / "predictions.csv").query("split == 'test'")
    assert found["photographs"] == len(test)
    called = test["probability"] >= stored["threshold"]
    beside = (called != (test["logit"] >= 0)).sum()
    assert found["between_threshold_and_0"] == pytest.approx(beside, abs=2), "04 rounds"


def test_plain_papermill_and_the_same_seed_again(place, left, tmp_path):
    """Notebook 04 through papermill's own command, in a second run: the same figures."""
    folder, environment, _ = place
    again = folder / "runs" / "again"
    again.mkdir()
    for name in ("dataset.json", "split.csv", "cache.json"):
        (again / name).write_bytes((left / name).read_bytes())
    values = {
        "run": "again",
        "image_size": 64,
        "epochs": 1,
        "attention": "sigmoid",
        "mask_weight_pool4": 0.1,
    }
    command = [
        sys.executable,
        "-m",
        "papermill",
        "notebooks/04_train.ipynb",
        str(tmp_path / "out.ipynb"),
        "--start-timeout",
        str(PATIENCE),
    ]
    for name, value in values.items():
        command += ["-p", name, str(value)]
    done = subprocess.run(
        command,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, **environment, "ATTENTION_HEADLESS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("metrics.json", "predictions.csv", "control/predictions.csv"):
        assert (again / name).read_bytes() == (left / name).read_bytes(), name


def test_a_notebook_without_its_input_says_which_one_makes_it(place):
    """A misspelt run is told as such, and not made of the drawn sample."""
    done = series(place[1], "--run", "empty", "--only", "04")
    assert done.returncode == 1 and "run 01_download.ipynb first" in done.stderr
    assert not (place[0] / "runs" / "empty").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["-p", "epoch", "3"], "did you mean 'epochs'"),
        (["-p", "epochs", "many"], "epochs is 'many', expected"),
        (["-p", "mask_weight_pool3", "0.1"], "sigmoid"),
        (["--only", "09"], "starts with '09'"),
        (["--dataset", "nowhere"], "there is nothing at"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_starts(place, arguments, words):
    done = series(place[1], *arguments)
    assert done.returncode == 2 and words in done.stderr
