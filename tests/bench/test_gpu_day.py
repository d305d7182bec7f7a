"""bench/gpu_day.py, rehearsed on the CPU: what it would do on a GPU, and that it goes on."""

import json

import pytest
import torch

from helpers.model import AttnVGG
from tests.bench.conftest import record  # noqa: F401 - puts bench/ on the path

import gpu_day  # isort: skip


def test_without_biases_a_network_answers_the_same_and_learns_the_same():
    """In float64: in float32 a rounding may turn a ReLU or a maximum, and with it a gradient."""
    torch.manual_seed(0)
    networks = []
    for _ in range(2):
        torch.manual_seed(1)
        networks.append(AttnVGG(attention="none").double())
        for layer in networks[-1].backbone:
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.normal_(layer.bias, std=0.1)
            if isinstance(layer, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(layer.running_mean, std=0.1)
    whole, folded = networks[0], gpu_day.without_biases(networks[1])
    assert not [name for name, _ in folded.backbone.named_parameters() if name == "0.bias"]
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    for training in (False, True):
        answers = [n.train(training).backbone(images) for n in (whole, folded)]
        torch.testing.assert_close(*answers, rtol=1e-9, atol=1e-9)
    for network in networks:
        network.backbone(images).sum().backward()
    gradients = [network.backbone[3].weight.grad for network in networks]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)


@pytest.fixture
def start_small(start, tmp_path):
    """Start it as a rehearsal, in a folder of its own: what ended, and what it left."""

    def start_small(*options: str):
        done = start(
            "gpu_day", "--small", "--work", str(tmp_path / "w"), "--out", str(tmp_path), *options
        )
        path = tmp_path / "gpu_day.json"
        parts = json.loads(path.read_text())["figures"]["parts"] if path.exists() else {}
        return done, parts

    return start_small


def test_a_part_that_is_done_is_not_done_again_and_one_that_failed_is(start_small):
    done, parts = start_small("--parts", "steps", "real_photographs")
    assert done.returncode == 1, done.stderr
    assert parts["steps"]["found"]["bf16"]["photographs_per_second"] > 0
    assert "bf16, no biases" in parts["steps"]["found"]
    assert "--dataset and --masks" in parts["real_photographs"]["failed"]
    done, again = start_small("--parts", "steps")
    assert done.returncode == 0 and "steps: done before" in done.stdout
    assert (
        again["steps"] == parts["steps"] and again["real_photographs"] == parts["real_photographs"]
    )


def test_no_part_is_begun_when_the_time_is_up(start_small):
    done, parts = start_small("--minutes", "0", "--parts", "steps")
    assert done.returncode == 1 and "no time" in parts["steps"]["failed"]


@pytest.mark.long
def test_every_other_part_runs(start_small):
    done, parts = start_small("--parts", "learn", "kill_and_resume", "real_device")
    assert done.returncode == 0, done.stdout + done.stderr
    assert 0 <= parts["learn"]["found"]["auc"] <= 1
    killed = parts["kill_and_resume"]["found"]
    assert killed["killed"] and killed["goes_on"] and killed["finished"]
    assert "passed" in parts["real_device"]["found"]["said"]
