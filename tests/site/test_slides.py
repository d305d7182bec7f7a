"""The slides for teachers: whole, self-contained, and true to what the notebooks store.

The keys and the page without scripts are tested in a real browser; that part skips without one.
"""

import base64
import html
import importlib.util
import io
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

pytest.importorskip("markdown_it", reason="needs it: pip install -r site/requirements.txt")
PROJECT = Path(__file__).resolve().parents[2]
WIDTHS = (390, 1280)


@pytest.fixture(scope="module")
def slides():
    """site/slides.py: site/ is no package."""
    spec = importlib.util.spec_from_file_location("site_slides", PROJECT / "site" / "slides.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def decks(slides, tmp_path_factory):
    """The decks of the stored notebooks, by name, as files."""
    folder = tmp_path_factory.mktemp("slides")
    series = (PROJECT / "notebooks").glob("0*.ipynb")
    slides.write({path.stem: nbformat.read(path, as_version=4) for path in series}, folder)
    return {path.stem: path for path in folder.glob("*.html")}


def picture(width: int) -> str:
    file = io.BytesIO()
    Image.new("RGB", (width, 4)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def small() -> nbformat.NotebookNode:
    """A notebook with one figure, its caption, and two call-outs: its own and another's."""
    data = {"image/png": picture(2000), "text/plain": "<Figure>"}
    return new_notebook(
        cells=[
            new_markdown_cell("## First"),
            new_code_cell('show(figure, figures / "one.png")'),
            new_code_cell(
                'show(figure, figures / "two.png")', outputs=[new_output("display_data", data=data)]
            ),
            new_code_cell("print(.48)"),
            new_markdown_cell('*A "map" & its [lesion](06.ipynb).* Then prose.'),
            new_markdown_cell("Words.\n\n> **In the stored run** (sample): 0.48\n> of it."),
            new_markdown_cell("## Second\n\n> **In the stored run**: 0.99"),
        ]
    )


def test_three_sessions_each_with_its_figures(slides, decks):
    sessions = slides.read()
    assert set(decks) == set(sessions) == {"session-1", "session-2", "session-3"}
    for name, session in sessions.items():
        assert sum(minutes for minutes, _ in session["minutes"]) == 90
        page = decks[name].read_text(encoding="utf-8")
        assert page.count("<section ") == len(session["slides"]) + 2
        assert page.count("<img ") == len(session["slides"]) >= 8
        for entry in session["slides"]:
            assert all(entry[part].strip() for part in ("title", "question", "listen"))


def test_nothing_is_asked_of_any_host(decks):
    for path in decks.values():
        page = path.read_text(encoding="utf-8")
        addresses = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')\s>]+)", page)
        assert addresses and all(address.startswith("data:") for address in addresses)


def test_a_slide_holds_picture_caption_question_and_what_the_run_shows(slides):
    entry = {"notebook": "06_audit", "figure": "two.png", "title": "T", "question": "Q?"}
    page = slides.slide(entry | {"listen": "Listen *for*."}, small())
    assert "<figcaption>A &quot;map&quot; &amp; its lesion.</figcaption>" in page
    assert 'alt="T A &quot;map&quot; &amp; its lesion."' in page and "From Part 6" in page
    assert "<em>for</em>" in page and "0.48" in page and "0.99" not in page
    encoded = re.search(r"data:image/jpeg;base64,([^\"]+)", page)[1]
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).width == slides.WIDEST


def test_a_figure_that_is_not_stored_is_left_out_and_named(slides, capsys):
    session = {"title": "", "aim": "", "minutes": [], "home": ""}
    entry = {"notebook": "06_audit", "figure": "one.png", "title": "", "question": "", "listen": ""}
    page = slides.deck(session | {"slides": [entry]}, {"06_audit": small()})
    assert page.count("<section ") == 2
    assert re.search(r"06_audit.*one\.png.*left out", capsys.readouterr().err)


def test_captions_are_the_notebooks_own(slides, decks):
    for name, session in slides.read().items():
        page = html.unescape(decks[name].read_text(encoding="utf-8"))
        for entry in session["slides"]:
            path = PROJECT / "notebooks" / f"{entry['notebook']}.ipynb"
            notebook = nbformat.read(path, as_version=4)
            below = slides.caption(notebook, slides.find(notebook, entry["figure"]))
            assert html.unescape(slides.MARKDOWN.renderInline(below)) in page


@pytest.mark.parametrize("width", WIDTHS)
def test_arrow_keys_turn_the_slides(browser, decks, width):
    from selenium.webdriver import ActionChains, Keys

    def press(key) -> list[str]:
        ActionChains(browser.driver).send_keys(key).perform()
        return [
            section.get_attribute("id")
            for section in browser.find("css selector", "section")
            if section.is_displayed()
        ]

    browser.width(width)
    browser.complaints(), browser.asked()
    browser.driver.get(decks["session-3"].as_uri())
    count = len(browser.find("css selector", "section"))
    assert press(Keys.ARROW_RIGHT) == ["2"] and press(Keys.PAGE_DOWN) == ["3"]
    assert press(Keys.ARROW_LEFT) == ["2"] and press(Keys.END) == [str(count)]
    assert press(Keys.ARROW_RIGHT) == [str(count)] and press(Keys.HOME) == ["1"]
    for _ in range(count - 1):
        press(Keys.ARROW_RIGHT)
        wide = browser.script("return document.documentElement.scrollWidth")
        assert wide <= width, browser.driver.current_url
    browser.find("css selector", "#back")[0].click()
    assert browser.find("css selector", "#place")[0].text == f"{count - 1} of {count}"
    browser.driver.refresh()
    assert browser.find("css selector", "#place")[0].text == f"{count - 1} of {count}"
    assert browser.complaints() == []
    assert all(url.startswith("file:") for url in browser.asked())


def test_without_scripts_all_slides_stand_on_one_page(browser, decks):
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.driver.get(decks["session-1"].as_uri())
        shown = [section.is_displayed() for section in browser.find("css selector", "section")]
        assert len(shown) > 8 and all(shown)
        assert not browser.find("css selector", "nav")[0].is_displayed()
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
