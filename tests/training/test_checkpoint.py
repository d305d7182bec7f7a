"""What training keeps on disk: the checkpoint, and progress that a killed training goes on from."""

import dataclasses
import itertools
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from helpers import workspace
from helpers.model import AttnVGG
from helpers.training import checkpoint, loop
from helpers.training.loop import fit, predict, predict_held_out
from helpers.training.settings import Parameters, Settings
from tests.conftest import PATIENCE

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
    with pytest.raises(ValueError, match="model.pt.*04_train.ipynb"):
        checkpoint.load_checkpoint(path, CPU)
    assert "code was run" not in capsys.readouterr().out


def test_a_checkpoint_cut_short_or_missing_names_the_notebook(fitted, tmp_path):
    path = tmp_path / "model.pt"
    with pytest.raises(FileNotFoundError, match="model.pt.*04_train.ipynb"):
        checkpoint.load_checkpoint(path, CPU)
    checkpoint.save({"state_dict": fitted.network.state_dict(), "config": fitted.config}, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="model.pt.*04_train.ipynb"):
        checkpoint.load_checkpoint(path, CPU)


def first_edition(network: AttnVGG, split) -> dict:
    """`model.pt` as the first edition wrote it: no kind of network, nothing of what made it."""
    config = {
        "format": 1,
        "classes": 1,
        "seed": 42,
        "image_size": 32,
        "attention": "sigmoid",
        "weights": "none",
        "recipe": "one_cycle",
        "epochs": 2,
        "batch_size": 12,
        "learning_rate": 0.0,
        "alpha": -1.0,
        "gamma": 2.0,
        "dropout": 0.5,
        "mask_weight_pool3": 0.0,
        "mask_weight_pool4": 0.0,
        "mask_target": "lesion",
        "device": "cpu",
        "precision": "fp32",
        "compile_model": False,
        "view": 1.0,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "colour_order": "rgb",
        "split": checkpoint.split_key(split),
        "epoch": 2,
        "calibration": {"slope": 1.0, "intercept": 0.0},
        "threshold": 0.5,
    }
    return {"state_dict": network.state_dict(), "config": config}


def test_a_file_of_the_first_edition_still_loads(made, tmp_path):
    network = AttnVGG(attention="sigmoid", dropout=0.5)
    content = first_edition(network, made.split)
    checkpoint.save(content, tmp_path / "model.pt")
    loaded, config = checkpoint.load_checkpoint(tmp_path / "model.pt", CPU, split=made.split)
    assert config == content["config"] and equal(loaded.state_dict(), network.state_dict())
    assert loaded.bypass, "there was no other network then"
    names = [field.name for field in dataclasses.fields(Settings) if field.name in config]
    assert Settings(**{name: config[name] for name in names}).epochs == 2


def test_a_network_without_the_bypass_comes_back_as_it_was(made, tmp_path):
    network = AttnVGG(attention="weighted", bypass=False)
    config = first_edition(network, made.split)["config"] | {"attention": "weighted"}
    content = {"state_dict": network.state_dict(), "config": config | {"bypass": False}}
    checkpoint.save(content, tmp_path / "model.pt")
    loaded, _ = checkpoint.load_checkpoint(tmp_path / "model.pt", CPU)
    assert not loaded.bypass and equal(loaded.state_dict(), network.state_dict())


def test_a_network_of_ones_own_is_named_and_its_weights_can_be_read(fitted, tmp_path):
    own = torch.nn.Linear(2, 1)
    config = {**fitted.config, "network": "Linear"}
    checkpoint.save({"state_dict": own.state_dict(), "config": config}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="Linear"):
        checkpoint.load_checkpoint(tmp_path / "model.pt", CPU)
    content = checkpoint.read_checkpoint(tmp_path / "model.pt")
    assert equal(content["state_dict"], own.state_dict())


def test_what_was_moved_aside_before_is_kept(tmp_path, capsys):
    """Formerly the second set took the place of the first, without a word."""
    for content in ("first", "second", "third"):
        (tmp_path / "audit.json").write_text(content)
        checkpoint.set_aside_results(tmp_path, "a key")  # of a network that nobody can read
    names = [f"of-network-unknown{number}" for number in ("", "-2", "-3")]
    aside = [(tmp_path / name / "audit.json").read_text() for name in names]
    assert aside == ["first", "second", "third"] and not (tmp_path / "audit.json").exists()
    said = capsys.readouterr().out.splitlines()
    assert all(f"lie in {name} now" in line for name, line in zip(names, said, strict=True))


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
    "chosen",  # with the defaults: tests/faults/test_training.py
    [
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
    settings = dataclasses.replace(SMALL, epochs=2, **chosen)
    whole = fit(settings, made.split, made.photographs(), report=str)
    lines, progress = [], tmp_path / "run" / "progress.pt"
    with pytest.raises(Stopped):
        fit(settings, made.split, made.photographs(), report=stop_after(1), progress=progress)
    again = fit(settings, made.split, made.photographs(), report=lines.append, progress=progress)
    resumed = [line for line in lines if "epoch 1 of 2" in line and "progress.pt" in line]
    assert len(resumed) == 1 and lines[-1].startswith("epoch  2/2")
    assert len([line for line in lines if line.startswith("epoch")]) == 1
    assert equal(whole.network.state_dict(), again.network.state_dict())
    assert whole.history.equals(again.history) and whole.config == again.config
    left = {path.name for path in progress.parent.iterdir()}
    assert left == {"progress.pt", ".progress.pt.lock"}, "nothing half written lies about"


def test_a_finished_training_is_not_done_again_until_its_results_are_written(made, tmp_path):
    progress = tmp_path / checkpoint.PROGRESS
    first = fit(SMALL, made.split, made.photographs(), report=str, progress=progress)
    lines = []
    again = fit(SMALL, made.split, made.photographs(), report=lines.append, progress=progress)
    assert len(lines) == 1 and "epoch 3 of 3" in lines[0]
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


def facts(made, chosen=SMALL, *, key="", used=None, precision=torch.float32, given=None) -> dict:
    """What a training of the small set follows from."""
    photographs = made.photographs()
    photographs.key += key
    return checkpoint.facts_of(
        chosen, made.used if used is None else used, photographs, precision, given
    )


def test_whatever_changes_a_training_changes_what_it_follows_from(made, tmp_path):
    torch.manual_seed(0)
    network, other_network = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    for name, content in (("one.pth", b"1"), ("copy.pth", b"1"), ("other.pth", b"2")):
        (tmp_path / name).write_bytes(content)

    def weighted(name: str) -> dict:
        return facts(made, dataclasses.replace(SMALL, weights=str(tmp_path / name)))

    different = [
        facts(made),
        facts(made, dataclasses.replace(SMALL, seed=1)),
        facts(made, dataclasses.replace(SMALL, epochs=4)),
        facts(made, dataclasses.replace(SMALL, weights="imagenet")),
        facts(made, key="x"),
        facts(made, precision=torch.bfloat16),
        facts(made, used=made.used.assign(target=1 - made.used["target"])),
        facts(made, used=made.used.assign(mask="")),
        facts(made, given=network),
        facts(made, given=other_network),
        weighted("one.pth"),
        weighted("other.pth"),
    ]
    assert len({checkpoint.mark(one) for one in different}) == len(different)
    assert all(a != b for a, b in itertools.combinations(different, 2))
    assert weighted("one.pth") == weighted("copy.pth"), "bytes count, not where they lie"
    assert facts(made) == facts(made, dataclasses.replace(SMALL, device="cpu")), (
        "how the same device was named changes nothing"
    )
    assert facts(made, Parameters(image_size=32, epochs=3, batch_size=12, precision="fp32")) == (
        facts(made)
    ), "what other notebooks take changes nothing"


def test_no_source_text_is_part_of_it(made):
    assert set(facts(made)) == {field.name for field in dataclasses.fields(Settings)} | {
        "network",
        "photographs",
        "rows",
        "torch",
        "training",
    }


def test_progress_of_another_training_is_kept_and_what_differs_is_said(made, tmp_path):
    """Formerly the next epoch overwrote it without a word."""
    progress, lines = tmp_path / "progress.pt", []
    with pytest.raises(Stopped):
        fit(SMALL, made.split, made.photographs(), report=stop_after(2), progress=progress)
    before = progress.read_bytes()
    longer = dataclasses.replace(SMALL, epochs=4)
    with pytest.raises(Stopped):
        fit(
            longer,
            made.split,
            made.photographs(),
            report=lambda line: lines.append(line) or stop_after(1)(line),
            progress=progress,
        )
    [kept] = tmp_path.glob("progress.?*.pt")
    assert kept.read_bytes() == before
    assert all(fact in lines[0] for fact in ("epochs 3", "4", kept.name, progress.name)), lines[0]
    assert "learning rate" in lines[0] and "seed" not in lines[0]
    assert lines[1].startswith("epoch  1/4")

    # back to the first: both change places, and it goes on where it was
    lines.clear()
    fit(SMALL, made.split, made.photographs(), report=lines.append, progress=progress)
    assert "epochs 4" in lines[0] and "epoch 2 of 3" in lines[1] and len(lines) == 3
    names = {path.name for path in tmp_path.glob("progress*")}
    assert len(names) == 2 and "progress.pt" in names and kept.name not in names


@pytest.mark.parametrize("content", [b"", b"not a file of torch", "cut", "first edition", [1]])
def test_progress_that_cannot_be_used_is_kept_and_training_starts_anew(content, made, tmp_path):
    progress, lines = tmp_path / "progress.pt", []
    settings = dataclasses.replace(SMALL, epochs=1)
    if isinstance(content, bytes):
        progress.write_bytes(content)
    elif content == "first edition":
        torch.save({"key": "0123456789abcdef", "state": {"history": []}}, progress)
    elif content == "cut":
        checkpoint.save_progress(progress, facts(made, settings), {"history": []})
        progress.write_bytes(progress.read_bytes()[:-100])
    else:
        torch.save(content, progress)
    before = progress.read_bytes()
    fit(settings, made.split, made.photographs(), report=lines.append, progress=progress)
    assert len(lines) == 2 and lines[1].startswith("epoch  1/1")
    [kept] = tmp_path.glob("progress.?*.pt")
    assert kept.name in lines[0] and kept.read_bytes() == before


def test_progress_of_these_facts_is_left_where_it_is(tmp_path):
    path = tmp_path / "progress.pt"
    assert checkpoint.set_aside(path, {"seed": 1}) == ""
    assert checkpoint.load_progress(path, {"seed": 1}) is None
    checkpoint.save_progress(path, {"seed": 1}, {"history": [{"epoch": 1}]})
    assert checkpoint.set_aside(path, {"seed": 1}) == ""
    assert checkpoint.load_progress(path, {"seed": 1}) == {"history": [{"epoch": 1}]}
    assert checkpoint.load_progress(path, {"seed": 2}) is None
    assert [file.name for file in tmp_path.iterdir()] == ["progress.pt"]


def test_memory_that_ends_while_progress_is_saved_says_what_to_set(made, tmp_path, monkeypatch):
    """Formerly torch's own words came through: saving stood outside of what names what fits."""

    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 60.00 MiB")

    monkeypatch.setattr(checkpoint, "save_progress", full)
    with pytest.raises(MemoryError, match="batch_size to 6"):
        fit(SMALL, made.split, made.photographs(), report=str, progress=tmp_path / "progress.pt")


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
from helpers.training.batches import Photographs
from helpers.training.loop import fit
from helpers.training.settings import Settings
import numpy as np
import pandas as pd
cache, split = json.loads(sys.argv[1]), pd.read_csv(sys.argv[2], keep_default_na=False)
photographs = Photographs(cache, torch.device("cpu"))
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 2 * 2**30,) * 2)
settings = Settings(image_size=512, epochs=1, batch_size=36, precision="fp32", device="cpu")
try:
    fit(settings, split, photographs)
except MemoryError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on a process's memory is Linux's")
def test_a_batch_that_does_not_fit_says_what_to_set(made, tmp_path):
    made.split.to_csv(tmp_path / "split.csv", index=False)
    black = tmp_path / "black.npy"  # as large as is asked for
    np.lib.format.open_memmap(black, "w+", np.uint8, (len(made.used), 512, 512, 3))
    cache = {**made.cache, "file": str(black), "masks_file": ""}
    done = subprocess.run(
        [sys.executable, "-c", CRAMPED, json.dumps(cache), str(tmp_path / "split.csv")],
        cwd=workspace.PROJECT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    said = done.stdout.strip().splitlines()
    assert len(said) >= 1, done.stderr[-500:]
    assert all(fact in said[-1] for fact in ("36", "512", "cpu", "batch_size to 18", "image_size"))


def test_another_error_of_the_loop_stays_what_it_is(made, monkeypatch):
    def fails(*arguments, **options):
        raise RuntimeError("something else")

    monkeypatch.setattr(loop, "transform", fails)
    with pytest.raises(RuntimeError, match="something else"):
        fit(SMALL, made.split, made.photographs(), report=str)
