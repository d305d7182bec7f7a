"""bench/over_seeds.py: it collects what notebooks 04 and 06 found, and trains no seed twice."""

import json
from pathlib import Path

import pytest

from helpers import workspace
from helpers.audit import localisation
from helpers.scores import metrics
from helpers.training import checkpoint
from helpers.training.control import CONTROL
from helpers.training.loop import predict_held_out
from tests.bench.conftest import record  # noqa: F401 - it makes bench/ importable

import over_seeds  # isort: skip


def leave_a_run(folder: Path, seed: int, made, fitted) -> float:
    """What notebooks 04 and 06 leave of a run, as far as the program reads it; its test AUC."""
    predictions = predict_held_out(fitted, made.split, made.photographs(), "fp32")
    predictions["probability"] = 0.5
    calibration = {"slope": 1.0, "intercept": 0.0}
    content = metrics.summarise(predictions, calibration=calibration, threshold=0.5, weights="none")
    for place in (folder, folder / CONTROL):
        checkpoint.write_results(place, fitted, predictions, content)
    figures = {f"energy{end}": 0.1 * seed for end in ("", "_low", "_high")}
    figures |= {f"iou{end}": None for end in ("", "_low", "_high")}
    maps = dict.fromkeys(("attention_pool3", "attention_pool4", "grad_cam"), figures)
    kinds = (*localisation.CLASSES, localisation.DIFFERENCE)
    claim = {"said": "often said", "claim": "a claim", "photographs": "all", "test": "a test"}
    claim |= {"measured": "much", "verdict": ["supported", "undecided"][seed % 2]}
    audit = {"format": localisation.AUDIT_FORMAT, "localisation": dict.fromkeys(kinds, maps)}
    workspace.write_json(folder / "audit.json", audit | {"claims": [claim]})
    return content["test"]["auc"]


def test_it_collects_what_the_notebooks_found(tmp_path, made, fitted):
    folders = {seed: tmp_path / str(seed) for seed in (1, 2)}
    aucs = [leave_a_run(folder, seed, made, fitted) for seed, folder in folders.items()]
    tables = over_seeds.collect(folders)
    assert tables["claims"]["verdict"].tolist() == ["undecided", "supported"]
    classes = tables["classes"]
    assert len(classes) == 2 * 3 * 3
    assert classes.groupby("seed")["energy"].first().tolist() == pytest.approx([0.1, 0.2])
    scores = tables["scores"]
    assert scores["auc"].tolist() == aucs
    assert scores["less_control"].tolist() == [0, 0], "the control is the network itself here"


@pytest.mark.long
def test_it_runs_the_notebooks_and_trains_no_seed_twice(run_program, folders):
    small = ["-p", "image_size", "32", "-p", "epochs", "1", "-p", "subsample", "80"]
    result = run_program("over_seeds", "--seeds", "0", *small)
    folder = folders.runs / "over_seeds-seed=0"
    audit = json.loads((folder / "audit.json").read_text())
    claims = result["tables"]["over_seeds-claims.csv"]
    assert claims["verdict"].tolist() == [row["verdict"] for row in audit["claims"]]
    found = json.loads((folder / "metrics.json").read_text())
    scores = result["tables"]["over_seeds-scores.csv"]
    assert scores["auc"].tolist() == pytest.approx([found["test"]["auc"]], abs=1e-5)
    assert scores["less_control"].notna().all()

    before = (folder / "model.pt").stat().st_mtime_ns
    run_program("over_seeds", "--seeds", "0", *small)
    assert (folder / "model.pt").stat().st_mtime_ns == before
