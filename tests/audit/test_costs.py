"""helpers/audit/costs.py against published counts, a sum over layers, and torch's own memory."""

import torch
from torch import nn
from torchvision.models import vgg16_bn
from torchvision.models.vgg import cfgs

from helpers.audit import costs
from helpers.model import AttnVGG


def test_cost_equals_published_counts_and_a_sum_over_layers():
    side, channels, work = 224, 3, 0
    for layer in cfgs["D"]:
        if layer == "M":
            side //= 2
        else:
            work += side * side * channels * layer * 9
            channels = layer
    ours, vgg = costs.cost(AttnVGG), costs.cost(vgg16_bn)
    assert (ours["parameters"], vgg["parameters"]) == (15_183_683, 138_365_992)
    assert vgg["multiply-adds"] == work + 25088 * 4096 + 4096 * 4096 + 4096 * 1000
    blocks = 0
    for local, places in ((256, 28 * 28), (512, 14 * 14)):
        blocks += 256 * (local * places + 512 * 7 * 7 + places)
    assert ours["multiply-adds"] == work + blocks + 1280


def test_the_bytes_of_a_step_are_those_of_the_layers_counted_by_hand():
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 2)
        )

    weights = 4 * 27 + 4 + 2 * 256 + 2
    image = 2 * 3 * 64  # which the convolution keeps for its weights' gradient
    after = 2 * 4 * 64  # what ReLU puts out: kept once, though two layers need it
    assert costs.training_bytes(build, batch=2, side=8) == 16 * weights + 4 * (image + after)


def test_a_larger_batch_adds_activations_and_no_weights():
    # of one photograph alone some tensors need no copy, so it is no step of the line
    two, three, four = (costs.training_bytes(AttnVGG, batch=batch, side=32) for batch in (2, 3, 4))
    assert four - three == three - two > 0
    assert two > 16 * 15_183_683


def test_lighter_times_both_networks_as_often_as_asked(monkeypatch):
    """On stand-ins: a network of 138 million weights is no matter for a test of every day."""
    passes = []

    class Small(nn.Module):
        def __init__(self, name: str):
            super().__init__()
            self.name = name
            self.layer = nn.Linear(3, 2 if name == "ours" else 4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if type(images) is torch.Tensor:  # and not one without content
                passes.append((self.name, tuple(images.shape), self.training))
            return self.layer(images.mean(dim=(2, 3)))

    monkeypatch.setattr(costs, "AttnVGG", lambda attention, bypass: Small("ours"))
    monkeypatch.setattr(costs, "vgg16_bn", lambda: Small("theirs"))
    found = costs.lighter("sigmoid", torch.device("cpu"), batch=3, side=8, repeats=2)
    assert passes == [("ours", (3, 3, 8, 8), True), ("theirs", (3, 3, 8, 8), True)] * 3
    assert {name: len(taken) for name, taken in found["seconds"].items()} == {
        "AttnVGG": 2,
        "VGG16-BN": 2,
    }
    assert found["bytes"]["AttnVGG"] < found["bytes"]["VGG16-BN"]
    assert (found["batch"], found["side"]) == (3, 8)
