"""bench/real_photographs.py: it runs, compares like with like, and its tables are of its files."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from helpers.photographs.sample import make_sample
from helpers.scores.baselines import baselines
from helpers.training.settings import Parameters
from tests.bench.conftest import record

import ideas  # isort: skip
import kept  # isort: skip
import publish  # isort: skip
import real_photographs  # isort: skip

SMALL = Parameters(image_size=32, epochs=1, batch_size=12, precision="fp32", benign=0)
FEW = ["-p", "image_size", "32", "-p", "epochs", "1", "-p", "precision", "fp32"]


@pytest.fixture
def drawn(tmp_path):
    """The options that name forty drawn photographs, their masks and a place for the networks."""
    folder = tmp_path / "drawn"
    make_sample(folder, count=40, side=64)
    places = ["--dataset", str(folder), "--masks", str(folder / "masks")]
    return [*places, "--keep", str(tmp_path / "kept"), "--seeds", "0", "--networks"]


def test_it_runs_and_refuses_networks_that_anything_else_has_shaped(
    run_program, start, drawn, tmp_path
):
    result = run_program("real_photographs", *drawn, "no attention", *FEW)
    assert result["tables"]["real_photographs-scores.csv"]["network"].tolist() == ["no attention"]
    assert result["seeds"] == [0] and str(tmp_path) not in result["command"]
    for block in (publish.real_short, publish.real_scores, publish.real_maps):
        assert "no attention" in block(result)
    assert "metadata only" in publish.real_baselines(result)
    # the same photographs on disk, but fewer in training: not the network that lies there
    again = ["--out", str(tmp_path / "results")]
    other = start("real_photographs", *drawn, "softmax", *FEW, "-p", "benign", "10", *again)
    assert other.returncode == 1 and "no-attention-0.json" in other.stderr
    assert "benign 0" in other.stderr and "10" in other.stderr
    assert not (tmp_path / "kept" / "softmax-0.json").exists()


@pytest.mark.parametrize(
    ("what", "differs"),
    [
        ("benign", {"chosen": dataclasses.replace(SMALL, benign=10)}),
        ("epochs", {"settings": dataclasses.replace(SMALL, epochs=2)}),
        ("split", {"split": pd.DataFrame({"image_id": ["a", "c"]})}),
        ("photographs", {"cache": {"key": "another"}}),
        ("weights", {"weights": b"other bytes"}),
    ],
)
def test_whatever_shapes_a_network_is_compared(what, differs, tmp_path):
    weights = tmp_path / "weights.pth"
    plain = {
        "settings": SMALL,
        "chosen": SMALL,
        "split": pd.DataFrame({"image_id": ["a", "b"]}),
        "cache": {"key": "one"},
        "weights": b"some bytes",
    }

    def shape(arguments: dict) -> dict:
        content = arguments["weights"]
        weights.write_bytes(content)
        settings = dataclasses.replace(arguments["settings"], weights=str(weights))
        others = [arguments[name] for name in ("chosen", "split", "cache")]
        return real_photographs.shaped_by(ideas.NETWORKS["softmax"], settings, *others)

    first, second = shape(plain), shape(plain | differs)
    assert [name for name in first if first[name] != second[name]] == [what]
    # the path of the weights says nothing
    assert str(tmp_path) not in json.dumps(first)


def test_networks_count_by_what_they_change():
    split, cache = pd.DataFrame({"image_id": ["a"]}), {"key": "one"}

    def shape(name: str) -> dict:
        settings = real_photographs.settings_of(name, SMALL, 0)
        candidate = ideas.NETWORKS[name]
        return real_photographs.shaped_by(candidate, settings, SMALL, split, cache)

    shapes = [json.dumps(shape(name)) for name in real_photographs.NETWORKS]
    assert len(set(shapes)) == len(shapes)


@pytest.mark.parametrize("name", ["softmax", "attended vectors alone", "same map when turned"])
def test_a_network_is_measured_on_the_test_photographs_with_a_mask(made, name):
    split = made.split.copy()
    bare = split.index[(split["split"] == "test") & (split["mask"] != "")][:3]
    split.loc[bare, "mask"] = ""
    settings = real_photographs.settings_of(name, SMALL, 0)
    run = real_photographs.measure(name, settings, split, made.photographs())
    test = pd.DataFrame(run["test"])
    assert set(test["image_id"]) == set(made.used["image_id"].iloc[made.test])
    expected = ["attention_pool3", "attention_pool4", "grad_cam", "centre", "uniform", "otsu"]
    for figures in run["localisation"].values():
        assert list(figures) == expected
    masked = made.used["image_id"].isin(set(split["image_id"][bare]))
    rows = [row for row in made.test if not masked[row]]
    uniform = run["localisation"]["whole"]["uniform"]
    assert uniform["n"] == len(rows) == len(made.test) - 3
    share = np.mean(made.photographs().masks[rows] > 127)
    assert uniform["energy"] == pytest.approx(share, abs=0.02)
    json.dumps(run)


@pytest.mark.parametrize(("masked", "count"), [(False, 40), (True, 10)])
def test_photographs_without_a_mask_are_left_out_where_asked(photographs, masked, count):
    split, cache = real_photographs.prepare(photographs, SMALL, masked=masked)
    assert len(split) == len(cache["rows"]) == count and (split["mask"] != "").sum() == 10


def test_beside_the_networks_stand_the_baselines_that_see_no_lesion(made, folders):
    dataset = json.loads((made.prepare("blind") / "dataset.json").read_text())
    rows = real_photographs.baseline_table(dataset, made.split).set_index("baseline")["auc"]
    table = baselines(dataset, made.split)
    names = [name for name in table if name.endswith("only")]
    assert "source only" in names and list(rows.index) == names
    for name in names:
        assert rows[name] == pytest.approx(roc_auc_score(table["target"], table[name]))


def leave(folder, network: str, seed: int, logits: list[float], energy: float) -> None:
    """What `main` would leave, of four test photographs."""
    figures = {"n": 4, "hits": 1 - energy, "energy": energy, "iou": energy / 2}
    looks = {}
    for name in real_photographs.MAPS:
        if network != "no attention" or name == "grad_cam":
            looks[name] = figures
    for name in real_photographs.BESIDE:
        looks[name] = {"n": 4, "hits": 0.75, "energy": 0.25, "iou": 0.2}
    test = {
        "image_id": list("abcd"),
        "group": list("abcd"),
        "source": list("STST"),
        "target": [1, 1, 0, 0],
        "logit": logits,
    }
    run = {
        "network": network,
        "seed": seed,
        "timing": {"seconds": 1.0},
        "test": test,
        "localisation": {"whole": looks, "crops": looks},
        "shaped_by": {"epochs": 1, "seed": seed},
    }
    record.workspace.write_json(kept.file_of(folder, network, seed), run)


def result_of(folder) -> dict:
    """As `record.read` gives it, of the files in a folder."""
    runs = kept.read_all(
        folder, lambda name, seed: {"epochs": 1, "seed": seed}, list(ideas.NETWORKS)
    )
    tables = {
        "x-scores.csv": real_photographs.score_table(runs),
        "x-differences.csv": real_photographs.difference_table(runs),
        "x-maps.csv": real_photographs.map_table(runs),
    }
    return {"command": "python x.py", "tables": tables}


def test_tables_have_a_figure_for_each_seed_and_pairs_with_the_same_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "about_real", lambda result: "About.")
    leave(tmp_path, "softmax", 1, [1, 2, 0, 3], 0.5)  # AUC 0.5
    leave(tmp_path, "softmax", 0, [3, 2, 1, 0], 0.125)  # 1
    leave(tmp_path, "detached guide", 0, [3, 1, 2, 0], 0.75)  # 0.75: a quarter less
    leave(tmp_path, "no attention", 1, [3, 2, 1, 0], 0.25)  # 1: softmax has half less here
    result = result_of(tmp_path)
    scores = publish.real_scores(result).splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in scores[2:]]
    assert scores[0].endswith("| less no attention (95%) | less softmax (95%) |")
    assert [line[:2] for line in cells] == [
        ["no attention", "1"],
        ["softmax", "0, 1"],
        ["detached guide", "0"],
    ]
    assert [cell.split(" (")[0] for cell in cells[1][2].split("), ")] == ["1.000", ".500"]
    # pairs of one source: a with c, and b with d
    assert [line[3] for line in cells] == ["1.000", "1.000, .500", "1.000"]
    assert [[cell.split(" (")[0] for cell in line[4:]] for line in cells] == [
        ["", "+.500"],
        ["-.500", ""],
        ["", "-.250"],
    ]
    maps = publish.real_maps(result).splitlines()
    assert maps[2:5] == [
        "| no attention | Grad-CAM | .750 | .250 | .125 | .750 | .250 |",
        "| softmax | pool-3 | .875, .500 | .125, .500 | .062, .250 | .875, .500 | .125, .500 |",
        "| softmax | pool-4 | .875, .500 | .125, .500 | .062, .250 | .875, .500 | .125, .500 |",
    ]
    titles = [line.split(" | ")[1] for line in maps[-3:]]
    assert titles == list(real_photographs.BESIDE.values())


def test_precision_and_device_count_as_they_are_here():
    split, cache = pd.DataFrame({"image_id": ["a"]}), {"key": "one"}
    chosen = dataclasses.replace(SMALL, precision="auto")
    candidate = ideas.NETWORKS["softmax"]
    shape = real_photographs.shaped_by(candidate, chosen, chosen, split, cache)
    device = torch.device(shape["device"])
    assert shape["precision"] == str(record.workspace.choose_precision(device)).split(".")[1]
