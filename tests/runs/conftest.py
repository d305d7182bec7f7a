"""A grid whose notebooks are a function, for the tests of what runs and of the comparison."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from helpers import workspace
from helpers.runs import grid

AXES = {"attention": ["softmax", "none"], "seed": [0, 1]}


def leave_figures(folder: Path, shift: float, seed: int) -> None:
    """What a point leaves, with random logits; the larger `shift`, the better they order."""
    rng = np.random.default_rng(seed)
    split = pd.read_csv(folder / "split.csv")
    target = split["target"].to_numpy()
    logit = rng.normal(size=len(split)) + shift * target
    rows = split.assign(split="test", logit=logit, probability=0.5)
    rows.to_csv(folder / "predictions.csv", index=False)
    auc = roc_auc_score(target, pd.read_csv(folder / "predictions.csv")["logit"])
    test = {
        "auc": auc,
        "auc_low": auc - 0.1,
        "auc_high": min(1, auc + 0.1),
        "ap": 0.5,
        "n": len(split),
        "positives": int(target.sum()),
    }
    workspace.write_json(folder / "metrics.json", {"test": test})
    for name in ("model.pt", "history.csv", "timing.json"):
        (folder / name).write_text("{}")


def leave_split(folder: Path, melanoma: int) -> None:
    """80 photographs in groups of two; a quarter are melanomas, from number `melanoma` on."""
    rows = range(80)
    table = pd.DataFrame(
        {
            "image_id": [f"id{n}" for n in rows],
            "group": [n // 2 for n in rows],
            "source": "a",
            "target": [int(n % 4 == melanoma % 4) for n in rows],
            "path": "",
            "mask": "",
            "split": "train",
            "kept": 1,
        }
    )
    table.to_csv(folder / "split.csv", index=False)


@pytest.fixture
def toy(folders, tmp_path):
    """A 2x2 grid whose notebooks are a function.

    `log` has what it was called for, `broken` the points that fail and how, `photographs` is the
    folder that 01 describes, and the cache's key is what lies there.
    """
    made = SimpleNamespace(log=[], broken={}, photographs=tmp_path / "photographs")
    made.photographs.mkdir()
    (made.photographs / "a.jpg").write_text("a mole")
    pixels = folders.data / "cache" / "pixels.npy"

    def execute(notebook: Path, values: dict, folder: Path) -> None:
        made.log.append(f"{notebook.stem} {values['run']}")
        if notebook.stem == "01":
            workspace.write_json(folder / "dataset.json", {"folder": str(made.photographs)})
        elif notebook.stem == "02":
            leave_split(folder, values["split_seed"])
            pixels.parent.mkdir(parents=True, exist_ok=True)
            pixels.touch()
            key = "".join(path.read_text() for path in sorted(made.photographs.iterdir()))
            workspace.write_json(folder / "cache.json", {"file": str(pixels), "key": key})
        elif values["run"] in made.broken:
            raise made.broken[values["run"]]
        else:
            leave_figures(folder, 3.0 * (values["attention"] != "none"), values["seed"])

    def run(**changed) -> dict:
        how = {"report": lambda line: None, "execute": changed.pop("execute", execute)}
        return grid.run_grid(made.plan._replace(**changed), **how)

    def ran() -> list[str]:
        """What ran since the last call."""
        lines = list(made.log)
        made.log.clear()
        return lines

    made.plan = grid.Grid(
        "g",
        AXES,
        [Path("01"), Path("02")],
        {"split_seed": 4},
        Path("04"),
        {"attention": "softmax", "seed": 42, "epochs": 8},
    )
    made.pixels = pixels
    made.execute = execute
    made.run = run
    made.ran = ran
    return made
