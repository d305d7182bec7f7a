"""The runner on toy notebooks: parameters, paths, the choice of notebooks, exit codes and what a reader is told."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from helpers import workspace
from helpers.runs import command, parameters

PARAMETERS = """run: str = "sample"  # folder under runs/
attention: str = "softmax"  # a map that sums to 1
mask_weight_pool3: float = 0.0  # of the Dice term
epochs: int = 8
"""
MORE = """run: str = "sample"
dataset: str = "sample"
masks: str = "auto"
weights: str = "none"
ids: str = ""
pairs: str = ""
subsample: int = 0
learning_rate: float = 0.0
compile_model: bool = False
"""
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


def write_notebook(path: Path, parameters: str, *cells: str) -> Path:
    """A notebook with one cell tagged `parameters` and these cells after it."""
    cells = [nbformat.v4.new_code_cell(source) for source in (parameters, *cells)]
    cells[0]["metadata"]["tags"] = ["parameters"]
    path.parent.mkdir(exist_ok=True)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def leave(name: str, parameters: str) -> str:
    """A cell that writes the parameters as the notebook sees them, and where it runs, into the run's folder."""
    names = [line.split(":")[0] for line in parameters.splitlines()]
    return (
        f"import json, os, pathlib\nfolder = pathlib.Path(os.environ['ATTENTION_RUNS']) / run\n"
        f"seen = {{name: globals()[name] for name in {names}}} | {{'cwd': os.getcwd()}}\n"
        f"seen |= {{'headless': os.environ.get('ATTENTION_HEADLESS')}}\n"
        f"(folder / '{name}.json').write_text(json.dumps(seen))"
    )


@pytest.fixture
def series(tmp_path, folders, monkeypatch) -> Path:
    """Three toy notebooks in place of the series; returns their folder."""
    place = tmp_path / "notebooks"
    names = {"01_first": MORE, "02_second": PARAMETERS, "03_third": PARAMETERS}
    monkeypatch.setattr(
        command,
        "NOTEBOOKS",
        [
            write_notebook(place / f"{name}.ipynb", parameters, leave(name, parameters))
            for name, parameters in names.items()
        ],
    )
    monkeypatch.setenv("ATTENTION_HEADLESS", "1")
    monkeypatch.chdir(tmp_path)
    return place


def left(folders, name: str, run_name: str = "sample") -> dict:
    """What a toy notebook saw."""
    return json.loads((folders.runs / run_name / f"{name}.json").read_text())


# values


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
    found = parameters.convert("x", value, kind)
    assert found == expected and type(found) is kind


@pytest.mark.parametrize(
    "value, kind, message",
    [
        ("8.5", int, "x is '8.5', expected int"),
        (8.5, int, "expected int"),
        (True, int, "expected int"),
        ("", int, "expected int"),
        ("fast", float, "expected float"),
        (True, float, "expected float"),
        (1, bool, "x is 1, expected true or false"),
        ("yes", bool, "expected true or false"),
        ("1", bool, "true or false"),
        (8, str, "expected str"),
        (None, str, "x is None, expected str"),
        ([1], int, "expected int"),
        ({}, str, "str"),
    ],
)
def test_a_value_of_another_type_is_refused(value, kind, message):
    with pytest.raises(ValueError, match=message):
        parameters.convert("x", value, kind)


def test_the_file_is_read_and_the_command_line_overrides_it(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("epochs: 3\nlearning_rate: 1\ncompile_model: true\nrun: from-file\n")
    found = parameters.read_parameters(
        str(file), [("epochs", "5"), ("run", "mine"), ("run", "last")], KNOWN
    )
    assert found == {"epochs": 5, "learning_rate": 1.0, "compile_model": True, "run": "last"}
    assert type(found["learning_rate"]) is float
    file.write_text("# nothing but a comment\n")
    assert (
        parameters.read_parameters(str(file), [], KNOWN)
        == {}
        == parameters.read_parameters("", [], KNOWN)
    )


@pytest.mark.parametrize(
    "name, near",
    [("epoch", "epochs"), ("learning-rate", "learning_rate"), ("atention", "attention")],
)
def test_an_unknown_name_brings_the_nearest(name, near, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"{name}: 1\n")
    for file, pairs in (("", [(name, "1")]), (str(tmp_path / "mine.yaml"), [])):
        with pytest.raises(ValueError, match=f"no parameter '{name}'; did you mean '{near}'"):
            parameters.read_parameters(file, pairs, KNOWN)


def test_a_name_like_no_other_brings_them_all():
    with pytest.raises(
        ValueError, match="no parameter 'zzz'; there are: attention, compile_model, .*weights"
    ):
        parameters.read_parameters("", [("zzz", "1")], KNOWN)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"- epochs\n- 3\n", "holds a list, expected lines of `name: value`"),
        (b"epochs\n", "holds a str"),
        (b"epochs: [3\n", "cannot be read"),
        (b"run: \xff\xfe\n", "cannot be read"),
        (b"3: 4\n", "no parameter 3"),
    ],
)
def test_a_file_of_something_else_is_refused_by_name(content, message, tmp_path):
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        parameters.read_parameters(str(tmp_path / "mine.yaml"), [], KNOWN)


def test_a_file_that_is_not_there_is_named(tmp_path):
    for name in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(ValueError, match=f"--params {name} cannot be read"):
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
        ("dataset", "smaple", "'sample', 'kaggle'"),
        ("weights", "image-net.pt", "'none', 'imagenet'"),
        ("masks", "absent", "'auto'"),
        ("ids", "absent.csv", "name a file or folder$"),
        ("dataset", "", "'sample'"),
        ("weights", "", "'none'"),
        ("dataset", "kaggle:owner/name", ""),
        ("weights", "kaggle:owner/name", ""),
    ],
)
def test_a_path_to_nothing_is_refused_with_the_words(name, value, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"^{name}: .*{words}"):
        parameters.as_path(name, value)


# values together


def test_values_are_checked_with_the_defaults_of_the_rest(folders):
    parameters.check({}, KNOWN)
    parameters.check({"attention": "sigmoid", "mask_weight_pool3": 0.1}, KNOWN)
    parameters.check(
        {"mask_weight_pool3": 0.1}, {**KNOWN, "attention": (str, "sigmoid")}
    )  # defaults count
    with pytest.raises(ValueError, match="attention is 'sigmoid' where"):
        parameters.check({"mask_weight_pool3": 0.1}, KNOWN)
    with pytest.raises(ValueError, match="attention is 'softmax', 'sigmoid' or 'none'"):
        parameters.check({"attention": "self"}, KNOWN)
    with pytest.raises(ValueError, match="epochs is at least 1"):
        parameters.check({"epochs": 0}, KNOWN)
    with pytest.raises(ValueError, match="name of one folder"):
        parameters.check({"run": "../elsewhere"}, KNOWN)


def test_known_parameters_are_those_that_the_notebooks_declare(series):
    assert parameters.known_parameters(parameters.NOTEBOOKS[1:2]) == {
        "run": (str, "sample"),
        "attention": (str, "softmax"),
        "mask_weight_pool3": (float, 0.0),
        "epochs": (int, 8),
    }
    known = parameters.known_parameters(parameters.NOTEBOOKS)
    assert (
        known["compile_model"] == (bool, False) and known["epochs"] == (int, 8) and len(known) == 12
    )


@pytest.mark.parametrize(
    "first, only, expected",
    [
        (None, None, "123"),
        ("02", None, "23"),
        ("03", None, "3"),
        (None, "02", "2"),
        ("03", "01", "1"),
        ("02_second", None, "23"),
    ],
)
def test_notebooks_are_chosen_by_how_they_start(first, only, expected, series):
    assert "".join(path.name[1] for path in command.choose(first, only)) == expected


@pytest.mark.parametrize(
    "first, last, expected",
    [(None, "01", "1"), (None, "02_second", "12"), ("02", "03", "23"), ("02", "02", "2")],
)
def test_the_last_notebook_can_be_named_too(first, last, expected, series):
    assert "".join(path.name[1] for path in command.choose(first, None, last)) == expected


def test_an_end_before_the_start_is_refused(series):
    with pytest.raises(ValueError, match="no notebook from 03 to 02"):
        command.choose("03", None, "02")


@pytest.mark.parametrize("first, only", [("04", None), (None, "7"), ("04", "01")])
def test_a_notebook_that_is_not_there_is_refused_with_those_that_are(first, only, series):
    with pytest.raises(
        ValueError, match="no notebook starts with '[47]*0?4?'.*: 01_first, 02_second, 03_third"
    ):
        command.choose(first, only)


# from the command line


def test_all_run_in_order_each_with_the_parameters_it_declares(
    series, folders, capsys, monkeypatch
):
    monkeypatch.delenv("ATTENTION_HEADLESS")
    (series.parent / "mine.yaml").write_text("epochs: 3\nattention: none\ndataset: photographs\n")
    (series.parent / "photographs").mkdir()
    assert (
        command.main(
            [
                "--run",
                "mine",
                "--params",
                "mine.yaml",
                "-p",
                "epochs",
                "2",
                "-p",
                "compile_model",
                "true",
            ]
        )
        == 0
    )
    first, second, third = (
        left(folders, name, "mine") for name in ("01_first", "02_second", "03_third")
    )
    assert first["dataset"] == str(series.parent / "photographs") and first["compile_model"] is True
    assert first["subsample"] == 0 and "epochs" not in first
    assert (second["run"], second["epochs"], second["attention"]) == (
        "mine",
        2,
        "none",
    ) and second == third
    assert {one["cwd"] for one in (first, second, third)} == {str(series)}
    assert {one["headless"] for one in (first, second, third)} == {"1"}
    stored = nbformat.read(folders.runs / "mine" / "01_first.ipynb", 4)
    injected = next(
        cell for cell in stored.cells if "injected-parameters" in cell.metadata.get("tags", [])
    )
    assert "compile_model = True" in injected.source and "epochs" not in injected.source
    assert not (folders.runs / "sample").exists()
    output = capsys.readouterr().out
    lines = [line for line in output.splitlines() if line.startswith("[")]
    assert [line.split(" ...")[0] for line in lines] == [
        "[1/3] 01_first",
        "[2/3] 02_second",
        "[3/3] 03_third",
    ]
    assert (
        all(line.endswith(" s") for line in lines)
        and str(folders.runs / "mine" / "03_third.ipynb") in output
    )


def test_the_attention_figure_is_the_first_to_open(series, folders, capsys):
    figures = folders.runs / "sample" / "figures"
    figures.mkdir(parents=True)
    for name in ("a.png", command.FIRST_FIGURE, "z.png"):
        (figures / name).touch()
    assert command.main(["--only", "02"]) == 0
    assert f"First figure to open: {figures / command.FIRST_FIGURE}" in capsys.readouterr().out
    assert [path.name for path in (folders.runs / "sample").glob("*.ipynb")] == ["02_second.ipynb"]


def test_a_failure_stops_the_series_and_says_where(series, folders, capsys):
    write_notebook(
        series / "02_second.ipynb",
        PARAMETERS,
        "ready = True",
        "raise ValueError(f'{epochs} epochs\\nare too few')",
        "never = True",
    )
    assert command.main(["-p", "epochs", "1"]) == 1
    stored = folders.runs / "sample" / "02_second.ipynb"
    error = capsys.readouterr().err
    cells = [cell for cell in nbformat.read(stored, 4).cells if cell.cell_type == "code"]
    number = next(cell.execution_count for cell in cells if "too few" in cell.source)
    assert f"02_second.ipynb failed in cell {number}: ValueError: 1 epochs are too few" in error
    assert str(stored) in error and "Traceback" not in error
    assert (folders.runs / "sample" / "01_first.json").exists()
    assert not (folders.runs / "sample" / "03_third.json").exists()
    assert next(cell for cell in cells if "never" in cell.source).execution_count is None


def test_a_kernel_that_dies_is_told_as_such(series, folders, capsys):
    write_notebook(series / "01_first.ipynb", MORE, "import os\nos._exit(1)")
    assert command.main(["--only", "01"]) == 1
    error = capsys.readouterr().err
    assert "01_first.ipynb was stopped" in error and "batch_size" in error
    assert str(folders.runs / "sample" / "01_first.ipynb") in error


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["-p", "epoch", "3"], "did you mean 'epochs'"),
        (["-p", "epochs", "three"], "epochs is 'three', expected int"),
        (["-p", "mask_weight_pool3", "0.1"], "attention is 'sigmoid' where"),
        (["--dataset", "absent"], "dataset: there is nothing at"),
        (["--run", "a/b"], "name of one folder"),
        (["--run", ""], "name of one folder"),
        (["--dataset", ""], "dataset: "),
        (["--params", "absent.yaml"], "absent.yaml cannot be read"),
        (["--only", "09"], "no notebook starts with '09'"),
        (["--datset", "sample"], "no option '--datset'; did you mean --dataset?"),
        (["--epoch", "3"], "no option '--epoch'; did you mean -p epochs?"),
        (["--zzz"], "no option '--zzz'; --help lists them"),
        (["-p", "epochs"], "-p"),
        (["kagle"], "no option 'kagle'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(arguments, message, series, folders, capsys):
    try:
        code = command.main(arguments)
    except SystemExit as exit:  # argparse's own
        code = exit.code
    output = capsys.readouterr()
    assert (
        code == 2
        and message in output.err
        and "Traceback" not in output.err
        and "[1/" not in output.out
    )
    assert not list(folders.runs.rglob("*.ipynb")) and not list(folders.runs.rglob("*.json"))


def test_as_a_process(folders):
    found = subprocess.run(
        [sys.executable, "-m", "helpers.run", "--only", "99"],
        cwd=workspace.PROJECT,
        text=True,
        capture_output=True,
    )
    assert found.returncode == 2 and found.stderr.startswith(
        "helpers.run: no notebook starts with '99'"
    )
