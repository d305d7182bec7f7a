"""The control: what it has in common with its network, when there is one, and which is taken."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from helpers.model import AttnVGG
from helpers.scores.results import calibrate_and_summarise
from helpers.training import checkpoint
from helpers.training.control import (
    CONTROL,
    OF_MAPS,
    control_folder,
    control_settings,
    differences,
    load_control,
    why_no_control,
)
from helpers.training.loop import fit, predict_held_out
from helpers.training.settings import Parameters, Settings

CPU = torch.device("cpu")
NETWORKS = [
    Settings(image_size=32, epochs=1, batch_size=12, precision="fp32", seed=7),
    Settings(
        image_size=32,
        epochs=1,
        batch_size=12,
        precision="fp32",
        seed=7,
        attention="weighted",
        bypass=False,
        mask_weight_pool3=0.1,
        mask_target="otsu",
    ),
]


@pytest.fixture(autouse=True)
def headless(monkeypatch):
    monkeypatch.setenv("ATTENTION_HEADLESS", "1")


# its settings


@pytest.mark.parametrize("settings", [*NETWORKS, Parameters(run="mine", benign=7, epochs=3)])
def test_a_control_has_no_attention_and_all_else_equal(settings):
    control = control_settings(settings)
    assert type(control) is Settings and control.attention == "none"
    assert not any(control.mask_weights)
    for field in dataclasses.fields(Settings):
        if field.name not in OF_MAPS:
            assert getattr(control, field.name) == getattr(settings, field.name), field.name
    assert control_settings(control) == control


def test_what_masks_taught_the_network_makes_no_other_control():
    plain, taught = (control_settings(settings) for settings in NETWORKS)
    assert dataclasses.replace(taught, bypass=True) == plain


@pytest.mark.parametrize("settings", NETWORKS, ids=["softmax", "weighted, taught by masks"])
def test_the_facts_of_both_trainings_differ_in_what_needs_maps_alone(settings, made):
    photographs = made.photographs()

    def facts(chosen: Settings) -> dict:
        return checkpoint.facts_of(chosen, made.used, photographs, torch.float32)

    network, control = facts(settings), facts(control_settings(settings))
    found = differences({"made_from": network}, {"made_from": control})
    assert "attention" in found and set(found) <= set(OF_MAPS)


# when there is one


@pytest.mark.parametrize(
    "control, attention, facts",
    [
        ("own", "softmax", None),
        ("own", "sigmoid", None),
        ("own", "none", ["attention", "'none'"]),
        ("", "softmax", ["control", "empty"]),
        ("plain", "softmax", ["'plain'", "06_audit"]),
    ],
)
def test_a_run_that_trains_no_control_says_why(control, attention, facts):
    reason = why_no_control(control, attention)
    assert all(fact in reason for fact in facts) if facts else reason == ""


def test_where_a_control_lies(folders):
    run = folders.runs / "mine"
    assert control_folder("own", run, "softmax") == run / CONTROL
    assert control_folder("own", run, "none") is None
    assert control_folder("", run, "softmax") is None
    assert control_folder("plain", run, "softmax") == folders.runs / "plain"
    assert control_folder("plain", run, "none") == folders.runs / "plain"
    with pytest.raises(ValueError, match=re.escape("'../a'")):
        control_folder("../a", run, "softmax")
    assert not folders.runs.exists()


def test_own_is_asked_for_with_the_folder_that_it_lies_in(made, fitted, folders):
    with pytest.raises(ValueError, match="folder"):
        load_control("own", CPU, split=made.split, config=fitted.config)


# trained


@pytest.fixture(scope="module")
def trained(made, tmp_path_factory):
    """A run's folder after 04: the network and its control, and the lines of both trainings."""
    folder = tmp_path_factory.mktemp("run")
    lines = {}
    photographs = made.photographs()
    places = {folder: NETWORKS[1], folder / CONTROL: control_settings(NETWORKS[1])}
    both = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTENTION_HEADLESS", "1")
        for _ in range(2):  # the second time each goes on from its own progress
            for place, settings in places.items():
                lines[place] = []
                how = {"report": lines[place].append, "progress": place / checkpoint.PROGRESS}
                both[place] = fit(settings, made.split, photographs, **how)
    for place, settings in places.items():
        held_out = predict_held_out(both[place], made.split, photographs, "fp32")
        predictions, content = calibrate_and_summarise(held_out, made.split, settings)
        checkpoint.write_results(place, both[place], predictions, content)
    return folder, lines


def test_a_network_and_its_control_go_on_each_from_its_own_progress(trained):
    folder, lines = trained
    for place in (folder, folder / CONTROL):
        (line,) = lines[place]
        assert "goes on after epoch 1 of 1" in line
        assert not (place / checkpoint.PROGRESS).exists(), "it is done"
        assert not list(place.glob("progress.*")), "none was set aside as another's"


def test_both_leave_the_same_files_and_the_control_is_found_beside(trained, made):
    folder, _ = trained
    for place in (folder, folder / CONTROL):
        assert all((place / name).exists() for name in checkpoint.RESULTS)
    _, config = checkpoint.load_checkpoint(folder / "model.pt", CPU, split=made.split)
    network, settings = load_control("own", CPU, split=made.split, config=config, folder=folder)
    assert network.attention == settings["attention"] == "none"
    assert network.bypass is settings["bypass"] is False
    assert set(differences(config, settings)) == set(OF_MAPS) - {"mask_weight_pool4"}
    theirs = checkpoint.read_predictions(folder / CONTROL)
    photographs = made.photographs()
    images, _ = photographs.evaluation(made.test, settings)
    with torch.no_grad():
        logits = network(images).logits[:, 0].numpy()
    stored = theirs.set_index("image_id").loc[made.used["image_id"][made.test], "logit"]
    np.testing.assert_allclose(stored, logits, atol=1e-4)


def test_a_control_starts_from_no_weights_of_the_trained_network(made):
    """It is drawn from the seed alone, whatever was trained before it."""
    from helpers.training.loop import set_up

    settings = control_settings(NETWORKS[0])
    torch.manual_seed(settings.seed)
    fresh = AttnVGG(attention="none").state_dict()
    fit(NETWORKS[0], made.split, made.photographs(), report=str)
    start = set_up(settings, made.split, made.photographs()).network.state_dict()
    assert all(torch.equal(start[name], fresh[name]) for name in fresh)


def test_predictions_are_calibrated_and_counted_as_by_hand(trained, made):
    folder, _ = trained
    rows = checkpoint.read_predictions(folder / CONTROL)
    content = checkpoint.read_metrics(folder / CONTROL)
    fit_of = content["calibration"]
    by_hand = 1 / (1 + np.exp(-(fit_of["slope"] * rows["logit"] + fit_of["intercept"])))
    np.testing.assert_allclose(rows["probability"], by_hand, rtol=1e-6)
    for side in ("val", "test"):
        part = rows[rows["split"] == side]
        assert content[side]["auc"] == pytest.approx(roc_auc_score(part["target"], part["logit"]))
    val = rows[rows["split"] == "val"]
    melanomas = sorted(val.loc[val["target"] == 1, "probability"], reverse=True)
    ninth_tenth = melanomas[math.ceil(0.9 * len(melanomas)) - 1]
    assert content["threshold"] == pytest.approx(ninth_tenth)
