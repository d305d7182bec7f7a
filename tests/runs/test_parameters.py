"""What a command takes for a parameter: names, types, files, paths, and values together."""

from pathlib import Path

import pytest

from helpers.runs import parameters
from helpers.training.settings import Parameters, Settings

KNOWN = {
    "run": (str, "sample"),
    "dataset": (str, "sample"),
    "masks": (str, "auto"),
    "weights": (str, "none"),
    "ids": (str, ""),
    "pairs": (str, ""),
    "epochs": (int, 8),
    "learning_rate": (float, 0.0),
    "compile_model": (bool, False),
    "attention": (str, "softmax"),
    "mask_weight_pool3": (float, 0.0),
}


@pytest.mark.parametrize(
    "value, kind, expected",
    [
        ("8", int, 8),
        (8, int, 8),
        ("-3", int, -3),
        ("1e-4", float, 1e-4),
        (1, float, 1.0),
        (0.5, float, 0.5),
        ("true", bool, True),
        ("False", bool, False),
        (True, bool, True),
        ("a b", str, "a b"),
        ("", str, ""),
        ("8", str, "8"),
    ],
)
def test_a_value_becomes_its_parameters_type(value, kind, expected):
    converted = parameters.convert("x", value, kind)
    assert converted == expected and type(converted) is kind


@pytest.mark.parametrize(
    "value, kind",
    [
        ("8.5", int),
        (8.5, int),
        (True, int),
        ("", int),
        ("fast", float),
        (True, float),
        (1, bool),
        ("yes", bool),
        ("1", bool),
        (8, str),
        (None, str),
        ([1], int),
        ({}, str),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_name_and_itself(value, kind):
    with pytest.raises(ValueError) as refused:
        parameters.convert("x", value, kind)
    assert "x is" in str(refused.value) and repr(value) in str(refused.value)


def test_the_file_is_read_and_the_command_line_overrides_it(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("epochs: 3\nlearning_rate: 1\ncompile_model: true\nrun: from-file\n")
    pairs = [("epochs", "5"), ("run", "last"), ("run", "last")]
    values = parameters.read_parameters(str(file), pairs, KNOWN)
    assert values == {"epochs": 5, "learning_rate": 1.0, "compile_model": True, "run": "last"}
    assert type(values["learning_rate"]) is float
    file.write_text("# nothing but a comment\n")
    assert parameters.read_parameters(str(file), [], KNOWN) == {}
    assert parameters.read_parameters("", [], KNOWN) == {}


@pytest.mark.parametrize(
    "name, near",
    [("epoch", "epochs"), ("learning-rate", "learning_rate"), ("atention", "attention")],
)
def test_an_unknown_name_brings_the_nearest(name, near, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"{name}: 1\n")
    for file, pairs in (("", [(name, "1")]), (str(tmp_path / "mine.yaml"), [])):
        with pytest.raises(ValueError, match=f"'{name}'.*'{near}'"):
            parameters.read_parameters(file, pairs, KNOWN)


def test_a_name_like_no_other_brings_them_all():
    with pytest.raises(ValueError, match="'zzz'.*attention, compile_model, .*weights"):
        parameters.read_parameters("", [("zzz", "1")], KNOWN)


@pytest.mark.parametrize(
    "content, fact",
    [
        (b"- epochs\n- 3\n", "list"),
        (b"epochs\n", "str"),
        (b"epochs: [3\n", "mine.yaml"),
        (b"run: \xff\xfe\n", "mine.yaml"),
        (b"3: 4\n", "3"),
        (b"epochs: 3\nrun: a\nepochs: 4\n", "epochs twice"),
        (b"epochs: 3\nepochs: 3\n", "epochs twice"),
        (b"run: 2024-13-45\n", "mine.yaml"),
        (b"run: 2024\n", "run is 2024, .* in quotes"),
        (b"run: on\n", "run is True, .* in quotes"),
        (b"weights:\n", "weights is None, .* in quotes"),
    ],
)
def test_a_file_of_something_else_is_refused(content, fact, tmp_path):
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=fact):
        parameters.read_parameters(str(tmp_path / "mine.yaml"), [], KNOWN)


def test_a_file_may_name_its_values_by_an_anchor(tmp_path):
    (tmp_path / "mine.yaml").write_text("<<: {}\nepochs: &number 3\nlearning_rate: *number\n")
    values = parameters.read_parameters(str(tmp_path / "mine.yaml"), [], KNOWN)
    assert values == {"epochs": 3, "learning_rate": 3.0}


def test_a_file_that_is_not_there_is_named(tmp_path):
    for name in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(ValueError, match=f"--params {name} "):
            parameters.read_parameters(str(name), [], KNOWN)


# paths


def test_a_relative_path_starts_at_the_callers_folder(tmp_path, monkeypatch):
    (tmp_path / "here" / "photographs").mkdir(parents=True)
    (tmp_path / "mine.zip").touch()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parameters.as_path("dataset", "photographs") == str(tmp_path / "here" / "photographs")
    assert Path(parameters.as_path("dataset", "../mine.zip")).samefile(tmp_path / "mine.zip")
    assert parameters.as_path("masks", "~/mine.zip") == str(tmp_path / "mine.zip")
    assert parameters.as_path("ids", str(tmp_path / "mine.zip")) == str(tmp_path / "mine.zip")


@pytest.mark.parametrize(
    "name, word",
    [
        ("dataset", "sample"),
        ("dataset", "kaggle"),
        ("masks", "auto"),
        ("masks", ""),
        ("masks", "kaggle:owner/masks"),
        ("weights", "none"),
        ("weights", "imagenet"),
        ("ids", ""),
        ("pairs", ""),
        ("run", "photographs"),
        ("epochs", 3),
    ],
)
def test_words_and_what_names_no_path_are_kept(name, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photographs").mkdir()
    assert parameters.as_path(name, word) == word


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("dataset", "smaple", ["sample", "kaggle"]),
        ("weights", "image-net.pt", ["none", "imagenet"]),
        ("masks", "absent", ["auto"]),
        ("ids", "absent.csv", []),
        ("dataset", "", ["sample"]),
        ("weights", "", ["none"]),
        ("dataset", "kaggle:owner/name", []),
        ("weights", "kaggle:owner/name", []),
    ],
)
def test_a_path_to_nothing_is_refused_with_the_words(name, value, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as refused:
        parameters.as_path(name, value)
    for fact in (name, str(tmp_path / value), *words):
        assert fact in str(refused.value)


# values together


def test_what_changes_nothing_beside_the_others_is_refused():
    none, some = Settings(), Settings(attention="sigmoid", mask_weight_pool4=0.1)
    parameters.refuse_idle(["mask_target", "epochs"], [none, some])
    parameters.refuse_idle([], [none])
    with pytest.raises(ValueError, match="mask_target"):
        parameters.refuse_idle(["epochs", "mask_target"], [none, none])
    parameters.refuse_idle(["kaggle_dataset", "dataset"], [Parameters(dataset="kaggle")])
    without = Parameters(attention="none")
    parameters.refuse_idle(["attention"], [without])
    parameters.refuse_idle(["control"], [without, Parameters()])
    parameters.refuse_idle(["control"], [Parameters(attention="none", control="other")])
    with pytest.raises(ValueError, match="control 'own'.*attention is 'none'"):
        parameters.refuse_idle(["control"], [without])
    for dataset in ("sample", "/photographs"):
        with pytest.raises(ValueError, match=f"kaggle_dataset .* dataset is '{dataset}'"):
            parameters.refuse_idle(["kaggle_dataset"], [Parameters(dataset=dataset)])


@pytest.mark.parametrize(
    "values, facts",
    [
        ({"mask_weight_pool3": 0.1}, ["attention", "'softmax'", "'sigmoid'", "mask_weight_pool3"]),
        ({"attention": "self"}, ["attention", "'self'", "'softmax'", "'sigmoid'", "'none'"]),
        ({"epochs": 0}, ["epochs", "0", "1"]),
        ({"run": "../elsewhere"}, ["run", "../elsewhere", "folder"]),
    ],
)
def test_what_is_refused_names_the_parameter_its_value_and_what_is_expected(values, facts, folders):
    with pytest.raises(ValueError) as refused:
        parameters.check(values, KNOWN)
    for fact in facts:
        assert fact in str(refused.value)
    assert not folders.runs.exists(), "a check creates nothing"


def test_values_are_checked_with_the_defaults_of_the_rest(folders):
    assert parameters.check({}, KNOWN).epochs == 8
    sigmoid = {"attention": "sigmoid", "mask_weight_pool3": 0.1}
    assert parameters.check(sigmoid, KNOWN).mask_weight_pool3 == 0.1
    known = {**KNOWN, "attention": (str, "sigmoid")}
    assert parameters.check({"mask_weight_pool3": 0.1}, known).attention == "sigmoid"
    assert not folders.runs.exists(), "a check creates nothing"


def test_known_parameters_are_those_that_the_notebooks_declare():
    known = parameters.known_parameters(parameters.NOTEBOOKS)
    assert known["epochs"] == (int, 8) and known["compile_model"] == (bool, False)
    alone = [path for path in parameters.NOTEBOOKS if path.stem.startswith("01")]
    assert "epochs" not in parameters.known_parameters(alone)
