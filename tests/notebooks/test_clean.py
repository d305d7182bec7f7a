"""Twins for self-test: the same code under the same headings, without prose and outputs."""

import doctest

import nbformat
import pytest

from tests.notebooks import clean


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """All twins, in another folder than the reader's."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("notebooks") / "clean"
    patch.setattr(clean, "TWINS", folder)
    patch.setattr(clean.workspace, "PROJECT", folder.parent)
    assert clean.main() == 0
    patch.undo()
    return {path.relative_to(folder): path for path in folder.rglob("*.ipynb")}


def test_each_notebook_has_one(twins):
    wanted = {
        path.relative_to(clean.FOLDER)
        for folder in (clean.FOLDER, clean.FOLDER / "deeper")
        for path in folder.glob("*.ipynb")
    }
    assert set(twins) == wanted and len(wanted) > 10


def test_the_code_is_whole_and_the_prose_is_gone(twins):
    for name, path in twins.items():
        twin = nbformat.read(path, as_version=4)
        nbformat.validate(twin)
        whole = nbformat.read(clean.FOLDER / name, as_version=4)
        for cells in (twin.cells, whole.cells):
            cells[:] = [cell for cell in cells if cell.source.strip()]
        code = [cell.source for cell in whole.cells if cell.cell_type == "code"]
        assert [cell.source for cell in twin.cells if cell.cell_type == "code"] == code
        assert not any(cell.get("outputs") for cell in twin.cells)
        first, *texts = [cell.source for cell in twin.cells if cell.cell_type == "markdown"]
        assert texts and all(line[:1] in ("#", "") for text in texts for line in text.splitlines())
        assert first.startswith("# ") and f"]({'../' * len(name.parts)}{name.as_posix()})" in first
        titles = [line for cell in whole.cells for line in cell.source.splitlines()]
        assert {line for text in texts for line in text.splitlines() if line} <= set(titles)
        tags = [cell.metadata.get("tags") for cell in twin.cells if cell.cell_type == "code"]
        assert ["parameters"] in tags, "papermill runs a twin too"


def test_a_comment_of_a_code_block_is_no_heading():
    assert doctest.testmod(clean).failed == 0
    assert clean.headings("prose\n\n### Third\n\n- #1 of them\n#hash") == "### Third"
