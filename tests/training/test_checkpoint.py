"""What training keeps on disk: the checkpoint, and the progress from which a killed training goes on bit for bit."""

import dataclasses
import json
import pickle
import subprocess
import sys

import pytest
import torch

from helpers import workspace
from helpers.training import checkpoint, loop
from helpers.training.loop import fit, predict, predict_held_out
from helpers.training.settings import Settings

CPU = torch.device("cpu")
SMALL = Settings(image_size=32, epochs=3, batch_size=12, precision="fp32")


@pytest.fixture(autouse=True)
def headless(monkeypatch):
    monkeypatch.setenv("ATTENTION_HEADLESS", "1")


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_checkpoint_gives_the_same_logits(fitted, made, tmp_path):
    config = {**fitted.config, "calibration": {"slope": 1.5, "intercept": -1.0}, "threshold": 0.25}
    checkpoint.save(
        {"state_dict": fitted.network.state_dict(), "config": config}, tmp_path / "model.pt"
    )
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert set(content) == {"state_dict", "config"} and "classifier.weight" in content["state_dict"]
    network, found = checkpoint.load_checkpoint(tmp_path / "model.pt", CPU, split=made.split)
    assert found == config and not network.training and network.attention == "softmax"
    before, after = (
        predict(one, made.photographs(), made.test, found, torch.float32)
        for one in (fitted.network, network)
    )
    assert torch.equal(before, after)


class Harmful:
    def __reduce__(self):
        return print, ("code was run",)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a checkpoint",
        pickle.dumps(Harmful(), protocol=2),
        {"features.0.weight": torch.zeros(1)},
        [1, 2],
        {"state_dict": {}, "config": {"format": 2}},
        {"state_dict": {}, "config": {}},
        {"config": Harmful()},
    ],
)
def test_another_file_is_refused_and_the_notebook_named(content, tmp_path, capsys):
    path = tmp_path / "model.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match="run 04_train.ipynb again"):
        checkpoint.load_checkpoint(path, CPU)
    assert "code was run" not in capsys.readouterr().out


def test_a_checkpoint_cut_short_or_missing_names_the_notebook(fitted, tmp_path):
    path = tmp_path / "model.pt"
    with pytest.raises(FileNotFoundError, match="model.pt is not in .*: run 04_train.ipynb first"):
        checkpoint.load_checkpoint(path, CPU)
    checkpoint.save({"state_dict": fitted.network.state_dict(), "config": fitted.config}, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(
        ValueError, match="cannot be read as a checkpoint: run 04_train.ipynb again"
    ):
        checkpoint.load_checkpoint(path, CPU)


# progress


class Stopped(Exception):
    """What a reader's stop button or a lost machine is to the loop."""


def stop_after(epoch: int):
    """A report that stops the training in the epoch after this one, before that is kept."""

    def report(line: str) -> None:
        if line.startswith(f"epoch {epoch + 1:2d}/"):
            raise Stopped

    return report


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"recipe": "tutorial", "dropout": 0.5},
        {"recipe": "paper", "learning_rate": 1e-3},
        {
            "attention": "sigmoid",
            "mask_weight_pool3": 0.1,
            "mask_weight_pool4": 0.1,
            "precision": "bf16",
        },
    ],
)
def test_a_stopped_training_goes_on_and_ends_the_same(chosen, made, tmp_path):
    settings = dataclasses.replace(SMALL, **chosen)
    whole = fit(settings, made.split, made.photographs(), report=str)
    lines, progress = [], tmp_path / "run" / "progress.pt"
    for after in (1, 2):
        with pytest.raises(Stopped):
            fit(
                settings,
                made.split,
                made.photographs(),
                report=stop_after(after),
                progress=progress,
            )
    again = fit(settings, made.split, made.photographs(), report=lines.append, progress=progress)
    assert lines[0] == "goes on after epoch 2 of 3, which progress.pt holds" and len(lines) == 2
    assert equal(whole.network.state_dict(), again.network.state_dict())
    assert whole.history.equals(again.history) and whole.config == again.config
    left = {path.name for path in progress.parent.iterdir()}
    assert left == {"progress.pt", ".progress.pt.lock"}, "nothing half written lies about"


def test_a_finished_training_is_not_done_again_until_its_results_are_written(made, tmp_path):
    progress = tmp_path / checkpoint.PROGRESS
    first = fit(SMALL, made.split, made.photographs(), report=str, progress=progress)
    lines = []
    again = fit(SMALL, made.split, made.photographs(), report=lines.append, progress=progress)
    assert lines == ["goes on after epoch 3 of 3, which progress.pt holds"]
    assert equal(first.network.state_dict(), again.network.state_dict())
    assert again.timing["seconds"] > first.timing["seconds"] / 2, (
        "what the epochs took, not the second call"
    )
    content = {"calibration": {"slope": 1.0, "intercept": 0.0}, "threshold": 0.5}
    checkpoint.write_results(
        tmp_path, again, predict_held_out(again, made.split, made.photographs()), content
    )
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == sorted(checkpoint.RESULTS)
    assert checkpoint.load_checkpoint(tmp_path / "model.pt", CPU)[1]["threshold"] == 0.5


def test_progress_of_other_parameters_photographs_or_code_is_not_used(made, monkeypatch):
    def key(settings=SMALL, used=made.used, name="", precision=torch.float32) -> str:
        photographs = made.photographs()
        photographs.key += name
        return checkpoint.training_key(settings, used, photographs, precision)

    others = [
        key(dataclasses.replace(SMALL, seed=1)),
        key(dataclasses.replace(SMALL, epochs=4)),
        key(name="x"),
        key(precision=torch.bfloat16),
        key(used=made.used.assign(target=1 - made.used["target"])),
    ]
    monkeypatch.setattr(
        checkpoint, "SHAPING", checkpoint.SHAPING[1:]
    )  # as if a module had other lines
    assert len({key(), *others}) == 6
    monkeypatch.undo()
    assert key() == key(dataclasses.replace(SMALL, device="cpu")), (
        "how the same device was named changes nothing"
    )


@pytest.mark.parametrize("content", [b"", b"not a file of torch", "cut", "other"])
def test_progress_that_cannot_be_used_is_left_and_training_starts_anew(content, made, tmp_path):
    progress, lines = tmp_path / "progress.pt", []
    settings = dataclasses.replace(SMALL, epochs=1)
    keeper = checkpoint.Progress(progress, "another key")
    keeper.save({"history": []})
    keeper.close()
    if content == "cut":
        progress.write_bytes(progress.read_bytes()[:-100])
    elif content != "other":
        progress.write_bytes(content)
    fit(settings, made.split, made.photographs(), report=lines.append, progress=progress)
    assert len(lines) == 1 and lines[0].startswith("epoch  1/1")


def test_what_is_kept_is_what_was_given_though_training_goes_on(tmp_path):
    keeper = checkpoint.Progress(tmp_path / "progress.pt", "key")
    state = {
        "weights": torch.zeros(3),
        "history": [{"epoch": 1}],
        "nested": {"list": [torch.ones(2), 4]},
    }
    keeper.save(state)
    state["weights"] += 1
    state["history"].append({"epoch": 2})
    keeper.close()
    found = keeper.load()
    assert found["history"] == [{"epoch": 1}] and torch.equal(found["weights"], torch.zeros(3))
    assert (
        torch.equal(found["nested"]["list"][0], torch.ones(2)) and found["nested"]["list"][1] == 4
    )
    assert checkpoint.Progress(tmp_path / "progress.pt", "other").load() is None
    assert checkpoint.Progress(None, "key").load() is None


def test_a_disk_that_takes_no_more_ends_the_training_with_its_error(made, tmp_path):
    folder = tmp_path / "runs"
    folder.write_text("a file where the folder should be")
    with pytest.raises(OSError):
        fit(
            dataclasses.replace(SMALL, epochs=1),
            made.split,
            made.photographs(),
            report=str,
            progress=folder / "progress.pt",
        )


# memory

CRAMPED = """
import dataclasses, json, resource, sys
import torch
from helpers import train
from helpers.batches import Photographs
import pandas as pd
cache, split = json.loads(sys.argv[1]), pd.read_csv(sys.argv[2], keep_default_na=False)
photographs = Photographs(cache, torch.device("cpu"))
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 2 * 2**30,) * 2)
settings = train.Settings(image_size=512, epochs=1, batch_size=36, precision="fp32", device="cpu")
try:
    train.fit(settings, split, photographs)
except MemoryError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on a process's memory is Linux's")
def test_a_batch_that_does_not_fit_says_what_to_set(made, tmp_path):
    made.split.to_csv(tmp_path / "split.csv", index=False)
    done = subprocess.run(
        [sys.executable, "-c", CRAMPED, json.dumps(made.cache), str(tmp_path / "split.csv")],
        cwd=workspace.PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == (
        "36 photographs of 512 pixels a step do not fit in the memory of cpu: "
        "set batch_size to 18 or less, or lower image_size"
    ), done.stderr[-500:]


def test_another_error_of_the_loop_stays_what_it_is(made, monkeypatch):
    def fails(*arguments, **options):
        raise RuntimeError("something else")

    monkeypatch.setattr(loop, "transform", fails)
    with pytest.raises(RuntimeError, match="something else"):
        fit(SMALL, made.split, made.photographs(), report=str)
