"""helpers/pictures/style.py: colours for all eyes, and figures as a real kernel stores them."""

import base64
import errno
import io
import itertools

import matplotlib

matplotlib.use("Agg")  # before pyplot: no window

import cv2  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import nbformat  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from nbclient import NotebookClient  # noqa: E402
from PIL import Image  # noqa: E402

from helpers import workspace  # noqa: E402
from helpers.pictures import style  # noqa: E402
from helpers.pictures.maps import overlay  # noqa: E402
from tests.conftest import PATIENCE

PALETTE = [style.BLUE, style.VERMILION, style.ORANGE, style.GREEN, style.GREY]
FAR = 15  # CIE Lab distance of any two colours; some 2 is the least that an eye can see
# Machado, Oliveira, Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency", IEEE Transactions on Visualization and Computer Graphics 15 (6), 2009: full
# dichromacy (severity 1), on linear RGB
EYES = {
    "all cones": np.eye(3),
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


def distance(first: str, second: str, eyes: str) -> float:
    """CIE 1976 distance of two colours to somebody with these eyes."""
    colours = np.array([to_rgb(first), to_rgb(second)])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = (linear @ np.transpose(EYES[eyes])).clip(0, 1).astype(np.float32)
    lab = cv2.cvtColor(seen[None], cv2.COLOR_LRGB2Lab)[0]
    return float(np.linalg.norm(lab[0] - lab[1]))


def test_the_simulation_knows_red_from_green_where_the_eye_does():
    assert distance("#FF0000", "#00FF00", "all cones") == pytest.approx(170.6, abs=0.5)
    assert distance("#D02020", "#3C7D00", "all cones") > 100
    assert distance("#D02020", "#3C7D00", "deuteranopia") < 33


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("pair", list(itertools.combinations(PALETTE, 2)), ids="-".join)
def test_all_eyes_tell_the_colours_apart(eyes, pair):
    assert distance(*pair, eyes) >= FAR


def test_lines_take_the_palette_in_turn():
    with plt.rc_context():
        style.use_style()
        cycle = plt.rcParams["axes.prop_cycle"].by_key()["color"]
        assert sorted(cycle) == sorted(PALETTE)
        assert plt.rcParams["image.cmap"] == style.COLOUR_MAP
        assert plt.rcParams["figure.facecolor"] == "white"


def test_a_figure_is_kept_with_all_that_is_drawn_and_closed(tmp_path):
    figure, axis = plt.subplots(figsize=(4, 2), facecolor="white")
    axis.set_title("a title above the upper edge", y=1.3)
    path = tmp_path / "figures" / "line.png"
    style.show(figure, path)
    with Image.open(path) as file:
        pixels = np.array(file.convert("L"))
    assert pixels.shape[0] > 2 * 120 and pixels.shape[1] > 3 * 120  # inches, at 120 dpi
    rim = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (rim == 255).all(), "letters are cut off"
    assert plt.get_fignums() == []


def test_a_figure_that_cannot_be_written_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "line.png"
    path.write_bytes(b"old")
    figure = Figure((2, 1))

    def half(file, **options):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(figure, "savefig", half)
    with pytest.raises(workspace.CannotWrite, match="line.png"):
        style.show(figure, path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_map_over_a_photograph_is_a_photograph():
    figure = Figure((2, 2), dpi=50)
    figure.subplots().imshow(overlay(np.zeros((1, 4, 4, 3)), torch.zeros(1, 1, 4, 4))[0])
    assert style.encode(figure, kind="png") is None
    assert style.encode(figure, kind="jpeg")[0].startswith(b"\xff\xd8")


CELLS = {
    "": "import numpy as np, matplotlib.pyplot as plt\nfrom pathlib import Path\n"
    "from matplotlib.figure import Figure\n"
    "from helpers.pictures.style import show, use_style\nuse_style()",
    "lines, shown by pyplot": "plt.figure(figsize=(6, 3))\nplt.plot([0, 1])\nplt.show()",
    "a photograph": "plt.figure(figsize=(6, 3))\nplt.imshow(np.zeros((8, 16, 3)))\nplt.show()",
    "returned": "figure = Figure((6, 3))\nfigure.subplots().imshow(np.eye(4)[:2])\nfigure",
    "kept": "figure = plt.figure(figsize=(6, 3))\nplt.plot([0, 1])\nshow(figure, Path(FILE))",
    "kept, not pyplot's": "figure = Figure((6, 3))\nfigure.subplots().imshow(np.zeros((2, 4, 3)))\n"
    "show(figure, Path(FILE))",
}


def test_a_kernel_stores_each_figure_once_with_twice_the_pixels(tmp_path):
    """Lines as PNG, photographs as JPEG, however shown, with the width that they take."""
    sources = [source.replace("FILE", repr(str(tmp_path / "x.png"))) for source in CELLS.values()]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    place = {"metadata": {"path": str(workspace.PROJECT)}}
    client = NotebookClient(
        notebook,
        startup_timeout=PATIENCE,
        iopub_timeout=PATIENCE,
        kernel_name="python3",
        resources=place,
    )
    client.execute()
    assert notebook.cells[0].outputs == []
    for name, cell in zip(list(CELLS)[1:], notebook.cells[1:], strict=True):
        (output,) = [output for output in cell.outputs if output.output_type != "stream"]
        kind = "image/jpeg" if "np.zeros" in cell.source else "image/png"
        assert set(output.data) == {kind, "text/plain"}, name
        picture = Image.open(io.BytesIO(base64.b64decode(output.data[kind])))
        assert output.metadata[kind]["width"] == picture.width // 2, name
        assert 0.8 < picture.width / (2 * 96 * 6) < 1.05, f"{name}: 6 inches, less an empty rim"
        # 256 colours are enough for lines
        assert picture.mode == ("P" if kind == "image/png" else "RGB"), name
    assert (tmp_path / "x.png").exists()
