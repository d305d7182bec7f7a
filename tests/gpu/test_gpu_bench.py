"""The loops of bench/speed.py on a pretend GPU, and what it asks of one."""

import dataclasses

import pytest
import torch

from helpers.training.settings import Settings
from tests.bench.conftest import record  # noqa: F401 - puts bench/ on the path
from tests.gpu.conftest import on_gpu, pretend
from tests.gpu.notebook import uncompiled

import loops  # isort: skip
import speed  # isort: skip

SETTINGS = Settings(recipe="tutorial", epochs=2, image_size=32, batch_size=12, attention="none")


@pytest.mark.parametrize("machine, batch", [("t4", 64), ("h100", 100)])
def test_batches_are_smaller_where_all_loops_at_once_have_less_room(machine, batch):
    with pretend(machine):
        assert speed.usual_batch(torch.device("cuda")) == batch
    assert speed.usual_batch(torch.device("cpu")) == 16


def test_the_tutorials_loop_waits_for_each_batch_and_ours_for_none(made):
    """As README of bench says: a loss and an AUC of each batch, against nothing."""
    images, targets = torch.randn(4, 3, 32, 32), torch.tensor([0.0, 1.0, 0.0, 1.0])
    with pretend("t4") as gpu:
        network = speed.model.AttnVGG(attention="none").to("cuda")
        batches = [(images.to("cuda"), targets.to("cuda"))] * 2
        adam = torch.optim.Adam(network.parameters(), fused=True)
        gpu.waits.clear()
        loops.tutorial_epoch(network, batches, adam)
        fetched = sum(gpu.waits.values())
        scaler = torch.amp.GradScaler("cuda")
        with gpu.without_waits():
            loops.mixed_step(network, *batches[0], adam, scaler, torch.float16)
    assert fetched >= 2 * len(batches)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.long)])
def test_our_epoch_and_our_batches_run_there(compiled, made):
    settings = dataclasses.replace(SETTINGS, compile_model=compiled)
    with uncompiled(), pretend("t4"):
        photographs = on_gpu(made)
        assert loops.our_epoch(settings, made.split, photographs) > 0
        for images in loops.our_batches(settings, photographs, made.train):
            assert images.is_cuda


@pytest.mark.long
def test_the_ceiling_is_measured_there():
    with pretend("t4"):
        backbone = speed.model.AttnVGG(attention="none").to("cuda").backbone
        loops.convolutions(backbone, torch.randn(2, 3, 32, 32).to("cuda"), torch.float16)()
