"""The command on toy notebooks: the choice of notebooks, exit codes, and what a reader is told."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import nbformat
import pytest
import torch

from helpers import workspace
from helpers.runs import command, estimate
from helpers.runs.series import FIRST_FIGURE, run_series
from tests.runs.toys import injected, write_notebook

PARAMETERS = """run: str = "sample"  # folder under runs/
attention: str = "softmax"  # a map that sums to 1
mask_weight_pool3: float = 0.0  # of the Dice term
epochs: int = 8
"""
MORE = """run: str = "sample"
dataset: str = "sample"
subsample: int = 0
compile_model: bool = False
"""


def leave(name: str, parameters: str) -> str:
    """A cell that writes what the notebook sees, and where it runs, into the run's folder."""
    names = [line.split(":")[0] for line in parameters.splitlines()]
    return (
        "import json, os, pathlib\n"
        "folder = pathlib.Path(os.environ['ATTENTION_RUNS']) / run\n"
        f"seen = {{name: globals()[name] for name in {names}}}\n"
        "seen['cwd'] = os.getcwd()\n"
        "seen['headless'] = os.environ.get('ATTENTION_HEADLESS')\n"
        f"(folder / '{name}.json').write_text(json.dumps(seen))"
    )


@pytest.fixture
def series(tmp_path, folders, monkeypatch) -> Path:
    """Three toy notebooks in place of the series; returns their folder."""
    place = tmp_path / "notebooks"
    paths = []
    for name, declared in (
        ("01_first", MORE),
        ("02_second", PARAMETERS),
        ("03_third", PARAMETERS),
    ):
        path = place / f"{name}.ipynb"
        paths.append(write_notebook(path, declared, leave(name, declared)))
    monkeypatch.setattr(command, "NOTEBOOKS", paths)
    monkeypatch.setenv("ATTENTION_HEADLESS", "1")
    monkeypatch.chdir(tmp_path)
    return place


def left(folders, name: str, run_name: str = "sample") -> dict:
    """What a toy notebook saw."""
    return json.loads((folders.runs / run_name / f"{name}.json").read_text())


# which notebooks


@pytest.mark.parametrize(
    "first, only, last, expected",
    [
        (None, None, None, "123"),
        ("02", None, None, "23"),
        ("03", None, None, "3"),
        ("02_second", None, None, "23"),
        (None, "02", None, "2"),
        (None, None, "01", "1"),
        (None, None, "02_second", "12"),
        ("02", None, "03", "23"),
        ("02", None, "02", "2"),
        ("2", None, "3", "23"),
        ("notebooks/02_second.ipynb", None, "002", "2"),
    ],
)
def test_notebooks_are_chosen_by_how_they_start(first, only, last, expected, series):
    chosen = command.choose(first, only, last)
    assert "".join(path.name[1] for path in chosen) == expected


@pytest.mark.parametrize(
    "first, only, last, facts",
    [
        ("03", None, "02", ["03", "02"]),
        ("02", "01", None, ["--only 01", "--from 02"]),
        (None, "01", "02", ["--only 01", "--to 02"]),
        ("04", None, None, ["'04'", "01_first, 02_second, 03_third"]),
        (None, "7", None, ["'7'", "01_first, 02_second, 03_third"]),
        (None, "", None, ["''", "01_first, 02_second, 03_third"]),
        ("", None, None, ["''"]),
        (None, None, "", ["''"]),
        ("0", None, None, ["'0'"]),
    ],
)
def test_a_choice_that_cannot_be_is_refused(first, only, last, facts, series):
    with pytest.raises(ValueError) as refused:
        command.choose(first, only, last)
    for fact in facts:
        assert fact in str(refused.value)


# from the command line


def test_all_run_in_order_each_with_the_parameters_it_declares(series, folders, capsys):
    (series.parent / "mine.yaml").write_text("epochs: 3\nattention: none\ndataset: photographs\n")
    (series.parent / "photographs").mkdir()
    arguments = ["--run", "mine", "--params", "mine.yaml", "-p", "epochs", "2"]
    assert command.main([*arguments, "-p", "compile_model", "true"]) == 0
    first = left(folders, "01_first", "mine")
    second = left(folders, "02_second", "mine")
    assert first["dataset"] == str(series.parent / "photographs")
    assert first["compile_model"] is True and first["subsample"] == 0
    assert (second["run"], second["epochs"], second["attention"]) == ("mine", 2, "none")
    assert second == left(folders, "03_third", "mine")
    assert first["cwd"] == second["cwd"] == str(series)
    cell = injected(folders.runs / "mine" / "01_first.ipynb")
    assert "compile_model = True" in cell and "epochs" not in cell
    assert not (folders.runs / "sample").exists()
    output = capsys.readouterr()
    lines = [line for line in output.out.splitlines() if line.startswith("[")]
    starts = [line.split(" ...")[0] for line in lines]
    assert starts == ["[1/3] 01_first", "[2/3] 02_second", "[3/3] 03_third"]
    assert all(line.endswith(" s") for line in lines)
    assert str(folders.runs / "mine" / "03_third.ipynb") in output.out
    assert "-p" not in output.err


@pytest.mark.parametrize(
    "arguments, name, taker",
    [
        (["--only", "01", "-p", "epochs", "2"], "epochs", "02_second"),
        (["--only", "2", "-p", "epochs", "2", "-p", "subsample", "5"], "subsample", "01_first"),
        (["--from", "02", "--dataset", "photographs"], "dataset", "01_first"),
        (["--from", "03", "-p", "dataset", "sample"], "dataset", "01_first"),
        (["--to", "01", "-p", "attention", "none"], "attention", "02_second, 03_third"),
    ],
)
def test_what_no_notebook_that_runs_takes_is_refused(
    arguments, name, taker, series, folders, capsys
):
    (series.parent / "photographs").mkdir()
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert f"{name} changes nothing, it is for {taker}" in error and not folders.runs.exists()


def test_what_a_file_says_to_other_notebooks_is_named_and_stops_nothing(series, folders, capsys):
    (series.parent / "mine.yaml").write_text("attention: none\nsubsample: 5\nrun: mine\n")
    assert command.main(["--only", "01", "--params", "mine.yaml"]) == 0
    output = capsys.readouterr()
    (line,) = [line for line in output.out.splitlines() if "mine.yaml" in line]
    assert "attention" in line and "subsample" not in line and output.err == ""
    assert left(folders, "01_first", "mine")["subsample"] == 5
    assert command.main(["--params", "mine.yaml"]) == 0
    assert "mine.yaml" not in capsys.readouterr().out


def test_a_value_that_begins_with_a_dash_or_stands_twice_alike_is_taken(series, folders):
    arguments = ["-p", "epochs", "3", "-p", "epochs", "03", "--run", "a", "-p", "run", "a"]
    assert command.main([*arguments, "--only", "02", "--only", "02"]) == 0
    assert left(folders, "02_second", "a")["epochs"] == 3


def test_it_says_before_how_long_it_takes_and_after_where_the_time_went(
    series, folders, capsys, monkeypatch
):
    names = ("01_first", "02_second", "03_third")
    figures = {name: {"seconds": 25.0, "processor_seconds": 25.0} for name in names}
    machine = {"cores": 2, "processor": "Toy 1", "device": "cpu", "step_seconds": 1.0}
    times = series.parent / "times.json"
    times.write_text(json.dumps({"figures": figures, "machine": machine}))
    monkeypatch.setattr(estimate, "TIMES", times)
    monkeypatch.setattr(estimate, "step_seconds", lambda precision: 1.0)
    monkeypatch.setattr(workspace, "choose_device", lambda device: torch.device("cpu"))
    write_notebook(series / "02_second.ipynb", PARAMETERS, "import time", "time.sleep(2)")
    notebook = nbformat.read(series / "02_second.ipynb", 4)
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell("# Title\n\n## A rest"))
    nbformat.write(notebook, series / "02_second.ipynb")
    assert command.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "80 seconds" in lines[0] and "2 cores of Toy 1" in lines[0]
    assert [line.split(" ...")[0] for line in lines[1:4]] == [
        f"[{number}/3] {name} (about 30 seconds)" for number, name in enumerate(names, start=1)
    ]
    shares = [re.search(r"s +(\d+)%  .+/(\w+)\.ipynb$", line) for line in lines[5:8]]
    assert [share[2] for share in shares] == list(names)
    assert 98 <= sum(int(share[1]) for share in shares) <= 102
    assert re.search(r"2 s +\d+%  02_second, cell 3: A rest", lines[9])
    assert len(lines) == 9 + 3


@pytest.mark.parametrize("expected", [{}, {"02_second": 100.0}])
def test_in_a_terminal_a_bar_stands_in_the_line_until_the_notebook_has_run(
    expected, series, folders, capsys, monkeypatch
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run_series({}, [series / "02_second.ipynb"], expected)
    output = capsys.readouterr()
    first = output.out.splitlines()[0]
    title = "[1/1] 02_second" + (" (about 2 minutes)" if expected else "")
    assert re.fullmatch(re.escape(title) + r" \.\.\. [\d.]+ s", first)
    assert title in output.err
    assert ("cell" in output.err) == (not expected), "cells tell where no time is known"


@pytest.mark.parametrize(
    "drawn, first",
    [
        (["a.png", FIRST_FIGURE, "z.png"], FIRST_FIGURE),
        (["z.png", "b.png"], "b.png"),
        ([], None),
    ],
)
def test_the_first_figure_to_open_is_one_that_this_call_drew(
    drawn, first, series, folders, capsys, monkeypatch
):
    """Those of an earlier call lie there, too; the attention figure is named before all others."""
    figures = folders.runs / "sample" / "figures"
    figures.mkdir(parents=True)
    for name in ("a.png", FIRST_FIGURE, "z.png"):
        (figures / name).touch()
        os.utime(figures / name, (1, 1))

    def draw(notebook, values, folder, **bar) -> float:
        write_notebook(folder / notebook.name, PARAMETERS)
        for name in drawn:
            (figures / name).write_bytes(b"new")
        return 1.0

    monkeypatch.setattr("helpers.runs.series.run_notebook", draw)
    assert command.main(["--only", "02"]) == 0
    named = re.findall(r"/figures/(.+\.png)\n", capsys.readouterr().out)
    assert named == ([first] if first else [])


def test_a_failure_stops_the_series_and_says_where(series, folders, capsys):
    cells = [
        "ready = True",
        "raise ValueError(f'{epochs} epochs\\nare too few')",
        "never = True",
    ]
    write_notebook(series / "02_second.ipynb", PARAMETERS, *cells)
    assert command.main(["-p", "epochs", "1"]) == 1
    stored = folders.runs / "sample" / "02_second.ipynb"
    error = capsys.readouterr().err
    executed = [cell for cell in nbformat.read(stored, 4).cells if cell.cell_type == "code"]
    (failed,) = [cell for cell in executed if "too few" in cell.source]
    (after,) = [cell for cell in executed if "never" in cell.source]
    assert f"cell {failed.execution_count}: ValueError: 1 epochs are too few" in error
    assert "02_second.ipynb" in error and str(stored) in error and "Traceback" not in error
    assert (folders.runs / "sample" / "01_first.json").exists()
    assert not (folders.runs / "sample" / "03_third.json").exists()
    assert after.execution_count is None


def test_a_kernel_that_dies_is_told_as_such(series, folders, capsys):
    write_notebook(series / "01_first.ipynb", MORE, "import os\nos._exit(1)")
    assert command.main(["--only", "01"]) == 1
    error = capsys.readouterr().err
    assert "01_first.ipynb" in error and "batch_size" in error
    assert str(folders.runs / "sample" / "01_first.ipynb") in error


@pytest.mark.parametrize(
    "arguments, fact",
    [
        (["-p", "epoch", "3"], "'epochs'"),
        (["-p", "epochs", "three"], "'three'"),
        (["-p", "mask_weight_pool3", "0.1"], "'sigmoid'"),
        (["--dataset", "absent"], "absent"),
        (["--run", "a/b"], "'a/b'"),
        (["--run", ""], "''"),
        (["--dataset", ""], "dataset: "),
        (["--params", "absent.yaml"], "absent.yaml"),
        (["--only", "09"], "'09'"),
        (["--from", "02", "--only", "01"], "--only 01"),
        (["--datset", "sample"], "--dataset sample"),
        (["--epoch", "3"], "-p epochs 3"),
        (["--epochs=3"], "-p epochs 3"),
        (["epochs=3"], "-p epochs 3"),
        (["--subsample"], "-p subsample VALUE"),
        (["\N{EM DASH}run", "a"], "--run a"),
        (["-run", "a"], "--run a"),
        (["--zzz"], "'--zzz'"),
        (["kagle"], "'kagle'"),
        (["-p", "epochs"], "-p NAME VALUE"),
        (["-p"], "-p NAME VALUE"),
        (["-p", "epochs=3"], "-p NAME VALUE"),
        (["-p", "epochs=3", "--run", "a"], "-p NAME VALUE"),
        (["-p=epochs", "3"], "-p NAME VALUE"),
        (["-pepochs", "3"], "-p NAME VALUE"),
        (["-p", "epochs", "--run", "a"], "-p NAME VALUE"),
        (["-p", "epochs", "-p", "run", "a"], "-p NAME VALUE"),
        (["-p", "epochs", "-1e-4"], "'-1e-4'"),
        (["-p", "epochs", "3", "-p", "epochs", "4"], "epochs is given twice, as 3 and 4"),
        (["--run", "a", "-p", "run", "b"], "run is given twice"),
        (["--run", "a", "--run", "b"], "--run is given twice, as 'a' and 'b'"),
        (["--only", "01", "--only", "02"], "--only is given twice"),
        (["--dataset", "sample", "-p", "dataset", "kaggle"], "dataset is given twice"),
        (["--run"], "--run"),
        (["--params", ""], "--params"),
        (["--params", "~nobody-here/x.yaml"], "~nobody-here"),
        (["--dataset", "~nobody-here/x"], "~nobody-here"),
        (["--dataset", "x" * 300], "dataset: "),
        (["--dataset", "a\0b"], "dataset: "),
        (["--dataset", "a\udcff"], "dataset"),
        (["--run", "new", "-p", "epochs", "0"], "epochs"),
    ],
)
def test_what_is_wrong_is_said_and_leaves_nothing(arguments, fact, series, folders, capsys):
    try:
        code = command.main(arguments)
    except SystemExit as exit:  # argparse's own
        code = exit.code
    output = capsys.readouterr()
    assert code == 2 and fact in output.err and "Traceback" not in output.err, output.err
    assert "[1/" not in output.out
    assert not folders.runs.exists(), "a refused command creates no folder"


def test_as_a_process(folders):
    ended = subprocess.run(
        [sys.executable, "-m", "helpers.run", "--only", "99"],
        cwd=workspace.PROJECT,
        text=True,
        capture_output=True,
    )
    assert ended.returncode == 2 and "helpers.run: " in ended.stderr and "'99'" in ended.stderr


# from a cell of somebody's notebook, whose kernel goes on afterwards


@pytest.mark.parametrize("arguments", [["--only", "02"], ["--only", "09"]])
def test_it_leaves_the_process_as_it_was(arguments, series, folders, monkeypatch):
    monkeypatch.delenv("ATTENTION_HEADLESS")
    handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        command.main(arguments)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert "ATTENTION_HEADLESS" not in os.environ
    if arguments == ["--only", "02"]:
        assert left(folders, "02_second")["headless"] == "1"


def test_it_runs_in_a_thread(series, folders):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(command.main(["--only", "02"])))
    thread.start()
    thread.join()
    assert codes == [0] and left(folders, "02_second")["epochs"] == 8
