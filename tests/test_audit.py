"""helpers/audit.py against plain loops, hand computations and closed forms."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional
from torchvision.models import vgg16_bn
from torchvision.models.vgg import cfgs

from helpers import audit
from helpers.batches import Photographs
from helpers.model import LAST_RELU, POOL3, POOL4, AttnVGG
from helpers.pixel_cache import fill

SIZES = [(1, 1, 5, 7), (4, 1, 6, 3), (2, 1, 8, 8), (3, 1, 1, 9)]


def by_loop(grid: list[list[float]], mask: list[list[float]]) -> dict[str, float]:
    """The figures of one map and one mask in plain Python; a constant map is left as it is."""
    places = [(grid[y][x], mask[y][x] >= 0.5) for y in range(len(grid)) for x in range(len(grid[0]))]
    values = [value for value, _ in places]
    low, high, total = min(values), max(values), sum(values)
    maxima = [lesion for value, lesion in places if value == high]
    both = sum(1 for value, lesion in places if value - low >= (high - low) / 2 and lesion)
    either = sum(1 for value, lesion in places if value - low >= (high - low) / 2 or lesion)
    held, area = 0.0, 0.0
    for value in sorted(values, reverse=True):
        if held + value >= total / 2:
            area += (total / 2 - held) / value
            break
        held, area = held + value, area + 1
    return {"hits": sum(maxima) / len(maxima), "energy": sum(value for value, lesion in places if lesion) / total,
            "iou": both / either, "concentration": area / len(places)}


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("levels", [2, 4, 1000])
def test_figures_equal_a_plain_loop_with_and_without_ties(shape, levels):
    generator = torch.Generator().manual_seed(levels + shape[2])
    maps = torch.randint(0, levels, shape, generator=generator) / 8                     # few levels: many ties
    maps[:, :, 0, 0], maps[:, :, 0, 1] = 0, levels / 8
    maps += (levels > 2) / 4                                                            # a smallest value of 0, or not
    masks = torch.rand(shape, generator=generator)
    masks[:, :, -1, -1] = 1
    found = audit.localise(maps, masks)
    for number in range(len(maps)):
        expected = by_loop(maps[number, 0].tolist(), masks[number, 0].tolist())
        for figure in audit.FIGURES:
            assert found[figure].shape == (shape[0],)
            assert found[figure][number].item() == pytest.approx(expected[figure], abs=1e-12), figure


@pytest.mark.parametrize("value", [1.0, 1 / 36, 0.0])
def test_a_constant_map_scores_the_area_of_its_mask(value):
    maps = functional.interpolate(torch.full((2, 1, 6, 5), value), size=(96, 77), mode="bilinear")
    masks = torch.zeros(2, 1, 96, 77)
    masks[0, :, 10:30, 20:60] = 1
    masks[1, :, 90:, :3] = 1
    found = audit.localise(maps, masks)
    for figure in ("hits", "energy", "iou"):
        torch.testing.assert_close(found[figure], masks.double().mean(dim=(1, 2, 3)))
    torch.testing.assert_close(found["concentration"], torch.full((2,), 0.5, dtype=torch.float64))


def test_a_map_that_is_the_mask_scores_one():
    masks = (torch.rand(3, 1, 9, 12, generator=torch.Generator().manual_seed(0)) > 0.6).float()
    found = audit.localise(0.01 * masks, masks)
    for figure in ("hits", "energy", "iou"):
        assert found[figure].tolist() == [1, 1, 1]
    torch.testing.assert_close(found["concentration"], masks.double().mean(dim=(1, 2, 3)) / 2)


def test_figures_do_not_depend_on_the_scale_of_the_map():
    maps = torch.rand(2, 1, 7, 6, dtype=torch.float64)
    masks = torch.rand(2, 1, 7, 6)
    first, second = audit.localise(maps, masks), audit.localise(maps * 1e-9, masks)
    for figure in audit.FIGURES:
        torch.testing.assert_close(first[figure], second[figure])


def test_an_empty_mask_leaves_concentration_alone():
    found = audit.localise(torch.eye(4)[None, None].repeat(2, 1, 1, 1), torch.stack([torch.zeros(1, 4, 4),
                                                                                    torch.ones(1, 4, 4)]))
    for figure in ("hits", "energy", "iou"):
        assert found[figure].isnan().tolist() == [True, False]
    assert found["concentration"].tolist() == [0.125, 0.125]


@pytest.mark.parametrize(("maps", "masks"), [
    (torch.full((1, 1, 4, 4), -0.1), torch.ones(1, 1, 4, 4)),
    (torch.full((1, 1, 4, 4), torch.nan), torch.ones(1, 1, 4, 4)),
    (torch.ones(1, 1, 2, 2), torch.ones(1, 1, 4, 4))], ids=["negative", "nan", "shapes"])
def test_maps_that_cannot_be_read_are_refused(maps, masks):
    with pytest.raises(ValueError, match="maps of 0 or more"):
        audit.localise(maps, masks)


def test_the_centred_gaussian():
    grid = audit.centre((8, 12))[0, 0]
    assert grid.shape == (8, 12)
    torch.testing.assert_close(grid, grid.flip(0, 1))
    for y, x in ((0, 0), (2, 11), (4, 5)):
        away = (((y + 0.5) / 8 - 0.5) ** 2 + ((x + 0.5) / 12 - 0.5) ** 2) / (2 * 0.25 ** 2)
        assert grid[y, x].item() == pytest.approx(np.exp(-away), rel=1e-5)


def straddling(attention: str) -> tuple[AttnVGG, torch.Tensor]:
    """A network and images [3, 3, 64, 96], some of which it calls melanoma and some benign."""
    torch.manual_seed(3)
    network, images = AttnVGG(attention=attention).eval(), torch.randn(3, 3, 64, 96)
    with torch.no_grad():
        network.classifier.weight.mul_(20)
        network.classifier.bias -= network(images).logits.median()
        network.classifier.bias += 1e-3
        signs = network(images).logits[:, 0] > 0
    assert signs.any() and not signs.all()
    return network, images


@pytest.mark.parametrize("attention", ["softmax", "sigmoid", "none"])
def test_grad_cam_equals_a_computation_by_hand(attention):
    network, images = straddling(attention)
    expected = []
    for image in images[:, None]:                                                       # one by one: [1, 3, H, W]
        with torch.no_grad():
            pool3 = network.backbone[:POOL3 + 1](image)
            pool4 = network.backbone[POOL3 + 1:POOL4 + 1](pool3)
            block5 = network.backbone[POOL4 + 1:LAST_RELU + 1](pool4)                   # [1, 512, 4, 6]
        block5.requires_grad_()
        pool5 = functional.max_pool2d(block5, 2)
        if attention == "none":
            vectors = [pool3.mean(dim=(2, 3)), pool4.mean(dim=(2, 3))]
        else:
            vectors = [network.attention3(pool3, pool5)[1], network.attention4(pool4, pool5)[1]]
        logit = network.classifier(torch.cat([pool5.mean(dim=(2, 3)), *vectors], dim=1)).squeeze()
        gradient = torch.autograd.grad(logit if logit > 0 else -logit, block5)[0]
        expected.append((gradient.mean(dim=(2, 3), keepdim=True) * block5).sum(dim=1, keepdim=True).relu().detach())
    found, output = audit.grad_cam(network, images)
    assert found.shape == (3, 1, 4, 6) and not found.requires_grad and not output.logits.requires_grad
    assert (found.flatten(1).amax(dim=1) > 0).all()
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-3, atol=1e-7)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_grad_cam_without_attention_has_a_closed_form():
    # each 2x2 window passes the classifier's weight / windows to one place: on average w / (windows * 4) = w / places
    network, images = straddling("none")
    with torch.no_grad():
        block5 = network.backbone[:LAST_RELU + 1](images)                               # [3, 512, 4, 6]
        sign = torch.where(network(images).logits > 0, 1.0, -1.0)[:, :, None, None]
    weights = network.classifier.weight[0, :512].detach().view(1, 512, 1, 1)
    expected = (sign * (weights * block5).sum(dim=1, keepdim=True) / 24).relu()
    torch.testing.assert_close(audit.grad_cam(network, images)[0], expected, rtol=1e-3, atol=1e-7)


def test_the_output_beside_grad_cam_is_that_of_the_network_in_evaluation_mode():
    network, images = straddling("softmax")
    network.train()
    found = audit.grad_cam(network, images[:1])[1]
    assert not network.training
    with torch.no_grad():
        torch.testing.assert_close(tuple(found), tuple(network(images[:1])))


def test_grad_cam_of_several_logits_is_refused():
    with pytest.raises(ValueError, match="one logit, not 2"):
        audit.grad_cam(AttnVGG(2), torch.randn(1, 3, 32, 32))


def test_paired_takes_differences_photograph_by_photograph():
    table = made_up({"attention_pool4": 0.6, "uniform": 0.5}, noise=0.1).sample(frac=1, random_state=0)
    table.loc[(table["map"] == "uniform") & (table["row"] < 4), "energy"] = np.nan
    found = audit.paired(table, "energy", "attention_pool4", "uniform")
    values = {(name, row): one for name, row, one in zip(table["map"], table["row"], table["energy"], strict=True)}
    differences = [values["attention_pool4", row] - values["uniform", row] for row in range(4, 40)]
    assert (found["value"], found["n"]) == (pytest.approx(sum(differences) / 36), 36)
    assert audit.paired(table, "energy", "attention_pool4", "grad_cam") is None


def test_cost_equals_published_counts_and_a_sum_over_layers():
    side, channels, work = 224, 3, 0
    for layer in cfgs["D"]:
        if layer == "M":
            side //= 2
        else:
            channels, work = layer, work + side * side * channels * layer * 9
    ours, vgg = audit.cost(AttnVGG), audit.cost(vgg16_bn)
    assert (ours["parameters"], vgg["parameters"]) == (15_183_683, 138_365_992)
    assert vgg["multiply-adds"] == work + 25088 * 4096 + 4096 * 4096 + 4096 * 1000
    blocks = sum(256 * (local * place + 512 * 49 + place) for local, place in ((256, 784), (512, 196)))
    assert ours["multiply-adds"] == work + blocks + 1280


def made_up(energies: dict[str, float], *, noise: float = 0.0, mean: float = 0.02, more: float = 0.0) -> pd.DataFrame:
    """Rows as `measure` gives them: 40 photographs, half melanoma, each its own group."""
    rng, parts = np.random.default_rng(0), []
    target = np.arange(40) % 2
    for name, energy in energies.items():
        spread = rng.normal(size=40)
        parts.append(pd.DataFrame({
            "row": np.arange(40), "group": np.arange(40), "target": target, "map": name, "hits": 0.5, "iou": 0.5,
            "energy": energy + noise * (spread - spread.mean()), "zero": False, "mean": mean + more * target,
            "concentration": {"attention_pool3": 0.3, "attention_pool4": 0.2}.get(name, 0.4)}))
    return pd.concat(parts, ignore_index=True)


GOOD = {"attention_pool3": 0.4, "attention_pool4": 0.8, "grad_cam": 0.5, "centre": 0.6, "uniform": 0.3}
EXPLAINS, DIFFUSE, LESION, BENIGN, AUC, PARAMETERS, WORK = range(7)


def verdicts(*arguments) -> list[str]:
    rows = audit.claims(*arguments)
    assert all(set(row) == {"claim", "measured", "verdict"} for row in rows) and json.dumps(rows)
    return [row["verdict"] for row in rows]


def test_claims_hold_where_the_numbers_say_so():
    auc = {"value": 0.05, "low": 0.01, "high": 0.09, "n": 40}
    found = verdicts(made_up(GOOD, noise=0.05, more=0.01), "sigmoid", auc)
    assert found == ["holds"] * 6 + ["does not hold"]                                   # multiply-adds


@pytest.mark.parametrize(("claim", "change"), [
    (EXPLAINS, {"energies": GOOD | {"grad_cam": 0.9}}), (LESION, {"energies": GOOD | {"attention_pool4": 0.55}}),
    (LESION, {"energies": GOOD | {"uniform": 0.9, "centre": 0.1}}), (BENIGN, {"more": -0.01}),
    (EXPLAINS, {"energies": GOOD | {"grad_cam": 0.79}, "noise": 0.2})],                 # above, and within noise
    ids=["below Grad-CAM", "below the centre", "below chance", "more on benign", "within noise"])
def test_claims_do_not_hold_where_the_numbers_say_so(claim, change):
    found = verdicts(made_up(**({"energies": GOOD, "more": 0.01} | change)), "sigmoid", None)
    assert found[claim] == "does not hold"


def test_an_auc_gain_within_its_interval_does_not_hold():
    auc = {"value": 0.03, "low": -0.01, "high": 0.07, "n": 40}
    assert verdicts(made_up(GOOD), "softmax", auc)[AUC] == "does not hold"


def test_softmax_cannot_minimise_its_activation():
    table = made_up(GOOD, mean=1 / 36)
    table["mean"] += 1e-9 * table["target"]                                             # rounding is no finding
    assert verdicts(table, "softmax")[BENIGN] == "does not hold"


def test_claims_without_attention_masks_or_control_are_not_measured():
    rest = {name: energy for name, energy in GOOD.items() if not name.startswith("attention")}
    control = {"value": 0.0, "low": 0.0, "high": 0.0, "n": 40}
    none = "not measured in this run"
    assert verdicts(made_up(rest), "none", control) == [none] * 5 + ["holds", "does not hold"]
    blind = verdicts(made_up(GOOD).assign(energy=np.nan), "softmax")
    assert [blind[claim] for claim in (EXPLAINS, DIFFUSE, LESION, BENIGN, AUC)] == [none, "holds", none,
                                                                                    "does not hold", none]


@pytest.fixture
def tiny(tmp_path):
    """Photographs, used rows and config: 7 of 40 pixels, rows 2 to 6 in the test split; of these, row 4 has no mask and
    that of row 5 lies in a corner."""
    rng = np.random.default_rng(0)
    masks = np.zeros((7, 40, 40), np.uint8)
    masks[[0, 1, 2, 3, 6], 8:25, 12:30] = 255
    masks[5, :6, :6] = 255
    pixels = rng.integers(0, 255, (7, 40, 40, 3), dtype=np.uint8)
    fill(tmp_path / "pixels.npy", pixels.shape, pixels.__getitem__, "photographs")
    fill(tmp_path / "masks.npy", masks.shape, masks.__getitem__, "masks")
    used = pd.DataFrame({"split": ["train", "val"] + ["test"] * 5, "group": [0, 1, 2, 2, 3, 4, 5],
                         "target": [0, 1, 0, 0, 1, 0, 1]})
    config = {"view": 1.0, "image_size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}

    def photographs(masked: bool = True) -> Photographs:
        return Photographs({"file": tmp_path / "pixels.npy", "masks_file": tmp_path / "masks.npy" if masked else ""},
                           torch.device("cpu"))
    return photographs, used, config


@pytest.mark.parametrize(("view", "left"), [(1.0, {2, 3, 5, 6}), (0.6, {2, 3, 6})])
def test_photographs_without_a_mask_after_cropping_take_no_part(tiny, view, left):
    photographs, used, config = tiny
    torch.manual_seed(0)
    measured = audit.measure(AttnVGG(), photographs(), used, config | {"view": view}, batch_size=2)
    for _, rows in measured.groupby("map"):
        assert sorted(rows["row"]) == [2, 3, 4, 5, 6]                                   # the test split
        assert set(rows.loc[rows["energy"].notna(), "row"]) == left
        assert rows["concentration"].notna().all()
        assert rows["target"].tolist() == used["target"][rows["row"]].tolist()
    assert all(one["n"] == len(left) for one in audit.localisation(measured).values())


def test_measured_figures_are_those_of_the_enlarged_maps(tiny):
    photographs, used, config = tiny
    torch.manual_seed(0)
    network = AttnVGG().eval()
    measured = audit.measure(network, photographs(), used, config, batch_size=3).set_index(["map", "row"])
    images, masks = photographs().evaluation(np.array([6]), config)
    with torch.no_grad():
        grid = network(images).pool3_map
    large = functional.interpolate(grid, size=(32, 32), mode="bilinear", align_corners=False)
    expected = by_loop(large[0, 0].tolist(), masks[0, 0].tolist())
    found = measured.loc[("attention_pool3", 6)]
    for figure in audit.FIGURES:
        assert found[figure] == pytest.approx(expected[figure], abs=1e-4)
    assert found["mean"] == pytest.approx(1 / 16)                                       # 4 x 4 places share a sum of 1


def test_localisation_has_the_keys_of_the_contract(tiny):
    photographs, used, config = tiny
    found = audit.localisation(audit.measure(AttnVGG(), photographs(), used, config))
    assert list(found) == ["attention_pool3", "attention_pool4", "grad_cam", "centre", "uniform"]
    for one in found.values():
        assert {"hits", "energy", "iou", "concentration", "n"} <= set(one)
        assert all(one[f"{figure}_low"] <= one[figure] <= one[f"{figure}_high"] for figure in audit.FIGURES)
    assert json.loads(json.dumps(found)) == found
    uniform = found["uniform"]
    assert uniform["hits"] == uniform["energy"] == uniform["iou"]


def test_localisation_without_attention_and_without_masks(tiny):
    photographs, used, config = tiny
    network = AttnVGG(attention="none")
    found = audit.localisation(audit.measure(network, photographs(), used, config))
    assert list(found) == ["grad_cam", "centre", "uniform"]
    assert audit.localisation(audit.measure(network, photographs(masked=False), used, config)) == {}


def test_a_grad_cam_of_zeros_is_counted(tiny):
    photographs, used, config = tiny
    network = AttnVGG(attention="none")
    torch.nn.init.constant_(network.classifier.weight, -1.0)                            # against melanoma everywhere
    torch.nn.init.constant_(network.classifier.bias, 1e6)                               # and yet called melanoma
    found = audit.localisation(audit.measure(network, photographs(), used, config))
    assert found["grad_cam"]["zero"] == found["grad_cam"]["n"] == 4
    assert found["centre"]["zero"] == 0
    assert found["grad_cam"]["energy"] == pytest.approx(found["uniform"]["energy"])
