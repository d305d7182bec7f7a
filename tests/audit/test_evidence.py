"""helpers/interventions.py against hooks in the network itself, plain loops, hand computations and symmetries."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from helpers.audit import evidence
from helpers.model import AttnVGG, Output
from helpers.photographs.cache import fill
from helpers.training.augment import denormalise
from helpers.training.batches import Photographs

SIDE = 64
CONFIG = {"view": 1.0, "image_size": SIDE, "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}


def build(attention: str) -> AttnVGG:
    """An untrained network whose attention is far from flat and whose classifier listens to it."""
    torch.manual_seed(1)
    network = AttnVGG(attention=attention).eval()
    with torch.no_grad():
        network.classifier.weight.mul_(30)
        network.attention3.score.weight.mul_(10)
        network.attention4.score.weight.mul_(10)
    return network


@pytest.fixture(params=["softmax", "sigmoid"])
def network(request):
    return build(request.param)


@pytest.fixture
def cached(tmp_path):
    """Six photographs of 70 pixels; the fourth has no lesion."""
    rng = np.random.default_rng(0)
    masks = np.zeros((6, 70, 70), np.uint8)
    for number in (0, 1, 2, 4, 5):
        masks[number, 10 + 4 * number : 40, 20:50] = 255
    pixels = rng.integers(0, 255, (6, 70, 70, 3), dtype=np.uint8)
    for name, rows in (("pixels", pixels), ("masks", masks)):
        fill(tmp_path / f"{name}.npy", rows.shape, rows.__getitem__, name)
    return Photographs(
        {"file": tmp_path / "pixels.npy", "masks_file": tmp_path / "masks.npy"}, torch.device("cpu")
    )


def forced(network: AttnVGG, images: torch.Tensor, maps: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits of the network itself while hooks put these maps in place of its own."""

    def hook(grid):
        def put(block, given, _):
            weighted = (grid * given[0]).flatten(2)
            return grid, weighted.sum(dim=2) if block.normalization == "softmax" else weighted.mean(
                dim=2
            )

        return put

    handles = [
        getattr(network, name.replace("pool", "attention")).register_forward_hook(hook(grid))
        for name, grid in maps.items()
    ]
    with torch.no_grad():
        logits = network(images).logits.squeeze(1)
    for handle in handles:
        handle.remove()
    return logits


def test_without_a_change_the_sum_is_the_networks_own_logit(network, cached):
    rows = np.array([5, 0, 2])
    images, masks = cached.evaluation(rows, CONFIG)
    with torch.no_grad():
        output = network(images)
    found = evidence.evidence(network.train(), cached, rows, CONFIG, batch_size=2)
    torch.testing.assert_close(
        evidence.logits_of(found), output.logits.squeeze(1), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        (found.maps["pool3"], found.maps["pool4"], found.masks), (*output[1:], masks)
    )
    assert all(one.requires_grad and one.grad is None for one in network.parameters())


@pytest.mark.parametrize("names", list(evidence.BLOCKS.values()), ids=list(evidence.BLOCKS))
def test_changed_maps_give_the_logits_of_the_network_with_those_maps(network, cached, names):
    rows = np.arange(6)
    images, _ = cached.evaluation(rows, CONFIG)
    found = evidence.evidence(network, cached, rows, CONFIG)
    for change in evidence.CHANGES:
        maps = {
            name: evidence.replace(change, found.maps[name], groups=np.arange(6), masks=found.masks)
            for name in names
        }
        new, expected = evidence.logits_of(found, maps), forced(network, images, maps)
        assert new.isnan().tolist() == [change == "mask" and row == 3 for row in rows]
        torch.testing.assert_close(new, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
        assert (new - evidence.logits_of(found)).abs().nan_to_num().max() > 1e-3, (
            "a change that changes nothing"
        )


def test_a_network_without_attention_is_refused(cached):
    with pytest.raises(ValueError, match="attention is 'none'"):
        evidence.evidence(AttnVGG(attention="none"), cached, np.arange(2), CONFIG)


def test_a_logit_by_hand():
    found = evidence.Evidence(
        {"pool3": torch.tensor([[[[0.5, 0.25], [0.25, 0.0]]]]), "pool4": torch.tensor([[[[1.0]]]])},
        {
            "pool3": torch.tensor([[[[4.0, -8.0], [2.0, 100.0]]]]),
            "pool4": torch.tensor([[[[3.0]]]]),
        },
        torch.tensor([0.125]),
        None,
    )
    assert evidence.logits_of(found).tolist() == [0.125 + (2 - 2 + 0.5 + 0) + 3]
    assert evidence.logits_of(found, {"pool4": torch.tensor([[[[2.0]]]])}).tolist() == [
        0.125 + 0.5 + 6
    ]


@pytest.mark.parametrize("shape", [(4, 1, 6, 6), (5, 1, 3, 8)])
@pytest.mark.parametrize("change", evidence.CHANGES)
def test_a_changed_map_keeps_its_sum_and_is_what_it_says(change, shape):
    generator = torch.Generator().manual_seed(2)
    maps, masks = (torch.rand(size, generator=generator) for size in (shape, (shape[0], 1, 24, 24)))
    groups, (N, _, H, W) = np.array(["b", "b", "a", "c", "d"][: shape[0]]), shape
    found = evidence.replace(change, maps, groups=groups, masks=masks)
    torch.testing.assert_close(found.sum(dim=(1, 2, 3)), maps.sum(dim=(1, 2, 3)))
    for number in range(N):
        old, new = maps[number].flatten().tolist(), found[number].flatten().tolist()
        if change == "uniform":
            assert new == pytest.approx([sum(old) / len(old)] * len(old))
        elif change == "reversed":
            assert sorted(new) == sorted(old)
            assert [old[new.index(value)] for value in sorted(old)] == sorted(old, reverse=True)
        elif change == "another's":
            shares = [
                [value / sum(other.flatten().tolist()) for value in other.flatten().tolist()]
                for other in maps
            ]
            donors = [
                k
                for k in range(N)
                if shares[k] == pytest.approx([value / sum(new) for value in new])
            ]
            assert len(donors) == 1 and groups[donors[0]] != groups[number]
        else:
            high, wide = 24 // H, 24 // W
            cells = [
                masks[number, 0, y * high : (y + 1) * high, x * wide : (x + 1) * wide].sum().item()
                for y in range(H)
                for x in range(W)
            ]
            assert new == pytest.approx([cell * sum(old) / sum(cells) for cell in cells], rel=1e-4)


def test_a_change_without_a_mask_is_not_measured_and_an_unknown_one_is_refused():
    maps = torch.rand(2, 1, 4, 4)
    assert evidence.replace("mask", maps, groups=np.arange(2)).isnan().all()
    with pytest.raises(ValueError, match="another's"):
        evidence.replace("shuffle", maps, groups=np.arange(2))


@pytest.mark.parametrize("seed", range(5))
def test_strangers_are_of_other_groups_and_each_is_taken_once(seed):
    rng = np.random.default_rng(seed)
    groups = rng.permutation(
        np.r_[np.repeat(7, 10), rng.integers(0, 4, 10) * 2]
    )  # half are of one group
    partner = evidence.strangers(groups)
    assert sorted(partner) == list(range(20)) and (groups[partner] != groups).all()


def test_strangers_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="3 of 5 photographs"):
        evidence.strangers(np.array([1, 1, 1, 2, 3]))


def made_up(count: int = 40) -> tuple[pd.DataFrame, evidence.Evidence]:
    """Photographs whose pool-3 map alone tells a melanoma (weight on the first of two cells); pool-4 tells nothing."""
    target = np.arange(count) % 2
    table = pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(count)],
            "split": "test",
            "group": np.arange(count),
            "target": target,
        }
    )
    first = 0.3 + 0.4 * torch.from_numpy(target).float() + 0.001 * torch.arange(count)
    maps3, values3 = (
        torch.stack([first, 1 - first], dim=1).view(count, 1, 1, 2),
        torch.tensor([1.0, -1.0]),
    )
    masks = torch.stack([torch.ones(count), torch.zeros(count)], dim=1).view(count, 1, 1, 2)
    masks[:4] = 0
    flat = torch.full((count, 1, 1, 2), 0.5)
    return table, evidence.Evidence(
        {"pool3": maps3, "pool4": flat},
        {"pool3": values3.expand(count, 1, 1, 2), "pool4": flat},
        torch.zeros(count),
        masks,
    )


def test_interventions_measure_what_the_auc_loses():
    table, found = made_up()
    rows = evidence.interventions(table, found).set_index(["block", "change"])
    assert len(rows) == len(evidence.BLOCKS) * len(evidence.CHANGES)
    assert evidence.logits_of(found)[1::2].min() > evidence.logits_of(found)[::2].max(), (
        "AUC 1 before"
    )
    for change, left in {"uniform": 0.5, "reversed": 0.0}.items():
        assert rows.loc[("pool-3", change), "value"] == pytest.approx(left - 1)
        assert rows.loc[("both", change), "high"] <= left - 1 + 1e-9
    assert (
        rows.loc["pool-4", "value"].tolist() == [0, 0, 0, 0] == rows.loc["pool-4", "moved"].tolist()
    )
    assert rows.loc[("pool-3", "mask"), "n"] == 36  # four have no lesion to see
    own = evidence.logits_of(found).tolist()  # uniform leaves a logit of 0.25
    spread = math.sqrt(sum((one - sum(own) / 40) ** 2 for one in own) / 39)
    assert rows.loc[("pool-3", "uniform"), "moved"] == pytest.approx(
        sum(abs(one - 0.5) for one in own) / 40 / spread
    )


def test_interventions_without_masks_leave_the_mask_out():
    table, found = made_up()
    assert "mask" not in set(evidence.interventions(table, found._replace(masks=None))["change"])


def test_ranking_puts_the_largest_first_and_draws_ties():
    maps = torch.tensor([[0.0, 3, 1, 2], [5, 5, 5, 5]]).view(2, 1, 2, 2)
    assert evidence.ranking(maps, (2, 2))[0].tolist() == [1, 3, 2, 0]
    order = evidence.ranking(torch.ones(2, 1, 3, 4), (6, 8))
    assert (order.sort(dim=1).values == torch.arange(48)).all()
    assert (order[0] != torch.arange(48)).any() and (order[0] != order[1]).any()


class Linear(nn.Module):
    """A "network" whose logit is a weighted sum of the pixels."""

    def __init__(self, weights: torch.Tensor):
        super().__init__()
        self.weights = weights

    def forward(self, images: torch.Tensor) -> Output:
        return Output((self.weights * images).sum(dim=(1, 2, 3))[:, None], None, None)


def test_curves_of_a_linear_network_equal_a_plain_loop():
    generator = torch.Generator().manual_seed(0)
    weights, images = (
        torch.randn(3, 4, 6, generator=generator) / 4,
        torch.randn(3, 3, 4, 6, generator=generator),
    )
    maps = torch.rand(3, 1, 4, 6, generator=generator)
    found = evidence.curves(Linear(weights), images, maps, steps=5)
    signs = set()
    for number in range(3):
        pixels = sorted(
            ((y, x) for y in range(4) for x in range(6)),
            key=lambda at: -maps[number, 0, at[0], at[1]],
        )
        means, whole = images[number].mean(dim=(1, 2)), (weights * images[number]).sum().item()
        signs.add(whole > 0)
        for step in range(6):
            count = round(step * 24 / 5)
            for name, shown in (("deletion", pixels[count:]), ("insertion", pixels[:count])):
                logit = sum(
                    weights[c, y, x].item()
                    * (images[number, c, y, x] if (y, x) in shown else means[c]).item()
                    for c in range(3)
                    for y in range(4)
                    for x in range(6)
                )
                expected = 1 / (1 + math.exp(-logit if whole > 0 else logit))
                assert found[name][number, step].item() == pytest.approx(expected, abs=1e-5), (
                    name,
                    step,
                )
    assert signs == {True, False}


def test_curves_end_in_the_whole_photograph_and_in_the_fill(network):
    images = torch.randn(2, 3, SIDE, SIDE)
    found = evidence.curves(network, images, torch.rand(2, 1, 4, 4), steps=2)
    with torch.no_grad():
        whole = network(images).logits
        blank = network(images.mean(dim=(2, 3), keepdim=True).repeat(1, 1, SIDE, SIDE)).logits
    expected = [(one * whole.sign()).sigmoid()[:, 0] for one in (whole, blank)]
    for name, ends in (("deletion", expected), ("insertion", expected[::-1])):
        torch.testing.assert_close((found[name][:, 0], found[name][:, 2]), tuple(ends))


def test_views_hide_the_lesion_or_all_else():
    images, masks = (
        torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)),
        torch.zeros(2, 1, 4, 5),
    )
    masks[0, 0, 1:3, 2:4] = 1
    masks[1, 0, 0] = 0.6
    config = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.1, 0.3)}
    found = evidence.views(images, masks, config)
    assert torch.equal(found.pop("whole"), images) and len(found) == 4
    for name, view in found.items():
        for n, c, y, x in np.ndindex(2, 3, 4, 5):
            outside = [
                images[n, c, i, j].item()
                for i in range(4)
                for j in range(5)
                if masks[n, 0, i, j] < 0.5
            ]
            fill = (
                sum(outside) / len(outside)
                if "skin" in name
                else -config["mean"][c] / config["std"][c]
            )
            gone = (masks[n, 0, y, x] >= 0.5) == ("no lesion" in name)
            assert view[n, c, y, x].item() == pytest.approx(
                fill if gone else images[n, c, y, x].item(), rel=1e-5
            )


def test_black_is_black_as_the_reader_sees_it(cached):
    images, masks = cached.evaluation(np.array([0]), CONFIG)
    view = denormalise(
        evidence.views(images, masks, CONFIG)["no lesion, black"],
        mean=CONFIG["mean"],
        std=CONFIG["std"],
    )[0]
    lesion = masks[0, 0].numpy() >= 0.5
    assert view[lesion].max() < 1e-6 and view[~lesion].max() > 0.5


def test_hidden_gives_the_logits_of_the_views_where_there_is_a_lesion(network, cached):
    rows = np.array([4, 3, 0])
    found = evidence.hidden(network, cached, rows, CONFIG, batch_size=2)
    images, masks = cached.evaluation(rows, CONFIG)
    assert (
        found.index.tolist() == [4, 3, 0]
        and found.loc[3].isna().all()
        and found.notna().sum().sum() == 10
    )
    with torch.no_grad():
        for name, view in evidence.views(images, masks, CONFIG).items():
            expected = network(view).logits.squeeze(1)
            torch.testing.assert_close(
                torch.tensor(found[name].to_numpy())[[0, 2]], expected[[0, 2]]
            )


def test_randomising_nothing_changes_nothing(network):
    images = torch.randn(2, 3, SIDE, SIDE)
    stage, same = next(evidence.cascade(network))
    assert stage == "trained" and same is not network
    with torch.no_grad():
        ours, theirs = network(images), same(images)
    torch.testing.assert_close(tuple(ours), tuple(theirs), rtol=0, atol=0)
    for first, second in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(
            evidence.rank_correlation(first, second), torch.ones(2, dtype=torch.float64)
        )


def test_the_cascade_leaves_the_rest_and_ends_with_nothing_of_the_network(network):
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in network.state_dict().values():  # so that nothing is as fresh
            value.copy_(
                value * 0.9 + 0.01 * torch.rand(value.shape, generator=generator)
                if value.is_floating_point()
                else value + 1
            )
    before = copy.deepcopy(network.state_dict())
    images, changed, seen = torch.randn(1, 3, SIDE, SIDE), set(), []
    with torch.no_grad():
        own = network(images)
    for stage, one in evidence.cascade(network):
        seen.append(stage)
        now = {
            name for name, value in one.state_dict().items() if not torch.equal(value, before[name])
        }
        assert changed <= now and (stage == "trained") == (now == changed)
        if stage == "classifier":
            assert now == {"classifier.weight", "classifier.bias"}
            torch.testing.assert_close(one(images).pool4_map, own.pool4_map, rtol=0, atol=0)
        changed = now
    assert changed == set(before) and seen == ["trained", *evidence.STAGES]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_cascade_draws_without_touching_the_readers_random_numbers(network):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    drawn = [
        [value.clone() for value in one.state_dict().values()]
        for _, one in evidence.cascade(network, seed=1)
    ][-1]
    assert torch.equal(torch.rand(1), expected)
    again = [one for _, one in evidence.cascade(network, seed=1)][-1].state_dict().values()
    assert all(torch.equal(first, second) for first, second in zip(drawn, again, strict=True))


def test_rank_correlation_is_scipys():
    generator = torch.Generator().manual_seed(0)
    first, second = (
        torch.randint(0, 6, (3, 1, 4, 5), generator=generator).float() for _ in range(2)
    )
    found = evidence.rank_correlation(first, second)
    for number in range(3):
        expected = spearmanr(first[number].flatten(), second[number].flatten()).statistic
        assert found[number].item() == pytest.approx(expected)
    torch.testing.assert_close(
        evidence.rank_correlation(first, first.exp()), torch.ones(3, dtype=torch.float64)
    )
    torch.testing.assert_close(
        evidence.rank_correlation(first, -first), -torch.ones(3, dtype=torch.float64)
    )
    first[1] = 0.1
    assert evidence.rank_correlation(first, torch.ones(3, 1, 4, 5)).tolist() == [0, 1, 0]


def test_the_eight_turns_are_different_and_can_be_undone():
    image = torch.arange(18.0).view(2, 3, 3)
    turns = [evidence.turn(image, number) for number in range(8)]
    assert len({tuple(one.flatten().tolist()) for one in turns}) == 8
    for number, one in enumerate(turns):
        assert torch.equal(evidence.turn(one, number, back=True), image)
    assert turns[0] is image or torch.equal(turns[0], image)
    assert turns[1][0].tolist() == [[2, 5, 8], [1, 4, 7], [0, 3, 6]]  # a quarter to the left
    assert turns[4][0].tolist() == [[2, 1, 0], [5, 4, 3], [8, 7, 6]]


def test_an_equivariant_network_turns_its_maps_with_the_photograph(network):
    images = torch.randn(2, 3, SIDE, SIDE)
    maps, logits = evidence.turned(network, images)
    least = [
        min(evidence.rank_correlation(one, grids[0]).min().item() for one in grids)
        for grids in maps.values()
    ]
    assert max(least) < 0.99 and (logits - logits[0]).abs().max() > 1e-3, "as it is, it does not"
    for layer in network.backbone:
        if isinstance(layer, nn.Conv2d):  # the mean of its eight turns
            layer.weight.data = torch.stack(
                [evidence.turn(layer.weight.data, number) for number in range(8)]
            ).mean(dim=0)
    maps, logits = evidence.turned(network, images)
    assert {name: grids.shape[:3] for name, grids in maps.items()} == dict.fromkeys(
        maps, (8, 2, 1)
    ) and len(maps) == 3
    for number in range(8):
        torch.testing.assert_close(logits[number], logits[0], rtol=1e-3, atol=1e-4)
        for grids in maps.values():
            torch.testing.assert_close(
                grids[number], grids[0], rtol=1e-3, atol=1e-4 * grids[0].max().item()
            )
