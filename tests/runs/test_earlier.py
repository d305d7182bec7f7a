"""A notebook that is opened alone: what is made first, when nothing is, and what goes wrong."""

import os
import subprocess
import sys
import threading

import papermill
import pytest

from helpers import workspace
from helpers.photographs.sample import make_sample
from helpers.photographs.sources import find_dataset
from helpers.runs import command, earlier, estimate, parameters, series
from helpers.training.settings import Parameters
from tests.conftest import PATIENCE

ALL = ["01_download", "02_preprocess", "04_train"]
LEFT = [name for part in ALL for name in earlier.LEAVES[part]]


@pytest.fixture
def made_now(monkeypatch):
    """What would be run, as a list of (parts, parameters); each leaves empty files."""
    calls = []

    def run_apart(values: dict, parts: list[str]) -> None:
        calls.append((parts, values))
        for part in parts:
            for name in earlier.LEAVES[part]:
                (workspace.run_folder(values["run"]) / name).touch()

    monkeypatch.setattr(earlier, "run_apart", run_apart)
    return calls


def lay(folders, *names: str, run: str = "sample") -> None:
    for name in names:
        (workspace.run_folder(run) / name).touch()


# what is made


def test_the_table_is_of_parts_and_notebooks_that_there_are():
    stems = [path.stem for path in parameters.NOTEBOOKS]
    assert list(earlier.LEAVES) == [stem for stem in stems if stem in earlier.LEAVES] == ALL
    assert set(earlier.TAKES.values()) <= set(ALL)


@pytest.mark.parametrize(
    "notebook, there, parts",
    [
        ("05_visualize_attention", [], ALL),
        ("02_preprocess", [], ALL[:1]),
        ("04_train", [], ALL[:2]),
        ("03_attention_model", [], []),
        ("deeper/leaks_and_shortcuts", [], ALL[:2]),
        ("solutions/01_download", [], ALL[:1]),
        # a run that 01 has prepared goes on from its own photographs
        ("08_mend", LEFT[:1], ALL[1:]),
        ("08_mend", LEFT[:3], ALL[2:]),
        ("08_mend", LEFT, []),
        # somebody's run with a gap: nothing is made beside what is there
        ("06_audit", ["model.pt"], []),
        ("06_audit", [*LEFT[:3], "metrics.json"], []),
        ("04_train", ["split.csv"], []),
    ],
)
def test_what_is_missing_is_made_and_nothing_that_is_there(
    notebook, there, parts, folders, made_now, capsys
):
    lay(folders, *there)
    earlier.make(notebook, {})
    assert [call[0] for call in made_now] == ([parts] if parts else [])
    said = capsys.readouterr().out
    assert bool(said) == bool(parts), "silent where nothing is made"
    if parts:
        assert str(folders.runs / "sample") in said
        assert ("drawn sample" in said) == (parts[0] == ALL[0])
        assert ("dataset.json" in said) == (parts[0] != ALL[0])


def test_the_notebook_s_own_parameters_shape_what_is_made(folders, made_now):
    variables = {"run": "mine", "image_size": 64, "seed": 7, "np": os, "control": os}
    earlier.make("05_visualize_attention", variables)
    ((_, values),) = made_now
    assert (values["run"], values["image_size"], values["seed"]) == ("mine", 64, 7)
    assert values["control"] == "own", "a module of that name is no parameter"
    assert not (folders.runs / "sample").exists()


def test_a_wrong_parameter_is_told_before_anything_is_made(folders, made_now):
    with pytest.raises(ValueError, match="image_size is 100"):
        earlier.make("04_train", {"image_size": 100})
    assert not made_now and not folders.runs.exists()


def test_a_device_that_is_not_here_is_told_before_anything_is_made(folders, made_now):
    with pytest.raises(ValueError, match="device 'cuda:7'"):
        earlier.make("05_visualize_attention", {"device": "cuda:7"})
    assert not made_now


@pytest.mark.parametrize("watched", [True, False])
def test_how_long_it_takes_is_said_and_shown_by_a_bar_where_somebody_watches(
    watched, folders, made_now, monkeypatch, capsys
):
    expected = estimate.Estimate({ALL[0]: 60.0, ALL[1]: 40.0}, "some 100 s")
    asked = []

    def how_long(parts: list[str], settings: Parameters) -> estimate.Estimate:
        asked.append((parts, settings.epochs))
        return expected

    monkeypatch.setattr(estimate, "how_long", how_long)
    monkeypatch.setenv("ATTENTION_HEADLESS", "0" if watched else "1")
    earlier.make("04_train", {"epochs": 3})
    said = capsys.readouterr()
    assert asked == [(ALL[:2], 3)] and "some 100 s" in said.out
    assert bool(said.err) == watched


def test_two_that_are_opened_at_once_make_it_once(folders, made_now, monkeypatch):
    fast = earlier.run_apart
    begun = threading.Event()
    go_on = threading.Event()

    def slow(values: dict, parts: list[str]) -> None:
        begun.set()
        assert go_on.wait(PATIENCE)
        fast(values, parts)

    monkeypatch.setattr(earlier, "run_apart", slow)
    both = [
        threading.Thread(target=earlier.make, args=(name, {}))
        for name in ("05_visualize_attention", "06_audit")
    ]
    both[0].start()
    assert begun.wait(PATIENCE)
    both[1].start()
    go_on.set()
    for thread in both:
        thread.join(PATIENCE)
    assert [call[0] for call in made_now] == [ALL]


# the command makes no more than it is told to


def test_the_command_names_what_is_missing_and_the_runs_that_there_are(folders, made_now, capsys):
    lay(folders, *LEFT, run="mine")
    assert command.main(["--run", "mien", "--only", "05"]) == 1
    said = capsys.readouterr().err
    assert "05_visualize_attention.ipynb" in said and "01_download.ipynb first" in said
    assert "mine" in said and "--from 01" in said
    assert not made_now and not (folders.runs / "mien").exists()


# for real


def test_a_part_that_fails_is_told_with_its_reason(folders):
    lay(folders, "dataset.json")
    with pytest.raises(earlier.NotMade) as failed:
        earlier.make("04_train", {})
    said = str(failed.value)
    assert "02_preprocess.ipynb failed" in said and "dataset.json is damaged" in said
    assert str(folders.runs / "sample" / "02_preprocess.ipynb") in said
    assert failed.value._render_traceback_() == [f"NotMade: {said}"]


def execute(name: str, values: dict, folder) -> None:
    """A notebook by papermill alone, as a reader opens it."""
    papermill.execute_notebook(
        workspace.PROJECT / "notebooks" / f"{name}.ipynb",
        folder / "out.ipynb",
        values,
        cwd=workspace.PROJECT / "notebooks",
        kernel_manager_class=series.ThisPython,
        start_timeout=PATIENCE,
        iopub_timeout=PATIENCE,
        progress_bar=False,
        log_output=False,
    )


def test_04_alone_goes_on_from_photographs_that_are_there(folders, tmp_path):
    """01 has prepared a folder of the reader's: 02 is made from that, and not from the sample."""
    make_sample(tmp_path / "mine", seed=5, count=60, side=64)
    found = find_dataset(str(tmp_path / "mine"))
    workspace.write_json(workspace.run_folder("run") / "dataset.json", found)
    values = {"run": "run", "image_size": 32, "epochs": 1, "control": "", "device": "cpu"}
    execute("04_train", values, tmp_path)
    left = folders.runs / "run"
    assert all((left / name).exists() for name in LEFT)
    assert workspace.read_json(left / "dataset.json", "01")["rows"] == 60
    assert (left / "02_preprocess.ipynb").exists()
    assert not (left / "03_attention_model.ipynb").exists(), "nobody needs it"


@pytest.mark.long
def test_05_alone_in_empty_folders_runs_to_its_end(folders, tmp_path):
    execute("05_visualize_attention", {}, tmp_path)
    left = folders.runs / "sample"
    assert all((left / name).exists() for name in LEFT)
    assert (left / "figures" / "attention_malignant.png").exists()
    assert not (left / "06_audit.ipynb").exists()


@pytest.mark.long
def test_who_stops_the_notebook_stops_what_it_makes(folders):
    """As a kernel is interrupted: the process that makes the parts ends, and its kernel, too."""
    code = "from helpers.runs import earlier\nearlier.make('04_train', {})"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code], cwd=workspace.PROJECT, stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("With the sample"):
            break
    process.send_signal(2)
    assert process.wait(PATIENCE) != 0
    with workspace.locked(folders.runs / "sample" / "earlier"):
        pass  # nobody holds it any more
