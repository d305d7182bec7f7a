"""What makes the book: site/gather.py, and the Sphinx extension site/book.py in builds of a page.

Needs Sphinx and myst-nb (site/requirements.txt); skips without them. No browser.
"""

import base64
import dataclasses
import importlib.util
import io
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from helpers.training.settings import Parameters
from tests.conftest import PATIENCE

pytest.importorskip(
    "myst_nb", reason="needs Sphinx and myst-nb: pip install -r site/requirements.txt"
)
SITE = Path(__file__).resolve().parents[2] / "site"
CONF = f"""
import sys
sys.path.insert(0, {str(SITE)!r})
extensions = ["myst_nb", "book"]
nb_execution_mode, myst_enable_extensions, html_math_renderer = "off", ["dollarmath"], "mathml"
"""
DOT = base64.b64encode(
    bytes.fromhex(  # a PNG of one pixel
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d4944415478da63fccfc0f01f0005"
        "0001ff89993d1d0000000049454e44ae426082"
    )
).decode()
TABLE = (
    '<style scoped>\n</style>\n<table border="1" class="dataframe"><thead><tr><th></th><th>AUC</th>'
    "</tr></thead><tbody><tr><th>test</th><td>0.88 (0.79-0.95)</td></tr></tbody></table>"
)


@pytest.fixture(scope="module")
def gather():
    """site/gather.py: site/ is no package."""
    spec = importlib.util.spec_from_file_location("site_gather", SITE / "gather.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def picture(code: str = "draw()", count: int = 1):
    """A cell that has drawn pictures."""
    shown = [
        new_output("display_data", data={"image/png": DOT, "text/plain": "Figure"})
        for _ in range(count)
    ]
    return new_code_cell(code, outputs=shown, execution_count=1)


@pytest.fixture
def build(tmp_path):
    """Build a notebook of these cells as `make site` does: exit status, page, Sphinx's words."""

    def build(*cells):
        source = tmp_path / "source"
        source.mkdir()
        (source / "conf.py").write_text(CONF)
        notebook = new_notebook(
            cells=[new_markdown_cell("# A title"), *cells],
            metadata={
                "kernelspec": {"name": "python3", "display_name": "Python 3"},
                "language_info": {"name": "python"},
            },
        )
        nbformat.write(notebook, source / "index.ipynb")
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "sphinx",
                "-W",
                "--keep-going",
                "-q",
                "-b",
                "html",
                str(source),
                str(tmp_path / "html"),
            ],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        page = tmp_path / "html" / "index.html"
        return done.returncode, page.read_text() if page.exists() else "", done.stderr

    return build


def test_alt_text_is_title_and_caption_and_else_the_first_comment(build):
    status, page, said = build(
        picture(),
        new_markdown_cell('*What is "seen" here.* Then prose.'),
        picture('figure.suptitle("Two lines")\nshow()'),
        new_code_cell("1 + 1"),
        new_markdown_cell("*One falls.*"),
        picture(count=2),
        picture(),
        new_markdown_cell("*Three of a kind.*"),
        picture('axis.legend(title="not this")\n# the grid of cells\nshow()'),
        new_markdown_cell("No *caption* this."),
        picture(),
        new_markdown_cell("A row is a source. More of it."),
    )
    assert status == 0, said
    assert re.findall(r'<img alt="([^"]*)"', page) == [
        "What is “seen” here.",
        "Two lines. One falls.",
        "Picture 1 of 3: Three of a kind.",
        "Picture 2 of 3: Three of a kind.",
        "Picture 3 of 3: Three of a kind.",
        "the grid of cells",
        "A row is a source.",
    ]


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        (picture(), "a figure without a caption"),
        (new_markdown_cell("![](dot.png)"), "without alt text"),
        (new_markdown_cell("[next](07_nowhere.ipynb)"), "07_nowhere.ipynb"),
        (new_markdown_cell("[there](#no-such-heading)"), "no-such-heading"),
        (new_markdown_cell(r"$\nonsense{x}$"), "MathML"),
        (new_markdown_cell("#### Too deep"), "Non-consecutive header"),
    ],
    ids=["figure", "image", "page", "heading", "formula", "order"],
)
def test_what_is_missing_or_broken_fails_the_build(build, cell, complaint):
    status, _, said = build(cell)
    assert status != 0 and complaint in said


def test_nothing_comes_from_other_hosts(build):
    badge = "[![Open in Colab](https://example.org/badge.svg)](https://example.org/open)"
    status, page, said = build(
        new_markdown_cell(rf"{badge} and $e^{{c}}, \dots$ and $$a = \Big(\sum_c w_c\Big)$$")
    )
    assert status == 0, said
    assert (
        re.search(r'href="https://example.org/open">Open in Colab</a>', page)
        and "badge.svg" not in page
    )
    assert page.count("<math ") == 2 and "∑" in page
    assert not re.search(r'<(?:script|link|img)[^>]*(?:src|href)="(?:https?:)?//', page)


def test_callouts_are_boxes_and_other_quotes_are_not(build):
    status, page, said = build(
        new_markdown_cell("> **In the stored run** (sample, seed 42): 0.48."),
        new_markdown_cell('> "focusing on the lesion"\n\n> **Mind**: In the stored run.'),
    )
    assert status == 0, said
    assert re.findall(r"<blockquote[^>]*>", page) == ['<blockquote class="stored-run">'] + [
        "<blockquote>"
    ] * page.count("<blockquote>")
    assert page.count("<blockquote>") >= 1


def test_a_wide_picture_leads_to_itself(build):
    file = io.BytesIO()
    Image.new("RGB", (900, 3)).save(file, "PNG")
    data = {"image/png": base64.b64encode(file.getvalue()).decode()}
    cell = new_code_cell("# wide\n1", outputs=[new_output("display_data", data=data)])
    status, page, said = build(picture("# small\n1"), cell)
    assert status == 0, said
    assert len(re.findall(r'<a [^>]*href="_images/[^"]+\.png"[^>]*><img alt="wide"', page)) == 1
    assert not re.search(r'<a [^>]*><img alt="small"', page)


def test_tables_have_headers_of_rows_and_columns(build):
    cell = new_code_cell(
        "table", outputs=[new_output("display_data", data={"text/html": TABLE})], execution_count=1
    )
    status, page, said = build(cell)
    assert status == 0, said
    assert '<th scope="col">AUC</th>' in page and '<th scope="row">test</th>' in page
    assert (
        '<td class="short">0.88 (0.79-0.95)</td>' in page
        and 'border="1"' not in page
        and "<style" not in page
    )


def test_sections_and_tables_are_found_below_their_heading(gather):
    text = "top\n# A\none\n```\n# a comment\n```\n## B\ntwo\n"
    assert gather.stored.sections(text) == {
        "": "top\n",
        "A": "one\n```\n# a comment\n```\n",
        "B": "two\n",
    }
    cell = new_code_cell("table", outputs=[new_output("display_data", data={"text/html": TABLE})])
    notebook = new_notebook(
        cells=[
            new_markdown_cell("## First\ntext"),
            new_code_cell("1"),
            new_markdown_cell("text"),
            new_markdown_cell("more\n\n## Second"),
            new_markdown_cell("words"),
            cell,
        ]
    )
    (table,) = gather.tables(notebook, "Second")
    assert gather.stored.frame(table) == {"test": {"AUC": "0.88 (0.79-0.95)"}}
    with pytest.raises(SystemExit, match="no table is stored below the heading 'First'"):
        gather.tables(notebook, "First")


def test_a_table_is_found_by_a_row_and_a_column(gather):
    cells = []
    for table in ("<table><tr><th></th><th>n</th></tr></table>", TABLE):
        cells.append(
            new_code_cell("1", outputs=[new_output("display_data", data={"text/html": table})])
        )
    notebook = new_notebook(cells=cells)
    assert gather.stored.table_with(notebook, "test", "AUC") == {
        "test": {"AUC": "0.88 (0.79-0.95)"}
    }
    with pytest.raises(LookupError, match="'val'"):
        gather.stored.table_with(notebook, "val", "AUC")


def test_links_to_what_is_no_page_lead_into_the_repository_and_pictures_are_copied(
    gather, tmp_path
):
    text = (
        "[a](02.ipynb#top) [b](../LICENSE) [c](https://example.org/x) "
        "![d](images/before_and_after.png) "
        "[e](gone.md) [f](params) [![g](https://example.org/badge)](https://example.org/y)"
    )
    found = gather.relink(
        text, "notebooks/01.ipynb", {"notebooks/02.ipynb"}, "https://host/us", tmp_path
    )
    assert found == text.replace("../LICENSE", "https://host/us/blob/main/LICENSE").replace(
        "params", "https://host/us/tree/main/notebooks/params"
    )
    assert [path.name for path in tmp_path.rglob("*.png")] == ["before_and_after.png"]


def test_a_paper_without_a_reference_stops_the_build(gather):
    cell = new_markdown_cell("[Ours](https://arxiv.org/abs/2611.00001), 2026.")
    notebooks = {"07": new_notebook(cells=[cell])}
    gather.check_papers(notebooks, "eprint = {2611.00001},")
    with pytest.raises(SystemExit, match="07 .*2611.00001"):
        gather.check_papers(notebooks, "eprint = {1706.03762},")


def test_every_module_has_a_place_on_a_page_and_a_forgotten_room_stops_the_build(
    gather, monkeypatch
):
    text = "".join(gather.api_pages().values())
    named = re.findall(r"automodule:: helpers\.(\S+)\n   :members:", text)
    expected = set()
    for path in (SITE.parent / "helpers").rglob("[a-z]*.py"):
        expected.add(".".join(path.relative_to(SITE.parent / "helpers").with_suffix("").parts))
    assert len(named) == len(set(named)) and set(named) == expected - set(gather.COMMANDS)
    without = {page: title for page, title in gather.API.items() if page != "scores"}
    monkeypatch.setattr(gather, "API", without)
    with pytest.raises(SystemExit, match="helpers/scores"):
        gather.api_pages()


def test_the_table_of_parameters_is_that_of_the_code(gather):
    lines = gather.parameters().splitlines()
    names = [line.split("`")[1] for line in lines[2:]]
    assert names == [field.name for field in dataclasses.fields(Parameters)]
    assert all(line.count("|") - line.count("\\|") == 5 for line in lines)
    row = next(line for line in lines if line.startswith("| `image_size`"))
    assert "`96`" in row and "32" in row
    assert "<image_id>" not in gather.parameters()  # it would be read as HTML


def test_the_story_is_the_same_each_time_and_its_words_hold_its_figures(gather, tmp_path):
    names = [
        f"notebooks/{name}.ipynb" for name in ("04_train", "05_visualize_attention", "06_audit")
    ]
    notebooks = {name: nbformat.read(SITE.parent / name, as_version=4) for name in names}
    said = gather.story(notebooks, tmp_path)
    first = (tmp_path / "story.svg").read_bytes()
    assert (
        gather.story(notebooks, tmp_path) == said and (tmp_path / "story.svg").read_bytes() == first
    )
    table = gather.stored.table_with(notebooks[names[2]], "attention pool-3", "energy")
    for row in ("attention pool-3", "attention pool-4", "Grad-CAM", "centre", "uniform (chance)"):
        value, low, high = re.findall(r"\d\.\d\d", table[row]["energy"])
        assert f"{value} ({low} to {high})" in said
