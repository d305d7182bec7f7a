"""bench/over_seeds.py: it leaves what notebooks 04 and 06 found, and does no seed twice."""

import json

SMALL = ["-p", "image_size", "32", "-p", "epochs", "1", "-p", "posthoc", "2"]
SMALL += ["-p", "subsample", "80"]


def test_it_leaves_verdicts_and_places_and_does_no_seed_twice(run_program, start, tmp_path):
    keep = tmp_path / "keep"
    options = ["--seeds", "0", "--keep", str(keep), *SMALL]
    result = run_program("over_seeds", *options)
    audit = json.loads((keep / "seed-0" / "audit.json").read_text())
    claims = result["tables"]["over_seeds-claims.csv"]
    assert claims["verdict"].tolist() == [row["verdict"] for row in audit["claims"]]
    classes = result["tables"]["over_seeds-classes.csv"]
    assert len(classes) == 9 and set(classes["seed"]) == {0}
    scores = result["tables"]["over_seeds-scores.csv"].to_dict("records")
    metrics = json.loads((keep / "seed-0" / "metrics.json").read_text())
    assert abs(scores[0]["auc"] - metrics["test"]["auc"]) < 1e-5

    before = (keep / "seed-0" / "model.pt").stat().st_mtime_ns
    run_program("over_seeds", *options)
    assert (keep / "seed-0" / "model.pt").stat().st_mtime_ns == before
    done = start("over_seeds", *options, "-p", "gamma", "1", "--out", str(tmp_path / "other"))
    assert done.returncode != 0 and str(keep) in done.stdout + done.stderr
