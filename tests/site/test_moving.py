"""The sliders that need no kernel, moved by keyboard in a real browser, against numpy.

Each stands alone on a page of its own that may ask nothing of any host, as wide as a phone and as
a desk. Needs Debian's chromium and chromium-driver, and selenium (site/requirements.txt); skips
without them. Pictures are left in the folder that ATTENTION_SCREENSHOTS names, to be looked at.
"""

import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix

from helpers.audit import localisation
from helpers.pictures import sliders
from helpers.pictures.explorer import blend
from helpers.pictures.maps import upsample
from tests.pictures.test_sliders import KINDS, answers, drawn, made

WIDTHS = (390, 1280)
# nothing but what stands in the page itself
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {scripts}"
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A slider</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}"></head><body>{body}</body></html>"""
READABLE, PALE = (
    (Path(__file__).parent / name).read_text(encoding="utf-8")
    for name in ("readable.js", "pale.js")
)
PICTURE = "return arguments[0].getBoundingClientRect().toJSON()"
SCORES = np.array([[0.0, 1, 0], [0, 3, 1]])
CHOSEN = 0.4


@pytest.fixture
def show(browser, tmp_path):
    """Open HTML on a page of its own; afterwards nothing was asked and nothing complained of."""
    page = tmp_path / "page.html"

    def show(body: str, width: int, scripts: str = "'unsafe-inline'") -> None:
        policy = POLICY.format(scripts=scripts)
        page.write_text(PAGE.format(policy=policy, body=body), encoding="utf-8")
        browser.width(width)
        browser.complaints(), browser.asked()
        browser.driver.get(page.as_uri())

    yield show
    assert [url for url in browser.asked() if url != page.as_uri()] == []
    refused = "script" if "'none'\"" in page.read_text("utf-8") else None
    assert [words for words in browser.complaints() if not refused or refused not in words] == []


def handle(browser):
    """The slider itself, in focus."""
    (slider,) = browser.find("css selector", "input[type=range]")
    browser.script("arguments[0].focus()", slider)
    return slider


def press(browser, *keys: str) -> None:
    from selenium.webdriver import ActionChains, Keys

    names = [getattr(Keys, key) for key in keys]
    ActionChains(browser.driver).send_keys(*names).perform()


def position(slider) -> int:
    return int(slider.get_attribute("value"))


def figures(browser) -> list[float]:
    """The numbers that it computed, unrounded."""
    values = browser.script(
        "return [...document.querySelectorAll('.live data')].map((cell) => [cell.value, "
        "cell.textContent])"
    )
    for value, text in values:  # what stands there is the same, rounded
        places = len(text.partition(".")[2])
        assert abs(float(text) - float(value)) <= 0.5 * 10**-places + 1e-12
    return [float(value) for value, _ in values]


def whole(browser, width: int, name: str) -> None:
    """Nothing scrolls sideways, is pale, or has no name; keep a picture."""
    assert browser.script("return document.documentElement.scrollWidth") <= width
    assert [words for words in browser.script(READABLE) if words != "not one h1"] == []
    assert browser.script(PALE) == []
    if folder := os.environ.get("ATTENTION_SCREENSHOTS"):
        browser.driver.save_screenshot(str(Path(folder) / f"slider-{name}-{width}.png"))


@pytest.mark.parametrize("width", WIDTHS)
def test_softmax_stays_where_sigmoid_falls(browser, show, width):
    show(sliders.scores(SCORES).data, width)
    slider, factor = browser.find("css selector", "input[type=range]")
    bars = "return [...document.querySelectorAll('text.value')].map((one) => one.dataset.value)"
    for which, *keys in (
        [slider],
        [slider, *["ARROW_LEFT"] * 5],
        [slider, "HOME"],
        [factor, "END"],
        [slider, "END"],
        [factor, "HOME"],
        [slider, "PAGE_DOWN"],
        [factor, "ARROW_UP", "ARROW_UP"],
    ):
        browser.script("arguments[0].focus()", which)
        press(browser, *keys)
        added = sliders.ADDED["lowest"] + sliders.ADDED["step"] * position(slider)
        spread = sliders.TIMES["step"] * position(factor) * SCORES.ravel()
        moved = spread + added
        softmax = np.exp(spread) / np.exp(spread).sum()  # whatever was added
        sigmoid = 1 / (1 + np.exp(-moved))
        expected = [*softmax, *sigmoid]
        np.testing.assert_allclose(np.array(browser.script(bars), float), expected, rtol=1e-12)
        np.testing.assert_allclose(figures(browser), [1, sigmoid.sum()], rtol=1e-12)
        assert f"{sigmoid.sum():.3f}" in which.get_attribute("aria-valuetext")
    whole(browser, width, "scores")


@pytest.mark.parametrize("width", WIDTHS)
def test_each_threshold_counts_as_numpy_does(browser, show, width):
    targets, probabilities = answers()
    show(sliders.threshold(targets, probabilities, CHOSEN).data, width)
    slider = handle(browser)
    positions = np.unique(probabilities)
    own = position(slider)
    for keys in ([], ["ARROW_LEFT"] * 3, ["ARROW_RIGHT"] * 7, ["HOME"], ["END"], ["PAGE_DOWN"]):
        press(browser, *keys)
        at = position(slider)
        threshold = CHOSEN if at == own else [*positions, 2.0][at]
        called = probabilities >= threshold
        (cleared, alarms), (missed, found) = confusion_matrix(targets, called)
        sensitivity = found / (found + missed)
        specificity = cleared / (cleared + alarms)
        assert figures(browser) == [found, missed, sensitivity, alarms, cleared, specificity]
        turned = called != (probabilities >= CHOSEN)
        assert len(browser.find("css selector", ".dot.turned")) == turned.sum()
        wrong = called != (targets == 1)
        assert len(browser.find("css selector", ".dot.wrong")) == wrong.sum()
        if at != own:
            (words,) = browser.find("css selector", ".changes")
            numbers = re.findall(r"(\d+) (?:melanoma|benign)", words.text)
            assert [int(one) for one in numbers] == [
                turned[targets == kind].sum() for kind in (1, 0)
            ]
    press(browser, *["ARROW_LEFT"] * 12)
    whole(browser, width, "threshold")


def choose(browser, number: int, name: str) -> None:
    """Another photograph from the menu, another map from the buttons; by keyboard."""
    from selenium.webdriver.support.ui import Select

    Select(browser.find("css selector", "select")[0]).select_by_index(number)
    (label,) = [one for one in browser.find("css selector", "fieldset label") if one.text == name]
    button = label.find_element("css selector", "input")
    while not button.is_selected():
        selected = browser.find("css selector", "fieldset input:checked")[0]
        browser.script("arguments[0].focus()", selected)
        press(browser, "ARROW_RIGHT")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_mixture_is_that_of_the_explorer(browser, show, width):
    about = drawn()
    # photographs of one colour each: JPEG keeps those
    colours = np.array([[0.8, 0.5, 0.4], [0.2, 0.4, 0.7]])
    photographs = np.tile(colours[:, None, None], (1, 96, 96, 1))
    layers = {name: (maps, "weight") for name, maps in about["layers"].items()}
    show(sliders.opacity(photographs, about["titles"], layers).data, width)
    slider = handle(browser)
    (stack,) = browser.find("css selector", ".stack")
    for number, name, keys in (
        (0, "pool-3", []),
        (1, "pool-4", ["ARROW_RIGHT"] * 4),
        (1, "Grad-CAM", ["HOME"]),
        (0, "pool-4", ["END"]),
    ):
        choose(browser, number, name)
        handle(browser)
        press(browser, *keys)
        share = position(slider) / 20
        assert slider.get_attribute("aria-valuetext").startswith(f"{share:.2f}: {name}")
        browser.until(
            lambda: browser.script(
                "return [...document.querySelectorAll('.stack img')].every((one) => one.complete)"
            )
        )
        seen = Image.open(io.BytesIO(stack.screenshot_as_png)).convert("RGB")
        seen = np.asarray(seen.resize((96, 96), Image.Resampling.BOX)) / 255
        mixed = blend(photographs[number], about["layers"][name][number], share)
        # enlarging and making small again blurs a little; another map or share differs by far more
        assert np.abs(seen - mixed).mean() < 0.01
    choose(browser, 0, "pool-3")
    handle(browser)
    press(browser, "HOME", *["ARROW_RIGHT"] * 8)
    whole(browser, width, "opacity")


@pytest.mark.parametrize("width", WIDTHS)
def test_iou_is_that_of_the_audit_at_each_level(browser, show, width):
    about = drawn(64, 96)
    show(sliders.level(**about).data, width)
    slider = handle(browser)
    runs = "return document.querySelector('path.kept').getAttribute('d')"
    for number, name, keys in (
        (0, "pool-3", []),
        (0, "pool-3", ["ARROW_LEFT"] * 13),
        (1, "pool-4", ["ARROW_LEFT"]),
        (1, "Grad-CAM", ["HOME"]),
        (0, "Grad-CAM", ["END"]),
        (1, "pool-3", ["PAGE_DOWN"]),
    ):
        choose(browser, number, name)
        handle(browser)
        press(browser, *keys)
        level = position(slider) / sliders.LEVELS
        large = upsample(about["layers"][name][[number]], (64, 96))
        masks = about["masks"][[number]]
        values = large[0, 0].double()
        kept = values - values.min() >= level * (values.max() - values.min())
        iou, area, energy = figures(browser)
        assert iou == localisation.overlap(large, masks, [level]).item(), "to the last bit"
        assert area == kept.double().mean().item()
        assert abs(energy - localisation.energy(large, masks).item()) < 1e-12
        bars = re.findall(r"M(\d+) (\d+)h(\d+)v1h-\3z", browser.script(runs))
        drawn_pixels = torch.zeros(64, 96, dtype=torch.bool)
        for column, row, length in bars:
            drawn_pixels[int(row), int(column) : int(column) + int(length)] = True
        assert torch.equal(drawn_pixels, kept)
    press(browser, "HOME", *["ARROW_RIGHT"] * 30)
    whole(browser, width, "level")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_where_scripts_are_off_a_table_or_a_picture_stands_there(browser, show, kind, width):
    show(made(kind), width, scripts="'none'")
    assert not browser.find("css selector", "input")
    still = browser.find("css selector", ".still :is(table, img)")
    assert still and all(one.is_displayed() for one in still)
    assert browser.script("return document.documentElement.scrollWidth") <= width


def test_the_same_slider_twice_on_a_page_moves_apart(browser, show):
    show(made("scores") * 2, 1280)
    first, _, second, _ = browser.find("css selector", "input[type=range]")
    browser.script("arguments[0].focus()", second)
    press(browser, "ARROW_LEFT")
    assert position(first) == position(second) + 1
    assert figures(browser)[1] != figures(browser)[3]
