"""The table of parameters against the notebooks' cells, its refusals, and what the recipes make."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from helpers import workspace
from helpers.runs.parameters import known_parameters
from helpers.training.settings import (
    RECIPES,
    Parameters,
    Settings,
    check_here,
    describe,
    kind_of,
    make_optimiser,
    make_schedule,
    naming_what_fits,
    path_or,
    training_parameters,
)

NOTEBOOKS = sorted((workspace.PROJECT / "notebooks").glob("[0-9]*.ipynb")) + sorted(
    (workspace.PROJECT / "notebooks" / "deeper").glob("*.ipynb")
)


# the table


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebooks_cell_has_the_types_and_defaults_of_the_table(notebook):
    table = Parameters()
    for name, (kind, default) in known_parameters([notebook]).items():
        assert kind is kind_of(name), name
        assert (type(default), default) == (kind, getattr(table, name)), name


def test_every_parameter_is_declared_by_a_notebook():
    declared = known_parameters(NOTEBOOKS)
    assert set(declared) == {field.name for field in dataclasses.fields(Parameters)}


@pytest.mark.parametrize("row", describe(), ids=lambda row: row["name"])
def test_the_table_as_data_says_what_each_parameter_is(row):
    assert row["default"] == getattr(Parameters(), row["name"])
    assert len(row["expected"]) > 3 and len(row["meaning"]) > 10
    json.dumps(row)


@pytest.mark.parametrize(
    "name, facts",
    [
        ("image_size", ["whole number", "32"]),
        ("dropout", ["number", "0", "below 1"]),
        ("recipe", list(RECIPES)),
        ("compile_model", ["True", "False"]),
        ("dataset", ["path", "sample", "kaggle"]),
        ("split_seed", ["0", "4294967295"]),
    ],
)
def test_type_and_range_stand_in_the_table_in_words(name, facts):
    expected = {row["name"]: row["expected"] for row in describe()}[name]
    assert all(fact in expected for fact in facts), expected


def test_parameters_are_settings_and_can_be_replaced_and_compared():
    parameters = Parameters(epochs=2, benign=7)
    assert isinstance(parameters, Settings) and parameters == Parameters(benign=7, epochs=2)
    other = dataclasses.replace(parameters, seed=1)
    assert (other.seed, other.epochs, other.benign) == (1, 2, 7)
    assert training_parameters(parameters) == dataclasses.asdict(Settings(epochs=2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        parameters.epochs = 3
    with pytest.raises(TypeError):
        Settings(42, 96)


# what is refused

WRONG = [
    ("attention", "spatial", "sigmoid"),
    ("recipe", "best", "one_cycle"),
    ("mask_target", "skin", "background"),
    ("precision", "float32", "bf16"),
    ("image_size", 100, "32"),
    ("image_size", 0, "32"),
    ("image_size", -32, "32"),
    ("image_size", 96.0, "whole number"),
    ("seed", -1, "0"),
    ("seed", 2**32, str(2**32 - 1)),
    ("epochs", 0, "1"),
    ("epochs", "8", "whole number"),
    ("epochs", True, "whole number"),
    ("epochs", None, "whole number"),
    ("batch_size", 0, "1"),
    ("learning_rate", -0.1, "0"),
    ("learning_rate", "fast", "number"),
    ("learning_rate", True, "number"),
    ("dropout", 1.0, "1"),
    ("dropout", -0.1, "0"),
    ("alpha", 1.1, "1"),
    ("gamma", -1.0, "0"),
    ("mask_weight_pool3", -0.1, "0"),
    ("mask_weight_pool4", -0.1, "0"),
    ("weights", None, "imagenet"),
    ("compile_model", 1, "True"),
    ("unusable", 1.5, "1"),
    ("subsample", -1, "0"),
    ("benign", -1, "0"),
    ("posthoc", 0, "1"),
    ("run", "a/b", "folder"),
    ("run", "", "folder"),
    ("run", "..", "folder"),
    ("run", "a:b", "folder"),
    ("run", "own", "control"),
    ("control", "../a", "folder"),
    ("control", "sample", "the run itself"),
    *[
        (name, value, "number")
        for name in ("learning_rate", "gamma", "alpha", "mask_weight_pool3", "unusable")
        for value in (math.inf, -math.inf, math.nan)
    ],
]


@pytest.mark.parametrize("name, value, fact", WRONG)
def test_a_wrong_value_is_refused_with_its_name_and_what_is_expected(name, value, fact, folders):
    with pytest.raises(ValueError) as raised:
        Parameters(**{name: value})
    message = str(raised.value)
    assert name in message and repr(value) in message and fact in message, message
    assert "\n" not in message and "pydantic" not in message
    assert not folders.runs.exists(), "a refusal leaves nothing behind"


@pytest.mark.parametrize("control", ["own", "", "plain"])
@pytest.mark.parametrize("attention", ["softmax", "none"])
def test_a_control_is_the_runs_own_or_none_or_another_run(control, attention, folders):
    assert Parameters().control == "own"
    assert Parameters(control=control, attention=attention).control == control
    assert not folders.runs.exists()


def test_a_count_may_stand_for_a_number_and_becomes_one():
    assert type(Settings(learning_rate=1).learning_rate) is float


def test_a_replacement_is_checked_too():
    with pytest.raises(ValueError, match="epochs is 0"):
        dataclasses.replace(Settings(), epochs=0)


def test_each_problem_has_its_sentence():
    with pytest.raises(ValueError) as raised:
        Parameters(epochs=0, unusable=2.0)
    assert "epochs is 0" in str(raised.value) and "unusable is 2.0" in str(raised.value)


@pytest.mark.parametrize("name, near", [("epoch", "epochs"), ("atention", "attention")])
def test_a_name_that_is_none_brings_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"'{name}'.*'{near}'"):
        Parameters(**{name: 1})


@pytest.mark.parametrize("attention", ["softmax", "none"])
@pytest.mark.parametrize("name", ["mask_weight_pool3", "mask_weight_pool4"])
def test_masks_need_sigmoid_attention(name, attention):
    with pytest.raises(ValueError) as raised:
        Settings(attention=attention, **{name: 0.1})
    assert all(fact in str(raised.value) for fact in (name, repr(attention), "'sigmoid'", "0.1"))
    assert Settings(attention="sigmoid", **{name: 0.1}).attention == "sigmoid"


# in a notebook


def test_a_notebooks_variables_become_its_parameters(folders):
    variables = {"run": "mine", "epochs": 3, "np": np, "In": [""], "folder": folders.runs}
    assert check_here(variables) == Parameters(run="mine", epochs=3)
    assert check_here({}) == Parameters()
    assert not folders.runs.exists()


def test_what_only_shares_a_parameters_name_is_passed_over():
    own = {
        "dataset": {"folder": "data"},
        "masks": torch.zeros(2),
        "weights": np.ones(3),
        "control": print,
    }
    assert check_here(own) == Parameters()


@pytest.mark.parametrize(
    "value", ["8", 8.5, None, [8], (8,), {8}, workspace.PROJECT, np.float32(2), b"8"]
)
def test_what_was_typed_wrongly_is_refused_and_the_cell_named(value):
    with pytest.raises(ValueError) as raised:
        check_here({"epochs": value})
    assert "epochs is" in str(raised.value) and "cell of parameters" in str(raised.value)


def test_a_cell_as_python_3_14_runs_it_has_no_annotations_to_read():
    variables = {}
    exec('epochs: int = 2\nattention: str = "none"', variables)  # noqa: S102
    variables.pop("__annotations__", None)
    assert check_here(variables) == Parameters(epochs=2, attention="none")


def test_which_parameters_are_paths():
    paths = [row["name"] for row in describe() if path_or(row["name"])]
    assert set(paths) == {"dataset", "ids", "pairs", "masks", "weights", "photograph"}
    assert path_or("masks").takes("kaggle:owner/name") and path_or("masks").takes("auto")
    assert not path_or("weights").takes("kaggle:owner/name")


# recipes


def rates(chosen: Settings, steps: int) -> list[float]:
    """The learning rate of each batch of a run, and what would come after it."""
    optimiser = make_optimiser(torch.nn.Linear(2, 1), chosen)
    schedule = make_schedule(optimiser, chosen, steps)
    rates = [optimiser.param_groups[0]["lr"]]
    for _ in range(chosen.epochs * steps):
        optimiser.step()
        schedule.step()
        rates.append(optimiser.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize(
    "recipe, kind, rate, decay",
    [
        ("tutorial", torch.optim.Adam, 1e-4, 0),
        ("one_cycle", torch.optim.AdamW, 3e-4, 0.05),
        ("paper", torch.optim.SGD, 1e-2, 1e-4),
    ],
)
def test_each_recipe_has_its_optimiser_and_a_rate_that_can_be_set(recipe, kind, rate, decay):
    optimiser = make_optimiser(torch.nn.Linear(2, 1), Settings(recipe=recipe))
    assert type(optimiser) is kind
    assert (optimiser.defaults["lr"], optimiser.defaults["weight_decay"]) == (rate, decay)
    assert len(optimiser.param_groups[0]["params"]) == 2
    if recipe == "paper":
        assert optimiser.defaults["momentum"] == 0.9 and optimiser.defaults["nesterov"]
    given = make_optimiser(torch.nn.Linear(2, 1), Settings(recipe=recipe, learning_rate=0.5))
    assert given.defaults["lr"] == 0.5


def test_one_cycle_rises_for_three_tenths_of_the_steps_then_falls_to_nothing():
    cycle = rates(Settings(recipe="one_cycle", epochs=5), 20)
    assert len(cycle) == 101
    assert max(cycle) == pytest.approx(3e-4, rel=1e-3) and np.argmax(cycle) == 30
    assert cycle[0] == pytest.approx(3e-4 / 25) and 0 < cycle[-1] < 1e-8
    assert (np.diff(cycle[:31]) > 0).all() and (np.diff(cycle[30:]) < 0).all()
    assert max(rates(Settings(epochs=1, learning_rate=0.1), 10)) == pytest.approx(0.1, rel=0.03)


def test_the_papers_rate_falls_to_a_tenth_every_ten_epochs_and_the_tutorials_never():
    expected = [1e-2] * 30 + [1e-3] * 30 + [1e-4] * 16
    assert rates(Settings(recipe="paper", epochs=25), 3) == pytest.approx(expected)
    assert rates(Settings(recipe="tutorial", epochs=12), 2) == [1e-4] * 25


# memory


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried",
        "DefaultCPUAllocator: not enough memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_out_of_memory_says_what_to_set(words):
    chosen = Settings(batch_size=36, image_size=512)
    with pytest.raises(MemoryError) as raised, naming_what_fits(chosen, torch.device("cpu")):
        raise RuntimeError(words)
    assert all(fact in str(raised.value) for fact in ("36", "512", "cpu", "batch_size to 18"))


def test_another_error_stays_what_it_is():
    cpu = torch.device("cpu")
    with pytest.raises(RuntimeError, match="something else"), naming_what_fits(Settings(), cpu):
        raise RuntimeError("something else")


@pytest.mark.parametrize("image_size", [32, 64, 96, 128, 224, 256])
@pytest.mark.parametrize("epochs", [1, 2, 8])
def test_one_cycle_begins_with_small_pictures_and_ends_with_whole_ones(image_size, epochs):
    settings = Settings(image_size=image_size, epochs=epochs)
    sides = [RECIPES["one_cycle"].side(epoch, settings) for epoch in range(1, epochs + 1)]
    assert sides[-1] == image_size and sides == sorted(sides)
    assert all(side % 32 == 0 and side >= min(64, image_size) for side in sides)
    if epochs == 8 and image_size > 64:
        assert sides.count(image_size) == 3 and sides[0] == pytest.approx(image_size / 1.5, abs=16)
    for recipe in ("tutorial", "paper"):
        assert RECIPES[recipe].side(1, settings) == image_size
