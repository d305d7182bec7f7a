"""helpers/pictures/diagrams.py: shapes against arithmetic, files against the contract.

And texts that stay in their boxes.
"""

import itertools
import re

import matplotlib
import nbformat
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch, Rectangle

from helpers.model import AttentionBlock, AttnVGG
from helpers.pictures import diagrams
from helpers.pictures.style import BLUE
from helpers.runs import parameters

SIZES = [96, 224, (64, 96), (32, 1024)]
NOISE = 2 * torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
# the contract's table: whether a notebook takes what others left, and what it leaves for others
# (timing.json: for nobody)
CONTRACT = {
    "01_download": (False, {"dataset.json"}),
    "02_preprocess": (True, {"split.csv", "cache.json"}),
    "03_attention_model": (False, {"figures/"}),
    "04_train": (True, {"model.pt", "history.csv", "predictions.csv", "metrics.json"}),
    "05_visualize_attention": (True, {"figures/"}),
    "06_audit": (True, {"audit.json", "figures/"}),
    "07_evidence": (True, {"evidence.json", "figures/"}),
    "08_mend": (True, {"mend.json", "figures/"}),
}
# of a file in the run's folder
READING = r"open_prepared\(|read_json\(folder|load_checkpoint\(folder|read_split\("


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return {kind: AttnVGG(attention=kind) for kind in ("softmax", "sigmoid", "none")}


def drawn(figure):
    """All texts of a figure with letters in them, after drawing it, and what measures them."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [
        text
        for text in figure.findobj(matplotlib.text.Text)
        if text.get_text() and text.get_visible()
    ]
    return texts, canvas.get_renderer()


def boxes(figure, kind=FancyBboxPatch):
    return [patch for patch in figure.axes[0].patches if isinstance(patch, kind)]


def within(inner, outer, slack=1.0):
    return (
        outer.x0 - slack <= inner.x0
        and inner.x1 <= outer.x1 + slack
        and outer.y0 - slack <= inner.y0
        and inner.y1 <= outer.y1 + slack
    )


def shapes_in(figure):
    return sorted(
        shape
        for text in figure.axes[0].texts
        for shape in re.findall(r"\[B[^]]*\]", text.get_text())
    )


def by_arithmetic(image_size):
    """Height and width of the photograph and of the three pools, from halving alone."""
    H, W = (image_size, image_size) if isinstance(image_size, int) else image_size
    return {pool: f"{H // 2**pool}, {W // 2**pool}" for pool in (0, 3, 4, 5)}


@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize("pool, channels", [(3, 256), (4, 512)])
def test_shapes_of_the_block(networks, image_size, pool, channels):
    of = by_arithmetic(image_size)
    expected = [
        f"[B, 512, {of[5]}]",
        f"[B, 256, {of[5]}]",
        f"[B, {channels}, {of[pool]}]",
        f"[B, {channels}]",
        *[f"[B, 256, {of[pool]}]"] * 3,
        *[f"[B, 1, {of[pool]}]"] * 2,
    ]
    figure = diagrams.attention_block(networks["softmax"], image_size, pool=pool)
    assert shapes_in(figure) == sorted(expected)


@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize("kind", ["softmax", "none"])
def test_shapes_of_the_network(networks, image_size, kind):
    of = by_arithmetic(image_size)
    expected = [
        f"[B, 3, {of[0]}]",
        f"[B, 256, {of[3]}]",
        f"[B, 512, {of[4]}]",
        f"[B, 512, {of[5]}]",
        "[B, 256]",
        "[B, 512]",
        "[B, 512]",
        "[B, 1280]",
        "[B, 1]",
    ]
    figure = diagrams.network(networks[kind], image_size)
    assert shapes_in(figure) == sorted(expected)
    words = "\n".join(text.get_text() for text in figure.axes[0].texts)
    assert words.count("attention block") == (2 if kind == "softmax" else 0)
    assert re.findall(r"(\d+) convolutions", words) == ["7", "3", "3"], "VGG16 has 13"


def test_another_block_gives_another_diagram():
    network = AttnVGG(classes=3)
    network.attention3 = AttentionBlock(256, 512, attention_channels=32, normalization="sigmoid")
    assert shapes_in(diagrams.attention_block(network, 64)).count("[B, 32, 8, 8]") == 3
    assert "[B, 3]" in shapes_in(diagrams.network(network, 64))


def test_softmax_sums_and_sigmoid_means(networks):
    for kind, word in (("softmax", "weighted sum"), ("sigmoid", "weighted mean")):
        words = "\n".join(
            text.get_text() for text in diagrams.attention_block(networks[kind], 64).axes[0].texts
        )
        assert word in words and f"{kind}: map" in words
        assert sum(other in words for other in ("weighted sum", "weighted mean")) == 1


def test_a_weighted_vector_and_a_closed_bypass_are_drawn_as_they_are():
    network = AttnVGG(attention="weighted", bypass=False)
    words = "\n".join(
        text.get_text() for text in diagrams.attention_block(network, 64).axes[0].texts
    )
    assert "sigmoid: map" in words and "weighted" not in words
    figure = diagrams.network(network, 64)
    assert "[B, 768]" in shapes_in(figure)
    assert not [text for text in figure.axes[0].texts if text.get_text().startswith("mean")]


def test_the_network_is_left_as_it_was(networks):
    network = networks["softmax"].train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    diagrams.network(network, 64)
    assert (
        network.training
        and not network.backbone[23]._forward_hooks
        and not network.attention3._forward_hooks
    )
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items()), (
        "batch norm learned"
    )
    with pytest.raises(ValueError, match="multiples of 32"):
        diagrams.shapes(network, 50)
    assert network.training and not network.classifier._forward_hooks, "hooks stay after an error"


def test_a_frozen_backbone_stays_frozen(networks):
    """Each module keeps its own mode: batch norm of a frozen backbone would learn otherwise."""
    network = networks["sigmoid"].train()
    network.backbone.eval()
    diagrams.shapes(network, 64)
    assert network.training and network.attention3.training
    assert not any(module.training for module in network.backbone.modules())


def test_what_cannot_be_drawn_is_refused(networks):
    with pytest.raises(ValueError, match="attention 'none'"):
        diagrams.attention_block(networks["none"], 64)
    with pytest.raises(ValueError, match="pool 5"):
        diagrams.attention_block(networks["softmax"], 64, pool=5)
    with pytest.raises(ValueError, match="01_download.*not '09_more'"):
        diagrams.series("09_more")


@pytest.mark.parametrize("here", CONTRACT)
def test_series_shows_the_contract_and_fills_one(here):
    figure = diagrams.series(here)
    texts, renderer = drawn(figure)
    filled = [box for box in boxes(figure) if to_hex(box.get_facecolor()).upper() == BLUE]
    assert len(filled) == 1 and len(boxes(figure)) == len(CONTRACT)
    (bold,) = [text for text in texts if text.get_weight() == "bold"]
    assert bold.get_text() == here.replace("_", "\n")
    assert within(bold.get_window_extent(renderer), filled[0].get_window_extent(renderer))
    named = {text.get_text().replace("\n", "_"): text.get_position() for text in texts}
    assert (
        [name for name in named if name in CONTRACT]
        == sorted(CONTRACT)
        == [path.stem for path in parameters.NOTEBOOKS if path.stem != "00_start_here"]
    )
    for name, (_, files) in CONTRACT.items():
        below = [
            text.get_text().split("\n")
            for text in texts
            if text.get_ha() == "center"
            and text.get_position()[0] == named[name][0]
            and 0 < named[name][1] - text.get_position()[1] < 1.5  # in the same line
        ]
        assert len(below) == 1 and set(below[0]) == files, name


def test_who_reads_in_the_series_does_so_in_its_code():
    up = [
        arrow.xy
        for arrow in diagrams.series("01_download").axes[0].texts
        if isinstance(arrow, matplotlib.text.Annotation)
        and arrow.arrow_patch
        and to_hex(arrow.arrow_patch.get_edgecolor()).upper() == BLUE
    ]
    reads = set()
    for name, box in zip(CONTRACT, boxes(diagrams.series("01_download")), strict=True):
        x, y = box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2
        if any(abs(x - tip[0]) < 0.6 and abs(y - tip[1]) < 0.6 for tip in up):
            reads.add(name)
    code = {
        path.stem: "\n".join(
            cell.source
            for cell in nbformat.read(path, as_version=4).cells
            if cell.cell_type == "code"
        )
        for path in parameters.NOTEBOOKS
    }
    assert reads == {name for name, source in code.items() if re.search(READING, source)}
    assert reads == {name for name, (takes, _) in CONTRACT.items() if takes}


def every_diagram(networks):
    figures = {f"series {here}": diagrams.series(here) for here in CONTRACT}
    for size in SIZES:
        figures |= {
            f"block {size} {pool}": diagrams.attention_block(networks["sigmoid"], size, pool=pool)
            for pool in (3, 4)
        }
        figures |= {
            f"network {size} {kind}": diagrams.network(networks[kind], size)
            for kind in ("softmax", "none")
        }
    return figures


def test_texts_stay_in_their_boxes_and_apart(networks):
    for name, figure in every_diagram(networks).items():
        texts, renderer = drawn(figure)
        places = {text: text.get_window_extent(renderer) for text in texts}
        frames = [box.get_window_extent(renderer) for box in boxes(figure)]
        inside = [
            sum(within(place, frame, slack=-2) for frame in frames) for place in places.values()
        ]
        touched = [sum(place.overlaps(frame) for frame in frames) for place in places.values()]
        assert inside == touched and sum(inside) == len(frames), (
            f"{name}: a text crosses the rim of a box"
        )
        assert all(within(place, figure.bbox, slack=0) for place in places.values()), (
            f"{name}: beyond the figure"
        )
        assert all(within(frame, figure.bbox, slack=0) for frame in frames), name
        for first, second in itertools.combinations(texts, 2):
            assert not places[first].overlaps(places[second]), (
                f"{name}: {first.get_text()!r} and {second.get_text()!r}"
            )
        for band in boxes(figure, Rectangle):
            bottom, top = band.get_y(), band.get_y() + band.get_height()
            low = [place for text, place in places.items() if bottom < text.get_position()[1] < top]
            assert all(within(place, band.get_window_extent(renderer), slack=0) for place in low), (
                name
            )


def test_readable_on_a_telephone_and_on_a_dark_page(networks):
    """At 390 CSS pixels of width no letter is under 7, and nothing of the page shines through."""
    for name, figure in (
        every_diagram(networks) | {"space": diagrams.softmax_over_space(torch.zeros(2, 3))}
    ).items():
        texts, _ = drawn(figure)
        smallest = min(text.get_fontsize() for text in texts) / 72 * 390 / figure.get_figwidth()
        assert smallest >= 7, f"{name}: {smallest:.1f} pixels"
        assert to_hex(figure.get_facecolor(), keep_alpha=True) == "#ffffffff", name


@pytest.mark.parametrize(
    "scores", [torch.tensor([[0.0, 1, 0], [0, 3, 1]]), NOISE, torch.zeros(1, 2)]
)
def test_softmax_over_space_says_what_torch_says(scores):
    shift = -2.5
    figure = diagrams.softmax_over_space(scores, shift=shift)
    texts, renderer = drawn(figure)
    tables = [[text.get_text() for text in axis.texts] for axis in figure.axes]
    for line, moved in enumerate((scores, scores + shift)):
        softmax, sigmoid = torch.softmax(moved.reshape(-1), 0), torch.sigmoid(moved.reshape(-1))
        assert tables[3 * line] == [f"{value:.3g}" for value in moved.reshape(-1).tolist()]
        assert tables[3 * line + 1] == [f"{value:.2f}" for value in softmax.tolist()]
        assert tables[3 * line + 2] == [f"{value:.2f}" for value in sigmoid.tolist()]
        titles = [figure.axes[3 * line + place].get_title() for place in range(3)]
        assert titles == [
            "scores -2.5" if line else "scores",
            f"softmax, sum {softmax.sum():.2f}",
            f"sigmoid, sum {sigmoid.sum():.2f}",
        ]
    assert tables[1] == tables[4] and tables[2] != tables[5], "a constant cancels in softmax alone"
    H, W = scores.shape
    for axis in figure.axes:
        frame = axis.get_window_extent(renderer)
        for place, text in enumerate(axis.texts):
            row, column = divmod(place, W)
            cell = matplotlib.transforms.Bbox.from_bounds(
                frame.x0 + frame.width * column / W,
                frame.y1 - frame.height * (row + 1) / H,
                frame.width / W,
                frame.height / H,
            )
            assert within(text.get_window_extent(renderer), cell, slack=0), text.get_text()
    for first, second in itertools.combinations(texts, 2):
        assert not first.get_window_extent(renderer).overlaps(second.get_window_extent(renderer))


def luminance(colour):
    """Relative luminance of sRGB from 0 to 1 (WCAG 2)."""
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in colour[:3]
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_numbers_stand_out_from_their_cells():
    figure = diagrams.softmax_over_space(torch.linspace(-3, 3, 12).view(3, 4), shift=1.0)
    for axis in figure.axes:
        (picture,) = axis.images
        cells = picture.to_rgba(picture.get_array()).reshape(-1, 4)
        for text, cell in zip(axis.texts, cells, strict=True):
            dark, light = sorted(map(luminance, (matplotlib.colors.to_rgb(text.get_color()), cell)))
            assert (light + 0.05) / (dark + 0.05) >= 4, text.get_text()
