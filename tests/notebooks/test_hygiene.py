"""What all notebooks have in common, read without running them: parameters, opening, goals, tags,
stored outputs.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from helpers.runs import parameters
from tests.conftest import PATIENCE
from tests.notebooks import opening, store
from tests.notebooks.clean import HIDDEN

PROJECT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((PROJECT / "notebooks").rglob("*.ipynb"))
NOTEBOOKS = [path for path in NOTEBOOKS if not HIDDEN & set(path.parts)]
SERIES = [
    "00_start_here",
    "01_download",
    "02_preprocess",
    "03_attention_model",
    "04_train",
    "05_visualize_attention",
    "06_audit",
    "07_evidence",
    "08_mend",
]


@pytest.fixture(
    params=NOTEBOOKS, ids=lambda path: path.relative_to(PROJECT / "notebooks").as_posix()
)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, tag):
    return [cell for cell in code(notebook) if tag in cell.metadata.get("tags", [])]


def test_the_series_is_whole_and_in_order():
    assert [path.stem for path in parameters.NOTEBOOKS] == SERIES


def test_valid_with_ids_and_no_machine_in_its_metadata(notebook):
    nbformat.validate(notebook)
    assert (
        set(notebook.metadata) == {"kernelspec", "language_info"}
        and "widgets" not in notebook.metadata
    )
    assert set(notebook.metadata.language_info) == {"name"}
    others = [cell for number, cell in enumerate(notebook.cells) if number != 2]
    assert all(set(cell.metadata) <= {"tags"} for cell in others)


def test_one_cell_of_parameters_each_with_a_comment(notebook):
    (cell,) = tagged(notebook, "parameters")
    lines = cell.source.splitlines()
    statements = ast.parse(cell.source).body
    assert len(lines) == len(statements), "a line each"
    for line, statement in zip(lines, statements, strict=True):
        assert isinstance(statement, ast.AnnAssign) and "  # " in line, line
        ast.literal_eval(statement.value)


def solves(path) -> bool:
    """Solutions have neither badges nor goals: they are read beside a notebook that has them."""
    return path.parent.name == "solutions"


def test_the_same_opening(notebook, path):
    first = nbformat.read(NOTEBOOKS[0], as_version=4)
    assert notebook.cells[2].source == first.cells[2].source, "the bootstrap cell"
    assert notebook.cells[2].metadata == opening.FOLDED
    assert max(map(len, notebook.cells[2].source.splitlines())) <= 88
    assert re.match(r"# (Start here|Part \d of 8|Deeper|Solutions): \w", notebook.cells[0].source)
    if not solves(path):
        assert (
            "colab-badge.svg" in notebook.cells[0].source
            and f"<!-- results: time-{path.stem} -->" in notebook.cells[0].source
        )


@pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if not solves(path)], ids=lambda path: path.stem
)
def test_goals_questions_exercises_and_references(notebook, path):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    headings = ["## In this notebook you will", "## Check yourself", "## References"]
    if path.stem != "00_start_here":  # a first look
        headings.append("## Exercises")
    for heading in headings:
        assert heading in text
    assert text.count("<details>") == text.count("</details>") >= 2, "answers are folded"


def test_links_lead_somewhere(notebook, path):
    for cell in notebook.cells:
        for target in (
            re.findall(r"\]\(([^)#]+)\)", cell.source) if cell.cell_type == "markdown" else ()
        ):
            assert "://" in target or (path.parent / target).exists(), target


def test_plain_python_without_a_bare_except(notebook):
    for cell in code(notebook):
        tree = ast.parse(cell.source)  # a magic or a shell escape is no Python
        assert not any(
            isinstance(node, ast.ExceptHandler) and node.type is None for node in ast.walk(tree)
        ), cell.id


def test_stored_with_outputs_and_nothing_of_the_machine(notebook, path):
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert store.complaints(notebook) == []
    shown = {
        kind
        for cell in code(notebook)
        for output in cell.outputs
        for kind in output.get("data", {})
    }
    assert shown & {"image/png", "image/jpeg"} or solves(path) and "text/html" in shown, (
        "a series of pictures"
    )


def test_checked_cells_have_an_output_to_compare(notebook, path):
    checked = tagged(notebook, "nbval-check-output")
    assert checked or solves(path)
    for cell in checked:
        assert cell.execution_count and cell.outputs, cell.id
        assert "timing" not in cell.metadata.tags, cell.id


def test_times_are_of_the_same_run_as_the_figures_beside_them():
    def run(seconds: str, auc: str) -> nbformat.NotebookNode:
        cells = []
        for source, text, tags in (("fit", seconds, ["timing"]), ("score", auc, [])):
            cell = nbformat.v4.new_code_cell(source, id=source, metadata={"tags": tags})
            cell.outputs = [nbformat.v4.new_output("stream", text=text)]
            cells.append(cell)
        return nbformat.v4.new_notebook(cells=cells)

    def shown(executed: nbformat.NotebookNode, stored: nbformat.NotebookNode) -> list[str]:
        return [cell.outputs[0].text for cell in store.clean(executed, stored).cells]

    assert shown(run("8 s", ".88"), run("9 s", ".88")) == ["9 s", ".88"]
    assert shown(run("8 s", ".87"), run("9 s", ".88")) == ["8 s", ".87"]


def test_nbval_catches_an_altered_output(tmp_path):
    """One stored count is changed: the comparison must fail there, and nowhere else."""
    path = PROJECT / "notebooks" / "03_attention_model.ipynb"
    notebook = nbformat.read(path, as_version=4)
    altered = None
    for cell in tagged(notebook, "nbval-check-output"):
        for output in cell.outputs:
            if altered is None and output.output_type == "stream" and re.search(r"\d", output.text):
                output.text = re.sub(
                    r"\d", lambda digit: str((int(digit[0]) + 1) % 10), output.text, count=1
                )
                altered = cell
    assert altered is not None
    shutil.copytree(PROJECT / "helpers", tmp_path / "helpers")
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / path.name)
    command = [
        sys.executable,
        "-m",
        "tests.notebooks.compare",
        str(tmp_path / "notebooks" / path.name),
        "--rootdir",
        str(tmp_path),
    ]
    done = subprocess.run(
        command,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "ATTENTION_RUNS": str(tmp_path / "runs")},
    )
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-2000:]
    number = code(notebook).index(altered)
    differing = re.findall(
        r"Cell (\d+): Cell outputs differ", done.stdout
    )  # CI's summary repeats the failure
    assert set(differing) == {str(number)}, done.stdout[-3000:]
    assert "1 failed" in done.stdout
