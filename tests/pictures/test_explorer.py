"""helpers/pictures/explorer.py: files of each kind, and real widgets whose sliders are moved.

The files are made with Pillow and OpenCV.
"""

import io
import struct
import warnings
import zlib
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot: no window

import cv2  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from scipy.spatial.distance import mahalanobis  # noqa: E402

from helpers.model import Output  # noqa: E402
from helpers.photographs import reading  # noqa: E402
from helpers.pictures import explorer  # noqa: E402
from helpers.pictures.style import COLOUR_MAP  # noqa: E402
from helpers.scores import metrics  # noqa: E402
from helpers.training.loop import predict_held_out  # noqa: E402

pytestmark = pytest.mark.filterwarnings("error")
CONFIG = {"threshold": 0.25, "image_size": 96}


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture
def colours() -> np.ndarray:
    """A smooth photograph, uint8 [48, 64, 3]; each corner has a colour of its own."""
    corners = np.array([[[200, 90, 60], [40, 160, 90]], [[60, 70, 190], [220, 200, 40]]], np.uint8)
    return cv2.resize(corners, (64, 48), interpolation=cv2.INTER_LINEAR)


def png_header(width: int, height: int) -> bytes:
    """The start of a PNG that claims so many pixels, up to the first of them."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = struct.pack(">I", 9) + b"IDAT"
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + pixels
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_a_photograph_of_each_kind_is_read_whatever_its_name(tmp_path, colours, kind):
    path = tmp_path / "mole.dat"
    Image.fromarray(colours).save(path, kind, quality=95)
    pixels = explorer.own_photograph(path)
    assert pixels.dtype == np.uint8 and pixels.shape == (48, 64, 3)
    assert np.abs(pixels.astype(int) - colours).mean() < 3
    if kind in ("PNG", "TIFF", "BMP"):
        assert np.array_equal(pixels, colours)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_stands_upright_as_opencv_reads_it(tmp_path, colours, orientation):
    exif, path = Image.Exif(), tmp_path / "turned.jpg"
    exif[0x0112] = orientation
    Image.fromarray(colours).save(path, exif=exif, quality=95)
    pixels = explorer.own_photograph(path)
    expected = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]
    assert pixels.shape == expected.shape == ((48, 64, 3) if orientation <= 4 else (64, 48, 3))
    assert np.abs(pixels.astype(int) - expected).max() <= 4  # two decoders
    if (
        orientation == 6
    ):  # the camera was turned: the top of the scene is at the right of the stored rows
        assert np.abs(pixels.astype(int) - np.rot90(colours, -1)).mean() < 3


def test_colour_of_16_bits_under_a_wrong_name_and_palettes_become_8_bits(tmp_path, colours):
    deep = colours[..., ::-1].astype(np.uint16) * 257
    (tmp_path / "deep.jpg").write_bytes(cv2.imencode(".png", deep)[1].tobytes())
    assert np.array_equal(explorer.own_photograph(tmp_path / "deep.jpg"), colours)
    palette = Image.fromarray(colours).quantize(64)
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(
        explorer.own_photograph(tmp_path / "palette.png"), np.array(palette.convert("RGB"))
    )
    Image.fromarray(colours).convert("RGBA").save(tmp_path / "opaque.png")
    assert np.array_equal(explorer.own_photograph(tmp_path / "opaque.png"), colours)


def refused(path: Path) -> str:
    with pytest.raises(ValueError) as caught:
        explorer.own_photograph(path)
    assert str(caught.value).startswith("photograph: ") and path.name in str(caught.value)
    return str(caught.value)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^photograph: .*gone\.jpg"):
        explorer.own_photograph(tmp_path / "gone.jpg")
    assert "not a file" in refused(tmp_path)
    (tmp_path / "empty.jpg").touch()
    assert "empty" in refused(tmp_path / "empty.jpg")


@pytest.mark.parametrize(
    "content",
    [b"Dear doctor,\n" * 100, b"\0\0\0\x18ftypheic" + bytes(200), b"\xff\xd8", bytes(500)],
)
def test_what_is_no_image_is_refused(tmp_path, content):
    (tmp_path / "mole.jpg").write_bytes(content)
    text = refused(tmp_path / "mole.jpg")
    assert "JPEG, PNG" in text and "HEIC" in text


def test_a_format_that_no_camera_writes_is_refused(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / "mole.gif")
    assert "JPEG, PNG" in refused(tmp_path / "mole.gif")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_that_was_cut_off_is_refused(tmp_path, kind, share):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, kind)
    (tmp_path / "cut").write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * share)])
    assert "damaged" in refused(tmp_path / "cut")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_cut_photograph_is_called_so(tmp_path, colours, kind):
    Image.fromarray(colours).save(tmp_path / "cut", kind)
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:-300])
    assert "damaged" in refused(tmp_path / "cut")


@pytest.mark.parametrize(
    ("width", "height"), [(20_000, 20_000), (10_000, 9_500), (2_000_000_000, 2)]
)
def test_more_pixels_than_are_harmless_are_refused_before_any_is_decoded(
    tmp_path, monkeypatch, width, height
):
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    (tmp_path / "bomb.png").write_bytes(png_header(width, height))
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # pytest restores it
    assert f"{reading.MOST:,}" in refused(tmp_path / "bomb.png")


def test_pixels_that_mean_no_colours_are_refused(tmp_path, colours):
    Image.fromarray(colours[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert "grey" in refused(tmp_path / "deep.png")
    Image.fromarray(colours[..., 0] / np.float32(7)).save(tmp_path / "floats.tiff")
    assert "kind F" in refused(tmp_path / "floats.tiff")


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_a_grey_photograph_is_refused(tmp_path, colours, mode):
    Image.fromarray(colours).convert(mode).save(tmp_path / "grey.png")
    assert "grey" in refused(tmp_path / "grey.png").replace("grey.png", "")


def test_a_grey_photograph_with_three_channels_is_refused(tmp_path, colours):
    Image.fromarray(colours).convert("L").convert("RGB").save(tmp_path / "three.jpg")
    assert "grey" in refused(tmp_path / "three.jpg")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_a_photograph_that_is_see_through_in_places_is_refused(tmp_path, colours, kind):
    photograph = Image.fromarray(colours)
    photograph.putalpha(Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) + 192, (48, 1))))
    photograph.save(tmp_path / "clear", kind)
    assert "see-through" in refused(tmp_path / "clear")


def test_a_see_through_colour_of_a_palette_is_refused(tmp_path, colours):
    Image.fromarray(colours).quantize(64).save(tmp_path / "palette.png", transparency=3)
    assert "see-through" in refused(tmp_path / "palette.png")


def test_a_thumbnail_is_refused(tmp_path, colours):
    Image.fromarray(colours[:15]).save(tmp_path / "small.png")
    text = refused(tmp_path / "small.png")
    assert "64 x 15" in text and "16" in text
    Image.fromarray(colours[:16]).save(tmp_path / "enough.png")
    assert explorer.own_photograph(tmp_path / "enough.png").shape == (16, 64, 3)


@pytest.fixture(scope="module")
def predicted(made, fitted):
    """predictions.csv of the fitted network over the photographs of `made`, and its calibration."""
    table = predict_held_out(fitted, made.split, made.photographs(), "fp32")
    val = table[table["split"] == "val"]
    slope = (
        1 / val["logit"].std()
    )  # two epochs hardly tell photographs apart: spread the probabilities
    calibration = {"slope": slope, "intercept": -slope * val["logit"].mean()}
    return table.assign(probability=metrics.probability(table["logit"], calibration)).set_index(
        "image_id"
    ), calibration


def of_file(path, made, fitted, calibration) -> float:
    with torch.no_grad():
        seen = explorer.as_seen(
            explorer.own_photograph(path), made.cache["side"], fitted.config, torch.device("cpu")
        )
        logits = fitted.network(seen).logits[:, 0]
    return metrics.probability(logits, calibration)[0]


def test_a_photographs_own_file_gives_the_probability_of_predictions_csv(
    tmp_path, made, fitted, predicted
):
    """The raw JPEG in true colours (the set stores blue first); the square as 05 keeps it."""
    table, calibration = predicted
    folder = (
        Path(made.cache["file"]).parents[2]
        / "raw"
        / "512x512-dataset-melanoma"
        / "512x512-dataset-melanoma"
    )
    photographs, gaps = made.photographs(), {"raw": [], "square": []}
    for row in np.concatenate([made.val, made.test]):
        name, path = made.used["image_id"][row], tmp_path / "own.png"
        Image.fromarray(np.array(Image.open(folder / made.used["path"][row]))[..., ::-1]).save(path)
        stored = table.loc[name, "probability"]
        gaps["raw"].append(abs(of_file(path, made, fitted, calibration) - stored))
        square, _ = photographs.take(np.array([row]))
        Image.fromarray(square[0].numpy()).save(tmp_path / "square.jpg", quality=95, subsampling=0)
        gaps["square"].append(
            abs(of_file(tmp_path / "square.jpg", made, fitted, calibration) - stored)
        )
    spread = table["probability"].std()
    print(f"raw {max(gaps['raw']):.5f}, square {max(gaps['square']):.5f}, spread {spread:.3f}")
    assert spread > 0.1, "else nothing could be told apart"
    assert max(gaps["raw"]) < 0.01 * spread and max(gaps["square"]) < 0.5 * spread


def test_a_photograph_is_seen_squashed_not_cropped(colours):
    config = {"view": 1.0, "image_size": 32, "mean": (0.5, 0.4, 0.4), "std": (0.2, 0.2, 0.3)}
    wide = np.zeros((48, 96, 3), np.uint8)
    wide[:, 72:] = (0, 0, 255)  # the last quarter of the width
    seen = explorer.as_seen(wide, 36, config, torch.device("cpu"))
    assert seen.shape == (1, 3, 32, 32)
    blue = seen[0, 2] * 0.3 + 0.4
    assert blue[:, :23].max() < 0.01 and blue[:, 25:].min() > 0.99


def test_the_colour_rank_equals_a_plain_loop(made):
    photographs, rng = made.photographs(), np.random.default_rng(1)
    means = np.array([photographs.pixels[row].reshape(-1, 3).mean(axis=0) for row in made.train])
    inverse, middle = np.linalg.inv(np.cov(means.T)), means.mean(axis=0)
    distances = [mahalanobis(mean, middle, inverse) for mean in means]
    for shift in (0, 5, 10, 20):
        flat = np.clip(middle + rng.normal(0, 1, 3) * shift, 0, 255).astype(np.uint8)
        own = mahalanobis(flat, middle, inverse)
        expected = sum(distance < own for distance in distances) / len(distances)
        rank = explorer.colour_rank(np.broadcast_to(flat, (40, 50, 3)), photographs, made.train)
        assert rank == pytest.approx(expected)
    assert (
        explorer.colour_rank(np.full((9, 9, 3), (0, 0, 255), np.uint8), photographs, made.train)
        == 1
    )
    usual = photographs.pixels[made.train[int(np.argmin(distances))]]
    assert explorer.colour_rank(usual, photographs, made.train) <= 1 / len(
        made.train
    )  # itself, rounded


def test_the_figure_never_comes_without_its_warnings():
    text = explorer.caveats(
        0.243, CONFIG, shape=(3000, 4000, 3), rank=0.4, prevalence=0.28, drawn=False
    )
    figure, *warnings = text.splitlines()
    assert "0.24," in figure and "below" in figure and "0.25" in figure
    assert len(warnings) == 6 and all(line.startswith("- ") for line in warnings)
    device, no_all_clear, known, colour, squashed, prevalence = warnings
    assert "not a medical device" in device
    assert "doctor" in no_all_clear
    assert "another camera" in known and "drawings" not in known
    assert "40%" in colour and "far from" not in colour
    assert "4000 x 3000" in squashed and "square of 96" in squashed
    assert "28%" in prevalence


def test_the_warnings_follow_what_is_known():
    text = explorer.caveats(0.25, CONFIG, shape=(40, 40, 3), rank=0.97, prevalence=0.28, drawn=True)
    figure, _, _, known, colour, *_ = text.splitlines()
    assert "at or above" in figure
    assert "drawings" in known and "means nothing" in known
    assert "97%" in colour and "far from what was seen" in colour


def layers() -> dict:
    random = torch.Generator().manual_seed(3)
    return {
        "pool-3": (torch.rand(2, 1, 6, 8, generator=random) * 9, "weight / uniform weight"),
        "Grad-CAM": (torch.rand(2, 1, 3, 4, generator=random) / 50, "logit per cell"),
    }


def expected(photograph: np.ndarray, grid: torch.Tensor, opacity: float) -> np.ndarray:
    """OpenCV's enlargement and the colour map, mixed by hand: [H, W, 3], 0 to 1."""
    large = cv2.resize(grid[0].numpy(), photograph.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    large = (large - large.min()) / (large.max() - large.min())
    return (1 - opacity) * photograph + opacity * matplotlib.colormaps["cividis"](large)[..., :3]


def test_the_layers_of_an_output_are_its_maps_in_their_own_scale():
    pool3, cam = (
        torch.rand(2, 1, 4, 6).flatten(1).softmax(dim=1).view(2, 1, 4, 6),
        torch.rand(2, 1, 2, 3),
    )
    layers = explorer.layers_of(
        Output(torch.zeros(2, 1), pool3, pool3[..., :2, :3]), cam, "softmax"
    )
    assert list(layers) == ["pool-3", "pool-4", "Grad-CAM"]
    assert (
        torch.allclose(layers["pool-3"][0], pool3 * 24)
        and layers["pool-3"][1] == "weight / uniform weight"
    )
    assert torch.equal(layers["Grad-CAM"][0], cam) and layers["Grad-CAM"][1] == "logit per cell"
    assert list(explorer.layers_of(Output(torch.zeros(2, 1), None, None), cam, "none")) == [
        "Grad-CAM"
    ]


def test_the_still_figure_shows_each_map_at_each_opacity_with_a_bar_in_its_own_units(colours):
    photograph = colours / 255
    figure = explorer.still(photograph, layers(), 1, opacities=(0.0, 0.3, 1.0))
    shown, bars = (
        [axis for axis in figure.axes if bool(axis.images) == kind] for kind in (True, False)
    )
    assert [axis.get_title() for axis in shown[:3]] == ["opacity 0", "opacity 0.3", "opacity 1"]
    for place, (name, (grids, unit)) in enumerate(layers().items()):
        assert shown[3 * place].get_ylabel() == name
        for axis, opacity in zip(shown[3 * place : 3 * place + 3], (0.0, 0.3, 1.0), strict=True):
            assert (
                np.abs(axis.images[0].get_array() - expected(photograph, grids[1], opacity)).max()
                < 0.01
            )
        assert bars[place].get_ylabel().replace("\n", " ") == unit
        assert bars[place].get_ylim() == pytest.approx(
            (float(grids[1].min()), float(grids[1].max()))
        )


def test_the_still_of_a_constant_map_names_its_value_and_has_no_bar(colours):
    flat = {"Grad-CAM": (torch.zeros(1, 1, 4, 4), "logit per cell")}
    figure = explorer.still(colours / 255, flat, 0, opacities=(0.0, 1.0))
    assert len(figure.axes) == 2, "no bar"
    assert figure.axes[0].get_ylabel() == "Grad-CAM\n0 everywhere"


def test_the_explorer_follows_its_menus_and_its_slider(colours):
    photographs = np.stack([colours / 255, colours[::-1, ::-1] / 255])
    box = explorer.explore(photographs, ["melanoma\np = 0.50\nfound", "benign"], layers())
    which, layer, opacity, picture, bar, caption = box.children
    assert [label for label, _ in which.options] == ["1: melanoma, p = 0.50, found", "2: benign"]
    assert list(layer.options) == ["pool-3", "Grad-CAM"] and (opacity.min, opacity.max) == (0, 1)

    def shown(widget) -> np.ndarray:
        return np.array(Image.open(io.BytesIO(bytes(widget.value)), formats=["PNG"])) / 255

    before = None
    for number, name, value in (
        (0, "pool-3", 0.4),
        (0, "pool-3", 0.0),
        (1, "pool-3", 0.0),
        (1, "Grad-CAM", 1.0),
        (0, "Grad-CAM", 0.65),
        (0, "pool-3", 0.65),
    ):
        which.value, layer.value, opacity.value = number, name, value
        grids, unit = layers()[name]
        assert (
            np.abs(shown(picture) - expected(photographs[number], grids[number], value)).max()
            < 0.01
        )
        assert (
            caption.value
            == f"dark blue {grids[number].min():.2f}, yellow {grids[number].max():.3g} ({unit})"
        )
        assert before is None or not np.array_equal(before, shown(picture))
        before = shown(picture)
    ends = shown(bar)[:, [0, -1]]
    assert np.abs(ends - matplotlib.colormaps["cividis"]([0.0, 1.0])[:, :3]).max() < 0.01
    assert picture.format == bar.format == "png"


def test_a_constant_map_covers_the_photograph_evenly(colours):
    flat = explorer.blend(colours / 255, torch.zeros(1, 3, 4), 1.0)
    assert np.allclose(flat, matplotlib.colormaps["cividis"](0.0)[:3])
    explorer.still(
        colours / 255, {"Grad-CAM": (torch.zeros(1, 1, 3, 4), "logit per cell")}
    ).canvas.draw()
    assert COLOUR_MAP == "cividis"
