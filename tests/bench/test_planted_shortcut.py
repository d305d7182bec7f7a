"""bench/planted_shortcut.py: it runs and goes on, and what it says of maps follows from them."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from helpers.model import AttnVGG
from helpers.scores import bootstrap
from tests.bench.conftest import record

import planted_shortcut  # isort: skip
import publish  # isort: skip

FEW = ["-p", "image_size", "32", "-p", "epochs", "1", "-p", "precision", "fp32"]
N = 30  # test photographs of `made_up`


def test_it_runs_goes_on_and_refuses_what_anything_else_has_shaped(run_program, tmp_path):
    mended = "weighted, taught by masks, bypass closed"
    keep = ["--keep", str(tmp_path / "kept"), "--seeds", "0", "--count", "60"]
    keep += ["--networks", mended]
    result = run_program("planted_shortcut", *keep, *FEW)
    kept = sorted((tmp_path / "kept").glob("*.json"))
    assert len(kept) == 2
    answers = result["tables"]["planted_shortcut-answers.csv"]
    assert answers["sample"].tolist() == ["planted", "unplanted"]
    findings = result["tables"]["planted_shortcut-findings.csv"]
    uniform = findings[findings["map"] == "uniform"]
    assert uniform["times"].tolist() == pytest.approx([1])
    assert uniform["tells"].tolist() == pytest.approx([0.5])
    assert not uniform["more"].any()
    assert result["data"]["photographs"] == 60 and result["seeds"] == [0]
    for block in (publish.planted_answers, publish.planted_maps):
        assert "bypass closed" in block(result)

    # one file is lost: that network is trained again, and no other
    before = {path: path.stat().st_mtime_ns for path in kept}
    first = json.loads(kept[0].read_text())
    kept[0].unlink()
    run_program("planted_shortcut", *keep, *FEW)
    changed = [path for path in kept if path.stat().st_mtime_ns != before[path]]
    assert changed == [kept[0]]
    assert json.loads(kept[0].read_text())["test"] == first["test"]


def test_all_maps_that_a_network_has_are_measured():
    images = torch.randn(2, 3, 32, 64)
    for name, attention in (("softmax", "softmax"), ("no attention", "none")):
        maps = planted_shortcut.maps_of(AttnVGG(attention=attention), images)
        missing = set(planted_shortcut.MAPS) - set(maps)
        own = {"attention_pool3", "attention_pool4", "contributions"}
        assert missing == (own if attention == "none" else set()), name
        for grid in maps.values():
            large = planted_shortcut.enlarged(grid, torch.zeros(2, 1, 32, 64))
            assert large.shape == (2, 1, 32, 64) and (large >= 0).all()


def made_up(sample: str, seed: int, energy: np.ndarray, without: np.ndarray) -> dict:
    """What `measure` would give of N photographs, half melanomas, each of a group of its own.

    Without a ruler the logits know nothing; a ruler adds 100.
    """
    target = [row % 2 for row in range(N)]
    free = np.random.default_rng(0).permutation(N).astype(float)
    figures = {
        "hits": [1.0] * N,
        "energy": energy.tolist(),
        "lesion": [0.5] * N,
        "without": without.tolist(),
    }
    area = np.full(N, 0.05).tolist()
    return {
        "network": "softmax",
        "sample": sample,
        "seed": seed,
        "test": {
            "image_id": [str(row) for row in range(N)],
            "group": list(range(N)),
            "source": ["S"] * N,
            "target": target,
            "as_in_training": [bool(one) for one in target],
            "by_chance": [row % 4 < 2 for row in range(N)],
            "with_ruler": (free + 100).tolist(),
            "without_ruler": free.tolist(),
        },
        "maps": {
            "grad_cam": figures,
            "uniform": dict.fromkeys(figures, area),
        },
    }


def test_answers_are_those_with_a_ruler_where_there_is_one():
    run = made_up("planted", 0, np.full(N, 0.1), np.full(N, 0.1))
    table = planted_shortcut.answers_of(run)
    assert roc_auc_score(table["target"], table["as in training"]) == 1
    assert table["none"].tolist() == run["test"]["without_ruler"]
    has_one = table["by_chance"].to_numpy()
    assert (table["by chance"] - table["none"]).tolist() == (100.0 * has_one).tolist()

    answers = planted_shortcut.answer_table([run, {**run, "seed": 1}]).iloc[0]
    scores = planted_shortcut.score_table([run]).set_index("rulers")["auc"]
    free = roc_auc_score(table["target"], table["by chance"])
    assert answers["planted"] == scores["as in training"] == 1
    assert answers["free"] == pytest.approx(free) and scores["by chance"] == pytest.approx(free)
    assert answers["fall"] == pytest.approx(1 - free) and answers["fall_low"] > 0
    assert answers["moved"] == pytest.approx(100 / table["none"].std())


def test_a_map_that_finds_the_ruler_is_told_from_one_that_lies_there_anyway():
    rng = np.random.default_rng(0)
    high, low = rng.uniform(0.2, 0.3, N), rng.uniform(0.0, 0.02, N)
    follows = [made_up("planted", seed, high, low) for seed in (0, 1)]
    clean = [made_up("unplanted", seed, low, low) for seed in (0, 1)]
    row = planted_shortcut.finding_table([*follows, *clean]).set_index("map").loc["Grad-CAM"]
    assert (row["found"], row["followed"], row["seeds"], row["tells"]) == (2, 2, 2, 1)
    assert row["times"] == pytest.approx(high.mean() / 0.05)
    assert row["more"] == pytest.approx((high - low).mean())

    # it lies where rulers do, in every network and with no ruler there
    habit = [made_up("planted", seed, high, high) for seed in (0, 1)]
    same = [made_up("unplanted", seed, high, high) for seed in (0, 1)]
    row = planted_shortcut.finding_table([*habit, *same]).set_index("map").loc["Grad-CAM"]
    assert (row["found"], row["followed"]) == (2, 0)
    assert row["tells"] == 0.5

    # one seed finds it, the other does not
    mixed = [follows[0], made_up("planted", 1, low, low)]
    row = planted_shortcut.finding_table(mixed).set_index("map").loc["Grad-CAM"]
    assert (row["found"], row["followed"]) == (1, 1) and pd.isna(row["tells"])


def test_intervals_draw_whole_groups_and_pairs_of_networks_stay_together():
    rng = np.random.default_rng(1)
    own, other = rng.uniform(0, 0.3, N), rng.uniform(0, 0.2, N)
    runs = [made_up("planted", 0, own, other)], [made_up("unplanted", 0, other, other)]
    groups = [row // 2 for row in range(N)]
    for (run,) in runs:
        run["test"]["group"] = groups
    found = planted_shortcut.telling(*runs, "grad_cam")
    counts = bootstrap.bootstrap_counts(groups)
    drawn = []
    for weights in counts[:200]:
        scores = np.concatenate([np.repeat(own, weights), np.repeat(other, weights)])
        truth = np.repeat([1, 0], weights.sum())
        drawn.append(roc_auc_score(truth, scores))
    assert found["value"] == pytest.approx(roc_auc_score(np.repeat([1, 0], N), [*own, *other]))
    assert found["low"] == pytest.approx(np.quantile(drawn, 0.025), abs=0.03)
    assert found["high"] == pytest.approx(np.quantile(drawn, 0.975), abs=0.03)


def test_nothing_is_published_before_it_is_measured(tmp_path):
    assert record.read("planted_shortcut", tmp_path) is None
    page = "<!-- results: planted-maps -->\n| .791 |\n<!-- /results -->\n"
    text = publish.filled(page, tmp_path)
    assert ".791" not in text and "python bench/planted_shortcut.py" in text
