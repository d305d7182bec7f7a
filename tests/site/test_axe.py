"""What axe-core, the checker that accessibility auditors use, says of pages of the built book.

Needs `make site`, a browser, and axe-core: `npm install --prefix tests/site`, or ATTENTION_AXE with
the path of an axe.min.js. Skips without them, and says so. No finding may be serious or critical.
"""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
BUILT = HERE.parents[1] / "site" / "_build" / "html"
INSTALLED = HERE / "node_modules" / "axe-core" / "axe.min.js"
AXE = Path(os.environ.get("ATTENTION_AXE") or INSTALLED)
PAGES = [
    "index.html",
    "notebooks/03_attention_model.html",
    "notebooks/04_train.html",
    "notebooks/05_visualize_attention.html",
    "notebooks/06_audit.html",
    "notebooks/07_evidence.html",
    "notebooks/08_mend.html",
    "results.html",
    "pages/teachers.html",
    "slides/session-3.html",
]
SERIOUS = ("serious", "critical")
RUN = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ["violations"]}).then(
  (found) => done(found.violations.map((rule) => ({
    id: rule.id, impact: rule.impact, help: rule.help,
    where: rule.nodes.slice(0, 3).map((node) => node.html.slice(0, 200)),
  }))),
  (error) => done([{id: "axe", impact: "critical", help: String(error), where: []}]));
"""
pytestmark = [
    pytest.mark.skipif(not BUILT.exists(), reason="needs the built book: make site"),
    pytest.mark.skipif(not AXE.is_file(), reason="needs axe: npm install --prefix tests/site"),
]


def findings(browser) -> list[dict]:
    """What axe finds on the page that is open."""
    browser.script(AXE.read_text(encoding="utf-8"))
    return browser.driver.execute_async_script(RUN)


@pytest.mark.parametrize("width", (390, 1280))
@pytest.mark.parametrize("page", PAGES)
def test_no_serious_finding(browser, address, page, width):
    browser.width(width)
    browser.driver.get(f"{address}/{page}")
    found = findings(browser)
    for rule in found:
        print(page, width, rule["impact"], rule["id"], rule["help"], *rule["where"], sep="\n  ")
    assert [rule["id"] for rule in found if rule["impact"] in SERIOUS] == []


def test_a_broken_page_is_noticed(browser, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text('<h1>A page</h1><img src="data:,"><p style="color: #bbb">pale</p>')
    browser.width(1280)
    browser.driver.get(broken.as_uri())
    names = {rule["id"] for rule in findings(browser) if rule["impact"] in SERIOUS}
    assert names >= {"image-alt", "color-contrast", "html-has-lang"}
