"""deeper/make_it_yours.ipynb, executed on a small run, and its pieces against what they claim to
equal.

The run is made of what tests/conftest.py has at hand: 60 drawn photographs and a network of two
epochs at 32 pixels.
"""

import json
import re
import signal
from pathlib import Path
from types import SimpleNamespace

import cv2
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from helpers import workspace
from helpers.model import AttnVGG, Output
from helpers.photographs.cache import open_cache
from helpers.photographs.split import read_split
from helpers.runs import command, series
from helpers.scores import metrics
from helpers.training import checkpoint
from helpers.training.loop import predict, predict_held_out
from helpers.training.loss import focal_loss
from helpers.training.settings import Settings

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "deeper" / "make_it_yours.ipynb"
CELLS = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
# with its ends, or where there are few groups, with words
INTERVAL = r"[+-]?\d\.\d{3} \(([+-]?\d\.\d{3} to [+-]?\d\.\d{3}|too few to tell)\)"


def pieces(names: dict, *texts: str) -> SimpleNamespace:
    """What the cells that hold these texts define, with the notebook's imports and `names` in front
    of them.
    """
    names = names | {"Path": Path}
    for text in ("import copy\n", *texts):
        (cell,) = [cell for cell in CELLS if text in cell.source]
        exec(compile(cell.source, cell.id, "exec"), names)  # noqa: S102 - our own notebook
    return SimpleNamespace(**names)


@pytest.fixture(scope="module")
def executed(made, fitted, tmp_path_factory):
    """The executed notebook's outputs, a text for each code cell, and the run's folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATA", "RUNS"):
            patch.setenv(f"ATTENTION_{name}", str(tmp_path_factory.mktemp(name)))
        patch.setenv("ATTENTION_HEADLESS", "1")
        folder = made.prepare("small")
        predictions = predict_held_out(fitted, made.split, made.photographs(), "fp32")
        val = predictions[predictions["split"] == "val"]
        calibration = metrics.calibrate(val["logit"], val["target"])
        predictions["probability"] = metrics.probability(predictions["logit"], calibration)
        checkpoint.write_results(
            folder,
            fitted,
            predictions,
            metrics.summarise(predictions, calibration=calibration, threshold=0.5, weights="none"),
        )
        before = (folder / "model.pt").read_bytes()
        seconds = series.run_notebook(NOTEBOOK, {"run": "small"}, folder)
        print(f"\nmake_it_yours on 60 photographs: {seconds:.0f} s")
        cells = [
            cell
            for cell in nbformat.read(folder / NOTEBOOK.name, as_version=4).cells
            if cell.cell_type == "code"
        ]
        assert (folder / "model.pt").read_bytes() == before, (
            "the notebook reads the run, and leaves it as it is"
        )
        yield "".join(output.get("text", "") for cell in cells for output in cell.outputs), folder


def test_groups_keep_a_leaf_on_one_side_and_keep_the_coin_honest(executed):
    text, _ = executed
    known = dict(re.findall(r"(by \w+) .*of test (\d+) of", text))
    right = dict(re.findall(r"(by \w+) +accuracy with labels from a coin: (\d\.\d+)", text))
    assert int(known["by leaf"]) == 0 < int(known["by photograph"])
    assert abs(float(right["by leaf"]) - 0.5) < 0.05 and float(right["by photograph"]) > 0.7
    assert "'order': 'bgr'" in text, "the guess that the prose calls wrong"


def test_figures_are_left_and_every_comparison_is_printed(executed, made, fitted):
    text, folder = executed
    for name in ("leaves", "resnet", "losses"):
        assert (folder / "figures" / f"make_it_yours_{name}.png").stat().st_size > 5000
    for start in (
        "VGG, Part 4 +AUC ",
        "ResNet, focal loss +AUC ",
        "ResNet less VGG: +",
        "layer2 +on the mask ",
        "ResNet, smoothed less focal loss: ",
        r"ResNet, seed \+ 1 less focal loss: ",
    ):
        assert re.search(start + INTERVAL, text), start
    assert len(re.findall("validation AUC by epoch:(?: [01]\\.\\d{3}){2}\n", text)) == 3
    logits = predict(fitted.network, made.photographs(), made.val, fitted.config, torch.float32)
    theirs = roc_auc_score(made.used["target"].to_numpy()[made.val], logits)
    assert f"VGG, Part 4        AUC {theirs:.3f} (" in text
    ours, gap = (
        float(re.search(start + r"([+-]?\d\.\d{3})", text)[1])
        for start in ("loss AUC ", "less VGG: +")
    )
    assert ours - theirs == pytest.approx(gap, abs=0.002)


def loop_on(made, fitted):
    """The notebook's `epochs_of`, on the 60 photographs."""
    names = {
        "learn": made.train,
        "val": made.val,
        "truth": made.used["target"].to_numpy(),
        "config": fitted.config,
        "photographs": made.photographs(),
        "chip": torch.device("cpu"),
        "arithmetic": torch.float32,
        "workspace": workspace,
    }
    return pieces(names, "def epochs_of").epochs_of


def test_the_loop_is_that_of_train_fit(made, fitted, monkeypatch):
    """With VGG in it and the run's loss: the same validation AUC after each epoch, and the same
    network to the bit.
    """
    monkeypatch.setenv("ATTENTION_HEADLESS", "1")
    settings = Settings(image_size=32, epochs=2, batch_size=12, precision="fp32")
    loop = loop_on(made, fitted)
    truth = made.used["target"].to_numpy()
    workspace.seed_everything(settings.seed)
    network, found = AttnVGG().to(memory_format=torch.channels_last), []
    for logits in loop(network, settings, focal_loss):
        found.append(roc_auc_score(truth[made.val], logits))
        if len(found) == fitted.config["epoch"]:
            assert all(
                map(
                    torch.equal, network.state_dict().values(), fitted.network.state_dict().values()
                )
            )
    assert found == fitted.history["val_auc"].tolist()


def test_its_first_epochs_see_small_pictures_as_those_of_part_4_do(made, fitted, monkeypatch):
    monkeypatch.setattr("helpers.training.settings.SMALLEST", 32)
    settings = Settings(image_size=64, epochs=2, batch_size=12, precision="fp32")
    loop = loop_on(made, fitted)
    network = AttnVGG()
    sides = []
    network.register_forward_pre_hook(
        lambda network, images: sides.append(images[0].shape[-1]) if network.training else None
    )
    for _ in loop(network, settings, focal_loss):
        sides.append("epoch")
    first = sides.index("epoch")
    assert set(sides[:first]) == {32} and set(sides[first + 1 : -1]) == {64}


@pytest.mark.parametrize("attention", ["softmax", "sigmoid"])
def test_the_resnet_has_the_outputs_of_the_vgg(attention):
    """Same names and grids, also for a batch of one that is not square; softmax maps sum to 1."""
    network = pieces({}, "LAYERS = ", "class AttnResNet").AttnResNet(attention).eval()
    with torch.no_grad():
        images = torch.randn(1, 3, 96, 64)
        ours, theirs = network(images), AttnVGG(attention=attention).eval()(images)
    assert isinstance(ours, Output)
    assert [list(one.shape) for one in ours] == [list(one.shape) for one in theirs]
    if attention == "softmax":
        assert ours.pool3_map.sum().item() == pytest.approx(1) == ours.pool4_map.sum().item()


def test_paired_differences_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth, first, second = rng.integers(0, 2, 50), rng.normal(size=50), rng.normal(size=50)
    names = {"truth": truth, "val": np.arange(50), "groups": np.arange(50) // 2}
    less = pieces(names, "def less").less(first, second)
    expected = roc_auc_score(truth, first) - roc_auc_score(truth, second)
    assert less.startswith(f"{expected:+.3f} (") and re.fullmatch(INTERVAL, less)


def test_leaves_go_through_parts_1_and_2(folders, tmp_path, monkeypatch):
    """The two commands of the prose, with the correction between them: views together, in their own
    colours.
    """
    monkeypatch.setenv("ATTENTION_HEADLESS", "1")
    monkeypatch.setattr("tempfile.mkdtemp", lambda: str(tmp_path))
    place = pieces({}, "def draw_leaf", "scratch = ", "def bring", "layout = ").layout
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert command.main(["--run", "leaves", "--dataset", str(place), "--only", "01"]) == 0
        left = folders.runs / "leaves"
        dataset = json.loads((left / "dataset.json").read_text())
        assert dataset["colour_order_by_source"]["HERBARIUM"]["order"] == "bgr"
        dataset["colour_order_by_source"]["HERBARIUM"]["order"] = "rgb"
        (left / "dataset.json").write_text(json.dumps(dataset))
        assert command.main(["--run", "leaves", "--only", "02", "-p", "image_size", "32"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    split = read_split(left / "split.csv")
    assert (
        len(split) == 120
        and (split.groupby(split["image_id"].str[:6])["split"].nunique() == 1).all()
    )
    assert split.groupby("target")["image_id"].apply(
        lambda names: set(names.str[4:6].astype(int) % 2)
    ).tolist() == [{0}, {1}], "lobed leaves have odd numbers"
    cache = workspace.read_json(left / "cache.json", "02_preprocess.ipynb")
    picture = open_cache(cache["file"])[cache["rows"].index("leaf07_1")]
    (drawn,) = (tmp_path / "leaves").rglob("leaf07_1.png")
    wanted = cv2.cvtColor(cv2.imread(str(drawn)), cv2.COLOR_BGR2RGB).mean(axis=(0, 1))
    assert np.allclose(picture.mean(axis=(0, 1)), wanted, atol=1), (
        "red and blue are where they belong"
    )
    assert pd.read_csv(place / "marking.csv")["patient_id"].nunique() == 40
