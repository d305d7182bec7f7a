"""What goes wrong in training: numbers, batches, files, the disk, the clock, killed processes.

Real processes (`python -m helpers.train`) on sixty drawn photographs, with the limits of limits.py.
"""

import dataclasses
import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import torchvision

from helpers import workspace
from helpers.model import AttnVGG
from helpers.training import checkpoint
from helpers.training.loop import predict_held_out
from helpers.training.settings import Settings
from tests.conftest import PATIENCE
from tests.faults import limits

CPU = torch.device("cpu")
SMALL = {"image_size": 32, "batch_size": 12, "device": "cpu"}
SAME = ("predictions.csv", "history.csv", "metrics.json")  # what equal runs leave byte for byte


def start(run: str, epochs: int, changed: dict | None = None, **how) -> subprocess.Popen:
    """Start a small training of a run; `changed` parameters replace SMALL's, or join them."""
    command = [sys.executable, "-m", "helpers.train", "--run", run]
    for name, value in {**SMALL, "epochs": epochs, **(changed or {})}.items():
        command += ["-p", name, str(value)]
    return subprocess.Popen(
        command,
        cwd=workspace.PROJECT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **how,
    )


def ended(run: str, epochs: int, changed: dict | None = None, **how) -> SimpleNamespace:
    process = start(run, epochs, changed, **how)
    out, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err, err
    return SimpleNamespace(code=process.returncode, out=out, err=err)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in checkpoint.RESULTS}


@pytest.fixture
def trained(made, folders, fitted) -> Path:
    """The folder of a run that is trained."""
    folder = made.prepare("run")
    predictions = predict_held_out(fitted, made.split, made.photographs()).assign(probability=0.5)
    checkpoint.write_results(
        folder,
        fitted,
        predictions,
        {"calibration": {"slope": 1.0, "intercept": 0.0}, "threshold": 0.5},
    )
    return folder


# numbers and batches


@pytest.mark.long
def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_network(trained):
    before = contents(trained)
    done = ended("run", 2, {"learning_rate": 1e30, "recipe": "tutorial"})
    assert done.code == 1
    assert re.search(r"epoch 1\b.*batch [12]\b.*learning_rate", done.err), done.err
    assert contents(trained) == before


@pytest.mark.long
@pytest.mark.parametrize("batch_size", [1, 1000])
def test_a_batch_of_one_and_one_larger_than_all_photographs(batch_size, made, folders):
    made.prepare("run")
    done = ended("run", 1, {"batch_size": batch_size})
    assert done.code == 0, done.err
    assert pd.read_csv(folders.runs / "run" / "history.csv")["train_loss"].notna().all()


@pytest.mark.long
@pytest.mark.parametrize("side, target", [("val", 0), ("val", 1), ("train", 0), ("train", 1)])
def test_one_class_on_a_side_is_named(side, target, made, folders):
    folder = made.prepare("run")
    split = made.split.copy()
    split.loc[split["split"] == side, "target"] = target
    split.to_csv(folder / "split.csv", index=False)
    done = ended("run", 1)
    assert done.code == 1 and side in done.err and "class" in done.err, done.err


# checkpoints


def test_a_checkpoint_of_another_model_is_refused(fitted, tmp_path):
    ours = {"state_dict": fitted.network.state_dict(), "config": fitted.config}
    others = [
        ours | {"state_dict": torchvision.models.vgg16_bn().state_dict()},
        ours | {"state_dict": torchvision.models.resnet18().state_dict()},
        ours | {"state_dict": AttnVGG(2).state_dict()},
        ours | {"state_dict": {}},
        {"config": fitted.config},
        ours | {"config": {**fitted.config, "attention": "none"}},
        ours | {"config": {**fitted.config, "attention": "loud"}},
        ours | {"config": {name: one for name, one in fitted.config.items() if name != "classes"}},
    ]
    for number, content in enumerate(others):
        checkpoint.save(content, tmp_path / "model.pt")
        with pytest.raises(ValueError, match="model.pt.*04_train.ipynb"):
            checkpoint.load_checkpoint(tmp_path / "model.pt", CPU)
            pytest.fail(f"number {number} was taken")


def test_a_checkpoint_cut_anywhere_is_refused(fitted, tmp_path):
    path, chance = tmp_path / "model.pt", random.Random(0)
    checkpoint.save({"state_dict": fitted.network.state_dict(), "config": fitted.config}, path)
    whole = path.stat().st_size
    for length in sorted((chance.randrange(whole) for _ in range(40)), reverse=True):
        os.truncate(path, length)
        with pytest.raises(ValueError, match="model.pt.*04_train.ipynb"):
            checkpoint.load_checkpoint(path, CPU)


def test_a_network_is_not_shown_a_split_that_it_was_not_trained_on(trained, made):
    checkpoint.load_checkpoint(trained / "model.pt", CPU, split=made.split)
    other = made.split.assign(
        split=made.split["split"].map({"train": "test", "test": "train", "val": "val"})
    )
    with pytest.raises(ValueError, match="split.*04_train.ipynb"):
        checkpoint.load_checkpoint(trained / "model.pt", CPU, split=other)


# the disk


@pytest.mark.parametrize("size", [pytest.param(0, marks=pytest.mark.long), 2_000_000])
def test_a_full_disk_is_said_and_the_last_results_stay(size, trained):
    before = contents(trained)
    done = ended("run", 1, preexec_fn=limits.full_disk(size))
    assert done.code == 1
    assert str(trained) in done.err and "ATTENTION_RUNS" in done.err, done.err
    assert contents(trained) == before and not list(trained.glob(".*.pt"))
    assert ended("run", 1).code == 0
    assert contents(trained) != before


def test_a_disk_that_fills_between_the_files_of_a_result_changes_none(
    trained, fitted, made, monkeypatch
):
    before = contents(trained)
    predictions = predict_held_out(fitted, made.split, made.photographs()).assign(probability=0.1)
    content = {"calibration": {"slope": 2.0, "intercept": 0.0}, "threshold": 0.1}
    real = workspace.as_json

    def full_at_the_last(written: dict) -> str:
        if written.get("threshold") == content["threshold"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(written)

    monkeypatch.setattr(workspace, "as_json", full_at_the_last)
    with pytest.raises(workspace.CannotWrite):
        checkpoint.write_results(trained, fitted, predictions, content)
    assert contents(trained) == before


@pytest.mark.parametrize("place", ["read-only", "below a file"])
def test_a_run_folder_that_cannot_be_written_is_named(place, made, folders):
    folder = made.prepare("run")
    if place == "read-only":
        folder.chmod(0o555)
        done = ended("run", 1, preexec_fn=limits.no_overrides)
        folder.chmod(0o755)
    else:
        (folders.runs.parent / "file").write_text("")
        done = ended(
            "run", 1, env={**os.environ, "ATTENTION_RUNS": str(folders.runs.parent / "file")}
        )
    assert done.code == 1 and "ATTENTION_RUNS" in done.err, done.err


@pytest.mark.long
def test_photographs_and_cache_may_be_read_only(made, folders):
    made.prepare("run")
    data = Path(made.cache["file"]).parents[2]
    modes = {path: path.stat().st_mode for path in [data, *data.rglob("*")]}
    try:
        for path, mode in modes.items():
            path.chmod(mode & 0o555)
        done = ended("run", 1, preexec_fn=limits.no_overrides)
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert done.code == 0, done.err


# the clock


@pytest.mark.long
def test_a_clock_that_is_set_back_changes_nothing(made, folders, tmp_path):
    """Files from the future are real; Python's clock is set back by a stand-in.

    A PYTHONPATH's sitecustomize.py replaces time.time and time.time_ns, which go back a year at
    their hundredth call: a test may not set the machine's clock.
    """
    (tmp_path / "sitecustomize.py").write_text(
        "import itertools, time\n"
        "calls, real, real_ns = itertools.count(), time.time, time.time_ns\n"
        "time.time = lambda: real() - 31_536_000 * (next(calls) > 100)\n"
        "time.time_ns = lambda: real_ns() - 31_536_000 * 10**9 * (next(calls) > 100)\n"
    )
    for run in ("plain", "back"):
        made.prepare(run)
    future = time.time() + 400 * 86_400
    for path in [*(folders.runs / "back").iterdir(), Path(made.cache["file"])]:
        os.utime(path, (future, future))
    assert ended("plain", 1).code == 0
    done = ended("back", 2, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.code == 0, done.err
    timing = json.loads((folders.runs / "back" / "timing.json").read_text())
    assert 0 < timing["seconds"] < PATIENCE, "neither less than nothing nor a year"
    first = [
        pd.read_csv(folders.runs / run / "history.csv")["train_loss"][0]
        for run in ("plain", "back")
    ]
    assert first[0] == pytest.approx(first[1], rel=0.2), "one epoch of two schedules"


# killed


def wait_for_line(process: subprocess.Popen, fact: str) -> None:
    """Until the process prints a line with this in it."""
    for line in process.stdout:
        if fact in line:
            return
    raise AssertionError(process.stderr.read())


@pytest.mark.long
@pytest.mark.parametrize("blow, code", [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_stopped_training_goes_on_and_ends_the_same(blow, code, made, folders):
    for run in ("whole", "stopped"):
        made.prepare(run)
    assert ended("whole", 4).code == 0
    process = start("stopped", 4)
    while not (folders.runs / "stopped" / "progress.pt").exists():
        wait_for_line(process, "epoch")
    process.send_signal(blow)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code and "Traceback" not in err, err
    done = ended("stopped", 4)
    assert done.code == 0
    told = re.findall(r"epoch  (\d)/4", done.out)
    of_the_network, of_its_control = told[:-4], told[-4:]
    assert "1" not in of_the_network and of_the_network[-1] == "4"
    assert of_its_control == ["1", "2", "3", "4"]
    for name in SAME:
        assert (folders.runs / "whole" / name).read_bytes() == (
            folders.runs / "stopped" / name
        ).read_bytes(), name


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.long)])
def test_kill_9_at_random_moments_and_equal_predictions(kills, made, folders):
    for run in ("whole", "killed"):
        made.prepare(run)
    epochs = kills + 2
    assert ended("whole", epochs).code == 0
    timing = json.loads((folders.runs / "whole" / "timing.json").read_text())
    seed = int.from_bytes(os.urandom(4))
    chance = random.Random(seed)
    codes = []
    for _ in range(kills):
        process = start("killed", epochs)
        wait_for_line(process, "epoch")
        time.sleep(chance.uniform(0, 1.5) * timing["seconds"] / epochs)  # while it saves, or trains
        process.kill()
        process.communicate()
        codes.append(process.returncode)
    done = ended("killed", epochs)
    assert done.code == 0
    print(f"\nseed {seed}: {codes}")
    assert -signal.SIGKILL in codes
    for name in SAME:
        assert (folders.runs / "whole" / name).read_bytes() == (
            folders.runs / "killed" / name
        ).read_bytes(), name
    assert not list(folders.runs.rglob("progress.pt")) and not list(folders.runs.rglob(".*.pt"))


def test_no_module_asks_for_the_time_of_day():
    """Beside the test of the clock: durations are taken with perf_counter or monotonic."""
    for path in (workspace.PROJECT / "helpers").rglob("*.py"):
        assert not re.search(
            r"\btime\.time\b|datetime\.now|\bst_mtime\b|getmtime", path.read_text()
        ), path


# two at once


@pytest.mark.long
def test_two_trainings_in_one_folder_wait_for_each_other(made, folders):
    for run in ("alone", "shared"):
        made.prepare(run)
    assert ended("alone", 3).code == 0
    first = start("shared", 3)
    wait_for_line(first, "epoch  1/3")
    first.send_signal(signal.SIGSTOP)  # it holds the lock for as long as the test likes
    second = start("shared", 3)
    wait_for_line(second, checkpoint.PROGRESS)  # what it waits for
    first.send_signal(signal.SIGCONT)
    for process in (first, second):
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
    for name in SAME:
        assert (folders.runs / "alone" / name).read_bytes() == (
            folders.runs / "shared" / name
        ).read_bytes(), name


def test_settings_out_of_range_never_start(made):
    for name, value in {"batch_size": 0, "epochs": -1, "dropout": 1.0, "image_size": 50}.items():
        with pytest.raises(ValueError, match=name):
            dataclasses.replace(Settings(), **{name: value})
