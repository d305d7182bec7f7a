"""helpers/pictures/sliders.py: the bytes that it makes, and the numbers in them.

tests/site/test_moving.py moves the sliders in a real browser.
"""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.audit import localisation
from helpers.pictures import sliders
from helpers.pictures.maps import min_max, overlay, upsample
from helpers.scores import metrics

KINDS = ("scores", "threshold", "opacity", "level")


def drawn(height: int = 96, width: int = 96, count: int = 2) -> dict:
    """Photographs, titles, masks and maps of three sizes, drawn by seed."""
    random = np.random.default_rng(3)
    torch.manual_seed(3)
    masks = torch.zeros(count, 1, height, width)
    masks[:, :, height // 4 : height // 2, width // 3 : -width // 4] = 1
    grids = {"pool-3": 8, "pool-4": 16, "Grad-CAM": 16}
    layers = {}
    for name, cell in grids.items():
        layers[name] = torch.rand(count, 1, height // cell, width // cell) ** 3
    return {
        "photographs": random.random((count, height, width, 3)),
        "titles": ["melanoma\np = 0.61\n<found>"] * count,
        "masks": masks,
        "layers": layers,
    }


def answers(count: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Targets and probabilities, some of them equal."""
    random = np.random.default_rng(5)
    targets = random.random(count) < 0.3
    probabilities = (random.random(count) * 0.7 + targets * 0.3).round(2)
    return targets.astype(int), probabilities


def made(kind: str) -> str:
    """The HTML of a slider."""
    about = drawn()
    if kind == "scores":
        return sliders.scores(np.array([[0.0, 1, 0], [0, 3, 1]])).data
    if kind == "threshold":
        return sliders.threshold(*answers(), chosen=0.4).data
    if kind == "opacity":
        layers = {name: (maps, "weight") for name, maps in about["layers"].items()}
        return sliders.opacity(about["photographs"], about["titles"], layers).data
    return sliders.level(**about).data


def data_of(page: str) -> dict:
    """What the script is given."""
    return json.loads(re.search(r'^begin\("\w+", "\w+", (.*)\);$', page, re.MULTILINE)[1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_arrays_give_the_same_small_page_that_asks_no_host(kind):
    page = made(kind)
    assert page == made(kind)
    assert len(page) < 300_000
    addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w+/[\w/]*", page.replace("base64,//", ""))
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}, "the name of SVG, which nobody asks"
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|@import|fetch\(|import\(""", page)
    assert page.count("<script>") == page.count("</script>") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_without_its_script_a_table_or_a_picture_stays(kind):
    bare = re.sub(r"<(script|style)>.*?</\1>", "", made(kind), flags=re.DOTALL)
    assert "<input" not in bare, "nothing that does not move"
    if kind == "opacity":
        assert re.search(r'<img src="data:image/jpeg;base64,[^"]+" alt="[^"]+">', bare)
    else:
        assert bare.count("<tr>") >= 4 and '<th scope="row">' in bare
    assert "<found>" not in bare, "titles are text"


def test_another_content_has_another_key():
    keys = set()
    for kind in KINDS:
        keys.add(re.search(r'data-slider="(\w+)"', made(kind))[1])
    keys.add(re.search(r'data-slider="(\w+)"', sliders.scores(np.zeros(6)).data)[1])
    assert len(keys) == 5


def test_the_table_of_scores_is_torchs_softmax_and_sigmoid():
    scores = torch.tensor([[0.0, 1, 0], [0, 3, 1]])
    page = sliders.scores(scores.numpy()).data
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', page)
    assert [row[0] for row in rows] == ["-10", "-3", "+0", "+3", "+10"]
    for added, cells in rows:
        moved = scores.double().flatten() + float(added)
        expected = []
        for weights in (moved.softmax(dim=0), moved.sigmoid()):
            expected += [f"{weights.max():.3f}", f"{weights.sum():.3f}"]
        assert re.findall(r"<td>(.*?)</td>", cells) == expected


@pytest.mark.parametrize("chosen", [-1.0, 0.0, 0.4, 0.405, 0.99, 1.0, 2.0])
def test_the_threshold_starts_at_the_chosen_one_and_each_step_moves_somebody(chosen):
    targets, probabilities = answers()
    data = data_of(sliders.threshold(targets, probabilities, chosen).data)
    positions = np.array(data["thresholds"])
    assert positions[data["start"]] == chosen
    calls = probabilities >= positions[:, None]  # [positions, N]
    assert (calls[data["start"]] == (probabilities >= chosen)).all()
    assert (calls[:-1].sum(axis=1) > calls[1:].sum(axis=1)).all()
    assert calls[0].all() and not calls[-1].any()


def test_the_table_of_thresholds_is_that_of_the_metrics():
    targets, probabilities = answers()
    chosen = metrics.choose_threshold(targets, probabilities)
    page = sliders.threshold(targets, probabilities, chosen).data
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', page)
    (cells,) = [cells for name, cells in rows if "own" in name]
    decision = metrics.decision(targets, probabilities, chosen)
    assert re.findall(r"<td>(.*?)</td>", cells) == [
        str(decision["true_positives"]),
        str(decision["false_positives"]),
        f"{decision['sensitivity']:.3f}",
        f"{decision['specificity']:.3f}",
    ]


@pytest.mark.parametrize("target", [0, 1])
def test_one_class_has_no_curve(target):
    with pytest.raises(ValueError, match=f"{target}.*0 and 1"):
        sliders.threshold(np.full(4, target), np.linspace(0, 1, 4), chosen=0.5)


def opened(address: str) -> np.ndarray:
    """The pixels [H, W, 3], 0 to 1, behind an address that holds its own bytes."""
    content = base64.b64decode(address.split(",", 1)[1])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) / 255


@pytest.mark.parametrize("size", [(96, 96), (64, 96)])
def test_the_maps_to_lay_on_are_those_of_overlay(size):
    about = drawn(*size)
    layers = {name: (maps, "weight") for name, maps in about["layers"].items()}
    data = data_of(sliders.opacity(about["photographs"], about["titles"], layers).data)
    assert data["titles"] == ["1: melanoma, p = 0.61, <found>", "2: melanoma, p = 0.61, <found>"]
    for layer in data["layers"]:
        large = min_max(upsample(about["layers"][layer["name"]], size))
        alone = overlay(about["photographs"], large, share=1)  # [N, H, W, 3]
        for number, address in enumerate(layer["images"]):
            np.testing.assert_allclose(opened(address), alone[number], atol=0.5 / 255 + 1e-9)


def flat(maps: torch.Tensor) -> torch.Tensor:
    return torch.full_like(maps, 0.25)


@pytest.mark.parametrize("how", [torch.clone, flat, torch.zeros_like], ids=["drawn", "flat", "0"])
@pytest.mark.parametrize("size", [(96, 96), (64, 96)])
def test_each_level_keeps_what_the_audit_keeps(size, how):
    about = drawn(*size)
    about["layers"] = {name: how(maps) for name, maps in about["layers"].items()}
    data = data_of(sliders.level(**about).data)
    levels = [step / sliders.LEVELS for step in range(sliders.LEVELS + 1)]
    for layer in data["layers"]:
        large = upsample(about["layers"][layer["name"]], size)
        expected = localisation.overlap(large, about["masks"], levels)  # [N, levels]
        energies = localisation.energy(large, about["masks"])
        np.testing.assert_allclose(layer["energy"], energies, rtol=1e-12)
        for number, text in enumerate(layer["pixels"]):
            packed = np.frombuffer(base64.b64decode(text), np.uint8).reshape(size)
            lesion = packed >= sliders.LESION
            assert (lesion == (about["masks"][number, 0].numpy() >= 0.5)).all()
            last = packed % sliders.LESION
            ious = [sliders.iou_at(last, lesion, step) for step in range(sliders.LEVELS + 1)]
            assert ious == expected[number].tolist(), "to the last bit"


def test_a_photograph_without_a_lesion_is_refused():
    about = drawn()
    about["masks"][1] = 0
    with pytest.raises(ValueError, match="empty"):
        sliders.level(**about)


def test_the_colours_are_those_of_all_figures():
    """The styles name no hue of their own: black to white, and the variables set from style.py."""
    colours = re.findall(r"#([0-9a-fA-F]{3,6})\b", sliders.STYLES + sliders.SCRIPT)
    assert colours
    for colour in colours:
        parts = re.findall("." * (len(colour) // 3), colour)
        assert len(set(parts)) == 1, colour
    assert set(re.findall(r"var\(--(\w+)\)", sliders.STYLES)) == {"blue", "vermilion", "orange"}
