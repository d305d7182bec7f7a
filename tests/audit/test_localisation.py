"""helpers/audit/localisation.py against plain loops, hand computations and closed forms."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from helpers import workspace
from helpers.audit import localisation
from helpers.model import AttnVGG
from helpers.photographs.cache import fill
from helpers.scores import bootstrap
from helpers.training.batches import Photographs, otsu

SIZES = [(1, 1, 5, 7), (4, 1, 6, 3), (2, 1, 8, 8), (3, 1, 1, 9)]
SINGLE = {
    "hits": localisation.hits,
    "energy": localisation.energy,
    "iou": localisation.iou,
    "concentration": localisation.concentration,
    "pixel_auc": localisation.pixel_auc,
}


def pixels_of(grid: list[list[float]], mask: list[list[float]]) -> list[tuple[float, bool]]:
    """Value and lesion of each pixel of one map and one mask."""
    pixels = []
    for values, marks in zip(grid, mask, strict=True):
        for value, mark in zip(values, marks, strict=True):
            pixels.append((value, mark >= 0.5))
    return pixels


def area_by_loop(values: list[float]) -> float:
    """The share of the pixels that holds half of their sum, the last in part."""
    held, area = 0.0, 0.0
    for value in sorted(values, reverse=True):
        missing = sum(values) / 2 - held
        if value >= missing:
            return (area + missing / value) / len(values)
        held += value
        area += 1
    raise AssertionError


def auc_by_loop(pixels: list[tuple[float, bool]]) -> float:
    """The share of pairs that are ordered rightly, ties half."""
    right = []
    for ours, on_lesion in pixels:
        for theirs, beside in pixels:
            if on_lesion and not beside:
                right.append((ours > theirs) + 0.5 * (ours == theirs))
    return sum(right) / len(right) if right else math.nan


def iou_by_loop(grid: list[list[float]], mask: list[list[float]], threshold: float) -> float:
    pixels = pixels_of(grid, mask)
    values = [value for value, _ in pixels]
    low, high = min(values), max(values)
    both = either = 0
    for value, lesion in pixels:
        kept = value - low >= threshold * (high - low)
        both += kept and lesion
        either += kept or lesion
    return both / either


def by_loop(grid: list[list[float]], mask: list[list[float]]) -> dict[str, float]:
    """The figures of one map and one mask in plain Python; a constant map is left as it is."""
    pixels = pixels_of(grid, mask)
    values = [value for value, _ in pixels]
    maxima = [lesion for value, lesion in pixels if value == max(values)]
    return {
        "hits": sum(maxima) / len(maxima),
        "energy": sum(value for value, lesion in pixels if lesion) / sum(values),
        "iou": iou_by_loop(grid, mask, 0.5),
        "concentration": area_by_loop(values),
        "pixel_auc": auc_by_loop(pixels),
    }


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("levels", [2, 4, 1000])
def test_figures_equal_a_plain_loop_with_and_without_ties(shape, levels):
    generator = torch.Generator().manual_seed(levels + shape[2])
    maps = torch.randint(0, levels, shape, generator=generator) / 8  # few levels: many ties
    maps[:, :, 0, 0] = 0
    maps[:, :, 0, 1] = levels / 8
    if levels > 2:
        maps += 1 / 4  # a smallest value of 0, or not
    masks = torch.rand(shape, generator=generator)
    masks[:, :, -1, -1] = 1
    figures = localisation.localise(maps, masks)
    assert list(figures) == list(localisation.FIGURES)
    for name, values in figures.items():
        assert values.shape == (shape[0],) and values.dtype == torch.float64
        alone = SINGLE[name](maps, masks)
        torch.testing.assert_close(values, alone, rtol=0, atol=0, equal_nan=True)
    for number in range(len(maps)):
        expected = by_loop(maps[number, 0].tolist(), masks[number, 0].tolist())
        for name, values in figures.items():
            wanted = pytest.approx(expected[name], abs=1e-12, nan_ok=True)
            assert values[number].item() == wanted, name


@pytest.mark.parametrize("shape", SIZES)
def test_overlap_equals_a_plain_loop_at_every_threshold(shape):
    generator = torch.Generator().manual_seed(shape[2])
    maps = torch.randint(0, 50, shape, generator=generator) / 8
    masks = torch.rand(shape, generator=generator)
    masks[:, :, -1, -1] = 1
    ious = localisation.overlap(maps, masks, localisation.THRESHOLDS)
    assert ious.shape == (shape[0], len(localisation.THRESHOLDS))
    for number, at in np.ndindex(*ious.shape):
        grid, mask = maps[number, 0].tolist(), masks[number, 0].tolist()
        expected = iou_by_loop(grid, mask, localisation.THRESHOLDS[at])
        assert ious[number, at].item() == pytest.approx(expected)


@pytest.mark.parametrize("levels", [3, 1000])
def test_pixel_auc_is_that_of_scikit_learn(levels):
    generator = torch.Generator().manual_seed(levels)
    maps = torch.randint(0, levels, (4, 1, 9, 11), generator=generator) / 7
    masks = (torch.rand(4, 1, 9, 11, generator=generator) > 0.7).float()
    aucs = localisation.pixel_auc(maps, masks)
    for number in range(4):
        expected = roc_auc_score(masks[number].flatten(), maps[number].flatten())
        assert aucs[number].item() == pytest.approx(expected, abs=1e-12)
    assert aucs.std() > 0.01


@pytest.mark.parametrize("value", [1.0, 1 / 36, 0.0])
def test_a_constant_map_scores_the_area_of_its_mask(value):
    maps = functional.interpolate(torch.full((2, 1, 6, 5), value), size=(96, 77), mode="bilinear")
    masks = torch.zeros(2, 1, 96, 77)
    masks[0, :, 10:30, 20:60] = 1
    masks[1, :, 90:, :3] = 1
    area = masks.double().mean(dim=(1, 2, 3))
    figures = localisation.localise(maps, masks)
    for name in ("hits", "energy", "iou"):
        torch.testing.assert_close(figures[name], area)
    for name in ("concentration", "pixel_auc"):
        torch.testing.assert_close(figures[name], torch.full((2,), 0.5, dtype=torch.float64))
    ious = localisation.overlap(maps, masks, localisation.THRESHOLDS)
    torch.testing.assert_close(ious, area[:, None].expand_as(ious))


def test_a_map_that_is_the_mask_scores_one():
    masks = (torch.rand(3, 1, 9, 12, generator=torch.Generator().manual_seed(0)) > 0.6).float()
    figures = localisation.localise(0.01 * masks, masks)
    for name in ("hits", "energy", "iou", "pixel_auc"):
        assert figures[name].tolist() == [1, 1, 1]
    torch.testing.assert_close(figures["concentration"], masks.double().mean(dim=(1, 2, 3)) / 2)


def test_figures_do_not_depend_on_the_scale_of_the_map():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 1, 7, 6, dtype=torch.float64, generator=generator)
    masks = torch.rand(2, 1, 7, 6, generator=generator)
    for figure in SINGLE.values():
        torch.testing.assert_close(figure(maps, masks), figure(maps * 1e-9, masks))


def test_an_empty_mask_leaves_concentration_alone():
    maps = torch.eye(4)[None, None].repeat(2, 1, 1, 1)
    masks = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    figures = localisation.localise(maps, masks)
    for name in ("hits", "energy", "iou"):
        assert figures[name].isnan().tolist() == [True, False]
    assert figures["concentration"].tolist() == [0.125, 0.125]
    assert figures["pixel_auc"].isnan().all(), "no lesion, and nothing but lesion: no pair"


@pytest.mark.parametrize(
    ("maps", "masks"),
    [
        (torch.full((1, 1, 4, 4), -0.1), torch.ones(1, 1, 4, 4)),
        (torch.full((1, 1, 4, 4), torch.nan), torch.ones(1, 1, 4, 4)),
        (torch.ones(1, 1, 2, 4), torch.ones(1, 1, 4, 4)),
    ],
    ids=["negative", "nan", "shapes"],
)
def test_maps_that_cannot_be_read_are_refused(maps, masks):
    shapes = f"{re.escape(str(list(maps.shape)))}.*{re.escape(str(list(masks.shape)))}"
    for figure in (localisation.localise, *SINGLE.values()):
        with pytest.raises(ValueError, match=shapes):
            figure(maps, masks)
    with pytest.raises(ValueError, match=shapes):
        localisation.overlap(maps, masks, [0.5])


def test_the_centred_gaussian():
    grid = localisation.centre((8, 12))[0, 0]
    assert grid.shape == (8, 12)
    torch.testing.assert_close(grid, grid.flip(0, 1))
    for y, x in ((0, 0), (2, 11), (4, 5)):
        away = (((y + 0.5) / 8 - 0.5) ** 2 + ((x + 0.5) / 12 - 0.5) ** 2) / (2 * 0.25**2)
        assert grid[y, x].item() == pytest.approx(np.exp(-away), rel=1e-5)


def test_sobel_is_the_gradient_of_the_grey_photograph():
    config = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.1)}
    colours = np.random.default_rng(0).random((2, 3, 7, 9))
    mean, std = (np.array(config[name])[:, None, None] for name in ("mean", "std"))
    edges = localisation.sobel(torch.from_numpy((colours - mean) / std).float(), config)
    assert edges.shape == (2, 1, 7, 9)
    for picture, lengths in zip(colours, edges[:, 0].numpy(), strict=True):
        grey = 0.299 * picture[0] + 0.587 * picture[1] + 0.114 * picture[2]
        across = ndimage.sobel(grey, axis=1, mode="mirror")
        down = ndimage.sobel(grey, axis=0, mode="mirror")
        np.testing.assert_allclose(lengths, np.sqrt(across**2 + down**2), atol=1e-5)


def test_sobel_finds_a_step_in_the_two_columns_that_touch_it():
    step = torch.zeros(1, 3, 6, 8)
    step[:, :, :, 4:] = 1
    edges = localisation.sobel(step, {"mean": (0, 0, 0), "std": (1, 1, 1)})[0, 0]
    seen = (edges > 0.1).any(dim=0)
    assert seen.tolist() == [False, False, False, True, True, False, False, False]


def test_dark_is_otsus_guess_on_the_photograph_as_it_was_before_normalisation():
    config = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.1)}
    pixels = np.random.default_rng(0).integers(150, 200, (2, 32, 64, 3), dtype=np.uint8)
    pixels[0, 10:20, 30:50] = 60
    pixels[1, 4:9, 20:40] = 90
    normalised = (pixels / 255 - np.array(config["mean"])) / np.array(config["std"])
    images = torch.from_numpy(normalised).permute(0, 3, 1, 2).float()
    guesses = localisation.dark(images, config)
    assert guesses.shape == (2, 1, 32, 64) and set(guesses.unique().tolist()) == {0, 1}
    for guess, picture in zip(guesses[:, 0].numpy(), pixels, strict=True):
        assert np.array_equal(guess, otsu(picture) / 255)


def test_an_untrained_network_follows_from_its_seed_and_disturbs_no_other_draw():
    network = AttnVGG(attention="sigmoid")
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    fresh = localisation.untrained(network, 7)
    same = localisation.untrained(network, 7)
    other = localisation.untrained(network, 8)
    assert torch.equal(torch.rand(3), expected)
    assert not fresh.training and fresh.attention == "sigmoid"
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, same.state_dict()[name]), name
    for different in (other, network):
        assert not torch.equal(fresh.attention3.score.weight, different.attention3.score.weight)


def test_unlearned_maps_are_edges_dark_parts_and_the_strangers_attention():
    stranger = localisation.untrained(AttnVGG(attention="sigmoid"))
    images = torch.randn(2, 3, 32, 64)
    config = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    maps = localisation.unlearned(stranger, images, config)
    assert {name: list(grid.shape) for name, grid in maps.items()} == {
        "sobel": [2, 1, 32, 64],
        "otsu": [2, 1, 32, 64],
        "random_pool3": [2, 1, 4, 8],
        "random_pool4": [2, 1, 2, 4],
    }
    with torch.no_grad():
        assert torch.equal(maps["random_pool4"], stranger(images).pool4_map)
    blind = localisation.untrained(AttnVGG(attention="none"))
    assert list(localisation.unlearned(blind, images, config)) == ["sobel", "otsu"]


def test_shifted_crops_lie_in_all_corners_and_stay_inside():
    geometry = localisation.shifted(400, 3).geometry
    scale, offset = geometry[:, :, :2], geometry[:, :, 2]
    upright = (localisation.SHIFT * torch.eye(2)).expand(400, 2, 2)
    assert torch.equal(scale, upright), "neither turned nor flipped"
    edge = torch.full((400, 2), 1 - localisation.SHIFT)
    torch.testing.assert_close(offset.abs(), edge)  # to the edges, not beyond
    corners, counts = offset.sign().unique(dim=0, return_counts=True)
    assert len(corners) == 4 and counts.min() > 70
    assert torch.equal(geometry, localisation.shifted(400, 3).geometry)
    assert not torch.equal(geometry, localisation.shifted(400, 4).geometry)


def test_the_best_threshold_is_that_of_a_plain_search():
    generator = torch.Generator().manual_seed(2)
    maps = {
        "sharp": torch.rand(6, 1, 5, 8, generator=generator) ** 4,
        "flat": torch.ones(6, 1, 5, 8),
        "even": torch.rand(6, 1, 5, 8, generator=generator),
    }
    masks = (maps["sharp"] + 0.1 * torch.rand(6, 1, 5, 8, generator=generator) > 0.2).float()
    columns = [f"iou_{threshold:.2f}" for threshold in localisation.THRESHOLDS]
    tables = []
    for name, grid in maps.items():
        ious = localisation.overlap(grid, masks, localisation.THRESHOLDS).numpy()
        tables.append(pd.DataFrame(ious, columns=columns).assign(map=name))
    without_mask = tables[0].iloc[:1].copy()
    without_mask[columns] = np.nan
    table = pd.concat([*tables, without_mask], ignore_index=True)
    chosen = localisation.choose_thresholds(table)
    for name, grid in maps.items():
        sums = dict.fromkeys(localisation.THRESHOLDS, 0.0)
        for threshold in sums:
            for values, mask in zip(grid[:, 0].tolist(), masks[:, 0].tolist(), strict=True):
                sums[threshold] += iou_by_loop(values, mask, threshold)
        assert sums[chosen[name]] == pytest.approx(max(sums.values())), name
    assert chosen["flat"] == 0 < chosen["sharp"] < 0.5
    assert localisation.choose_thresholds(without_mask) == {}


def test_paired_takes_differences_photograph_by_photograph():
    rng = np.random.default_rng(0)
    ours, theirs = rng.random(40), rng.random(40)
    theirs[:4] = np.nan  # no mask
    tables = []
    for name, values in {"attention_pool4": ours, "uniform": theirs}.items():
        columns = {"row": range(40), "group": range(40), "map": name, "energy": values}
        tables.append(pd.DataFrame(columns))
    table = pd.concat(tables).sample(frac=1, random_state=0)
    gap = localisation.paired(table, "energy", "attention_pool4", "uniform")
    expected = sum(ours[row] - theirs[row] for row in range(4, 40)) / 36
    assert (gap["value"], gap["n"]) == (pytest.approx(expected), 36)
    assert gap["low"] < expected < gap["high"]
    assert localisation.paired(table, "energy", "attention_pool4", "grad_cam") is None


@pytest.fixture
def tiny(tmp_path):
    """Photographs, used rows and config: 7 of 40 pixels, rows 2 to 6 in the test split.

    Of these, row 4 has no mask, and that of row 5 lies in a corner.
    """
    rng = np.random.default_rng(0)
    masks = np.zeros((7, 40, 40), np.uint8)
    masks[[0, 1, 2, 3, 6], 8:25, 12:30] = 255
    masks[5, :6, :6] = 255
    pixels = rng.integers(0, 255, (7, 40, 40, 3), dtype=np.uint8)
    fill(tmp_path / "pixels.npy", pixels.shape, pixels.__getitem__, [], "photographs")
    fill(tmp_path / "masks.npy", masks.shape, masks.__getitem__, [], "masks")
    used = pd.DataFrame(
        {
            "split": ["train", "val"] + ["test"] * 5,
            "group": [0, 1, 2, 2, 3, 4, 5],
            "target": [0, 1, 0, 0, 1, 0, 1],
        }
    )
    config = {"view": 1.0, "image_size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}

    def photographs(masked: bool = True) -> Photographs:
        masks_file = str(tmp_path / "masks.npy") if masked else ""
        cache = {"file": str(tmp_path / "pixels.npy"), "masks_file": masks_file}
        return Photographs(cache, torch.device("cpu"))

    return photographs, used, config


def measure(
    network: AttnVGG, photographs: Photographs, used: pd.DataFrame, config: dict, **more
) -> pd.DataFrame:
    """`localisation.measure` of the network's maps on the test photographs."""
    return localisation.measure(
        lambda images: localisation.maps_of(network, images),
        photographs,
        used,
        config,
        rows=np.flatnonzero(used["split"] == "test"),
        **more,
    )


@pytest.mark.parametrize(("view", "left"), [(1.0, {2, 3, 5, 6}), (0.6, {2, 3, 6})])
def test_photographs_without_a_mask_after_cropping_take_no_part(tiny, view, left):
    photographs, used, config = tiny
    torch.manual_seed(0)
    measured = measure(AttnVGG(), photographs(), used, config | {"view": view}, batch_size=2)
    for _, rows in measured.groupby("map"):
        assert sorted(rows["row"]) == [2, 3, 4, 5, 6]
        assert set(rows.loc[rows["energy"].notna(), "row"]) == left
        assert rows["concentration"].notna().all()
        assert rows["target"].tolist() == used["target"][rows["row"]].tolist()
    for figures in localisation.localisation(measured).values():
        assert figures["n"] == len(left)


def test_measured_figures_are_those_of_the_enlarged_maps(tiny):
    photographs, used, config = tiny
    torch.manual_seed(0)
    network = AttnVGG().eval()
    measured = measure(network, photographs(), used, config, batch_size=3)
    images, masks = photographs().evaluation(np.array([6]), config)
    with torch.no_grad():
        grid = network(images).pool3_map
    large = functional.interpolate(grid, size=(32, 32), mode="bilinear", align_corners=False)
    expected = by_loop(large[0, 0].tolist(), masks[0, 0].tolist())
    row = measured.set_index(["map", "row"]).loc[("attention_pool3", 6)]
    for name in localisation.FIGURES:
        assert row[name] == pytest.approx(expected[name], abs=1e-4)
    assert row["mean"] == pytest.approx(1 / 16)  # 4 x 4 places share a sum of 1


def test_no_rows_are_refused(tiny):
    photographs, used, config = tiny
    with pytest.raises(ValueError, match="rows is empty"):
        localisation.measure(dict, photographs(), used, config, rows=np.array([], int))


def test_localisation_has_the_keys_of_the_contract(tiny):
    photographs, used, config = tiny
    located = localisation.localisation(measure(AttnVGG(), photographs(), used, config))
    maps = ["attention_pool3", "attention_pool4", "grad_cam", "centre", "uniform"]
    assert list(located) == maps
    for figures in located.values():
        for name in localisation.FIGURES:
            assert 0 <= figures[name] <= 1
            assert figures[f"{name}_low"] is figures[f"{name}_high"] is None  # of four photographs
    assert json.loads(json.dumps(located)) == located
    uniform = located["uniform"]
    assert uniform["hits"] == uniform["energy"] == uniform["iou"]


def test_localisation_without_attention_and_without_masks(tiny):
    photographs, used, config = tiny
    network = AttnVGG(attention="none")
    measured = measure(network, photographs(), used, config)
    assert list(localisation.localisation(measured)) == ["grad_cam", "centre", "uniform"]
    measured = measure(network, photographs(masked=False), used, config)
    assert localisation.localisation(measured) == {}


def test_a_grad_cam_of_zeros_is_counted(tiny):
    photographs, used, config = tiny
    network = AttnVGG(attention="none")
    torch.nn.init.constant_(network.classifier.weight, -1.0)  # against melanoma everywhere
    torch.nn.init.constant_(network.classifier.bias, 1e6)  # and yet called melanoma
    located = localisation.localisation(measure(network, photographs(), used, config))
    assert located["grad_cam"]["zero"] == located["grad_cam"]["n"] == 4
    assert located["centre"]["zero"] == 0
    assert located["grad_cam"]["energy"] == pytest.approx(located["uniform"]["energy"])


def cropped(picture: torch.Tensor, offset: torch.Tensor) -> np.ndarray:
    """What a shifted crop of 32 pixels shows of a picture of 40 x 40, by scipy's interpolation."""
    places = ((torch.arange(32) + 0.5) / 32 * 2 - 1) * localisation.SHIFT  # -1 to 1
    x = (places + offset[0] + 1) * 20 - 0.5
    y = (places + offset[1] + 1) * 20 - 0.5
    grid = np.meshgrid(y.numpy(), x.numpy(), indexing="ij")
    return ndimage.map_coordinates(picture.double().numpy(), grid, order=1, mode="reflect")


def test_photographs_and_masks_are_seen_through_the_same_draws(tiny):
    photographs, used, config = tiny
    rows = np.array([2, 3, 5, 6])
    draws = localisation.shifted(4, 1)
    seen = []

    def look(images: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(images)
        return {"uniform": torch.ones(1, 1, 32, 32)}

    measured = localisation.measure(
        look, photographs(), used, config, rows=rows, draws=draws, batch_size=3
    )
    assert measured["row"].tolist() == rows.tolist()
    images = torch.cat(seen)
    areas = []
    for number, row in enumerate(rows):
        pixels, masks = photographs().take(np.array([row]))
        offset = draws.geometry[number, :, 2]
        red = cropped(pixels[0, :, :, 0] / 255, offset)
        np.testing.assert_allclose(images[number, 0] * 0.2 + 0.5, red, atol=1e-4)
        areas.append((cropped(masks[0] / 255, offset) >= 0.5).mean())
    assert measured["energy"].fillna(0).tolist() == pytest.approx(areas)
    assert len(set(areas)) > 2


def test_localisation_gains_the_best_threshold_of_validation(tiny):
    photographs, used, config = tiny
    torch.manual_seed(0)
    measured = measure(AttnVGG(), photographs(), used, config)
    located = localisation.localisation(measured, {"attention_pool3": 0.15, "centre": 0.5})
    with_mask = measured[measured["energy"].notna()].set_index("map")
    figures = located["attention_pool3"]
    assert figures["threshold"] == 0.15
    assert figures["iou_best"] == pytest.approx(with_mask.loc["attention_pool3", "iou_0.15"].mean())
    assert figures["iou_best_low"] is figures["iou_best_high"] is None  # of four photographs
    assert figures["iou_best"] != figures["iou"]
    assert located["centre"]["iou_best"] == located["centre"]["iou"]
    assert "iou_best" not in located["uniform"]
    assert json.loads(json.dumps(located)) == located


def test_a_mask_over_all_of_a_crop_leaves_the_other_figures(tiny):
    photographs, used, config = tiny
    measured = measure(AttnVGG(), photographs(), used, config).assign(pixel_auc=np.nan)
    figures = localisation.localisation(measured)["grad_cam"]
    assert figures["pixel_auc"] is figures["pixel_auc_low"] is figures["pixel_auc_high"] is None
    assert figures["n"] == 4 and figures["energy"] > 0


@pytest.mark.parametrize("lesions, known", [(1, False), (3, False), (9, False), (10, True)])
def test_of_a_handful_of_masks_there_is_a_mean_and_no_interval(lesions, known):
    rows = np.arange(lesions * 4)  # four photographs each
    table = pd.DataFrame({"row": rows, "group": rows // 4, "map": "centre", "zero": False})
    for name in localisation.FIGURES:
        table[name] = np.random.default_rng(0).random(len(rows))
    figures = localisation.localisation(table)["centre"]
    for name in localisation.FIGURES:
        assert figures[name] == pytest.approx(table[name].mean())
        assert (figures[f"{name}_low"] is not None) == known
        assert (figures[f"{name}_high"] is not None) == known
    other = table.assign(map="uniform", energy=0.0)
    gap = localisation.paired(pd.concat([table, other]), "energy", "centre", "uniform")
    assert bootstrap.side(gap) == ("above" if known else "too few")


def test_a_map_that_hits_every_lesion_is_not_known_to_do_so_always():
    table = pd.DataFrame({"row": range(12), "group": range(12), "map": "otsu", "zero": False})
    table[list(localisation.FIGURES)] = 1.0
    figures = localisation.localisation(table)["otsu"]
    assert figures["hits_low"] == pytest.approx(0.025 ** (1 / 12))
    assert figures["hits_high"] == 1


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("levels", [2, 4, 1000])
def test_activated_areas_equal_a_plain_loop(shape, levels):
    generator = torch.Generator().manual_seed(levels + shape[2])
    maps = torch.randint(0, levels, shape, generator=generator) / max(levels - 1, 1)
    regions = localisation.activated(maps)
    for number in range(len(maps)):
        values = maps[number].double().flatten().tolist()
        low, high, average = min(values), max(values), sum(values) / len(values)
        counts = {
            "region": sum(value - low >= (high - low) / 2 for value in values),
            "above_mean": sum(value > average * (1 + 1e-6) for value in values),
            "above_half": sum(value >= 0.5 for value in values),
        }
        for name, count in counts.items():
            assert regions[name][number].item() == pytest.approx(count / len(values)), name


def test_a_map_on_the_lesion_alone_activates_as_much_as_the_lesion_is_large():
    lesion = torch.zeros(2, 1, 6, 10)
    lesion[0, :, 2:4, 3:8] = 1
    lesion[1, :, :, :5] = 1
    softmax = lesion / lesion.sum(dim=(2, 3), keepdim=True)
    for name, maps in {"region": lesion, "above_half": lesion, "above_mean": softmax}.items():
        assert localisation.activated(maps)[name].tolist() == pytest.approx([10 / 60, 1 / 2])
    flat = localisation.activated(torch.full((1, 1, 4, 4), 1 / 16))
    assert (flat["region"].item(), flat["above_mean"].item()) == (1, 0)


def test_activation_is_the_mean_of_the_channels_that_grad_cam_weighs():
    torch.manual_seed(0)
    network = AttnVGG().eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        channels = network.backbone[: localisation.LAST_RELU + 1](images)  # [2, 512, 4, 6]
    plain = localisation.maps_of(network, images)
    maps = localisation.maps_of(network, images, with_activation=True)
    assert list(maps) == [*plain, "activation"]
    assert not network.backbone[localisation.LAST_RELU]._forward_hooks
    found = maps["activation"]
    assert found.shape == (2, 1, 4, 6) and (found >= 0).all()
    torch.testing.assert_close(found[:, 0], sum(channels.unbind(1)) / 512, rtol=1e-4, atol=1e-6)


def test_ceilings_are_the_masks_share_of_each_cell():
    masks = torch.zeros(2, 1, 32, 48)
    masks[0, :, :16, :8] = 0.9  # lesion, as is all from a half on
    masks[1, :, 4:8, 40:] = 1
    found = localisation.ceilings(masks)
    assert {name: list(grid.shape) for name, grid in found.items()} == {
        "ceiling_pool3": [2, 1, 4, 6],
        "ceiling_pool4": [2, 1, 2, 3],
    }
    for name, cell in {"ceiling_pool3": 8, "ceiling_pool4": 16}.items():
        for number, row, column in np.ndindex(2, 32 // cell, 48 // cell):
            inside = masks[
                number, 0, row * cell : (row + 1) * cell, column * cell : (column + 1) * cell
            ]
            share = (inside >= 0.5).double().mean().item()
            assert found[name][number, 0, row, column].item() == pytest.approx(share)


def test_no_map_of_a_pools_cells_finds_the_lesion_better_than_its_ceiling(tiny):
    photographs, used, config = tiny
    rng = torch.Generator().manual_seed(0)

    def look(images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {f"random {n}": torch.rand(len(images), 1, 4, 4, generator=rng) for n in range(20)}

    rows = np.array([2, 3, 6])
    measured = localisation.measure(
        look, photographs(), used, config, rows=rows, with_ceilings=True
    )
    means = measured.groupby("map")[["energy", "iou", "pixel_auc"]].mean()
    random = means.loc[[f"random {number}" for number in range(20)]]
    assert (means.loc["ceiling_pool3"] > random.max()).all()
    fine, coarse = (means.loc[f"ceiling_{pool}", "pixel_auc"] for pool in ("pool3", "pool4"))
    assert fine > 0.9 and fine > coarse > 0.5  # of 2 x 2 cells a lesion in the middle is in all
    assert not [name for name in measure_without(photographs, used, config) if "ceiling" in name]


def measure_without(photographs, used, config) -> list[str]:
    """Names of the maps of a measurement that asks for no ceilings."""
    return list(measure(AttnVGG(attention="none"), photographs(), used, config)["map"].unique())


def of_two_classes(energies: dict[str, tuple[float, float]], *, lesions: int = 24) -> pd.DataFrame:
    """Rows as `measure` gives them: by map its energy on benign lesions and on melanomas, +-.05."""
    target = np.arange(2 * lesions) % 2
    noise = np.random.default_rng(0).uniform(-0.05, 0.05, 2 * lesions)
    parts = []
    for name, of_class in energies.items():
        columns = {"row": range(2 * lesions), "group": range(2 * lesions), "target": target}
        part = pd.DataFrame(columns).assign(map=name, zero=False)
        for figure in localisation.FIGURES:
            part[figure] = np.array(of_class)[target] + noise
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def test_by_class_shows_what_the_mean_over_both_hides():
    table = of_two_classes({"attention_pool3": (0.5, 0.1), "centre": (0.3, 0.3)})
    located = localisation.by_class(table)
    assert list(located) == ["all", "melanoma", "benign", "melanoma less benign"]
    both = {name: located[name]["attention_pool3"] for name in located}
    for name, rows in {"melanoma": table["target"] == 1, "benign": table["target"] == 0}.items():
        mine = table[rows & (table["map"] == "attention_pool3")]
        assert both[name]["energy"] == pytest.approx(mine["energy"].mean())
        assert both[name]["n"] == 24
    assert (
        both["all"]["n"] == 48
        and both["all"] == localisation.localisation(table)["attention_pool3"]
    )
    gap = both["melanoma less benign"]
    assert gap["energy"] == pytest.approx(both["melanoma"]["energy"] - both["benign"]["energy"])
    assert gap["energy_low"] < gap["energy"] < gap["energy_high"] < -0.3
    same = located["melanoma less benign"]["centre"]
    assert same["energy_low"] < 0 < same["energy_high"]
    assert json.loads(json.dumps(located)) == located


def test_the_difference_between_the_classes_needs_both_and_enough_of_each():
    table = of_two_classes({"otsu": (0.5, 0.1)})
    benign = localisation.by_class(table[table["target"] == 0])
    assert benign["melanoma"] == {}
    assert benign["melanoma less benign"]["otsu"]["energy"] is None
    few = table[(table["target"] == 0) | (table["row"] < 9)]
    gap = localisation.by_class(few)["melanoma less benign"]["otsu"]
    assert gap["energy"] == pytest.approx(-0.4, abs=0.05)
    assert gap["energy_low"] is gap["energy_high"] is None
    unmasked = localisation.by_class(table.assign(energy=np.nan))
    assert list(unmasked.values()) == [{}, {}, {}, {}]


def test_over_seeds_the_spread_stands_beside_the_interval_over_groups():
    ends = {}
    audits = []
    for seed, benign in {1: 0.2, 2: 0.5, 3: 0.8}.items():
        located = localisation.by_class(of_two_classes({"attention_pool3": (benign, 0.1)}))
        ends[seed] = located["benign"]["attention_pool3"]
        audits.append({"seed": seed, "localisation": located})
    table = localisation.over_seeds(audits)
    row = table.loc[("benign", "attention_pool3")]
    values = [figures["energy"] for figures in ends.values()]
    assert row["mean"] == pytest.approx(sum(values) / 3)
    assert (row["smallest"], row["largest"]) == (min(values), max(values))
    for end in ("low", "high"):
        mean = sum(figures[f"energy_{end}"] for figures in ends.values()) / 3
        assert row[end] == pytest.approx(mean)
    assert row["seeds"] == 3 and row["largest"] - row["smallest"] > 5 * (row["high"] - row["low"])
    bare = [audit["localisation"] for audit in audits]
    pd.testing.assert_frame_equal(localisation.over_seeds(bare), table)
    hits = localisation.over_seeds(audits[:1], "hits").loc[("melanoma", "attention_pool3")]
    assert hits["mean"] == hits["smallest"] == hits["largest"]


def test_over_seeds_without_an_interval_and_without_a_figure():
    few = localisation.by_class(of_two_classes({"otsu": (0.5, 0.1)}, lesions=3))
    many = localisation.by_class(of_two_classes({"otsu": (0.5, 0.1), "sobel": (0.5, 0.1)}))
    table = localisation.over_seeds([few, many])
    assert np.isnan(table.loc[("all", "otsu"), "low"])
    assert table.loc[("all", "sobel"), "seeds"] == 1
    with pytest.raises(ValueError, match="0 audits .* expected one"):
        localisation.over_seeds([])
    with pytest.raises(ValueError, match="'area'.*hits, energy"):
        localisation.over_seeds([few], "area")


def test_switches_say_on_which_class_the_map_lies_in_each_seed():
    sides = {3: (0.6, 0.1), 5: (0.1, 0.6), 7: (0.3, 0.3)}
    audits = []
    for seed, energies in sides.items():
        located = localisation.by_class(of_two_classes({"attention_pool3": energies}))
        audits.append({"seed": seed, "localisation": located})
    few = localisation.by_class(of_two_classes({"attention_pool3": (0.6, 0.1)}, lesions=4))
    audits.append({"seed": 9, "localisation": few})
    without = localisation.by_class(of_two_classes({"centre": (0.6, 0.1)}))
    audits.append({"seed": 11, "localisation": without})
    table = localisation.switches(audits)
    assert table["lies"].to_dict() == {
        3: "less on melanomas",
        5: "more on melanomas",
        7: "cannot be told",
        9: "too few to tell",
        11: "not measured",
    }
    assert table.loc[3, "melanoma"] < table.loc[3, "benign"]
    assert table.loc[5, "difference"] == pytest.approx(0.5, abs=0.05)


def test_an_audit_of_the_first_edition_is_not_read_as_one_by_class(tmp_path):
    content = {"format": localisation.AUDIT_FORMAT, "localisation": {"all": {}}}
    workspace.write_json(tmp_path / "audit.json", content)
    assert localisation.read_audit(tmp_path) == content
    workspace.write_json(tmp_path / "audit.json", {"localisation": {"centre": {"energy": 0.3}}})
    with pytest.raises(ValueError, match="format 1, expected 2: run 06_audit"):
        localisation.read_audit(tmp_path)


def test_audits_of_runs_of_the_same_name_are_found_and_older_ones_said_to_be_left_out(
    tmp_path, capsys
):
    for name, seed in {"mine": 1, "mine-grid-seed=2": 2, "other": 3}.items():
        (tmp_path / name).mkdir()
        content = {"format": localisation.AUDIT_FORMAT, "seed": seed}
        workspace.write_json(tmp_path / name / "audit.json", content)
    (tmp_path / "mine-old").mkdir()
    workspace.write_json(tmp_path / "mine-old" / "audit.json", {"seed": 4})
    found = localisation.audits_beside(tmp_path / "mine")
    assert [audit["seed"] for audit in found] == [1, 2]
    assert "mine-old" in capsys.readouterr().out


def test_audits_of_other_settings_or_of_a_seed_that_is_there_do_not_count(tmp_path):
    """mine-2 has mine's seed, mine-longer another number of epochs."""
    for name, seed, epochs in (("mine", 1, 8), ("mine-2", 1, 8), ("mine-longer", 2, 9)):
        content = {"format": localisation.AUDIT_FORMAT, "seed": seed, "name": name}
        content["made_from"] = {"epochs": epochs, "seed": seed, "torch": name}
        workspace.write_json(tmp_path / name / "audit.json", content)
    (found,) = localisation.audits_beside(tmp_path / "mine")
    assert found["name"] == "mine"
    workspace.write_json(
        tmp_path / "mine-elsewhere" / "audit.json",
        {
            "format": localisation.AUDIT_FORMAT,
            "seed": 3,
            "made_from": {"epochs": 8, "seed": 3, "torch": "2.12"},
        },
    )
    assert [found["seed"] for found in localisation.audits_beside(tmp_path / "mine")] == [1, 3]


def test_a_constant_map_is_everywhere_in_its_region_also_where_it_was_enlarged():
    """Enlarging in float32 rounds."""
    flat = torch.full((3, 1, 7, 11), 0.3)
    flat[1] = 1 / 77
    large = torch.nn.functional.interpolate(flat, size=(96, 96), mode="bilinear")
    large = large * (1 + 1e-7 * torch.rand(large.shape, generator=torch.Generator().manual_seed(0)))
    assert localisation.activated(large)["region"].tolist() == [1, 1, 1]
