"""What every notebook opens with: badges and the first cell, from the one setting of the
repository's address; the time to read it, from its own words and code; and the cell that makes what
is missing.
"""

import re

import nbformat
import pytest

from helpers import workspace
from helpers.runs import earlier, parameters
from tests.notebooks import opening

ROOT = workspace.PROJECT
READING = r"(open_prepared|read_json|read_split|load_checkpoint)\(\s*folder\b"


def relative(path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", opening.NOTEBOOKS, ids=relative)
def test_every_notebook_opens_as_the_setting_says(path):
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    assert nbformat.writes(opening.opened(notebook, relative(path))) + "\n" == text, (
        "run `make opening`"
    )
    header = notebook.cells[0].source
    assert header.count("[![") == (0 if "solutions" in path.parts else len(opening.BADGES))
    assert header.count("*Reading: about ") == 1


def test_the_time_to_read_follows_words_and_code():
    """1,500 words and 100 lines: ten minutes each; badges and the folded cell are not read."""
    text = "[![badge](a)](b)\n\nNext: [b](b.ipynb)\n\n" + "word " * 1498
    sources = (text, "", "folded\n" * 500, "x = 1\n\n" * 100)
    kinds = (nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell)
    cells = [kinds[number > 1](source) for number, source in enumerate(sources)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    assert opening.reading_minutes(notebook) == 20
    header = opening.with_reading(text, 20)
    assert "\nNext: [b](b.ipynb)\n\n*Reading: about 20 minutes, at 150 words" in header
    assert opening.with_reading(header, 25) == header.replace("20 minutes", "25 minutes")
    cells[0].source = header
    assert opening.reading_minutes(notebook) == 20, "the line itself is not counted"


def test_who_reads_what_others_leave_makes_it_first():
    """Each notebook that opens a file of an earlier part has the cell; the table has no other."""
    names = {
        path.relative_to(ROOT / "notebooks").with_suffix("").as_posix(): path
        for path in opening.NOTEBOOKS
    }
    for name, path in names.items():
        cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        code = "\n".join(cell.source for cell in cells)
        reads = re.search(READING, code)
        assert (name in earlier.TAKES) == bool(reads), name
        assert (name in earlier.TAKES) == ("earlier.make(" in code), name


def test_the_readme_has_a_badge_for_each_of_the_series():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert opening.readme(text) == text, "run `make opening`"
    for notebook in parameters.NOTEBOOKS:
        assert (
            opening.BADGES["Open in Colab"][1].format(
                name=opening.address().removeprefix("https://github.com/"), path=relative(notebook)
            )
            in text
        )


def test_another_address_changes_all_of_them_and_nothing_else(monkeypatch):
    before = opening.address()
    monkeypatch.setattr(opening, "address", lambda: "https://github.com/ada/course")
    notebook = nbformat.read(parameters.NOTEBOOKS[3], as_version=4)
    changed = nbformat.writes(opening.opened(notebook, relative(parameters.NOTEBOOKS[3])))
    name = before.removeprefix("https://github.com/")
    assert name not in changed and changed.count("ada/course") == 4
    assert changed.replace("ada/course", name) + "\n" == parameters.NOTEBOOKS[3].read_text(
        encoding="utf-8"
    )
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert opening.readme(page).replace("ada/course", name) == page != opening.readme(page)
