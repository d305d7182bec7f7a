"""A table with a handful of melanomas, or of benign lesions: what the notebooks say of it.

The cells that print verdicts are taken from the notebooks and run on made-up predictions.
"""

import contextlib
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest

from helpers import workspace
from helpers.scores import bootstrap, metrics

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
# melanomas and benign lesions in each of validation and test, and photographs of each
FEW = [(1, 60, 1), (5, 60, 1), (9, 60, 1), (60, 9, 1), (60, 1, 1), (2, 60, 15), (1, 3, 1)]


def run_cell(notebook: str, text: str, names: dict) -> str:
    """What the cell that holds `text` prints."""
    cells = nbformat.read(NOTEBOOKS / notebook, as_version=4).cells
    (cell,) = [cell for cell in cells if cell.cell_type == "code" and text in cell.source]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(cell.source, cell.id, "exec"), names)  # noqa: S102 - our own notebook
    return printed.getvalue()


def predicted(melanomas: int, benign: int, photographs: int, apart: float) -> dict:
    """What 04 has at its end, of so many groups; from apart 9 on melanomas lie above all others."""
    target = np.repeat([1, 0], [melanomas * photographs, benign * photographs])
    parts = []
    for seed, split in enumerate(("val", "test")):
        rows = pd.DataFrame({"target": target, "split": split, "source": "A"})
        rows["image_id"] = [f"{split}_{row}" for row in range(len(rows))]
        rows["group"] = np.arange(len(rows)) // photographs + 1000 * seed
        rows["logit"] = np.random.default_rng(seed).uniform(0, 9, len(rows)) + apart * target
        parts.append(rows)
    predictions = pd.concat(parts, ignore_index=True)
    val = predictions[predictions["split"] == "val"]
    calibration = metrics.calibrate(val["logit"], val["target"], val["group"])
    predictions["probability"] = metrics.probability(predictions["logit"], calibration)
    val, test = (predictions[predictions["split"] == split] for split in ("val", "test"))
    threshold = metrics.choose_threshold(val["target"], val["probability"])
    content = metrics.summarise(
        predictions, calibration=calibration, threshold=threshold, weights="none"
    )
    blind = test[["image_id"]].assign(**{"source only": 0.5})
    scores = test.rename(columns={"logit": "the network"}).assign(**{"source only": 0.5})
    return {
        "bootstrap": bootstrap,
        "content": content,
        "predictions": predictions,
        "test": test,
        "blind": blind,
        "standing": metrics.auc_table(scores, ["the network", "source only"]),
    }


def beside_a_guess(names: dict) -> str:
    """What 04 prints of its network, of the best guess, and of their difference."""
    return run_cell("04_train.ipynb", "bootstrap.auc_difference(predictions, guess)", names)


@pytest.mark.parametrize("apart", [0.0, 3.0, 9.0, -9.0])
@pytest.mark.parametrize("melanomas, benign, photographs", FEW)
def test_of_a_handful_04_prints_no_interval(melanomas, benign, photographs, apart):
    said = beside_a_guess(predicted(melanomas, benign, photographs, apart))
    assert "nan" not in said
    assert not re.search(r"\(\S+ to \S+\)", said), "an interval"
    assert said.count("too few to tell") == len(said.splitlines()) == 3


@pytest.mark.parametrize("melanomas", [10, 15])
def test_of_enough_that_lie_above_all_others_an_interval_says_how_little_is_known(melanomas):
    said = beside_a_guess(predicted(melanomas, 60, 1, apart=9.0))
    (low,) = re.findall(r"AUC of the network: 1\.000 \((\S+) to 1\.000\)", said)
    assert float(low) == pytest.approx(0.025 ** (1 / melanomas), rel=0.1)
    assert "too few" not in said


@pytest.mark.parametrize("apart", [0.0, 9.0])
@pytest.mark.parametrize("melanomas, benign, photographs", FEW)
def test_metrics_json_of_a_handful_is_json_for_every_reader(
    melanomas, benign, photographs, apart, tmp_path
):
    content = predicted(melanomas, benign, photographs, apart)["content"]
    workspace.write_json(tmp_path / "metrics.json", content)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    read = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
    for split in ("val", "test"):
        assert read[split]["auc"] is not None
        assert read[split]["auc_low"] is read[split]["auc_high"] is None
        assert read[split]["auc_within_source_low"] is None
    few = "sensitivity" if melanomas < 10 else "specificity"
    for point in read["test"]["operating_points"]:
        assert point[f"{few}_low"] is point[f"{few}_high"] is None
    assert read["calibration"]["slope"] == 1


@pytest.mark.parametrize(
    "low, high, photographs",
    [(None, None, None), (0.7, 0.9, "12,000"), (0.5, 0.5, None), (0.985, 0.995, None)],
)
def test_06_never_wants_fewer_photographs_than_there_are(low, high, photographs):
    figures = {"auc": 0.8, "auc_low": low, "auc_high": high, "positive_groups": 1}
    names = {
        "checkpoint": SimpleNamespace(read_metrics=lambda folder: {"test": figures}),
        "bootstrap": bootstrap,
        "folder": Path("few"),
        "test": np.arange(120),
        "used": pd.DataFrame({"group": np.arange(120)}),
    }
    said = run_cell("06_audit.ipynb", "it would take about", names)
    wanted = re.findall(r"about (\S+) photographs", said)
    assert wanted == ([photographs] if photographs else [])
    assert ("too few" in said) == (low is None)
