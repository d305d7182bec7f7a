"""Training in two processes on the CPU (gloo), started by torchrun.

It equals one process's, is whole, and never hangs.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from helpers import workspace
from helpers.model import AttnVGG
from helpers.training import checkpoint, processes
from helpers.training.loop import fit
from helpers.training.settings import Settings
from tests.conftest import PATIENCE
from tests.training import ways

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def trained(made, tmp_path_factory) -> dict[str, list[dict]]:
    """What two processes leave for each way, a dictionary a process."""
    folder = tmp_path_factory.mktemp("two")
    made.split.to_csv(folder / "split.csv", index=False)
    subprocess.run(
        [*TORCHRUN, ways.__file__, json.dumps(made.cache), str(folder / "split.csv"), folder],
        check=True,
        timeout=PATIENCE,
        cwd=workspace.PROJECT,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "ATTENTION_HEADLESS": "1",
            "PYTHONPATH": str(workspace.PROJECT),
        },
    )
    left = {}
    for name in ways.WAYS:
        files = [folder / f"{name}.{number}" for number in range(2)]
        left[name] = [torch.load(file, weights_only=True) for file in files]
    return left


@pytest.fixture(scope="module")
def frozen(made, trained) -> tuple[dict, list[dict]]:
    """One process, this one, and two; batch norm frozen."""
    return ways.train(ways.WAYS["frozen"], made.cache, made.split), trained["frozen"]


def furthest(one: dict, other: dict) -> float:
    """The largest difference of two states, as a share of the tensor's largest value."""
    assert one.keys() == other.keys()
    return max(
        ((one[name] - other[name]).abs().max() / one[name].abs().max().clamp(min=1)).item()
        for name in one
    )


def test_validation_in_two_processes_equals_one_processs(frozen):
    one, two = frozen
    for process in two:
        assert (process["logits"] - one["logits"]).abs().max() <= 1e-6


def test_training_with_frozen_batch_norm_equals_one_processs(frozen):
    one, two = frozen
    moved = furthest(one["state"], AttnVGG(attention="sigmoid").state_dict())
    for process in two:
        assert furthest(one["state"], process["state"]) <= 1e-5 < moved
        for name in ("train_loss", "val_loss", "train_auc", "val_auc", "learning_rate"):
            np.testing.assert_allclose(process["history"][name], one["history"][name], atol=1e-5)
    assert furthest(two[0]["state"], two[1]["state"]) == 0


def test_an_extra_loss_in_two_processes_equals_one_processs(made, trained):
    one = ways.train(ways.WAYS["extra"], made.cache, made.split)
    for process in trained["extra"]:
        assert furthest(one["state"], process["state"]) <= 1e-5


def test_each_photograph_stands_in_one_share_of_each_epoch(frozen, made):
    one, two = frozen
    melanomas = made.used.loc[made.train, "target"].to_numpy() == 1
    whole = sorted(
        np.repeat(made.train, np.where(melanomas, 4, 1))
    )  # the paper's recipe shows a melanoma four times
    for epoch in range(2):
        shares = [process["seen"][epoch] for process in two]
        assert sorted(shares[0] + shares[1]) == whole == sorted(one["seen"][epoch])
        assert abs(len(shares[0]) - len(shares[1])) <= len(whole) // 13 + 1


class Halves(nn.Module):
    """One process that takes the statistics of a batch's two shares apart.

    That is what two do without SyncBatchNorm.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor):
        sizes = [len(images) // 2, len(images) - len(images) // 2]
        first, second = images.split(sizes)
        other = {
            name: buffer.clone() for name, buffer in self.network.named_buffers()
        }  # the second process's own
        outputs = [self.network(first), torch.func.functional_call(self.network, other, (second,))]
        return type(outputs[0])(*(torch.cat(parts) for parts in zip(*outputs, strict=True)))


def test_training_with_live_batch_norm_equals_one_process_with_shares_apart(
    made, trained, monkeypatch
):
    monkeypatch.setattr(processes, "replicate", Halves)
    one = ways.train(ways.WAYS["live"], made.cache, made.split)
    for process in trained["live"]:
        assert furthest(one["state"], process["state"]) <= 1e-5
        np.testing.assert_allclose(
            process["history"]["val_loss"], one["history"]["val_loss"], atol=1e-5
        )


DYING = """
import datetime, os, signal, sys
from helpers.runs import train
from helpers.training import loop, processes
# nobody gives up waiting for the dead: that it is dead ends the job
processes.PATIENCE = datetime.timedelta(days=1)
real = loop.roc_auc_score
calls = []
def dies(*arguments):
    calls.append(1)
    if processes.place()[0] == 1 and len(calls) == 3:  # in the second epoch
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
loop.roc_auc_score = dies
sys.exit(train.main(sys.argv[1:]))
"""


def test_a_dead_process_ends_the_job_and_the_next_start_goes_on(made, folders, tmp_path):
    folder = made.prepare("two")
    (tmp_path / "dying.py").write_text(DYING)
    options = [
        "--",
        "--run",
        "two",
        "-p",
        "image_size",
        "32",
        "-p",
        "epochs",
        "3",
        "-p",
        "batch_size",
        "12",
        "-p",
        "control",
        "",
    ]
    environment = {**os.environ, "ATTENTION_HEADLESS": "1", "PYTHONPATH": str(workspace.PROJECT)}
    dead = subprocess.run(
        [*TORCHRUN, str(tmp_path / "dying.py"), *options],
        env=environment,
        cwd=workspace.PROJECT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert dead.returncode != 0 and "SIGKILL" in dead.stderr
    assert "epoch  1/3" in dead.stdout and "epoch  3/3" not in dead.stdout
    again = subprocess.run(
        [*TORCHRUN, "-m", "helpers.train", *options],
        env=environment,
        cwd=workspace.PROJECT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert again.returncode == 0, again.stderr[-2000:]
    assert "goes on after epoch 1 of 3" in again.stdout and again.stdout.count("epoch  3/3") == 1
    assert {path.name for path in folder.glob("[!.]*")} == {
        "dataset.json",
        "split.csv",
        "cache.json",
        "model.pt",
        "history.csv",
        "predictions.csv",
        "metrics.json",
        "timing.json",
    }
    table = pd.read_csv(folder / "predictions.csv")
    content = workspace.read_json(folder / "metrics.json", "04_train.ipynb")
    test = table[table["split"] == "test"]
    assert content["test"]["auc"] == pytest.approx(roc_auc_score(test["target"], test["logit"]))
    assert (
        checkpoint.load_checkpoint(folder / "model.pt", torch.device("cpu"))[1]["threshold"]
        == content["threshold"]
    )


# one process alone


def test_alone_a_share_is_the_whole_and_nothing_changes():
    network = nn.Linear(2, 1)
    assert processes.place() == (0, 1) and processes.first()
    assert processes.share(7) == slice(0, 7) and processes.share(0) == slice(0, 0)
    assert processes.replicate(network) is network
    values = torch.tensor([2.0, 1.0])
    assert processes.total(values) is values
    processes.agree(3, "nothing to compare")
    processes.copy_buffers(network)
    processes.wait()
    with processes.started("cpu") as device:
        assert device == torch.device("cpu") and processes.place() == (0, 1)
    torch.manual_seed(5)
    expected = torch.rand(3)
    processes.seed_dropout(5)
    assert torch.equal(torch.rand(3), expected)


def test_processes_of_other_epochs_are_told(monkeypatch):
    def reduce(largest, how) -> None:
        largest.copy_(torch.tensor([5, -3]))  # of one process 5, of another 3

    monkeypatch.setattr(processes, "place", lambda: (0, 2))
    monkeypatch.setattr(processes, "communicator", lambda: torch.device("cpu"))
    monkeypatch.setattr(processes.distributed, "all_reduce", reduce)
    with pytest.raises(processes.Disagreement, match="the epoch: .*3 to 5"):
        processes.agree(3, "the epoch")


@pytest.mark.parametrize("processes_here", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [8, 13, 64])
def test_shares_are_neighbours_of_nearly_one_size(processes_here, count, monkeypatch):
    shares = []
    for number in range(processes_here):
        monkeypatch.setattr(processes, "place", lambda number=number: (number, processes_here))
        shares.append(np.arange(count)[processes.share(count)])
    assert np.concatenate(shares).tolist() == list(range(count))
    assert np.ptp([len(share) for share in shares]) <= 1


def test_more_processes_than_photographs_in_a_batch_are_refused(made, monkeypatch):
    monkeypatch.setattr(processes, "place", lambda: (0, 13))
    settings = Settings(image_size=32, batch_size=12)
    with pytest.raises(ValueError, match="10 .*13 processes.*batch_size"):
        fit(settings, made.split, made.photographs())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the GPUs of two processes need a GPU")
def test_a_process_without_a_gpu_is_told(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", str(torch.cuda.device_count()))
    monkeypatch.setenv("WORLD_SIZE", "99")
    with pytest.raises(ValueError, match="has no GPU"), processes.started("cuda"):
        pass
