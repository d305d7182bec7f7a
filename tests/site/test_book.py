"""The built book in a real browser, each page as wide as a phone and as a desk.

Needs `make site`, Debian's chromium and chromium-driver, and selenium (site/requirements.txt);
skips without them. Pictures of some pages are left in the folder that ATTENTION_SCREENSHOTS names,
to be looked at.
"""

import os
from pathlib import Path

import pytest

from helpers.runs import parameters

BUILT = Path(__file__).resolve().parents[2] / "site" / "_build" / "html"
PAGES = sorted(path.relative_to(BUILT).as_posix() for path in BUILT.rglob("*.html"))
WIDTHS = (390, 1280)
SHOWN = [
    "index.html",
    "notebooks/03_attention_model.html",
    "notebooks/05_visualize_attention.html",
    "results.html",
    "glossary.html",
    "api/training.html",
    "notebooks/07_evidence.html",
    "references.html",
]
pytestmark = pytest.mark.skipif(not PAGES, reason="needs the built book: make site")

HERE = Path(__file__).resolve().parent
READABLE, PALE = ((HERE / name).read_text(encoding="utf-8") for name in ("readable.js", "pale.js"))


def open_page(browser, address: str, page: str, width: int = 1280) -> None:
    """Open a page of the book in bright colours, with the logs empty before it."""
    browser.width(width)
    browser.complaints(), browser.asked()
    browser.driver.get(f"{address}/{page}")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", PAGES)
def test_each_page_is_whole_at_each_width(browser, address, page, width):
    open_page(browser, address, page, width)
    assert browser.script(READABLE) == []
    assert browser.script("return document.documentElement.scrollWidth") <= width, (
        "the page scrolls sideways"
    )
    assert browser.complaints() == []
    asked = browser.asked()
    assert asked and all(url.startswith(address) for url in asked), asked
    if page in SHOWN and (folder := os.environ.get("ATTENTION_SCREENSHOTS")):
        browser.driver.save_screenshot(str(Path(folder) / f"{Path(page).stem}-{width}.png"))


def test_a_broken_page_is_noticed(browser, address, tmp_path):
    """The eyes above see: a page with each fault, from a file, is complained about."""
    broken = tmp_path / "broken.html"
    broken.write_text(
        '<article><h1>One</h1><h3>Three</h3><img src="none.png"><a href="x"></a>'
        "<table><tr><td>1</table>"
        '<input><p style="color: #aaa">pale</p><div style="width: 2000px">wide</div>'
        '<img src="none.png" alt="cut" style="width: 3000px"></article>'
        '<img src="http://127.0.0.2:9/elsewhere.png" alt="from another host">'
    )
    browser.width(390)
    browser.asked()
    browser.driver.get(broken.as_uri())
    found = " ".join(browser.script(READABLE))
    for words in (
        "no language",
        "h3 after h1",
        "not load",
        "is cut",
        "without alt",
        "without words",
        "header cells",
        "a name",
    ):
        assert words in found, words
    assert "P." in " ".join(browser.script(PALE))
    assert browser.script("return document.documentElement.scrollWidth") > 390
    assert any("none.png" in complaint for complaint in browser.complaints())
    assert "http://127.0.0.2:9/elsewhere.png" in browser.asked()


def test_search_finds_attention(browser, address):
    open_page(browser, address, "index.html")
    field = browser.find("css selector", ".sidebar-search")[0]
    field.send_keys("attention")
    field.submit()
    summary = "#search-results .search-summary"
    browser.until(
        lambda: any("finished" in found.text for found in browser.find("css selector", summary))
    )
    links = browser.find("css selector", "#search-results ul.search li a")
    pages = [link.get_attribute("href") for link in links]
    assert any("03_attention_model" in page for page in pages) and len(pages) > 5, pages
    assert browser.complaints() == []


def test_next_leads_from_the_first_page_to_the_last(browser, address):
    open_page(browser, address, "index.html")
    seen = ["index.html"]
    while following := browser.find("css selector", "a.next-page"):
        browser.driver.get(following[0].get_attribute("href"))
        seen.append(browser.driver.current_url.removeprefix(f"{address}/"))
        assert len(seen) <= len(PAGES), seen
    turned = [page for page in PAGES if page != "search.html" and not page.startswith("slides/")]
    assert sorted(seen) == turned
    series = [page for page in seen if page.startswith("notebooks/0")]
    assert series == sorted(series) and seen[1] == series[0]
    assert len(series) == len(parameters.NOTEBOOKS)


@pytest.mark.parametrize("page", SHOWN)
def test_dark_mode_is_a_click_away_and_text_is_legible_in_both(browser, address, page):
    open_page(browser, address, page)
    backgrounds = {}
    for _ in range(3):  # auto, light, dark, in an order that the system decides
        theme = browser.script("return document.body.dataset.theme")
        backgrounds[theme] = browser.script(
            "return getComputedStyle(document.body).backgroundColor"
        )
        assert browser.script(PALE) == [], theme
        if theme == "dark" and (folder := os.environ.get("ATTENTION_SCREENSHOTS")):
            browser.driver.save_screenshot(str(Path(folder) / f"{Path(page).stem}-dark.png"))
        next(
            one for one in browser.find("css selector", ".theme-toggle") if one.is_displayed()
        ).click()
    assert (
        set(backgrounds) == {"auto", "light", "dark"}
        and backgrounds["light"] != backgrounds["dark"]
    )


def test_the_keyboard_reaches_the_content(browser, address):
    from selenium.webdriver import ActionChains, Keys

    def press(key):
        ActionChains(browser.driver).send_keys(key).perform()
        return browser.driver.switch_to.active_element

    open_page(browser, address, "notebooks/03_attention_model.html")
    first = press(Keys.TAB)
    browser.until(lambda: first.text == "Skip to content")  # it slides in
    press(Keys.ENTER)
    assert browser.driver.current_url.endswith("#furo-main-content")
    stop = press(Keys.TAB)
    assert browser.script("return arguments[0].closest('article') !== null", stop), (
        stop.get_attribute("outerHTML")
    )
    outline = browser.script(
        "const s = getComputedStyle(arguments[0]); return [s.outlineStyle, s.outlineWidth]", stop
    )
    assert outline[0] != "none" and float(outline[1].removesuffix("px")) >= 2, outline
