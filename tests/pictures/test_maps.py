"""helpers/pictures/maps.py against plain loops, NumPy and hand computations, on tiny maps."""

import matplotlib

matplotlib.use("Agg")  # before pyplot: no window

import cv2  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from helpers.model import AttnVGG  # noqa: E402
from helpers.photographs.cache import fill  # noqa: E402
from helpers.pictures.maps import (  # noqa: E402
    SHARE,
    WITHIN,
    agreement,
    attention_figure,
    contribution_figure,
    draw_outcomes,
    draw_outlines,
    draw_rows,
    evaluate,
    grid_figure,
    headings,
    min_max,
    overlay,
    own_scale,
    upsample,
)
from helpers.training.batches import Photographs  # noqa: E402

SIZES = [
    (5, 7, 40, 56),
    (6, 3, 48, 96),
    (1, 4, 8, 64),
    (4, 4, 32, 32),
]  # of a map and of its photograph
CONFIG = {"view": 1.0, "image_size": 32, "mean": (0.5, 0.4, 0.4), "std": (0.2, 0.2, 0.3)}


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture
def used():
    """60 rows of three sides: of each six, one melanoma."""
    return pd.DataFrame(
        {"split": np.repeat(["train", "val", "test"], 20), "target": [0, 0, 0, 0, 0, 1] * 10}
    )


@pytest.fixture
def photographs(tmp_path):
    """Five cached photographs of 36 pixels a side: noise, each brighter than the one before."""
    noise = np.random.default_rng(0).integers(0, 100, (5, 36, 36, 3), np.uint8)
    pixels = noise + 30 * np.arange(5, dtype=np.uint8)[:, None, None, None]
    fill(tmp_path / "cache.npy", pixels.shape, pixels.__getitem__, [], "photographs")
    return Photographs({"file": str(tmp_path / "cache.npy"), "masks_file": ""}, torch.device("cpu"))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def pictures(N: int, H: int, W: int) -> np.ndarray:
    return random(N, H, W, 3, seed=9).numpy()


def panels(figure) -> list:
    """The axes that show a picture or map; colour bars have none."""
    return [axis for axis in figure.axes if axis.images]


def lines(axis) -> np.ndarray:
    """The points [P, 2] of the outlines drawn in a panel."""
    paths = [path.vertices for drawn in axis.collections for path in drawn.get_paths()]
    return np.concatenate(paths) if paths else np.empty((0, 2))


def test_drawn_rows_are_of_the_side_and_class_each_once_and_follow_the_seed(used):
    rows = draw_rows(used, "val", 0, 8, seed=1)
    assert len(set(rows)) == 8
    assert all(used["split"][row] == "val" and used["target"][row] == 0 for row in rows)
    assert np.array_equal(rows, draw_rows(used, "val", 0, 8, seed=1))
    assert not np.array_equal(rows, draw_rows(used, "val", 0, 8, seed=2))
    assert rows.tolist() != sorted(rows)


def test_asking_for_more_keeps_those_drawn_before_and_never_gives_more_than_there_are(used):
    there = [row for row in range(20, 40) if row % 6 != 5]
    every = draw_rows(used, "val", 0, 1000, seed=3)
    assert sorted(every) == there
    for count in range(len(there)):
        assert np.array_equal(draw_rows(used, "val", 0, count, seed=3), every[:count])
    melanoma = used.assign(target=1)
    assert len(draw_rows(melanoma, "val", 0, 8, seed=3)) == 0


def test_an_unknown_side_is_refused(used):
    with pytest.raises(ValueError, match="test, train, val.*'validation'"):
        draw_rows(used, "validation", 1, 8, seed=1)


@pytest.mark.parametrize("attention", ["softmax", "sigmoid", "none"])
def test_evaluation_equals_the_network_one_photograph_at_a_time(photographs, attention):
    torch.manual_seed(1)
    network = AttnVGG(attention=attention).eval()
    network.classifier.weight.data *= 100  # logits far enough apart to tell photographs by
    rows = np.array([4, 0, 3])
    output = evaluate(network, photographs, rows, CONFIG, batch=2)  # batches of two and one
    for number, row in enumerate(rows):
        pixels = cv2.resize(
            photographs.pixels[row].astype(np.float32) / 255,
            (32, 32),
            interpolation=cv2.INTER_LINEAR,
        )
        image = torch.tensor(
            (pixels - CONFIG["mean"]) / CONFIG["std"], dtype=torch.float32
        ).permute(2, 0, 1)[None]
        with torch.no_grad():
            alone = network(image)
        for whole, single in zip(output, alone, strict=True):
            assert (whole is None) == (single is None)
            if whole is not None:
                assert torch.allclose(whole[number : number + 1], single, rtol=1e-3, atol=1e-4)
    assert output.logits.shape == (3, 1) and not output.logits.requires_grad
    assert output.logits.flatten().sort().values.diff().min() > 0.01
    if attention == "none":
        assert output.pool3_map is None and output.pool4_map is None
    else:
        assert output.pool3_map.shape == (3, 1, 4, 4) and output.pool4_map.shape == (3, 1, 2, 2)
        assert output.pool3_map.dtype == output.pool4_map.dtype == torch.float32


def test_evaluation_of_no_rows_is_refused(photographs):
    with pytest.raises(ValueError, match="rows"):
        evaluate(AttnVGG().eval(), photographs, np.array([], int), CONFIG)


def test_headings_name_truth_probability_and_what_the_threshold_makes_of_it():
    titles = headings(np.array([1, 1, 0, 0]), np.array([0.5, 0.499, 0.5, 0.004]), 0.5)
    assert titles == [
        "melanoma\np = 0.50\nfound",
        "melanoma\np = 0.50\nmissed",
        "benign\np = 0.50\nfalse alarm",
        "benign\np = 0.00\ncleared",
    ]


@pytest.fixture
def called():
    """80 photographs with truth and probability, some exactly at the threshold of 0.25."""
    rng = np.random.default_rng(4)
    return pd.DataFrame(
        {
            "image_id": [f"X_{number}" for number in range(80)],
            "target": rng.integers(0, 2, 80),
            "probability": rng.integers(0, 5, 80) / 4,
        }
    )


def test_outcomes_are_those_of_a_plain_loop(called):
    outcomes = draw_outcomes(called, 0.25, 1000, seed=1)
    expected = {"found": [], "missed": [], "false alarm": [], "cleared": []}
    for row, (target, value) in enumerate(
        zip(called["target"], called["probability"], strict=True)
    ):
        names = ("found", "missed") if target == 1 else ("false alarm", "cleared")
        expected[names[0] if value >= 0.25 else names[1]].append(row)
    assert list(outcomes) == list(expected)
    assert {name: sorted(rows) for name, rows in outcomes.items()} == expected
    assert all(len(rows) > 3 and rows.tolist() != sorted(rows) for rows in outcomes.values())
    empty = draw_outcomes(called.assign(target=0), 0.25, 2, seed=1)
    assert [len(rows) for rows in empty.values()] == [0, 0, 2, 2]


def test_outcomes_are_drawn_by_seed_whatever_the_order_and_whoever_else_is_there(called):
    def drawn(table, count, seed):
        return {
            name: table["image_id"].iloc[rows].tolist()
            for name, rows in draw_outcomes(table, 0.25, count, seed).items()
        }

    two, four = drawn(called, 2, 1), drawn(called, 4, 1)
    assert all(len(four[name]) == 4 and four[name][:2] == names for name, names in two.items())
    for order in range(5):
        assert drawn(called.sample(frac=1, random_state=order), 2, 1) == two
    others = called[~called["image_id"].isin(sum(two.values(), []))].index[:30]
    assert drawn(called.drop(others), 2, 1) == two
    assert len({str(drawn(called, 2, seed)) for seed in range(10)}) == 10


@pytest.mark.parametrize(("h", "w", "H", "W"), SIZES)
def test_enlarging_keeps_the_centre_of_mass_of_every_inner_cell(h, w, H, W):
    for row in range(1, h - 1) if h > 1 else [0]:
        for column in range(1, w - 1):
            cell = torch.zeros(1, 1, h, w)
            cell[0, 0, row, column] = 1
            large = upsample(cell, (H, W))[0, 0].double()
            assert large.shape == (H, W)
            y = (large.sum(dim=1) * (torch.arange(H) + 0.5)).sum() / large.sum()
            x = (large.sum(dim=0) * (torch.arange(W) + 0.5)).sum() / large.sum()
            assert y.item() == pytest.approx((row + 0.5) * H / h, abs=1e-4)
            assert x.item() == pytest.approx((column + 0.5) * W / w, abs=1e-4)


@pytest.mark.parametrize(("h", "w", "H", "W"), SIZES)
def test_enlarging_equals_opencv_and_keeps_a_constant(h, w, H, W):
    maps = random(2, 1, h, w)
    large = upsample(maps, (H, W))
    for small, enlarged in zip(maps, large, strict=True):
        assert np.allclose(
            cv2.resize(small[0].numpy(), (W, H), interpolation=cv2.INTER_LINEAR),
            enlarged[0],
            atol=1e-5,
        )
    assert torch.allclose(upsample(torch.full((1, 1, h, w), 0.3), (H, W)), torch.tensor(0.3))


@pytest.mark.parametrize(("h", "w", "H", "W"), SIZES)
def test_stretching_equals_a_plain_loop_map_by_map(h, w, H, W):
    maps = random(3, 1, h, w) * torch.tensor([1.0, 1e-4, 50]).view(3, 1, 1, 1) - torch.tensor(0.2)
    for grid, stretched in zip(maps.double(), min_max(maps.double()), strict=True):
        values = grid.flatten().tolist()
        low, high = min(values), max(values)
        assert stretched.flatten().tolist() == pytest.approx(
            [(value - low) / (high - low) for value in values], abs=1e-9
        )
        assert stretched.min() == 0 and stretched.max() == 1


@pytest.mark.parametrize("value", [0.0, 1 / 144, 1.0, -3.0])
def test_a_map_that_differs_by_rounding_alone_has_no_pattern_even_after_enlarging(value):
    constant = value * (1 + 5e-7 * random(1, 1, 12, 12))
    maps = torch.cat(
        [constant, 1e-7 * random(1, 1, 12, 12)]
    )  # the second is small, but not constant
    for stretched in (min_max(maps), min_max(upsample(maps, (96, 80)))):
        assert stretched[0].eq(0).all()
        assert stretched[1].max() == 1


def test_a_softmax_map_in_its_own_scale_has_mean_1_and_a_sigmoid_map_is_left_alone():
    maps = random(2, 1, 3, 5).flatten(1).softmax(dim=1).view(2, 1, 3, 5)
    scaled, unit = own_scale(maps, "softmax")
    assert (
        torch.allclose(scaled.mean(dim=(1, 2, 3)), torch.ones(2))
        and unit == "weight / uniform weight"
    )
    assert torch.allclose(
        own_scale(torch.full((1, 1, 3, 5), 1 / 15), "softmax")[0], torch.tensor(1.0)
    )
    for attention, name in (("sigmoid", "weight, 0 to 1"), ("grad_cam", "logit per cell")):
        same, unit = own_scale(maps, attention)
        assert torch.equal(same, maps) and unit == name


def test_an_overlay_is_six_tenths_photograph_and_four_tenths_coloured_map():
    photograph, maps = pictures(2, 4, 6), random(2, 1, 4, 6)
    maps[:, :, 0, 0], maps[:, :, 0, 1] = 0, 1
    laid = overlay(photograph, maps)
    assert laid.shape == (2, 4, 6, 3)
    colours = matplotlib.colormaps["cividis"]
    for number, row, column in np.ndindex(2, 4, 6):
        colour = colours(float(maps[number, 0, row, column]))[:3]
        expected = [
            0.6 * a + 0.4 * b for a, b in zip(photograph[number, row, column], colour, strict=True)
        ]
        assert laid[number, row, column] == pytest.approx(expected, abs=1e-6)
    low, high = (
        0.6 * photograph[:, 0, place] + 0.4 * np.array(colours(float(place))[:3])
        for place in (0, 1)
    )
    assert np.allclose(laid[:, 0, 0], low) and np.allclose(laid[:, 0, 1], high)


def test_share_and_colours_can_be_chosen():
    photograph, maps = pictures(1, 2, 2), torch.ones(1, 1, 2, 2)
    assert np.allclose(overlay(photograph, maps, share=0), photograph)
    assert np.allclose(overlay(photograph, maps, share=1, colour_map="gray"), 1)


def test_where_the_opacity_follows_the_map_the_photograph_stays_where_the_map_is_0():
    photograph, maps = pictures(2, 4, 6), random(2, 1, 4, 6)
    maps[:, :, 0, 0], maps[:, :, 0, 1] = 0, 1
    laid = overlay(photograph, maps, share=0.7, follow_map=True)
    colours = matplotlib.colormaps["cividis"]
    for number, row, column in np.ndindex(2, 4, 6):
        value = float(maps[number, 0, row, column])
        expected = []
        for a, b in zip(photograph[number, row, column], colours(value)[:3], strict=True):
            expected.append((1 - 0.7 * value) * a + 0.7 * value * b)
        assert laid[number, row, column] == pytest.approx(expected, abs=1e-6)
    assert np.allclose(laid[:, 0, 0], photograph[:, 0, 0])
    assert np.allclose(laid[:, 0, 1], overlay(photograph, maps, share=0.7)[:, 0, 1])


@pytest.mark.parametrize(
    "shape", [(2, 1, 4, 5), (1, 1, 4, 6), (2, 1, 6, 4), (2, 2, 4, 6), (2, 4, 6)]
)
def test_an_overlay_of_another_size_is_refused(shape):
    with pytest.raises(ValueError, match=r"not \[2, 4, 6, 3\] and .*upsample"):
        overlay(pictures(2, 4, 6), torch.zeros(shape))


@pytest.mark.parametrize("attention", ["softmax", "sigmoid"])
@pytest.mark.parametrize(("N", "H", "W"), [(1, 32, 64), (3, 64, 32)])
def test_the_three_rows_and_the_range_of_each_map(attention, N, H, W):
    pool3, pool4 = random(N, 1, H // 8, W // 8), random(N, 1, H // 16, W // 16)
    titles = [f"title {number}" for number in range(N)]
    figure = attention_figure(pictures(N, H, W), pool3, pool4, titles, attention=attention)
    assert len(figure.axes) == len(panels(figure)) == 3 * N
    assert [axis.get_title() for axis in figure.axes[:N]] == titles
    names = ["photograph", "pool-3\nmin to max", "pool-4\nmin to max"]
    assert [axis.get_ylabel() for axis in figure.axes[::N]] == names
    assert np.allclose(figure.axes[0].images[0].get_array(), pictures(N, H, W)[0])
    scale = H * W // 64 if attention == "softmax" else 1
    own = pool3[0].numpy() * scale
    assert figure.axes[N].get_xlabel() == f"{own.min():.2f} to {own.max():.3g}"
    assert figure.axes[0].get_xlabel() == ""
    for axis in panels(figure):  # maps and photographs lie in one frame
        assert axis.get_xlim() == (0, W) and axis.get_ylim() == (H, 0)


def test_the_overlays_of_a_figure_are_of_the_stretched_and_enlarged_map():
    photograph, pool3, pool4 = pictures(2, 32, 48), random(2, 1, 4, 6), random(2, 1, 2, 3, seed=5)
    figure = attention_figure(photograph, pool3, pool4, ["", ""], attention="softmax")
    for axes, maps in ((figure.axes[2:4], pool3), (figure.axes[4:6], pool4)):
        for axis, picture, grid in zip(axes, photograph, maps, strict=True):
            large = cv2.resize(grid[0].numpy(), (48, 32), interpolation=cv2.INTER_LINEAR)
            large = (large - large.min()) / (large.max() - large.min())
            colours = matplotlib.colormaps["cividis"](large)[..., :3]
            opacity = 0.7 * large[..., None]
            mixed = (1 - opacity) * picture + opacity * colours
            assert (
                np.abs(axis.images[0].get_array() - mixed).max() < 0.01
            )  # a colour map has 256 steps


def test_without_maps_the_photographs_stand_alone():
    figure = attention_figure(pictures(2, 24, 40), None, None, ["a", "b"], attention="none")
    assert len(figure.axes) == len(panels(figure)) == 2
    figure = attention_figure(
        pictures(1, 32, 32), random(1, 1, 4, 4), None, ["a"], attention="sigmoid"
    )
    assert [axis.get_ylabel() for axis in figure.axes] == ["photograph", "pool-3\nmin to max"]


@pytest.mark.parametrize("attention", ["softmax", "none"])
def test_the_gallery_shows_each_photograph_above_its_own_maps_with_their_ranges(attention):
    photograph, cams = pictures(3, 32, 48), random(3, 1, 2, 3, seed=3) / 50
    pool3, pool4 = (
        (None, None) if attention == "none" else (random(3, 1, 4, 6), random(3, 1, 2, 3, seed=5))
    )
    figure = attention_figure(
        photograph,
        pool3,
        pool4,
        list("abc"),
        attention=attention,
        grad_cam=cams,
        panel=0.9,
    )
    shown = panels(figure)
    rows = {
        axis.get_ylabel(): shown[start : start + 3]
        for start, axis in enumerate(shown)
        if axis.get_ylabel()
    }
    layers = {"pool-3": (pool3, 24), "pool-4": (pool4, 6), "Grad-CAM": (cams, 1)}
    names = [name for name, (maps, _) in layers.items() if maps is not None]
    assert list(rows) == ["photograph"] + [f"{name}\nmin to max" for name in names]
    for number in range(3):
        assert np.array_equal(rows["photograph"][number].images[0].get_array(), photograph[number])
        for name in names:
            own = layers[name][0][number, 0].numpy() * layers[name][1]
            stretched = rows[f"{name}\nmin to max"][number]
            assert (
                stretched.get_xlabel()
                == f"{own.min():.2f} to {own.max():{'.2g' if name == 'Grad-CAM' else '.3g'}}"
            )
            large = cv2.resize(
                (own - own.min()) / np.ptp(own), (48, 32), interpolation=cv2.INTER_LINEAR
            )
            large = (large - large.min()) / np.ptp(large)
            opacity = SHARE * large[..., None]
            coloured = matplotlib.colormaps["cividis"](large)[..., :3]
            mixed = (1 - opacity) * photograph[number] + opacity * coloured
            assert np.abs(stretched.images[0].get_array() - mixed).max() < 0.01


def test_a_row_of_pictures_has_a_bar_where_its_ends_are_given_even_of_a_constant_map():
    rows = {"one": pictures(2, 16, 16), "two": pictures(2, 16, 16)}
    figure = grid_figure(rows, ["a", "b"], units={"two": "metres"}, ranges={"two": (3, 7)})
    (bar,) = (axis for axis in figure.axes if not axis.images)
    assert bar.get_ylabel() == "metres" and bar.get_ylim() == (3, 7)
    grid_figure(rows, ["a", "b"], ranges={"two": (0, 0)}).canvas.draw()


def test_a_title_in_a_gallery_fits_into_its_panel():
    titles = headings(np.array([1, 0, 0]), np.array([0.5, 0.5, 0.1]), 0.4)
    figure = attention_figure(
        pictures(3, 32, 32),
        None,
        None,
        titles,
        attention="none",
        grad_cam=random(3, 1, 2, 2) / 200,
        panel=0.95,
    )
    figure.canvas.draw()
    for axis in panels(figure):
        words = [axis.title, axis.xaxis.label]
        assert all(
            text.get_window_extent().width <= axis.get_window_extent().width for text in words
        ), titles


@pytest.mark.filterwarnings("error")
def test_outlines_follow_the_border_of_each_mask_and_an_empty_mask_has_none():
    masks = torch.zeros(3, 1, 32, 48)
    masks[0, 0, 8:20, 30:40], masks[2, 0, 4:30, 2:6] = 1, 1
    figure = attention_figure(
        pictures(3, 32, 48),
        random(3, 1, 4, 6),
        random(3, 1, 2, 3),
        list("abc"),
        attention="softmax",
        outlines=masks,
    )
    for first, empty, last in zip(
        figure.axes[::3], figure.axes[1::3], figure.axes[2::3], strict=True
    ):
        for axis, low, high in ((first, [30, 8], [40, 20]), (last, [2, 4], [6, 30])):
            points = lines(axis)
            assert points.min(axis=0) == pytest.approx(low) and points.max(axis=0) == pytest.approx(
                high
            )
        assert len(lines(empty)) == 0


def test_a_grid_has_a_panel_for_each_picture_and_takes_its_shape_from_them():
    maps = np.arange(12.0).reshape(2, 2, 3)
    rows = {"seen": pictures(2, 20, 40), "small": maps / 100, "large": maps}
    figure = grid_figure(
        rows, ["a", "b"], notes={"large": ["one", "two"]}, units={"large": "metres"}
    )
    shown = panels(figure)
    assert len(shown) == 6 and len(figure.axes) == 8
    assert [axis.get_ylabel() for axis in figure.axes[6:]] == ["", "metres"]
    assert [axis.images[0].get_clim() for axis in shown[2:]] == [(0, 1), (0, 1), (0, 11), (0, 11)]
    assert [axis.get_xlabel() for axis in shown] == ["", "", "", "", "one", "two"]
    assert all(axis.images[0].get_extent() == [0, 40, 20, 0] for axis in shown)
    tall = grid_figure({"seen": pictures(2, 40, 20)}, ["a", "b"], panel=2)
    flat = grid_figure({"seen": pictures(2, 20, 40)}, ["a", "b"], panel=2)
    assert tall.get_figwidth() == flat.get_figwidth() and tall.get_figheight() == pytest.approx(4.6)
    assert flat.get_figheight() == pytest.approx(1.6)


def test_a_grid_of_maps_alone_is_one_panel_and_one_colour_bar():
    figure = grid_figure({"pool-4": random(1, 3, 5).numpy()}, ["mean"])
    assert len(panels(figure)) == 1 and len(figure.axes) == 2


@pytest.mark.parametrize("shape", [(4, 1, 3, 5), (2, 1, 6, 2), (3, 1, 1, 7)])
def test_agreement_equals_a_plain_loop_over_pairs(shape):
    first, second = random(*shape), random(*shape, seed=1) + 3
    own, other = [], []
    for a, one in enumerate(first):
        for b, two in enumerate(second):
            correlation = np.corrcoef(one.flatten(), two.flatten())[0, 1]
            (own if a == b else other).append(correlation)
    assert agreement(first, second) == pytest.approx((np.mean(own), np.mean(other)), abs=1e-6)


def test_agreement_does_not_see_scale_and_a_constant_map_agrees_with_none():
    maps = random(3, 1, 4, 5)
    assert agreement(maps, 7 * maps + 2)[0] == pytest.approx(1)
    assert agreement(maps, -maps)[0] == pytest.approx(-1)
    same = maps[:1].expand(3, 1, 4, 5)
    assert agreement(same, same) == pytest.approx((1, 1))
    assert agreement(torch.full((3, 1, 4, 5), 0.05), maps) == pytest.approx((0, 0), abs=1e-6)


def signed_maps() -> dict[str, torch.Tensor]:
    """Maps of two photographs, in three resolutions, above and below 0."""
    generator = torch.Generator().manual_seed(3)
    sizes = {"pool-3": (8, 12), "pool-4": (4, 6), "pool-5": (2, 3)}
    return {name: torch.randn(2, 1, *size, generator=generator) for name, size in sizes.items()}


def test_contributions_share_one_scale_with_0_in_the_middle():
    signed = signed_maps()
    figure = contribution_figure(pictures(2, 64, 96), signed, ["a", "b"])
    shown = [axis.images[0] for axis in figure.axes if axis.images]
    (bar,) = (axis for axis in figure.axes if not axis.images)
    end = bar.get_ylim()[1]
    assert bar.get_ylim()[0] == -end < 0
    squares = []
    for number, (name, grid) in enumerate(signed.items()):
        covered = 96 // grid[0].numel()
        for photograph in range(2):
            image = shown[2 * (number + 1) + photograph]
            drawn = np.asarray(image.get_array())
            np.testing.assert_allclose(drawn * covered, grid[photograph, 0], rtol=1e-5)
            assert image.get_clim() == (-end, end), name
            squares += np.abs(drawn).ravel().tolist() * covered
            words = image.axes.get_xlabel()
            assert words == f"adds {grid[photograph].sum():+.2f}"
    assert len(squares) == 3 * 2 * 96
    assert np.mean(np.array(squares) <= end) == pytest.approx(WITHIN, abs=0.01)
    middle = shown[-1].to_rgba(np.zeros((1, 1)))[0, 0]
    np.testing.assert_allclose(middle, 1, atol=0.01)  # white
    below, above = shown[-1].to_rgba(np.array([[-end, end]]))[0, :, :3]
    assert below[2] > below[0] and above[0] > above[2], "blue below 0, vermilion above"


def test_contributions_of_zeros_are_drawn_and_none_at_all_are_refused():
    nothing = {name: torch.zeros_like(grid) for name, grid in signed_maps().items()}
    masks = torch.zeros(2, 1, 64, 96)
    masks[:, :, 20:40, 30:60] = 1
    figure = contribution_figure(pictures(2, 64, 96), nothing, ["a", "b"], outlines=masks)
    figure.canvas.draw()
    assert all(axis.collections for axis in figure.axes if axis.images), "outlines on all panels"
    with pytest.raises(ValueError, match="no map"):
        contribution_figure(pictures(2, 64, 96), {}, ["a", "b"])


def test_maps_of_equal_shares_are_1_in_their_own_scale_and_an_unknown_word_is_refused():
    shares = torch.full((1, 1, 12, 12), 1 / 144)
    for attention in ("softmax", "none"):
        torch.testing.assert_close(own_scale(shares, attention)[0], torch.ones(1, 1, 12, 12))
    assert own_scale(shares, "weighted")[0] is shares
    with pytest.raises(ValueError, match="'weighted'.*'none'.*not 'gradcam'"):
        own_scale(shares, "gradcam")


def test_of_one_photograph_there_is_no_other_to_agree_with():
    maps = torch.rand(1, 1, 4, 4)
    own, other = agreement(maps, maps)
    assert own == pytest.approx(1) and np.isnan(other)


def test_outlines_are_drawn_from_whatever_device_the_masks_are_on():
    """A tensor that NumPy cannot take, as one on a GPU: `cpu` is asked of it."""

    class Elsewhere(torch.Tensor):
        def __array__(self, *_):
            raise TypeError("can't convert a tensor on a GPU to numpy")

        def cpu(self):
            return self.as_subclass(torch.Tensor)

    masks = torch.zeros(1, 1, 8, 8)
    masks[..., 2:5, 2:5] = 1
    drawing, axis = plt.subplots()
    draw_outlines(np.array([axis]), masks.as_subclass(Elsewhere), 1.0)
    assert len(axis.collections) == 1
    plt.close(drawing)
