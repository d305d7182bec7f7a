"""bench/ideas.py: each idea changes what it says and nothing else."""

import copy
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.audit.evidence import turn
from helpers.model import AttnVGG
from helpers.training.settings import Settings
from tests.bench.conftest import record  # noqa: F401 - puts bench/ on the path

import ideas  # isort: skip


@pytest.fixture
def images():
    return torch.randn(4, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def build(**changes) -> ideas.Changed:
    torch.manual_seed(0)
    return ideas.Changed(**changes)


def gradients(network: AttnVGG, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of the sum of the logits, by parameter; in evaluation mode, which keeps the statistics."""
    network.eval()(images).logits.sum().backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("attention", ["softmax", "sigmoid", "none"])
def test_without_changes_it_is_the_series_network(images, attention):
    settings = Settings(attention=attention, seed=3)
    ours = ideas.make_network(ideas.Candidate(), settings).eval()
    torch.manual_seed(3)
    plain = AttnVGG(attention=attention).eval()
    with torch.no_grad():
        for own, other in zip(ours(images), plain(images), strict=True):
            assert own is other is None or torch.equal(own, other)


def test_a_detached_guide_reads_and_does_not_teach(images):
    detached = gradients(build(detached=True), images)
    plain = gradients(build(), images)
    guide = "attention3.guide_projection.weight"
    torch.testing.assert_close(detached[guide], plain[guide])
    assert not torch.allclose(detached["backbone.40.weight"], plain["backbone.40.weight"])
    # with the vectors alone nothing else teaches the last block
    alone = gradients(build(detached=True, bypass=False), images)
    assert alone["backbone.40.weight"] is None
    assert alone["backbone.30.weight"].abs().sum() > 0


def test_attended_vectors_alone_reach_the_classifier(images):
    network = build(bypass=False).eval()
    seen = []
    network.classifier.register_forward_hook(lambda layer, given, made: seen.append(given[0]))
    with torch.no_grad():
        network(images)
        _, _, vector3, _, vector4 = network.look(images)
    assert torch.equal(seen[0], torch.cat([vector3, vector4], dim=1))
    assert seen[0].shape == (4, 256 + 512)


def test_before_pooling_maps_have_twice_the_side(images):
    with torch.no_grad():
        output = build(before_pooling=True).eval()(images)
    assert output.pool3_map.shape == (4, 1, 16, 24)
    assert output.pool4_map.shape == (4, 1, 8, 12)


def test_mirrored_padding_hides_where_the_photograph_ends():
    plain = build().eval()
    mirrored = build(mirrored=True).eval()
    one_colour = torch.full((1, 3, 64, 64), 0.7)
    with torch.no_grad():
        pool3 = mirrored.backbone[:24](one_colour)
        edged = plain.backbone[:24](one_colour)
    torch.testing.assert_close(pool3, pool3[:, :, :1, :1].expand_as(pool3))
    assert edged.std(dim=(2, 3)).max() > 0.01  # with zeros around it the edge shows


def test_the_second_loss_is_the_distance_of_a_map_and_that_of_the_turned_photograph(
    images, monkeypatch
):
    images = images[..., :64]
    monkeypatch.setattr(torch, "randint", lambda *_: torch.tensor(5))
    network = build().eval()  # else one photograph's features depend on the others
    settings = Settings(precision="fp32")
    photographs = SimpleNamespace(device=torch.device("cpu"))
    loss = ideas.turned_loss(network, 0.3, settings, None, photographs)
    straight = network(images)
    given = loss(straight, SimpleNamespace(images=images))
    turned = network(turn(images[::2], 5))
    apart = 0.0
    for name in ("pool3_map", "pool4_map"):
        for number in range(2):
            back = turn(getattr(turned, name)[number], 5, back=True)
            apart += (getattr(straight, name)[2 * number] - back).abs().sum().item() / 2 / 2
    assert given.item() == pytest.approx(0.3 * apart, rel=1e-5)
    given.backward()
    assert network.backbone[0].weight.grad.abs().sum() > 0


def test_a_sigmoid_map_starts_where_it_is_told(images):
    with torch.no_grad():
        low = build(attention="sigmoid", start=0.1).eval()(images).pool4_map
        plain = build(attention="sigmoid").eval()(images).pool4_map
    torch.testing.assert_close(low.logit(), plain.logit() + np.log(0.1 / 0.9), rtol=1e-3, atol=1e-3)


def test_pool_3_alone_answers_and_the_other_columns_stay_0(images):
    network = build(bypass=False, pool3_alone=True).eval()
    output = network(images)
    with torch.no_grad():
        _, _, vector3, _, _ = network.look(images)
    classifier = network.classifier
    expected = vector3 @ classifier.weight[:, :256].T + classifier.bias
    torch.testing.assert_close(output.logits, expected, rtol=1e-4, atol=1e-5)
    output.logits.sum().backward()
    assert not classifier.weight[:, 256:].any() and not classifier.weight.grad[:, 256:].any()
    assert classifier.weight.grad[:, :256].any()


def test_exchanged_maps_are_punished_where_they_still_tell_something(images):
    network = build(attention="weighted", bypass=False).train()
    loss = ideas.exchanged_loss(network, 0.3)
    output = network(images)
    with torch.no_grad():
        pool3, pool4, _ = copy.deepcopy(network).pools(images)
    vectors = []
    for maps, local in ((output.pool3_map, pool3), (output.pool4_map, pool4)):
        others = maps.roll(1, 0)
        vectors.append((others * local).sum(dim=(2, 3)) / others.sum(dim=(2, 3)))
    p = network.classifier(torch.cat(vectors, dim=1)).sigmoid()
    by_hand = -(0.5 * p.log() + 0.5 * (1 - p).log()).mean() - np.log(2)
    assert loss(output, None).item() == pytest.approx(0.3 * by_hand.item(), rel=1e-3, abs=1e-7)
    with torch.no_grad():
        network.classifier.weight.zero_()
        assert loss(network(images), None).item() == pytest.approx(0, abs=1e-6)
        network.classifier.bias.fill_(3.0)
        assert loss(network(images), None).item() > 0.2


def test_a_teacher_that_leaves_takes_its_whole_term_along(images):
    network = build(attention="weighted", bypass=False).train()
    settings = Settings(
        attention="weighted",
        mask_weight_pool3=0.1,
        mask_weight_pool4=0.2,
        epochs=2,
        batch_size=16,
    )
    split = pd.DataFrame({"split": ["train"] * 20 + ["val"] * 9, "kept": 1})  # two steps an epoch
    loss = ideas.taught_at_first(network, 0.5, settings, split)
    output = network(images)
    masks = (torch.rand(4, 1, 64, 96) > 0.5).float()
    batch = SimpleNamespace(masks=masks, masked=torch.tensor([1.0, 1.0, 0.0, 1.0]))
    term = ideas.mask_loss(output[1:], masks, batch.masked, (0.1, 0.2)).item()
    assert [loss(output, batch).item() for _ in range(2)] == [0, 0]
    assert [loss(output, batch).item() for _ in range(2)] == [pytest.approx(-term)] * 2
