"""Badges and the first cell: the same in every notebook, from the one setting of the repository's
address.
"""

import nbformat
import pytest

from helpers import workspace
from helpers.runs import parameters
from tests.notebooks import opening

ROOT = workspace.PROJECT


def relative(path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", opening.NOTEBOOKS, ids=relative)
def test_every_notebook_opens_as_the_setting_says(path):
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    assert nbformat.writes(opening.opened(notebook, relative(path))) + "\n" == text, (
        "run `make opening`"
    )
    badges = notebook.cells[0].source.count("[![")
    assert badges == (0 if "solutions" in path.parts else len(opening.BADGES))


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
