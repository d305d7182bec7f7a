"""The comparison of a grid's runs: figures, ranges over seeds, paired differences."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from helpers import workspace
from helpers.runs import compare


def test_names_of_values_and_settings():
    assert [compare.label(value) for value in ("/a/b/vgg.pth", "none", 2.0, 7)] == [
        "vgg.pth",
        "none",
        "2.0",
        "7",
    ]
    assert compare.setting({"attention": "none", "seed": 3, "gamma": 0.0}) == (
        "attention none, gamma 0.0"
    )
    assert compare.setting({"seed": 3}) == "all"


def test_auc_and_its_range_over_seeds_against_scikit_learn(toy, folders):
    toy.run(axes={"attention": ["softmax", "none", "sigmoid"], "seed": [0, 1, 2]})
    table = pd.read_csv(folders.runs / "g" / "compare.csv")
    assert len(table) == 9
    aucs = {}
    for run in table["run"]:
        rows = pd.read_csv(folders.runs / run / "predictions.csv")
        aucs[run] = roc_auc_score(rows["target"], rows["logit"])
    assert table["auc"].tolist() == pytest.approx(list(aucs.values()))
    for row in table.itertuples():
        same = [auc for name, auc in aucs.items() if f"={row.attention}-" in name]
        figures = (row.seeds, row.auc_mean, row.auc_min, row.auc_max)
        assert figures == pytest.approx((3, sum(same) / 3, min(same), max(same)))
        control = aucs[f"g-attention=none-seed={row.seed}"]
        if row.attention == "none":
            assert np.isnan(row.less_attention)
        else:
            assert row.less_attention == pytest.approx(row.auc - control)


def test_photographs_of_any_name_are_compared(folders):
    """Formerly the ids NA and null were none."""
    names = ["NA", "null", "nan", "007"]
    rows = pd.DataFrame({"image_id": names, "split": "test", "source": "NA", "group": range(4)})
    rows = rows.assign(target=[0, 1, 0, 1], logit=0.5, probability=0.5)
    rows.to_csv(workspace.run_folder("g-seed=0") / "predictions.csv", index=False)
    found = compare.read_predictions("g-seed=0")
    assert found["image_id"].tolist() == names and set(found["source"]) == {"NA"}


def test_the_interval_of_a_difference_against_a_loop(toy, folders):
    """The bootstrap over groups, in plain Python."""
    toy.run()
    table = pd.read_csv(folders.runs / "g" / "compare.csv").set_index("run")
    name, other = "g-attention=softmax-seed=0", "g-attention=none-seed=0"
    first = pd.read_csv(folders.runs / name / "predictions.csv")
    second = pd.read_csv(folders.runs / other / "predictions.csv")
    draws = []
    rng = np.random.default_rng(7)
    for _ in range(500):
        groups = rng.integers(0, 40, 40)  # each is the rows 2n and 2n + 1
        rows = (2 * groups[:, None] + [0, 1]).ravel()
        target = first["target"].to_numpy()[rows]
        auc = roc_auc_score(target, first["logit"].to_numpy()[rows])
        control = roc_auc_score(target, second["logit"].to_numpy()[rows])
        draws.append(auc - control)
    interval = table.loc[name, ["less_attention_low", "less_attention_high"]].tolist()
    assert interval == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.04)


def test_verdicts_count_whole_intervals_on_one_side():
    table = pd.DataFrame(
        {
            "run": list("abcde"),
            "setting": ["x", "x", "x", "y", "none"],
            "less_gamma": [0.2, 0.1, -0.3, -0.1, np.nan],
            "less_gamma_low": [0.1, -0.1, -0.4, -0.2, np.nan],
            "less_gamma_high": [0.3, 0.3, -0.2, 0.0, np.nan],
        }
    )
    rows = compare.verdicts(table, "gamma").to_dict("records")
    assert [list(row.values()) for row in rows] == [
        ["x", 3, pytest.approx(0), -0.3, 0.2, 1, 1],
        ["y", 1, -0.1, -0.1, -0.1, 0, 0],
    ]


def test_of_a_handful_no_run_is_called_better(toy, folders):
    """All melanomas are of three patients; with attention they stand above all others."""

    def execute(notebook, values, folder):
        toy.execute(notebook, values, folder)
        if notebook.stem != "04":
            return
        rows = pd.read_csv(folder / "predictions.csv")
        rows["group"] = rows["group"].where(rows["target"] == 0, 100 + rows["group"] % 3)
        rows.to_csv(folder / "predictions.csv", index=False)
        content = workspace.read_json(folder / "metrics.json", "04_train.ipynb")
        content["test"] |= {"auc_low": None, "auc_high": None}
        workspace.write_json(folder / "metrics.json", content)

    toy.run(execute=execute)
    place = folders.runs / "g"
    table = pd.read_csv(place / "compare.csv")
    assert table["auc"].notna().all() and table[["auc_low", "auc_high"]].isna().all(axis=None)
    pairs = table[table["attention"] == "softmax"]
    assert (pairs["less_attention"] > 0.1).all()
    assert pairs[["less_attention_low", "less_attention_high"]].isna().all(axis=None)
    verdict = compare.verdicts(table, "attention")
    assert verdict["pairs"].item() == 2
    assert verdict[["above", "below"]].isna().all(axis=None)
    text = (place / "compare.md").read_text()
    assert "nan" not in text and "too few" in text
    with Image.open(place / "figures" / "compare.png") as figure:
        assert figure.format == "PNG"


def test_what_is_written_for_a_reader(toy, folders):
    toy.run()
    text = (folders.runs / "g" / "compare.md").read_text()
    assert "80 photographs, 20 melanomas" in text and "2 runs a setting" in text
    assert "attention none" in text and "| attention softmax | 2 |" in text
    for attention in ("softmax", "none"):
        for seed in (0, 1):
            assert f"| g-attention={attention}-seed={seed} |" in text
    with Image.open(folders.runs / "g" / "figures" / "compare.png") as figure:
        assert figure.format == "PNG" and figure.width > 1000


def test_each_parameter_has_its_own_control_and_seeds_are_paired(toy, folders):
    toy.run(axes={"attention": ["softmax", "none"], "gamma": [0.0, 2.0], "seed": [1, 0]})
    table = pd.read_csv(folders.runs / "g" / "compare.csv").set_index("run")
    assert table["less_gamma"].notna().sum() == 4 == table["less_attention"].notna().sum()
    focal = table.loc["g-attention=none-gamma=2.0-seed=0"]
    control = table.loc["g-attention=none-gamma=0.0-seed=0"]
    assert focal["less_gamma"] == pytest.approx(focal["auc"] - control["auc"])
    assert np.isnan(control["less_gamma"])
    assert focal["setting"] == "attention none, gamma 2.0" and focal["seeds"] == 2


def test_where_no_pair_is_left_it_says_so(toy, folders):
    lost = ("g-attention=softmax-seed=1", "g-attention=none-seed=0")
    toy.broken = {point: ValueError("boom") for point in lost}
    toy.run(axes={"attention": ["softmax", "none"], "seed": [0, 1]})
    text = (folders.runs / "g" / "compare.md").read_text()
    assert "No run here has its control beside it" in text and "fewer than" not in text


def test_without_seeds_or_a_control_it_says_so(toy, folders):
    place = folders.runs / "g"
    toy.run(axes={"epochs": [8, 9]})
    text = (place / "compare.md").read_text()
    assert "One run a setting" in text and "no differences" in text and "## Less" not in text
    toy.run(axes={"seed": [0, 1]})
    assert pd.read_csv(place / "compare.csv")["setting"].tolist() == ["all", "all"]
    toy.broken = {"g-attention=none": ValueError("boom")}
    toy.run(axes={"attention": ["softmax", "none", "sigmoid"]})
    text = (place / "compare.md").read_text()
    assert "no differences" in text and "- g-attention=none: boom" in text
