"""What goes wrong around the notebooks: order, folders, two at once, parameters, files of other
runs, dead kernels.

Real kernels, started by `python -m helpers.run`, by papermill or by hand, on sixty drawn
photographs.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import papermill
import psutil
import pytest
import torch
from nbclient import NotebookClient

from helpers import workspace
from helpers.photographs.table import read_marking
from helpers.runs import parameters
from helpers.training import batches, checkpoint
from helpers.training.loop import predict_held_out
from helpers.training.settings import check_here
from tests.conftest import PATIENCE
from tests.faults import limits

CPU = torch.device("cpu")
SMALL = ("-p", "image_size", "32", "-p", "epochs", "1", "-p", "device", "cpu")
SAME = ("predictions.csv", "history.csv", "metrics.json")


def start(*arguments: str, **how) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(workspace.PROJECT)}
    return subprocess.Popen(
        [sys.executable, "-m", "helpers.run", *arguments],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **{"cwd": workspace.PROJECT, "env": environment} | how,
    )


def ended(*arguments: str, **how) -> SimpleNamespace:
    process = start(*arguments, **how)
    out, err = process.communicate(timeout=PATIENCE)
    return SimpleNamespace(code=process.returncode, out=out, err=err)


# out of order, elsewhere


@pytest.mark.parametrize(
    "number",
    ["02", *(pytest.param(number, marks=pytest.mark.long) for number in ("04", "05", "06"))],
)
def test_a_notebook_before_its_turn_names_the_one_to_run(number, folders):
    done = ended("--run", "empty", "--only", number)
    assert done.code == 1 and "01_download.ipynb" in done.err, done.err


@pytest.mark.long
def test_after_01_and_02_the_next_name_04(made, folders):
    made.prepare("run")
    for number in ("05", "06"):
        done = ended("--run", "run", "--only", number)
        assert done.code == 1 and "04_train.ipynb" in done.err, done.err


@pytest.mark.long
@pytest.mark.parametrize("place", ["", "notebooks", "notebooks/deeper", "helpers"])
def test_a_notebook_runs_from_any_folder_of_the_project(place, folders, tmp_path):
    papermill.execute_notebook(
        workspace.PROJECT / "notebooks" / "01_download.ipynb",
        tmp_path / "01.ipynb",
        cwd=workspace.PROJECT / place,
        start_timeout=PATIENCE,
        iopub_timeout=PATIENCE,
        progress_bar=False,
        log_output=False,
    )
    assert (folders.runs / "sample" / "dataset.json").is_file()
    assert not (workspace.PROJECT / place / "image-classification-with-attention").exists()


# two at once, and locks that last no longer than the writing


@pytest.mark.long
def test_two_series_at_once_in_one_folder_leave_what_one_leaves(folders):
    """Both from nothing: the sample is made, split, cached and trained by two at a time."""
    small = (*SMALL, "-p", "subsample", "80", "-p", "posthoc", "2")
    alone = ended("--run", "alone", *small)
    assert alone.code == 0, alone.err
    for path in (folders.data / "cache").iterdir():
        path.unlink()
    both = [start("--run", "shared", *small) for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
    for name in ("dataset.json", "split.csv", "cache.json", *SAME):
        assert (folders.runs / "alone" / name).read_bytes() == (
            folders.runs / "shared" / name
        ).read_bytes(), name
    left = [
        path
        for path in [*folders.data.rglob(".*"), *folders.runs.rglob(".*")]
        if path.suffix != ".lock"
    ]
    assert not left, "nothing half written lies about"


@pytest.mark.long
def test_05_runs_while_the_kernel_of_04_is_alive(made, folders):
    made.prepare("run")
    notebook = papermill.iorw.load_notebook_node(
        str(workspace.PROJECT / "notebooks" / "04_train.ipynb")
    )
    values = {"run": "run", "image_size": 32, "epochs": 1, "device": "cpu"}
    notebook = papermill.parameterize.parameterize_notebook(notebook, values)
    client = NotebookClient(
        notebook,
        resources={"metadata": {"path": str(workspace.PROJECT / "notebooks")}},
        startup_timeout=PATIENCE,
        iopub_timeout=PATIENCE,
    )
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        assert (folders.runs / "run" / "model.pt").exists()
        done = ended("--run", "run", "--only", "05")
        assert done.code == 0, done.err
        again = ended("--run", "run", "--only", "04", *SMALL)
        assert again.code == 0, again.err


HOLDS = """
import sys
from pathlib import Path
from helpers import workspace
with workspace.locked(Path(sys.argv[1])):
    print('mine', flush=True)
    sys.stdin.read()
"""


def test_who_waits_says_so_and_a_dead_writer_holds_nothing(tmp_path):
    path = tmp_path / "made"

    def hold() -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", HOLDS, str(path)],
            cwd=workspace.PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    first = hold()
    assert first.stdout.readline() == "mine\n"
    second = hold()
    assert str(path) in second.stdout.readline()
    first.kill()
    assert second.stdout.readline() == "mine\n"
    second.communicate("")
    first.communicate()


# parameters that came through no command of ours


@pytest.mark.parametrize(
    "values",
    [
        {"split_seed": "many"},
        {"run": 5},
        {"unusable": True},
        {"unusable": 2.0},
        {"split_seed": 1.5},
        {"split_seed": -1},
        {"dataset": None},
        {"unusable": float("nan")},
    ],
    ids=str,
)
def test_values_are_checked_against_the_cell_that_notes_their_types(values):
    cells = nbformat.read(workspace.PROJECT / "notebooks" / "01_download.ipynb", as_version=4).cells
    declared = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", ()))
    variables = {}
    exec(declared, variables)  # noqa: S102  the notebook's own cell, as its kernel runs it
    check_here(variables)
    ((name, value),) = values.items()
    with pytest.raises(ValueError) as refused:
        check_here(variables | values)
    assert name in str(refused.value) and repr(value) in str(refused.value)


def test_every_notebook_checks_its_parameters_before_it_does_anything():
    """The cell that makes earlier parts checks them itself: tests/runs/test_earlier.py."""
    deeper = (workspace.PROJECT / "notebooks" / "deeper").glob("*.ipynb")
    for path in [*parameters.NOTEBOOKS, *deeper]:
        cells = nbformat.read(path, as_version=4).cells
        code = [cell for cell in cells if cell.cell_type == "code" and cell.id != "earlier"]
        tagged = [n for n, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", ())]
        for number in tagged:
            first_line = code[number + 1].source.splitlines()[0]
            assert "check_here(globals())" in first_line, path


@pytest.mark.parametrize(
    "notebook, name, value",
    [
        ("01_download", "unusable", "few"),
        *(
            pytest.param(*one, marks=pytest.mark.long)
            for one in [
                ("01_download", "run", "../elsewhere"),
                ("02_preprocess", "image_size", 100),
                ("02_preprocess", "benign", -1),
                ("03_attention_model", "dropout", "half"),
                ("03_attention_model", "attention", "loud"),
                ("04_train", "epochs", 2.5),
                ("04_train", "precision", "fp8"),
                ("05_visualize_attention", "device", "cuda:7"),
                ("06_audit", "posthoc", 0),
                ("06_audit", "seed", True),
            ]
        ),
    ],
)
def test_papermill_alone_ends_with_the_sentence(notebook, name, value, folders, tmp_path):
    with pytest.raises(papermill.exceptions.PapermillExecutionError) as found:
        papermill.execute_notebook(
            workspace.PROJECT / "notebooks" / f"{notebook}.ipynb",
            tmp_path / "out.ipynb",
            {name: value},
            cwd=workspace.PROJECT / "notebooks",
            start_timeout=PATIENCE,
            iopub_timeout=PATIENCE,
            progress_bar=False,
            log_output=False,
        )
    assert found.value.ename == "ValueError"
    assert name in found.value.evalue and repr(value) in found.value.evalue


# files that are not of one another, or of another version


def change(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    "fault", ["01 again", "another split", "fewer photographs", "another cache"]
)
def test_half_of_another_run_is_told(fault, made, folders):
    folder = made.prepare("run")
    batches.open_prepared(folder, CPU)
    if fault == "01 again":
        change(folder / "dataset.json", sha256="another table")
    elif fault == "another split":
        made.split.iloc[::-1].to_csv(folder / "split.csv", index=False)
    elif fault == "fewer photographs":
        made.split.assign(kept=[0, *made.split["kept"][1:]]).to_csv(
            folder / "split.csv", index=False
        )
    else:
        change(folder / "cache.json", key="0123456789abcdef")
    with pytest.raises(ValueError, match="02_preprocess.ipynb"):
        batches.open_prepared(folder, CPU)


@pytest.fixture
def finished(made, fitted, folders) -> Path:
    """The folder of a run that is trained, without a kernel."""
    folder = made.prepare("run")
    predictions = predict_held_out(fitted, made.split, made.photographs()).assign(probability=0.5)
    content = {"calibration": {"slope": 1.0, "intercept": 0.0}, "threshold": 0.5}
    checkpoint.write_results(folder, fitted, predictions, content)
    return folder


READ = {
    "dataset.json": lambda folder: batches.open_prepared(folder, CPU),
    "split.csv": lambda folder: batches.open_prepared(folder, CPU),
    "cache.json": lambda folder: batches.open_prepared(folder, CPU),
    "model.pt": lambda folder: checkpoint.load_checkpoint(folder / "model.pt", CPU),
    "predictions.csv": checkpoint.read_predictions,
    "metrics.json": lambda folder: workspace.read_json(folder / "metrics.json", "04_train.ipynb"),
}
MAKES = {
    "dataset.json": "01_download.ipynb",
    "split.csv": "02_preprocess.ipynb",
    "cache.json": "02_preprocess.ipynb",
}


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("fault", ["missing", "of another version"])
def test_what_is_missing_or_of_another_version_names_the_notebook(name, fault, finished):
    READ[name](finished)
    path = finished / name
    if fault == "missing":
        path.unlink()
    elif path.suffix == ".json":
        change(path, format=0)
    elif path.suffix == ".csv":
        pd.read_csv(path).rename(columns={"split": "fold"}).to_csv(path, index=False)
    else:
        content = torch.load(path, weights_only=True)
        checkpoint.save(content | {"config": content["config"] | {"format": 0}}, path)
    expected = FileNotFoundError if fault == "missing" else ValueError
    with pytest.raises(expected, match=MAKES.get(name, "04_train.ipynb")):
        READ[name](finished)


@pytest.mark.long
def test_05_and_06_refuse_a_network_of_another_split(made, folders, finished):
    sides = made.split["split"].map({"train": "test", "test": "train", "val": "val"})
    made.split.assign(split=sides).to_csv(finished / "split.csv", index=False)
    for number in ("05", "06"):
        done = ended("--run", "run", "--only", number)
        assert done.code == 1 and "split" in done.err and "04_train.ipynb" in done.err, done.err


# runs that are killed (a kernel that dies: tests/runs/test_command.py; grids: test_workers.py)


def kernels(process: subprocess.Popen) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "ipykernel" in " ".join(child.cmdline())]


@pytest.mark.long
@pytest.mark.parametrize(
    "blow, code", [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)]
)
def test_a_killed_series_leaves_no_kernel_and_goes_on_to_the_same_end(blow, code, made, folders):
    """The kernel of 04 is in the midst of training when the series that started it is killed."""
    for name in ("whole", "killed"):
        made.prepare(name)
    long = ("-p", "image_size", "32", "-p", "epochs", "6", "-p", "device", "cpu", "--only", "04")
    assert ended("--run", "whole", *long).code == 0
    process = start("--run", "killed", *long)
    while not (folders.runs / "killed" / "progress.pt").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)  # the file is what is waited for; nothing tells when it comes
    children = kernels(process)
    assert children
    process.send_signal(blow)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    assert "Traceback" not in err, err
    _, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert not alive, "a kernel outlives its series"
    done = ended("--run", "killed", *long)
    assert done.code == 0, done.err
    stored = (folders.runs / "killed" / "04_train.ipynb").read_text()
    assert "epoch  6/6" in stored and stored.count("epoch  1/6") == 1, "the control's alone"
    for name in (*SAME, "control/predictions.csv"):
        assert (folders.runs / "whole" / name).read_bytes() == (
            folders.runs / "killed" / name
        ).read_bytes(), name


def test_a_series_that_cannot_write_says_so_and_exits_1(folders):
    folders.runs.mkdir()
    folders.runs.chmod(0o555)
    done = ended("--run", "new", "--only", "01", preexec_fn=limits.no_overrides)
    folders.runs.chmod(0o755)
    assert done.code == 1 and "ATTENTION_RUNS" in done.err and "Traceback" not in done.err
    assert str(folders.runs) in done.err


@pytest.mark.long
@pytest.mark.parametrize(
    "size", [2_000, 3_000, 100_000]
)  # of the photographs, of the notebook, of its figures
def test_a_full_disk_ends_the_notebook_with_the_sentence(size, folders):
    done = ended("--run", "new", "--only", "01", preexec_fn=limits.full_disk(size))
    assert done.code == 1 and "Traceback" not in done.err and "ATTENTION_" in done.err, done.err
    assert ended("--run", "new", "--only", "01").code == 0
    dataset = workspace.read_json(folders.runs / "new" / "dataset.json", "01_download.ipynb")
    assert len(read_marking(Path(dataset["csv"]))) == 600
