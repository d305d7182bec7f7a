"""One look in all notebooks: one call sets it, and all colours are those of style.py.

That all eyes tell those apart is tested in tests/pictures/test_style.py.
"""

import ast
import re

import nbformat
import pytest
from matplotlib import colormaps
from matplotlib.colors import is_color_like, to_hex, to_rgb

from helpers.pictures import style
from helpers.workspace import PROJECT
from tests.notebooks.clean import HIDDEN

NOTEBOOKS = (PROJECT / "notebooks").rglob("*.ipynb")
NOTEBOOKS = sorted(path for path in NOTEBOOKS if not HIDDEN & set(path.parts))
PALETTE = {style.BLUE, style.VERMILION, style.ORANGE, style.GREEN, style.GREY}
PALETTE |= {to_hex(colour).upper() for colour in colormaps[style.COLOUR_MAP](range(256))}
MAPS = {style.COLOUR_MAP, "gray"}  # gray: photographs without colour
COLOUR = re.compile(r"\w*colou?rs?|c|fc|ec|mfc|mec")  # keywords that take a colour
MAP = re.compile(r"cmap|colou?r_?map")


def foreign(source: str) -> set[str]:
    """Colours and colour maps given in this code that are not ours; black to white are."""
    wrong = set()
    colours = set(re.findall(r"[\"'](#[0-9A-Fa-f]{3,8})[\"']", source))
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant)):
            continue
        if MAP.fullmatch(node.arg or "") and node.value.value not in MAPS:
            wrong.add(node.value.value)
        if COLOUR.fullmatch(node.arg or "") and is_color_like(node.value.value):
            colours.add(node.value.value)
    for colour in colours:
        has_hue = len(set(to_rgb(colour))) > 1
        if has_hue and to_hex(colour).upper() not in PALETTE:
            wrong.add(colour)
    return wrong


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_one_call_sets_the_look_and_all_colours_are_ours(path):
    cells = nbformat.read(path, as_version=4).cells
    source = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    if "matplotlib" in source or "helpers.pictures" in source:
        assert source.count("use_style()") == 1
    assert not re.search(r"rcParams|set_matplotlib_formats|set_dpi|style\.use\b", source)
    assert not foreign(source)


@pytest.mark.parametrize("folder", ["helpers", "site", "bench"])
def test_all_colours_of_our_programs_are_ours(folder):
    for path in (PROJECT / folder).rglob("*.py"):
        assert not foreign(path.read_text("utf-8")), path


@pytest.mark.parametrize(
    "source, wrong",
    [
        ('axis.plot(x, color="red")', {"red"}),
        ('x = ["#123456"]', {"#123456"}),
        ('axis.imshow(x, cmap="jet")', {"jet"}),
        ('axis.plot(x, "s--", color="#0072B2", mfc="white", ec="0.5")', set()),
    ],
)
def test_the_search_finds_foreign_colours(source, wrong):
    assert foreign(source) == wrong
