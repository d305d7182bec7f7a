"""Names, folders and Pythons that a reader's machine has, and the author's has not.

Each run is a real one, of a notebook of a few lines in a kernel of its own.
"""

import io
import json
import os
import runpy
import sys
from pathlib import Path

import pytest

from helpers import hosts, workspace
from helpers.photographs import split
from helpers.runs import command, grid, train
from helpers.training.settings import Parameters, check_here
from tests.runs.toys import injected, write_notebook

DECLARED = "run: str = 'sample'  # r\nseed: int = 0  # s"
LEAVES = """
import json, os, pathlib, sys
folder = pathlib.Path(os.environ['ATTENTION_RUNS']) / run
seen = {'python': sys.executable, 'run': run, 'cwd': os.getcwd(),
        'data': os.environ.get('ATTENTION_DATA')}
(folder / 'seen.json').write_text(json.dumps(seen))
"""


@pytest.fixture
def series(tmp_path, folders, monkeypatch):
    """A function that puts one toy notebook in a folder in place of the series."""
    monkeypatch.setenv("ATTENTION_HEADLESS", "1")
    monkeypatch.chdir(tmp_path)

    def lay_out(place: Path = tmp_path / "notebooks") -> Path:
        place.mkdir(parents=True, exist_ok=True)
        notebook = write_notebook(place / "01_toy.ipynb", DECLARED, LEAVES)
        monkeypatch.setattr(command, "NOTEBOOKS", [notebook])
        return notebook

    return lay_out


def seen(runs: Path, run: str = "sample") -> dict:
    """What the toy notebook saw."""
    return json.loads((runs / run / "seen.json").read_text())


# names

TAKEN = ["lr{1e-4}", "{}", "{run}", "a}b{", "a b (1)", "é-日本-🙂", "100%", "a'b$HOME", "x" * 255]
REFUSED = [
    *("", ".", "..", "a/b", "../a", "/tmp/a", "a\\b", "C:\\a", "a:b", "a*", "a?", 'a"b', "<a>"),
    *("a|b", "a\nb", "a\tb", "\x1b[31ma", "a\x7f", "a\u2028b", " a", "a ", " ", "a.", "...", "-a"),
    *("--run", "CON", "nul", "Aux.txt", "com1", "LPT9.log", "x" * 256, "ü" * 128, "a\udcff"),
]


@pytest.mark.parametrize("run", TAKEN)
def test_a_run_of_another_name_runs_and_its_point_and_cell_have_that_name(
    run, series, folders, capsys
):
    series()
    assert command.main(["--run", run]) == 0
    assert seen(folders.runs, run)["run"] == run
    assert (folders.runs / run / "01_toy.ipynb").is_file()
    assert str(folders.runs / run / "01_toy.ipynb") in capsys.readouterr().out
    assert check_here({"run": run}).run == run


@pytest.mark.parametrize("run", REFUSED, ids=ascii)
def test_a_name_that_not_every_disk_takes_is_refused_everywhere(run, series, folders, capsys):
    series()
    assert command.main([f"--run={run}"]) == 2
    assert train.main([f"--run={run}"]) == 2
    if not run.startswith("--"):
        assert command.main(["-p", "run", run]) == 2
    error = capsys.readouterr().err
    assert "run" in error and "Traceback" not in error
    with pytest.raises(ValueError, match="cell of parameters"):
        check_here({"run": run})
    with pytest.raises(ValueError, match="one folder"):
        workspace.run_folder(run)
    if run:
        with pytest.raises(ValueError, match="one folder"):
            Parameters(control=run)
    assert not folders.runs.exists()


def test_the_names_of_a_grids_points_are_those_of_runs():
    assert list(grid.name_points("a{b}", {"seed": [1]})) == ["a{b}-seed=1"]
    for name, axes in (("x" * 250, {"seed": [1]}), ("g", {"weights": ["/a/vgg:1.pth"]})):
        with pytest.raises(ValueError, match="one folder"):
            grid.name_points(name, axes)


def test_a_number_in_place_of_a_name_is_told_how_papermill_takes_text():
    for value in (2024, 1.5, True, None):
        with pytest.raises(ValueError, match=f"run is {value}, .*-r "):
            check_here({"run": value})


# folders


@pytest.mark.parametrize("name", ["pp {x} (1)", "{}", "{connection_file}", "a%20b", "Müller 🙂"])
def test_a_project_and_runs_below_a_folder_of_another_name(name, series, tmp_path, monkeypatch):
    notebook = series(tmp_path / name / "notebooks")
    runs = tmp_path / name / "runs"
    monkeypatch.setenv("ATTENTION_RUNS", str(runs))
    assert command.main(["-p", "seed", "3"]) == 0
    assert seen(runs)["cwd"] == str(notebook.parent)
    assert "seed = 3" in injected(runs / "sample" / notebook.name)


@pytest.mark.parametrize("given", ["my runs", "./my runs", "../here/my runs", "~/here/my runs"])
def test_a_relative_folder_is_the_callers_for_the_command_and_its_kernels(
    given, series, tmp_path, monkeypatch, capsys
):
    notebook = series()
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ATTENTION_RUNS", given)
    monkeypatch.setenv("ATTENTION_DATA", given.replace("runs", "data"))
    assert command.main([]) == 0
    left = sorted(path.name for path in (here / "my runs" / "sample").iterdir())
    assert left == ["01_toy.ipynb", "seen.json"]
    assert Path(seen(here / "my runs")["data"]).resolve() == here / "my data"
    assert [path.name for path in notebook.parent.iterdir()] == [notebook.name]
    monkeypatch.setenv("ATTENTION_RUNS", given)
    assert train.main(["--run", "sample"]) == 1
    assert str(here / "my runs" / "sample") in capsys.readouterr().err


def test_a_relative_folder_is_the_projects_for_a_notebook_and_what_it_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTENTION_RUNS", "my runs")
    monkeypatch.setenv("ATTENTION_DATA", "")
    assert workspace.runs_folder() == workspace.PROJECT / "my runs"
    monkeypatch.setattr(hosts, "missing", list)
    hosts.prepare()
    assert os.environ["ATTENTION_RUNS"] == str(workspace.PROJECT / "my runs")
    assert workspace.data_folder() == workspace.PROJECT / "data"


@pytest.mark.parametrize("given", ["s3://bucket/runs", "~nobody-here/runs"])
def test_what_is_no_folder_of_this_machine_is_refused(given, series, monkeypatch, capsys):
    series()
    monkeypatch.setenv("ATTENTION_RUNS", given)
    assert command.main([]) == 2 and train.main(["--run", "a"]) == 2
    error = capsys.readouterr().err
    assert error.count(given) >= 2 and "ATTENTION_RUNS" in error and "Traceback" not in error
    with pytest.raises(ValueError, match="ATTENTION_RUNS"):
        hosts.prepare()


@pytest.mark.parametrize("what", ["runs", "run", "above"])
def test_a_file_where_a_folder_should_be_is_named(
    what, series, folders, tmp_path, monkeypatch, capsys
):
    series()
    place = {"runs": folders.runs, "run": folders.runs / "sample", "above": tmp_path / "runs"}[what]
    if what == "above":
        monkeypatch.setenv("ATTENTION_RUNS", str(place / "deeper"))
    place.parent.mkdir(exist_ok=True)
    place.write_text("mine")
    assert command.main([]) == 1
    error = capsys.readouterr().err
    assert str(place) in error and "is a file" in error and "Traceback" not in error
    assert place.read_text() == "mine"


# what the terminal cannot write


def test_a_terminal_without_a_letter_of_a_path_does_not_end_a_run(series, tmp_path, monkeypatch):
    series()
    monkeypatch.setenv("ATTENTION_RUNS", str(tmp_path / "Müller"))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert command.main([]) == 0
    sys.stdout.flush()
    assert rb"M\xfcller" in written.getvalue()


@pytest.mark.parametrize("main", [train.main, split.main])
def test_every_command_prints_so(main, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    with pytest.raises(SystemExit):
        main(["--help"])
    if main is train.main:
        assert main(["--run", "never-made"]) == 1
    else:
        with pytest.raises(SystemExit):
            main(["absent.csv", "--out", "split.csv"])
    assert sys.stdout.errors == "backslashreplace"


# the Python that runs


def test_the_kernel_is_of_this_python_whatever_others_are_installed(
    series, folders, tmp_path, monkeypatch
):
    series()
    used = tmp_path / "used"
    other = tmp_path / "other-python"
    other.write_text(f"#!/bin/sh\necho used > '{used}'\nexit 1\n")
    other.chmod(0o755)
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    argv = [str(other), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    content = {"argv": argv, "display_name": "Python 3", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(content))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    assert command.main([]) == 0
    assert seen(folders.runs)["python"] == sys.executable and not used.exists()


def test_a_python_without_a_kernel_says_what_to_install(series, monkeypatch, capsys):
    series()
    monkeypatch.setitem(sys.modules, "ipykernel.kernelspec", None)
    assert command.main([]) == 1
    error = capsys.readouterr().err
    assert "-m pip install ipykernel" in error and sys.executable in error
    assert "Traceback" not in error


def test_a_kernel_that_does_not_start_is_told_with_its_python(series, tmp_path, monkeypatch, capfd):
    series()
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    assert command.main([]) == 1
    error = capfd.readouterr().err
    assert "01_toy.ipynb was not started" in error and str(broken) in error
    assert "Traceback" not in error


# the table alone


@pytest.mark.parametrize("out", ["marking.csv", "./marking.csv", "link.csv", "pairs.csv"])
def test_a_split_does_not_take_the_place_of_its_table(out, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("marking.csv").write_text("image_id,patient_id,target,source\na,p,0,s\n")
    Path("pairs.csv").write_text("first,second\na,b\n")
    Path("link.csv").symlink_to("marking.csv")
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    monkeypatch.setattr(
        sys, "argv", ["preprocess", "marking.csv", "--pairs", "pairs.csv", "--out", out]
    )
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("helpers.preprocess", run_name="__main__")
    assert ended.value.code == 2 and f"--out {out}" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before
