"""Slips that work on a CPU and fail, or crawl, on a GPU: the pretend GPU has to catch each.

A small network stands for `AttnVGG`: this is about what watches over the code.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from helpers import workspace
from helpers.audit import evidence
from helpers.pictures import explorer
from helpers.training import augment, loop, processes
from helpers.training.augment import IMAGENET_MEAN, IMAGENET_STD
from helpers.training.batches import Photographs
from helpers.training.settings import Settings
from tests.gpu.conftest import forbid_waits_within_epochs, on_gpu, pretend
from tests.gpu.pretend import DeviceMismatch
from tests.gpu.small import Small

CONFIG = {"view": 1.0, "image_size": 32, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
SETTINGS = Settings(
    image_size=32,
    epochs=1,
    batch_size=13,
    attention="sigmoid",
    mask_weight_pool3=0.1,
    mask_weight_pool4=0.1,
)


# what is done on the GPU


def train(made, monkeypatch, machine: str = "t4") -> None:
    with pretend(machine) as gpu:
        forbid_waits_within_epochs(monkeypatch)
        photographs = on_gpu(made)
        loop.fit(SETTINGS, made.split, photographs, report=str, network=Small())
    read = {kind for line, way, kind, *_ in gpu.transfers if line.startswith("batches.py")}
    if machine == "full" and read != {"pinned"}:
        raise RuntimeError(f"streamed from {read} memory")


def stream(made, monkeypatch) -> None:
    train(made, monkeypatch, "full")


def delete_pixels(made, monkeypatch) -> None:
    with pretend("t4"):
        images, _ = on_gpu(made).evaluation(made.test[:2], CONFIG)
        network = Small().to("cuda")
        evidence.curves(network, images, network(images).pool3_map.detach(), steps=2)


def look_at_ones_own(made, monkeypatch) -> None:
    with pretend("t4"):
        pixels = np.zeros((40, 50, 3), np.uint8)
        Small().to("cuda")(explorer.as_seen(pixels, 36, CONFIG, torch.device("cuda")))


# the slips; each takes the place of a function of ours


def numpy_of_what_lies_there(monkeypatch) -> None:
    monkeypatch.setattr(processes, "total", lambda values: torch.from_numpy(values.numpy()))


def item_in_the_epoch(monkeypatch) -> None:
    loss = loop.focal_loss

    def logged(*arguments, **options):
        value = loss(*arguments, **options)
        value.item()
        return value

    monkeypatch.setattr(loop, "focal_loss", logged)


def targets_left_on_the_cpu(monkeypatch) -> None:
    send = workspace.send
    monkeypatch.setattr(
        workspace,
        "send",
        lambda t, device: t if t.dim() == 1 and t.is_floating_point() else send(t, device),
    )


def network_left_on_the_cpu(monkeypatch) -> None:
    monkeypatch.setattr(nn.Module, "to", lambda network, *_, **__: network)


def masks_left_on_the_cpu(monkeypatch) -> None:
    monkeypatch.setattr(
        loop, "warp_masks", lambda masks, draws, side: torch.ones(len(masks), 1, side, side)
    )


def a_copy_that_waits(monkeypatch) -> None:
    monkeypatch.setattr(workspace, "send", lambda tensor, device: tensor.to(device))


def photographs_chosen_by_a_mask(monkeypatch) -> None:
    loss = loop.mask_loss

    def chosen(maps, masks, masked, weights, **options):
        has = masked > 0
        return loss([grid[has] for grid in maps], masks[has], masked[has], weights, **options)

    monkeypatch.setattr(loop, "mask_loss", chosen)


def draws_made_there_by_the_cpus_generator(monkeypatch) -> None:
    def uniform(count, low, high, generator):
        return low + (high - low) * torch.rand(count, generator=generator, device="cuda")

    monkeypatch.setattr(augment, "uniform", uniform)


def an_optimiser_that_is_not_fused(monkeypatch) -> None:
    monkeypatch.setattr(
        loop, "make_optimiser", lambda network, _: torch.optim.SGD(network.parameters(), lr=0.1)
    )


def rows_as_numpy_numbers(monkeypatch) -> None:
    monkeypatch.setattr(
        Photographs,
        "_gather",
        lambda photographs, rows: (photographs.pixels[rows], photographs.masks[rows]),
    )


def memory_that_is_not_pinned(monkeypatch) -> None:
    gather = Photographs._gather

    def unpinned(photographs, rows):
        return tuple(tensor.detach().clone() for tensor in gather(photographs, rows))

    monkeypatch.setattr(Photographs, "_gather", unpinned)


def an_order_computed_on_the_cpu(monkeypatch) -> None:
    ranking = evidence.ranking
    monkeypatch.setattr(
        evidence, "ranking", lambda maps, size, seed: ranking(maps.cpu(), size, seed=seed)
    )


def a_photograph_left_on_the_cpu(monkeypatch) -> None:
    transform = explorer.transform
    monkeypatch.setattr(
        explorer,
        "transform",
        lambda square, *rest, **options: transform(square.cpu(), *rest, **options),
    )


WAIT = (RuntimeError, "synchronizing")
ELSEWHERE = (DeviceMismatch, "two devices")
SLIPS = [
    (numpy_of_what_lies_there, train, (TypeError, "numpy")),
    (item_in_the_epoch, train, WAIT),
    (targets_left_on_the_cpu, train, ELSEWHERE),
    (network_left_on_the_cpu, train, ELSEWHERE),
    (masks_left_on_the_cpu, train, ELSEWHERE),
    (a_copy_that_waits, train, WAIT),
    (photographs_chosen_by_a_mask, train, WAIT),
    (draws_made_there_by_the_cpus_generator, train, (RuntimeError, "generator")),
    (an_optimiser_that_is_not_fused, train, WAIT),
    (rows_as_numpy_numbers, train, WAIT),
    (memory_that_is_not_pinned, stream, (RuntimeError, "pageable")),
    (an_order_computed_on_the_cpu, delete_pixels, ELSEWHERE),
    (a_photograph_left_on_the_cpu, look_at_ones_own, ELSEWHERE),
]


@pytest.mark.parametrize("slip, deed, expected", SLIPS, ids=[slip.__name__ for slip, *_ in SLIPS])
def test_each_slip_is_caught(slip: Callable, deed: Callable, expected: tuple, made, monkeypatch):
    slip(monkeypatch)
    error, words = expected
    with pytest.raises(error, match=words):
        deed(made, monkeypatch)


@pytest.mark.parametrize("deed", [train, stream, delete_pixels, look_at_ones_own])
def test_without_a_slip_nothing_is_caught(deed, made, monkeypatch):
    deed(made, monkeypatch)
