"""Answers, maps, explanations, the audit and the evidence, on a pretend GPU."""

import numpy as np
import pytest
import torch

from helpers.audit import attribution, evidence, localisation
from helpers.model import AttnVGG
from helpers.pictures import explorer, maps
from helpers.training.augment import IMAGENET_MEAN, IMAGENET_STD
from helpers.training.batches import Photographs
from tests.gpu.conftest import pretend

CONFIG = {"view": 1.0, "image_size": 32, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
# of the network
KINDS = [{"attention": "softmax"}, {"attention": "weighted", "bypass": False}]


def network_there(**kind) -> AttnVGG:
    torch.manual_seed(0)
    return AttnVGG(**kind).to("cuda", memory_format=torch.channels_last).eval()


@pytest.fixture
def photographs(made, gpu) -> Photographs:
    return Photographs(made.cache, torch.device("cuda"))


@pytest.mark.parametrize("kind", KINDS)
def test_answers_and_maps_are_the_cpus(kind, made, photographs):
    there = maps.evaluate(network_there(**kind), photographs, made.val, CONFIG)
    here = network_there(**kind).to("cpu")
    expected = maps.evaluate(here, made.photographs(), made.val, CONFIG)
    for answer, same in zip(there, expected, strict=True):
        assert not answer.is_cuda
        torch.testing.assert_close(answer, same, rtol=1e-4, atol=1e-5)


def test_explanations_lie_where_the_photographs_do(made, photographs):
    network = network_there()
    images, _ = photographs.evaluation(made.test[:3], CONFIG)
    grids = attribution.posthoc(network, images, batch_size=2)
    assert all(grid.is_cuda and len(grid) == 3 for grid in grids.values())
    here = made.photographs().evaluation(made.test[:3], CONFIG)[0]
    expected, _ = attribution.grad_cam(network.to("cpu"), here)
    torch.testing.assert_close(grids["grad_cam"].cpu(), expected, rtol=1e-3, atol=1e-4)


def test_the_audit_measures_every_map(made, photographs):
    network = network_there()
    stranger = localisation.untrained(network)
    assert stranger.classifier.weight.is_cuda

    def look(images):
        learned = localisation.maps_of(network, images)
        return learned | localisation.unlearned(stranger, images, CONFIG)

    table = localisation.measure(look, photographs, made.used, CONFIG, rows=made.test[:4])
    assert len(table) == 4 * 9


def test_an_untrained_network_leaves_a_gpus_chance_alone(gpu):
    """Two GPUs, as Kaggle lends: no warning, and no GPU is asked for what it has drawn."""
    network = network_there()
    gpu.waits.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "get_rng_state", None)
        patch.setattr(torch.cuda, "manual_seed_all", None)
        localisation.untrained(network)


def test_a_photograph_of_the_readers_own(made, photographs):
    network = network_there()
    pixels = photographs.take(made.test[:1])[0][0].cpu().numpy()
    seen = explorer.as_seen(pixels, photographs.side, CONFIG, photographs.device)
    cam, answer = attribution.grad_cam(network, seen)
    assert cam.is_cuda
    assert set(explorer.layers_of(answer, cam, "softmax")) == {"pool-3", "pool-4", "Grad-CAM"}
    assert 0 <= explorer.colour_rank(pixels, photographs, made.train) <= 1


# evidence


@pytest.mark.parametrize("name", ["attention_pool4", "grad_cam", "centre"])
def test_deletion_and_insertion_by_any_map(name, made, photographs):
    network = network_there()
    images, _ = photographs.evaluation(made.test[:2], CONFIG)
    grids = localisation.maps_of(network, images)[name].expand(2, -1, -1, -1)
    curves = evidence.curves(network, images, grids, steps=2)
    assert curves["deletion"].shape == (2, 3) and not curves["deletion"].is_cuda


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_taken_apart(kind, made, photographs):
    network = network_there(**kind)
    parts = evidence.take_apart(network, photographs, made.test, CONFIG)
    grids = [*parts.maps.values(), *parts.values.values(), parts.rest, *parts.signed().values()]
    assert not any(grid.is_cuda for grid in grids)
    answers = maps.evaluate(network, photographs, made.test, CONFIG).logits.squeeze(1)
    torch.testing.assert_close(evidence.logits_of(parts), answers, rtol=1e-3, atol=1e-4)
    table = made.used.iloc[made.test].reset_index(drop=True)
    assert len(evidence.interventions(table, parts)) > 0


def test_hidden_lesions_turns_and_untrained_layers(made, photographs):
    network = network_there()
    assert evidence.hidden(network, photographs, made.test[:3], CONFIG).notna().any(axis=None)
    images, _ = photographs.evaluation(made.test[:2], CONFIG)
    grids, logits = evidence.turned(network, images)
    assert grids["grad_cam"].shape[:2] == (8, 2) == logits.shape
    stages = [localisation.maps_of(other, images) for _, other in evidence.cascade(network)]
    correlations = evidence.rank_correlation(stages[-1]["grad_cam"], stages[0]["grad_cam"])
    assert np.isfinite(correlations.numpy()).all()


def test_what_streams_is_audited_too(made):
    with pretend("full"):
        photographs = Photographs(made.cache, torch.device("cuda"))
        assert not photographs.resident
        parts = evidence.take_apart(network_there(), photographs, made.test[:4], CONFIG)
    assert parts.masks is not None and not parts.masks.is_cuda
