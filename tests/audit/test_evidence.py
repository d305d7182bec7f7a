"""helpers/audit/evidence.py against hooks in the network, plain loops, hand work, symmetries."""

import copy
import math
import statistics

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from helpers.audit import evidence
from helpers.model import AttnVGG, Output
from helpers.photographs.cache import fill
from helpers.scores import bootstrap
from helpers.training.augment import denormalise
from helpers.training.batches import Photographs

SIDE = 64
CONFIG = {"view": 1.0, "image_size": SIDE, "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}


def build(attention: str, bypass: bool = True) -> AttnVGG:
    """An untrained network whose attention is far from flat and whose classifier listens to it."""
    torch.manual_seed(1)
    network = AttnVGG(attention=attention, bypass=bypass).eval()
    with torch.no_grad():
        network.classifier.weight.mul_(30)
        network.attention3.score.weight.mul_(10)
        network.attention4.score.weight.mul_(10)
    return network


@pytest.fixture(params=["softmax", "sigmoid", "weighted", "weighted, closed bypass"])
def network(request):
    attention, _, closed = request.param.partition(", ")
    return build(attention, bypass=not closed)


@pytest.fixture
def cached(tmp_path):
    """Six photographs of 70 pixels, with masks or without; the fourth has no lesion."""
    rng = np.random.default_rng(0)
    masks = np.zeros((6, 70, 70), np.uint8)
    for number in (0, 1, 2, 4, 5):
        masks[number, 10 + 4 * number : 40, 20:50] = 255
    pixels = rng.integers(0, 255, (6, 70, 70, 3), dtype=np.uint8)
    for name, rows in (("pixels", pixels), ("masks", masks)):
        fill(tmp_path / f"{name}.npy", rows.shape, rows.__getitem__, [], name)

    def photographs(masked: bool = True) -> Photographs:
        masks_file = str(tmp_path / "masks.npy") if masked else ""
        cache = {"file": str(tmp_path / "pixels.npy"), "masks_file": masks_file}
        return Photographs(cache, torch.device("cpu"))

    return photographs


def forced(network: AttnVGG, images: torch.Tensor, maps: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits of the network itself while hooks put these maps in place of its own."""

    def hook(grid):
        def put(block, given, _):
            return grid, (grid * given[0]).flatten(2).sum(dim=2)  # [B, C]

        return put

    handles = []
    for name, grid in maps.items():
        block = getattr(network, name.replace("pool", "attention"))
        handles.append(block.register_forward_hook(hook(grid)))
    with torch.no_grad():
        logits = network(images).logits.squeeze(1)
    for handle in handles:
        handle.remove()
    return logits


def test_without_a_change_the_sum_is_the_networks_own_logit(network, cached):
    rows = np.array([5, 0, 2])
    images, masks = cached().evaluation(rows, CONFIG)
    with torch.no_grad():
        output = network(images)
    parts = evidence.take_apart(network.train(), cached(), rows, CONFIG, batch_size=2)
    logits = evidence.logits_of(parts)
    torch.testing.assert_close(logits, output.logits.squeeze(1), rtol=1e-4, atol=1e-4)
    for name, grid in (("pool3", output.pool3_map), ("pool4", output.pool4_map)):
        shares = parts.maps[name]
        kind = network.attention3.normalization
        whole = {"softmax": 1, "sigmoid": grid[0].numel(), "weighted": grid.sum((1, 2, 3))}[kind]
        whole = torch.as_tensor(whole).view(-1, 1, 1, 1)
        torch.testing.assert_close(shares * whole, grid, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(parts.masks, masks)
    for parameter in network.parameters():
        assert parameter.requires_grad and parameter.grad is None


def test_three_signed_maps_and_the_bias_sum_to_the_logit(network, cached):
    rows = np.arange(6)
    images, _ = cached().evaluation(rows, CONFIG)
    parts = evidence.take_apart(network, cached(), rows, CONFIG)
    signed = parts.signed()
    assert {name: tuple(grid.shape[1:]) for name, grid in signed.items()} == {
        "pool3": (1, 8, 8),
        "pool4": (1, 4, 4),
        "pool5": (1, 2, 2),
    }
    total = parts.bias + sum(grid.sum(dim=(1, 2, 3)) for grid in signed.values())
    with torch.no_grad():
        logits = network(images).logits.squeeze(1)
    torch.testing.assert_close(total, logits, rtol=1e-4, atol=1e-4)
    assert signed["pool5"].abs().max() > 1e-3 if network.bypass else not signed["pool5"].any()


def test_the_total_keeps_each_sum_and_each_place(network, cached):
    parts = evidence.take_apart(network, cached(), np.arange(6), CONFIG)
    total = parts.total()
    assert total.shape == (6, 1, 8, 8)
    sums = total.sum(dim=(1, 2, 3)) + parts.bias
    torch.testing.assert_close(sums, evidence.logits_of(parts), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("place", [(0, 0), (0, 2), (1, 1)])
def test_the_total_puts_a_coarse_cell_where_it_lies(place):
    """Pool-5 has 2 x 3 cells, pool-3 has 8 x 12: all is in one cell, whose centre must not move."""
    row, column = place
    pool5 = torch.zeros(1, 1, 2, 3)
    pool5[0, 0, row, column] = 6.0
    fine, coarse = torch.zeros(1, 1, 8, 12), torch.zeros(1, 1, 4, 6)
    grids = {"pool3": fine, "pool4": coarse}
    total = evidence.Contributions(grids, grids, pool5, 0.0, None).total()
    assert total.sum().item() == pytest.approx(6)
    inside = total[0, 0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
    assert inside.sum() > 0.5 * 6 and total.max() == inside.max()


def test_contributions_speak_for_the_call_that_was_made(network):
    images = torch.randn(3, 3, SIDE, 96, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        logits = network(images).logits
    bias = network.classifier.bias.item()
    threshold = logits.median().item() - 1e-4
    side = torch.where(logits >= threshold, 1.0, -1.0)[:, 0]
    assert set(side.tolist()) == {1.0, -1.0}
    maps = evidence.contribution_maps(network.train(), images, threshold=threshold)
    assert not network.training
    total = maps.pop("contribution_sum")
    shapes = {"contribution_pool3": (3, 1, 8, 12), "contribution_pool4": (3, 1, 4, 6)}
    if network.bypass:
        shapes["contribution_pool5"] = (3, 1, 2, 3)
    assert {name: tuple(grid.shape) for name, grid in maps.items()} == shapes
    expected = side * (logits[:, 0] - bias)
    for sums in (total.sum(dim=(1, 2, 3)), sum(grid.sum(dim=(1, 2, 3)) for grid in maps.values())):
        torch.testing.assert_close(sums, expected, rtol=1e-3, atol=1e-4)
    other = evidence.contribution_maps(network, images, threshold=logits.max().item() + 1)
    benign = evidence.take_images_apart(network, images).signed()["pool4"]
    torch.testing.assert_close(other["contribution_pool4"], -benign)


def test_shares_of_the_variance_are_those_of_numpy_and_sum_to_1(network, cached):
    parts = evidence.take_apart(network, cached(), np.arange(6), CONFIG)
    shares = evidence.variance_shares(parts, pd.Series(range(6)))
    logits = evidence.logits_of(parts).double().numpy()
    for name, grid in parts.signed().items():
        added = grid.double().sum(dim=(1, 2, 3)).numpy()
        expected = np.cov(added, logits)[0, 1] / np.var(logits, ddof=1)
        assert shares[name]["value"] == pytest.approx(expected, abs=1e-5)
        assert math.isnan(shares[name]["low"]), "six groups are too few"
    assert sum(share["value"] for share in shares.values()) == pytest.approx(1, abs=1e-5)


def test_shares_of_the_variance_have_intervals_over_groups():
    """The interval of a share against the plain bootstrap of NumPy's covariance."""
    rng = np.random.default_rng(0)
    part = rng.normal(size=60)
    whole = part + rng.normal(size=60)
    groups = np.arange(60) // 2
    found = bootstrap.interval(evidence.share_of_variance(part, whole - whole.mean()), groups)
    drawn = []
    for _ in range(3000):
        chosen = rng.integers(0, 30, 30)
        rows = np.concatenate([2 * chosen, 2 * chosen + 1])
        drawn.append(np.cov(part[rows], whole[rows])[0, 1] / np.var(whole[rows], ddof=1))
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.02)
    assert found["low"] < found["value"] < found["high"]


def test_logits_that_are_all_equal_have_no_shares():
    _, parts = made_up()
    same = parts._replace(
        values={name: torch.zeros_like(grid) for name, grid in parts.maps.items()}
    )
    shares = evidence.variance_shares(same, pd.Series(range(40)))
    assert shares == {"pool3": None, "pool4": None, "pool5": None}


def test_logits_are_taken_apart_without_masks_as_well(network, cached):
    rows = np.arange(3)
    with_masks = evidence.take_apart(network, cached(), rows, CONFIG)
    without = evidence.take_apart(network, cached(masked=False), rows, CONFIG)
    assert without.masks is None
    assert torch.equal(without.rest, with_masks.rest)


def test_no_rows_are_refused(network, cached):
    for measure in (evidence.take_apart, evidence.hidden):
        with pytest.raises(ValueError, match="rows is empty"):
            measure(network, cached(), np.array([], int), CONFIG)


@pytest.mark.parametrize("names", list(evidence.BLOCKS.values()), ids=list(evidence.BLOCKS))
def test_changed_maps_give_the_logits_of_the_network_with_those_maps(network, cached, names):
    rows = np.arange(6)
    images, _ = cached().evaluation(rows, CONFIG)
    parts = evidence.take_apart(network, cached(), rows, CONFIG)
    for change in evidence.CHANGES:
        maps = {}
        for name in names:
            maps[name] = evidence.replace(
                change, parts.maps[name], groups=np.arange(6), masks=parts.masks
            )
        new = evidence.logits_of(parts, maps)
        assert new.isnan().tolist() == [change == "lesion" and row == 3 for row in rows]
        expected = forced(network, images, maps)
        torch.testing.assert_close(new, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
        moved = (new - evidence.logits_of(parts)).abs().nan_to_num()
        assert moved.max() > 1e-3, "a change that changes nothing"


@pytest.mark.parametrize("bypass", [True, False])
def test_a_network_without_attention_has_equal_shares_everywhere(cached, bypass):
    torch.manual_seed(2)
    network = AttnVGG(attention="none", bypass=bypass)
    images, _ = cached().evaluation(np.arange(3), CONFIG)
    parts = evidence.take_apart(network, cached(), np.arange(3), CONFIG)
    assert (parts.maps["pool3"] == 1 / 64).all() and (parts.maps["pool4"] == 1 / 16).all()
    with torch.no_grad():
        logits = network(images).logits.squeeze(1)
    torch.testing.assert_close(evidence.logits_of(parts), logits, rtol=1e-4, atol=1e-5)


def test_a_network_of_several_logits_is_refused(cached):
    with pytest.raises(ValueError, match="one logit, not 2"):
        evidence.take_apart(AttnVGG(2), cached(), np.arange(2), CONFIG)


def test_a_logit_by_hand():
    parts = evidence.Contributions(
        maps={
            "pool3": torch.tensor([[[[0.5, 0.25], [0.25, 0.0]]]]),
            "pool4": torch.tensor([[[[1.0]]]]),
        },
        values={
            "pool3": torch.tensor([[[[4.0, -8.0], [2.0, 100.0]]]]),
            "pool4": torch.tensor([[[[3.0]]]]),
        },
        pool5=torch.zeros(1, 1, 1, 1),
        bias=0.125,
        masks=None,
    )
    through_pool3 = 2 - 2 + 0.5 + 0
    assert evidence.logits_of(parts).tolist() == [0.125 + through_pool3 + 3]
    changed = evidence.logits_of(parts, {"pool4": torch.tensor([[[[2.0]]]])})
    assert changed.tolist() == [0.125 + through_pool3 + 6]


@pytest.mark.parametrize("shape", [(4, 1, 6, 6), (5, 1, 3, 8)])
@pytest.mark.parametrize("change", evidence.CHANGES)
def test_a_changed_map_keeps_its_sum_and_is_what_it_says(change, shape):
    generator = torch.Generator().manual_seed(2)
    N, _, H, W = shape
    maps = torch.rand(shape, generator=generator)
    masks = torch.rand((N, 1, 24, 24), generator=generator)
    groups = np.array(["b", "b", "a", "c", "d"][:N])
    changed = evidence.replace(change, maps, groups=groups, masks=masks)
    torch.testing.assert_close(changed.sum(dim=(1, 2, 3)), maps.sum(dim=(1, 2, 3)))
    shares = [(grid / grid.sum()).flatten().tolist() for grid in maps]
    for number in range(N):
        old = maps[number].flatten().tolist()
        new = changed[number].flatten().tolist()
        if change == "uniform":
            assert new == pytest.approx([sum(old) / len(old)] * len(old))
        elif change == "reversed":
            assert sorted(new) == sorted(old)
            assert [old[new.index(value)] for value in sorted(old)] == sorted(old, reverse=True)
        elif change == "another's":
            share = pytest.approx([value / sum(new) for value in new])
            donors = [other for other in range(N) if shares[other] == share]
            assert len(donors) == 1 and groups[donors[0]] != groups[number]
        else:
            cells = []
            for row in np.split(masks[number, 0].numpy(), H):
                cells += [cell.mean() for cell in np.split(row, W, axis=1)]
            if change == "outside":
                cells = [1 - cell for cell in cells]
            expected = [cell * sum(old) / sum(cells) for cell in cells]
            assert new == pytest.approx(expected, rel=1e-4)


def test_a_change_without_a_mask_is_not_measured_and_an_unknown_one_is_refused():
    maps = torch.rand(2, 1, 4, 4)
    for change in ("lesion", "outside"):
        assert evidence.replace(change, maps, groups=np.arange(2)).isnan().all()
    with pytest.raises(ValueError, match="another's"):
        evidence.replace("shuffle", maps, groups=np.arange(2))


@pytest.mark.parametrize("seed", range(5))
def test_donors_are_of_other_groups_and_each_is_taken_once(seed):
    rng = np.random.default_rng(seed)
    half = np.repeat(7, 10)  # of all photographs are of one group
    groups = rng.permutation(np.r_[half, rng.integers(0, 4, 10) * 2])
    donors = evidence.donors(groups)
    assert sorted(donors) == list(range(20)) and (groups[donors] != groups).all()


def test_donors_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="3 of 5"):
        evidence.donors(np.array([1, 1, 1, 2, 3]))


def made_up() -> tuple[pd.DataFrame, evidence.Contributions]:
    """40 photographs whose pool-3 map alone tells a melanoma, by its first cell of two.

    Pool-4's map tells nothing; four photographs have no lesion to see.
    """
    target = np.arange(40) % 2
    columns = {
        "image_id": [f"i{number}" for number in range(40)],
        "split": "test",
        "group": np.arange(40),
        "target": target,
    }
    first = 0.3 + 0.4 * torch.from_numpy(target).float() + 0.001 * torch.arange(40)
    masks = torch.tensor([1.0, 0.0]).repeat(40, 1).view(40, 1, 1, 2)
    masks[:4] = 0
    flat = torch.full((40, 1, 1, 2), 0.5)
    parts = evidence.Contributions(
        maps={"pool3": torch.stack([first, 1 - first], dim=1).view(40, 1, 1, 2), "pool4": flat},
        values={"pool3": torch.tensor([1.0, -1.0]).expand(40, 1, 1, 2), "pool4": flat},
        pool5=torch.zeros(40, 1, 1, 1),
        bias=0.0,
        masks=masks,
    )
    return pd.DataFrame(columns), parts


def test_interventions_on_a_handful_of_melanomas_have_no_side():
    """All melanomas are of three patients, and their AUC goes from 1 to 0."""
    table, parts = made_up()
    patients = np.where(table["target"] == 1, table["group"] % 3, table["group"] + 100)
    rows = evidence.interventions(table.assign(group=patients), parts)
    assert len(rows) == len(evidence.BLOCKS) * len(evidence.CHANGES)
    assert rows["value"].min() == -1
    assert {bootstrap.side(row) for row in rows.to_dict("records")} == {"too few"}


def test_interventions_measure_what_the_auc_loses():
    table, parts = made_up()
    rows = evidence.interventions(table, parts).set_index(["block", "change"])
    assert len(rows) == len(evidence.BLOCKS) * len(evidence.CHANGES)
    own = evidence.logits_of(parts)
    assert own[1::2].min() > own[::2].max(), "AUC 1 before"
    for change, left in {"uniform": 0.5, "reversed": 0.0}.items():
        assert rows.loc[("pool-3", change), "value"] == pytest.approx(left - 1)
        assert bootstrap.side(rows.loc[("both", change)]) == "below"
    assert rows.loc["pool-4", "value"].tolist() == [0] * len(evidence.CHANGES)
    assert rows.loc["pool-4", "moved"].tolist() == [0] * len(evidence.CHANGES)
    assert rows.loc[("pool-3", "lesion"), "n"] == 36
    assert rows.loc[("pool-3", "outside"), "n"] == 40
    moved = sum(abs(logit - 0.5) for logit in own.tolist()) / 40  # pool-4 alone leaves 0.5
    spread = statistics.stdev(own.tolist())
    assert rows.loc[("pool-3", "uniform"), "moved"] == pytest.approx(moved / spread)


def test_interventions_with_half_of_a_group_leave_anothers_map_out():
    table, parts = made_up()
    table["group"] = np.minimum(table["group"], 19)  # 21 of 40
    rows = evidence.interventions(table, parts)
    expected = [change for change in evidence.CHANGES if change != "another's"]
    assert rows["change"].tolist() == 3 * expected


def test_interventions_without_masks_leave_the_mask_out():
    table, parts = made_up()
    rows = evidence.interventions(table, parts._replace(masks=None))
    assert set(rows["change"]) == set(evidence.CHANGES) - {"lesion", "outside"}


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


@pytest.mark.parametrize("threshold", [0.0, -0.4, 0.5])
def test_curves_of_a_linear_network_equal_a_plain_loop(threshold):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 4, 6, generator=generator) / 4
    images = torch.randn(3, 3, 4, 6, generator=generator)
    maps = torch.rand(3, 1, 4, 6, generator=generator)
    answers = evidence.curves(Linear(weights), images, maps, steps=5, threshold=threshold)
    places = [(y, x) for y in range(4) for x in range(6)]
    melanoma = set()
    for number, image in enumerate(images):
        grid = maps[number, 0].tolist()
        ranked = sorted(places, key=lambda place: -grid[place[0]][place[1]])  # noqa: B023
        blank = image.mean(dim=(1, 2), keepdim=True).expand(3, 4, 6)
        whole = (weights * image).sum().item()
        melanoma.add(whole >= threshold)
        for step in range(6):
            count = round(step * 24 / 5)
            for name, shown in (("deletion", ranked[count:]), ("insertion", ranked[:count])):
                seen = blank.clone()
                for y, x in shown:
                    seen[:, y, x] = image[:, y, x]
                logit = (weights * seen).sum().item()
                margin = logit - threshold if whole >= threshold else threshold - logit
                expected = 1 / (1 + math.exp(-margin))
                answer = answers[name][number, step].item()
                assert answer == pytest.approx(expected, abs=1e-5), (name, step)
    assert melanoma == {True, False}


def test_curves_end_in_the_whole_photograph_and_in_the_fill(network):
    images = torch.randn(2, 3, SIDE, SIDE)
    answers = evidence.curves(network, images, torch.rand(2, 1, 4, 4), steps=2)
    with torch.no_grad():
        logits = network(images).logits
        blank = network(images.mean(dim=(2, 3), keepdim=True).repeat(1, 1, SIDE, SIDE)).logits
    whole = (logits * logits.sign()).sigmoid()[:, 0]
    nothing = (blank * logits.sign()).sigmoid()[:, 0]
    torch.testing.assert_close(answers["deletion"][:, 0], whole)
    torch.testing.assert_close(answers["deletion"][:, 2], nothing)
    torch.testing.assert_close(answers["insertion"][:, 0], nothing)
    torch.testing.assert_close(answers["insertion"][:, 2], whole)


def test_curves_follow_the_call_that_was_made_between_threshold_and_0():
    """The logit is -0.2 and the threshold -0.4: melanoma, which hiding all of it must weaken."""
    weights = torch.zeros(3, 4, 4)
    weights[0] = torch.arange(16).view(4, 4) - 7.5  # of one colour all over, the logit is 0
    image = torch.zeros(1, 3, 4, 4)
    image[0, 0, 3, 3] = -0.2 / 7.5
    network = Linear(weights)
    assert network(image).logits.item() == pytest.approx(-0.2)
    maps = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    answers = evidence.curves(network, image, maps, steps=2, threshold=-0.4)
    assert answers["deletion"][0, 0].item() == pytest.approx(1 / (1 + math.exp(-0.2)))
    assert answers["deletion"][0, 0] > 0.5, "the network holds to its call of the whole photograph"
    before = evidence.curves(network, image, maps, steps=2)["deletion"][0, 0].item()
    assert before == pytest.approx(1 / (1 + math.exp(-0.2))), (
        "that of benign, which it did not call"
    )
    blank = answers["deletion"][0, 2].item()
    assert blank == pytest.approx(1 / (1 + math.exp(-0.4)), abs=1e-5)


def test_views_hide_the_lesion_or_all_else():
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 1, 4, 5)
    masks[0, 0, 1:3, 2:4] = 1
    masks[1, 0, 0] = 0.6
    config = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.1, 0.3)}
    seen = evidence.views(images, masks, config)
    assert tuple(seen) == evidence.VIEWS
    assert torch.equal(seen.pop("whole"), images)
    for name, view in seen.items():
        for n, c, y, x in np.ndindex(2, 3, 4, 5):
            outside = images[n, c][masks[n, 0] < 0.5].tolist()
            if (masks[n, 0, y, x] >= 0.5) != ("no lesion" in name):
                expected = images[n, c, y, x].item()
            elif "skin" in name:
                expected = sum(outside) / len(outside)
            else:
                expected = -config["mean"][c] / config["std"][c]
            assert view[n, c, y, x].item() == pytest.approx(expected, rel=1e-5)


def test_black_is_black_as_the_reader_sees_it(cached):
    images, masks = cached().evaluation(np.array([0]), CONFIG)
    view = evidence.views(images, masks, CONFIG)["no lesion, black"]
    shown = denormalise(view, mean=CONFIG["mean"], std=CONFIG["std"])[0]
    lesion = masks[0, 0].numpy() >= 0.5
    assert shown[lesion].max() < 1e-6 and shown[~lesion].max() > 0.5


def test_hidden_gives_the_logits_of_the_views_where_there_is_a_lesion(network, cached):
    rows = np.array([4, 3, 0])
    answers = evidence.hidden(network, cached(), rows, CONFIG, batch_size=2)
    assert answers.index.tolist() == [4, 3, 0] and tuple(answers) == evidence.VIEWS
    assert answers.loc[3].isna().all() and answers.notna().sum().sum() == 10
    images, masks = cached().evaluation(rows, CONFIG)
    with torch.no_grad():
        for name, view in evidence.views(images, masks, CONFIG).items():
            expected = network(view).logits.squeeze(1)
            logits = torch.tensor(answers[name].to_numpy())
            torch.testing.assert_close(logits[[0, 2]], expected[[0, 2]])


def test_hidden_without_masks_sees_no_lesion(network, cached):
    answers = evidence.hidden(network, cached(masked=False), np.array([4, 0]), CONFIG)
    assert answers.index.tolist() == [4, 0] and tuple(answers) == evidence.VIEWS
    assert answers.isna().all(axis=None)


def test_one_colour_gives_flat_maps_unless_the_border_is_zeros(network):
    """Whatever a map shows of a picture without content comes from the zeros around it."""
    picture = torch.full((1, 3, SIDE, 96), 0.7)
    for mode in evidence.PADDINGS:
        other = evidence.padded(network, mode)
        with torch.no_grad():
            output = other(picture)
        for grid in (output.pool3_map, output.pool4_map):
            spread = (grid.max() - grid.min()) / grid.mean()
            assert spread > 0.05 if mode == "zeros" else spread < 1e-3, mode


def test_padding_with_zeros_is_the_network_itself_and_leaves_it_alone(network):
    images = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        before = network(images)
        torch.testing.assert_close(tuple(evidence.padded(network, "zeros")(images)), tuple(before))
        other = evidence.padded(network, "replicate")(images)
        torch.testing.assert_close(tuple(network(images)), tuple(before), rtol=0, atol=0)
    assert not torch.allclose(other.logits, before.logits, rtol=1e-3)


def test_another_padding_equals_padding_by_hand(network):
    images = torch.randn(1, 3, SIDE, SIDE)
    values = images
    with torch.no_grad():
        for layer in network.backbone:
            if isinstance(layer, nn.Conv2d):
                framed = nn.functional.pad(values, (1, 1, 1, 1), mode="replicate")
                values = nn.functional.conv2d(framed, layer.weight, layer.bias)
            else:
                values = layer(values)
        pool5 = evidence.padded(network, "replicate").pools(images)[2]
    torch.testing.assert_close(pool5, values, rtol=1e-3, atol=1e-4)


def test_an_unknown_padding_is_refused(network):
    with pytest.raises(ValueError, match="zeros, replicate.*'mirror'"):
        evidence.padded(network, "mirror")


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
            if value.is_floating_point():
                value.mul_(0.9).add_(0.01 * torch.rand(value.shape, generator=generator))
            else:
                value.add_(1)
    before = copy.deepcopy(network.state_dict())
    images = torch.randn(1, 3, SIDE, SIDE)
    with torch.no_grad():
        own = network(images)
    changed = set()
    stages = []
    for stage, other in evidence.cascade(network):
        stages.append(stage)
        state = other.state_dict()
        now = {name for name in before if not torch.equal(state[name], before[name])}
        assert changed <= now and (stage == "trained") == (now == changed)
        if stage == "classifier":
            assert now == {"classifier.weight", "classifier.bias"}
            with torch.no_grad():
                torch.testing.assert_close(other(images).pool4_map, own.pool4_map, rtol=0, atol=0)
        changed = now
    assert changed == set(before) and stages == ["trained", *evidence.STAGES]
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_cascade_draws_without_touching_the_readers_random_numbers(network):
    def last() -> dict[str, torch.Tensor]:
        *_, (_, other) = evidence.cascade(network, seed=1)
        return other.state_dict()

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    drawn = last()
    assert torch.equal(torch.rand(1), expected)
    for name, value in last().items():
        assert torch.equal(value, drawn[name])


def test_rank_correlation_is_scipys():
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(0, 6, (3, 1, 4, 5), generator=generator).float()
    second = torch.randint(0, 6, (3, 1, 4, 5), generator=generator).float()
    same = torch.ones(3, dtype=torch.float64)
    correlation = evidence.rank_correlation(first, second)
    for number in range(3):
        expected = spearmanr(first[number].flatten(), second[number].flatten()).statistic
        assert correlation[number].item() == pytest.approx(expected)
    torch.testing.assert_close(evidence.rank_correlation(first, first.exp()), same)
    torch.testing.assert_close(evidence.rank_correlation(first, -first), -same)
    first[1] = 0.1
    assert evidence.rank_correlation(first, torch.ones(3, 1, 4, 5)).tolist() == [0, 1, 0]


def test_the_eight_turns_are_different_and_can_be_undone():
    image = torch.arange(18.0).view(2, 3, 3)
    turns = [evidence.turn(image, number) for number in range(8)]
    assert len({tuple(turned.flatten().tolist()) for turned in turns}) == 8
    for number, turned in enumerate(turns):
        assert torch.equal(evidence.turn(turned, number, back=True), image)
    assert torch.equal(turns[0], image)
    assert turns[1][0].tolist() == [[2, 5, 8], [1, 4, 7], [0, 3, 6]]  # a quarter to the left
    assert turns[4][0].tolist() == [[2, 1, 0], [5, 4, 3], [8, 7, 6]]


def test_an_equivariant_network_turns_its_maps_with_the_photograph(network):
    images = torch.randn(2, 3, SIDE, SIDE)
    maps, logits = evidence.turned(network, images)
    least = []
    for grids in maps.values():
        same = torch.stack([evidence.rank_correlation(grid, grids[0]) for grid in grids])
        least.append(same.min())
    assert max(least) < 0.99 and (logits - logits[0]).abs().max() > 1e-3, "as it is, it does not"
    for layer in network.backbone:
        if isinstance(layer, nn.Conv2d):  # the mean of its eight turns
            turns = [evidence.turn(layer.weight.data, number) for number in range(8)]
            layer.weight.data = torch.stack(turns).mean(dim=0)
    maps, logits = evidence.turned(network, images)
    assert list(maps) == ["attention_pool3", "attention_pool4", "grad_cam"]
    torch.testing.assert_close(logits, logits[:1].expand(8, 2), rtol=1e-3, atol=1e-4)
    for grids in maps.values():
        assert grids.shape[:3] == (8, 2, 1)
        atol = 1e-3 * grids[0].max().item()
        torch.testing.assert_close(grids, grids[:1].expand_as(grids), rtol=1e-3, atol=atol)


def test_without_attention_there_are_no_maps_to_turn():
    with pytest.raises(ValueError, match="no attention"):
        evidence.turned(AttnVGG(attention="none"), torch.zeros(1, 3, 32, 32))
