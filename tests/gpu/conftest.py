"""Pretend GPUs for these tests, by the names of real ones."""

import pytest

from helpers import workspace
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


@pytest.fixture(autouse=True)
def headless(monkeypatch):
    monkeypatch.setenv("ATTENTION_HEADLESS", "1")


@pytest.fixture
def gpu():
    """A T4, entered."""
    with pretend("t4") as entered:
        yield entered
