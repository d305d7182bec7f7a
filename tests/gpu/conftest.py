"""Pretend GPUs for these tests, by the names of real ones, and what they train on them."""

import pytest
import torch

from helpers import workspace
from helpers.training import loop
from helpers.training.batches import Photographs
from tests.gpu.pretend import PretendGPU

# A T4 as Colab and Kaggle lend it; one that has no room for photographs; an H100
MACHINES = {
    "t4": {"capability": (7, 5), "memory": 15.6e9},
    "full": {"capability": (7, 5), "memory": 1},
    "h100": {"capability": (9, 0), "memory": 80e9},
}


def pretend(machine: str, **options: object) -> PretendGPU:
    """One of MACHINES, to be entered."""
    return PretendGPU(project=workspace.PROJECT, **MACHINES[machine] | options)


def on_gpu(made) -> Photographs:
    """The drawn photographs, where this machine computes."""
    return Photographs(made.cache, workspace.choose_device())


def forbid_waits_within_epochs(monkeypatch) -> None:
    """From the first batch of an epoch to its last, a wait raises."""
    batches_of = loop.batches_of

    def watched(*arguments):
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield from batches_of(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(loop, "batches_of", watched)


@pytest.fixture(autouse=True)
def headless(monkeypatch):
    monkeypatch.setenv("ATTENTION_HEADLESS", "1")


@pytest.fixture
def gpu():
    """A T4, entered."""
    with pretend("t4") as entered:
        yield entered
