"""One look in all notebooks: the call that sets it, colours of one palette, and a palette for colour-blind eyes too."""

import ast
import base64
import io
import itertools
import re
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from matplotlib.colors import is_color_like, to_hex, to_rgb
from matplotlib.figure import Figure
from nbclient import NotebookClient
from PIL import Image

from helpers.pictures import maps
from helpers.pictures.maps import overlay
from helpers.pictures.style import COLOUR_MAP, shown, use_style

PROJECT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((PROJECT / "notebooks").rglob("*.ipynb"))
NOTEBOOKS = [path for path in NOTEBOOKS if ".ipynb_checkpoints" not in path.parts]
DRAWING = [
    path
    for path in sorted((PROJECT / "helpers").glob("*.py"))
    if "matplotlib" in path.read_text("utf-8")
]
PALETTE = {name: getattr(maps, name) for name in ("BLUE", "VERMILION", "ORANGE", "GREEN", "GREY")}
MAPS = {"cividis", "gray"}  # gray: photographs without colour
MAP_COLOURS = {to_hex(colour).upper() for colour in plt.get_cmap(COLOUR_MAP)(range(256))}
KEYS = {
    "color",
    "colors",
    "c",
    "facecolor",
    "facecolors",
    "edgecolor",
    "edgecolors",
    "ecolor",
    "mfc",
    "mec",
    "markerfacecolor",
    "markeredgecolor",
    "colour",
    "fc",
    "ec",
    "labelcolor",
    "textcolor",
}
MAP_KEYS = {"cmap", "colour_map", "colormap", "get_cmap", "set_cmap"}
FAR = 15  # CIE Lab distance of any two colours; some 2 is the least that an eye can see
# Machado, Oliveira, Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", IEEE
# Transactions on Visualization and Computer Graphics 15 (6), 2009: full dichromacy (severity 1), on linear RGB
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def short(path):
    return f"{path.parent.name}/{path.stem}"


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def strings(node):
    return [
        one.value
        for one in ast.walk(node)
        if isinstance(one, ast.Constant) and isinstance(one.value, str)
    ]


def named(tree, keys):
    """All strings given to a keyword, a dictionary's key, or a function of one of these names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in keys:
            yield from strings(node.value)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value in keys:
                    yield from strings(value)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in keys:
            yield from (text for argument in node.args for text in strings(argument))


def wrong_colours(source):
    """Colours and colour maps in this code that are not ours."""
    tree = ast.parse(source)
    colours = {text for text in strings(tree) if re.fullmatch(r"#[0-9A-Fa-f]{3,8}", text)}
    colours |= {text for text in named(tree, KEYS) if is_color_like(text)}
    for call in ast.walk(tree):  # "r--" says red: plot("r--"), errorbar(fmt="ro")
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") in (
            "plot",
            "errorbar",
            "scatter",
            "fill",
        ):
            short = [
                text
                for one in [*call.args, *(key.value for key in call.keywords if key.arg == "fmt")]
                for text in strings(one)
                if re.fullmatch(r"[-.:,ovs^<>pPhHxXdD+*|_bgrcmykwC\d]{1,4}", text)
            ]
            colours |= {letter for text in short for letter in re.findall(r"C\d|[bgrcmykw]", text)}
    ours = {colour.upper() for colour in PALETTE.values()} | MAP_COLOURS
    wrong = {
        text for text in colours if to_hex(text).upper() not in ours and len(set(to_rgb(text))) > 1
    }
    return wrong | {text for text in named(tree, MAP_KEYS) if text not in MAPS}


def lab(linear):
    """CIE L*a*b* (D65) of linear RGB, [3]."""
    xyz = (
        np.array(
            [
                [0.4124564, 0.3575761, 0.1804375],
                [0.2126729, 0.7151522, 0.0721750],
                [0.0193339, 0.1191920, 0.9503041],
            ]
        )
        @ linear
        / np.array([0.95047, 1, 1.08883])
    )
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(one, other, matrix):
    """CIE 1976 distance of two sRGB colours to somebody whose eyes mix them so."""
    seen = []
    for colour in (one, other):
        value = np.array(to_rgb(colour))
        linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
        seen.append(lab(np.clip(np.array(matrix) @ linear, 0, 1)))
    return np.linalg.norm(seen[0] - seen[1])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=short)
def test_one_call_sets_the_look(path):
    cells = code_cells(path)
    if not any("matplotlib" in cell.source or "visualize." in cell.source for cell in cells):
        pytest.skip("it draws nothing")
    calls = [number for number, cell in enumerate(cells) if "visualize.use_style()" in cell.source]
    parameters = [
        number for number, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])
    ]
    assert calls == [parameters[0] + 1], "once, in the setup cell below the parameters"
    other = re.compile(r"rcParams|set_matplotlib_formats|set_dpi|style\.use")
    assert not [cell.id for cell in cells if other.search(cell.source)], "what else sets a look"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=short)
def test_notebooks_use_our_colours(path):
    found = {cell.id: wrong_colours(cell.source) for cell in code_cells(path)}
    assert not any(found.values()), {cell: colours for cell, colours in found.items() if colours}


@pytest.mark.parametrize("path", DRAWING, ids=short)
def test_the_package_uses_our_colours(path):
    assert not wrong_colours(path.read_text("utf-8"))


@pytest.mark.parametrize(
    "source, wrong",
    [
        ('axis.plot(x, color="red")', {"red"}),
        ('axis.plot(x, "r--")', {"r"}),
        ('axis.errorbar(x, fmt="go")', {"g"}),
        ('axis.plot(x, "C1o-")', {"C1"}),
        ('x = ["#123456"]', {"#123456"}),
        ('axis.imshow(x, cmap="jet")', {"jet"}),
        ('style = {"edgecolor": "navy"}', {"navy"}),
        ('plt.get_cmap("viridis")', {"viridis"}),
        (
            'axis.plot(x, "s--", color="#0072B2"); axis.text(0, 0, "x", color="white", fc="0.5")',
            set(),
        ),
        ('for name in ("red", "green"): print(name, "r")', set()),
        ('axis.plot(x, c="k", mfc="#E69F00")', set()),
    ],
)
def test_the_search_finds_other_colours(source, wrong):
    assert wrong_colours(source) == wrong


def test_the_matrices_leave_grey_as_it_is():
    for name, matrix in DEFICIENCIES.items():
        np.testing.assert_allclose(np.array(matrix) @ np.ones(3), 1, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(lab(np.ones(3)), [100, 0, 0], atol=0.01)
    assert distance("#FF0000", "#00FF00", DEFICIENCIES["none"]) == pytest.approx(170.6, abs=0.1)
    red, green = "#D02020", "#3C7D00"
    near, far = (distance(red, green, DEFICIENCIES[name]) for name in ("deuteranopia", "none"))
    assert far > 100 > 3 * near, "red and green, which few green cones part"


@pytest.mark.parametrize("name", DEFICIENCIES)
def test_the_palette_can_be_told_apart(name):
    seen = {
        frozenset(pair): distance(*(PALETTE[one] for one in pair), DEFICIENCIES[name])
        for pair in itertools.combinations(PALETTE, 2)
    }
    near = {tuple(pair): round(far, 1) for pair, far in seen.items() if far < FAR}
    assert not near, f"{name}: nearer than {FAR}"


def test_the_cycle_is_the_palette():
    with plt.rc_context():
        use_style()
        cycle = plt.rcParams["axes.prop_cycle"].by_key()["color"]
        assert sorted(cycle) == sorted(PALETTE.values())
        assert (
            plt.rcParams["image.cmap"] == COLOUR_MAP and plt.rcParams["figure.facecolor"] == "white"
        )


def test_in_a_kernel_figures_have_twice_the_pixels():
    """Lines as PNG, photographs as JPEG, each once, whether shown or returned, with the width that they take."""
    sources = [
        "import numpy as np, matplotlib.pyplot as plt\nfrom matplotlib.figure import Figure\n"
        "from helpers import visualize\nvisualize.use_style()",
        "plt.figure(figsize=(6, 3))\nplt.plot([0, 1])\nplt.show()",
        "plt.figure(figsize=(6, 3))\nplt.imshow(np.zeros((8, 16, 3)))\nplt.show()",
        "figure = Figure((6, 3))\nfigure.subplots().imshow(np.eye(4)[:2])\nfigure",
    ]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in sources]
    )
    place = {"metadata": {"path": str(PROJECT)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=place).execute()
    assert notebook.cells[0].outputs == []
    for cell, kind in zip(
        notebook.cells[1:], ("image/png", "image/jpeg", "image/png"), strict=True
    ):
        (output,) = [one for one in cell.outputs if one.output_type != "stream"]
        assert set(output.data) == {kind, "text/plain"}
        picture = Image.open(io.BytesIO(base64.b64decode(output.data[kind])))
        assert output.metadata[kind]["width"] == picture.width // 2
        assert 0.8 < picture.width / (2 * 96 * 6) < 1.05, "6 inches, less an empty rim"
        assert picture.mode == ("P" if kind == "image/png" else "RGB"), (
            "256 colours are enough for lines"
        )


def test_a_map_over_a_photograph_is_a_photograph():
    figure = Figure((2, 2), dpi=50)
    figure.subplots().imshow(overlay(np.zeros((1, 4, 4, 3)), torch.zeros(1, 1, 4, 4))[0])
    assert shown(figure, kind="png") is None and shown(figure, kind="jpeg")[0][:2] == b"\xff\xd8"
