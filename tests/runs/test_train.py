"""`python -m helpers.train`: what it takes, what it refuses, and that a refusal leaves nothing."""

import pytest

from helpers import workspace
from helpers.runs import train
from helpers.training import checkpoint, processes
from helpers.training.control import CONTROL
from helpers.training.settings import Parameters


@pytest.fixture(autouse=True)
def here(tmp_path, folders, monkeypatch):
    monkeypatch.setenv("ATTENTION_HEADLESS", "1")
    monkeypatch.chdir(tmp_path)


def refusal(capsys, *arguments: str) -> tuple[int, str]:
    """The exit code, and what is said."""
    code = train.main(["--run", "mine", *arguments])
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    return code, output.err


@pytest.mark.parametrize(
    "pair, facts",
    [
        (("run", "other"), ["'run'", "--run"]),
        (("benign", "10"), ["'benign'", "epochs"]),
        (("epoch", "3"), ["'epoch'", "'epochs'"]),
        (("epochs", "0"), ["epochs", "0", "1"]),
        (("epochs", "three"), ["epochs", "'three'", "whole number"]),
        (("gamma", "inf"), ["gamma", "inf"]),
        (("mask_weight_pool3", "0.1"), ["mask_weight_pool3", "'sigmoid'"]),
        (("mask_target", "otsu"), ["mask_target", "both mask weights are 0"]),
        (("weights", "absent.pth"), ["weights", "absent.pth", "'imagenet'"]),
        (("control", "mine"), ["control", "'mine'", "another run"]),
        (("control", "../a"), ["control", "'../a'"]),
    ],
)
def test_a_parameter_that_is_wrong_or_not_trainings_is_refused_by_name(
    pair, facts, folders, capsys
):
    """Formerly `-p run other` was accepted and ignored, and runs/sample was made while refusing."""
    code, said = refusal(capsys, "-p", *pair)
    assert code == 2 and all(fact in said for fact in facts), said
    assert not folders.runs.exists()


@pytest.mark.parametrize(
    "words, fact",
    [
        (["--epochs", "3"], "-p epochs 3"),
        (["--dataset", "sample"], "'--dataset'"),
        (["-p", "epochs=3"], "-p NAME VALUE"),
        (["-p", "epochs"], "-p NAME VALUE"),
        (["-p", "epochs", "3", "-p", "epochs", "4"], "epochs is given twice"),
        (["-p", "run", "mine"], "--run"),
        (["-p", "learning_rate", "-1e-4"], "learning_rate is -0.0001"),
        (["other"], "'other'"),
        (["-p", "control", "own", "-p", "attention", "none"], "control 'own'"),
    ],
)
def test_words_that_it_does_not_take_are_refused_with_what_to_type(words, fact, folders, capsys):
    code, said = refusal(capsys, *words)
    assert code == 2 and fact in said and not folders.runs.exists(), said


@pytest.mark.parametrize("run", ["", "a/b", ".."])
def test_a_run_is_the_name_of_one_folder(run, folders, capsys):
    assert train.main(["--run", run]) == 2
    assert "run" in capsys.readouterr().err and not folders.runs.exists()


def test_a_run_that_nobody_prepared_is_not_made(folders, capsys):
    code, said = refusal(capsys)
    assert code == 1 and "dataset.json" in said and "01_download.ipynb" in said
    assert not folders.runs.exists()


def test_what_a_file_says_to_other_parts_is_passed_over_and_named(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("benign: 0\nrun: other\nepochs: 3\ngamma: 1\n")
    pairs = [("gamma", "0.5"), ("compile_model", "true")]
    settings = train.read_settings("mine", "mine.yaml", pairs)
    assert settings == Parameters(run="mine", epochs=3, gamma=0.5, compile_model=True)
    line = capsys.readouterr().out
    assert all(fact in line for fact in ("mine.yaml", "benign", "run")) and "epochs" not in line


@pytest.mark.parametrize("name", ["tutorial", "paper", "full"])
def test_the_files_of_parameters_can_be_trained_with(name, tmp_path):
    file = workspace.PROJECT / "notebooks" / "params" / f"{name}.yaml"
    settings = train.read_settings("mine", str(file), [])
    assert settings.image_size == 224 and settings.weights == "imagenet"


def test_a_file_without_names_of_other_parts_is_read_without_a_word(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("epochs: 3\n")
    assert train.read_settings("mine", "mine.yaml", []) == Parameters(run="mine", epochs=3)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "error, code",
    [
        (ConnectionError("the ImageNet weights could not be downloaded"), 1),
        (FileNotFoundError("split.csv is not there"), 1),
        (MemoryError("batch_size"), 1),
        (FloatingPointError("not finite"), 1),
        (workspace.CannotWrite("full"), 1),
        (workspace.CannotRead("gone"), 1),
        (ValueError("val holds one class"), 1),
        (processes.Disagreement("runs/ must be one folder for all"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_ends_a_training_is_said_in_a_sentence(error, code, monkeypatch, capsys):
    """Formerly a download that failed ended in a traceback, and a ValueError in exit 2."""

    def ends(*arguments):
        raise error

    monkeypatch.setattr(train, "train_run", ends)
    found, said = refusal(capsys)
    assert found == code and str(error) in said and said.count("\n") == 1


LEFT = ["history.csv", "metrics.json", "model.pt", "predictions.csv", "timing.json"]


def left(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name in LEFT)


def test_a_prepared_run_and_its_control_are_trained_and_leave_what_04_leaves(made, folders, capsys):
    folder = made.prepare("mine")
    arguments = ["-p", "image_size", "32", "-p", "epochs", "1", "-p", "device", "cpu"]
    assert train.main(["--", "--run", "mine", *arguments]) == 0
    said = capsys.readouterr().out
    assert str(folder) in said and "its control" in said
    for place in (folder, folder / CONTROL):
        assert left(place) == LEFT
        metrics = workspace.read_json(place / "metrics.json", "04_train.ipynb")
        assert metrics["test"]["n"] == len(made.test)
    kinds = [
        checkpoint.read_checkpoint(place / "model.pt")["config"]["attention"]
        for place in (folder, folder / CONTROL)
    ]
    assert kinds == ["softmax", "none"]


@pytest.mark.parametrize(
    "pair, fact", [(("control", ""), None), (("attention", "none"), "attention is 'none'")]
)
def test_a_run_without_a_control_of_its_own_trains_none(pair, fact, made, folders, capsys):
    folder = made.prepare("mine")
    arguments = ["-p", "image_size", "32", "-p", "epochs", "1", "-p", "device", "cpu"]
    assert train.main(["--run", "mine", *arguments, "-p", *pair]) == 0
    said = capsys.readouterr().out
    assert left(folder) == LEFT and not (folder / CONTROL).exists()
    assert fact in said if fact else "its control" not in said


def test_a_training_killed_in_its_control_trains_the_network_no_second_time(
    made, folders, monkeypatch, capsys
):
    folder = made.prepare("mine")
    arguments = ["--run", "mine", "-p", "image_size", "32", "-p", "epochs", "1"]
    fit = train.fit

    def killed(settings, **how):
        if settings.attention == "none":
            raise KeyboardInterrupt
        return fit(settings, **how)

    monkeypatch.setattr(train, "fit", killed)
    assert train.main(arguments) == 130
    assert left(folder) == []
    monkeypatch.setattr(train, "fit", fit)
    capsys.readouterr()
    assert train.main(arguments) == 0
    assert "goes on after epoch 1 of 1" in capsys.readouterr().out
    assert left(folder) == left(folder / CONTROL) == LEFT
