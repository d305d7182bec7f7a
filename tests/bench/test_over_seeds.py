"""bench/over_seeds.py: it leaves what notebooks 04 and 06 found, and does no seed twice."""

import json
from pathlib import Path

import pytest

from helpers import workspace
from helpers.audit import localisation
from helpers.scores import metrics
from helpers.training import checkpoint
from helpers.training.control import CONTROL
from helpers.training.loop import predict_held_out

SMALL = ["-p", "image_size", "32", "-p", "epochs", "1", "-p", "posthoc", "2"]
SMALL += ["-p", "subsample", "80"]


def leave_a_run(keep: Path, seed: int, made, fitted) -> float:
    """What notebooks 04 and 06 leave of a run, as far as the program reads it; its test AUC."""
    folder = keep / f"seed-{seed}"
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


def test_it_reads_runs_that_are_done_and_refuses_those_of_other_parameters(
    run_program, start, tmp_path, made, fitted
):
    keep = tmp_path / "keep"
    aucs = [leave_a_run(keep, seed, made, fitted) for seed in (1, 2)]
    options = ["--seeds", "1", "2", "--keep", str(keep)]
    shaped_by = {"parameters": {"gamma": 1.0, "training": checkpoint.TRAINING_VERSION}}
    workspace.write_json(keep / "shaped_by.json", shaped_by)
    done = start("over_seeds", *options, "--out", str(tmp_path / "other"))
    assert done.returncode != 0 and str(keep) in done.stdout + done.stderr

    result = run_program("over_seeds", *options, "-p", "gamma", "1")
    tables = result["tables"]
    assert tables["over_seeds-claims.csv"]["verdict"].tolist() == ["undecided", "supported"]
    classes = tables["over_seeds-classes.csv"]
    assert len(classes) == 2 * 3 * 3
    assert classes.groupby("seed")["energy"].first().tolist() == pytest.approx([0.1, 0.2])
    scores = tables["over_seeds-scores.csv"]
    assert scores["auc"].tolist() == pytest.approx(aucs, abs=1e-5)
    assert scores["less_control"].tolist() == [0, 0], "the control is the network itself here"


@pytest.mark.long
def test_it_runs_the_notebooks_and_does_no_seed_twice(run_program, tmp_path):
    keep = tmp_path / "keep"
    options = ["--seeds", "0", "--keep", str(keep), *SMALL]
    result = run_program("over_seeds", *options)
    audit = json.loads((keep / "seed-0" / "audit.json").read_text())
    claims = result["tables"]["over_seeds-claims.csv"]
    assert claims["verdict"].tolist() == [row["verdict"] for row in audit["claims"]]
    metrics = json.loads((keep / "seed-0" / "metrics.json").read_text())
    scores = result["tables"]["over_seeds-scores.csv"]
    assert scores["auc"].tolist() == pytest.approx([metrics["test"]["auc"]], abs=1e-5)

    before = (keep / "seed-0" / "model.pt").stat().st_mtime_ns
    run_program("over_seeds", *options)
    assert (keep / "seed-0" / "model.pt").stat().st_mtime_ns == before
