"""The exercises worked out: each solution stands beside its exercise, and runs on a small set."""

import os
import re

import nbformat
import pytest

from helpers import workspace
from helpers.runs import series

SOLUTIONS = sorted((workspace.PROJECT / "notebooks" / "solutions").glob("*.ipynb"))
ORIGINALS = {
    path.name: path
    for folder in ("notebooks", "notebooks/deeper")
    for path in (workspace.PROJECT / folder).glob("*.ipynb")
    if path.stem != "00_start_here"  # the first page has no exercises
}


def exercises(path) -> list[str]:
    """The exercises of a notebook in their order, without hints, and with links as their words."""
    last = next(
        cell.source
        for cell in nbformat.read(path, as_version=4).cells
        if "## Exercises" in cell.source
    )
    listed = last.split("## Exercises\n")[1].split("\n\n")[0]
    return [
        words(text.split(" *Hint")[0]) for text in re.findall(r"^\d\. (.+)$", listed, re.MULTILINE)
    ]


def words(text: str) -> str:
    return re.sub(r"\]\([^)]*\)", "]", text).strip()


@pytest.fixture(scope="module")
def left(place):
    """The folder of the small run; what the solutions train beside it goes there too."""
    folder, environment, _ = place
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            **environment,
            "ATTENTION_HEADLESS": "1",
            "KINETO_LOG_LEVEL": "99",
        }.items():
            patch.setenv(name, value)
        (folder / "runs" / "small" / "solutions").mkdir(exist_ok=True)
        yield folder / "runs" / "small"


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_every_exercise_has_its_solution(path):
    texts = [
        cell.source
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
    ]
    solved = re.findall(r"^## Exercise (\d+)\n\n> (.*)$", "\n\n".join(texts), re.MULTILINE)
    assert [words(text) for _, text in solved] == exercises(ORIGINALS[path.name])
    assert [int(number) for number, _ in solved] == list(range(1, len(solved) + 1)) and 2 <= len(
        solved
    ) <= 4


def test_every_notebook_is_solved():
    assert {path.name for path in SOLUTIONS} == set(ORIGINALS)


def too_few_cores(text: str) -> bool:
    """Whether torch says, rightly, that one core is too few for the two workers of an exercise."""
    alone = hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) == 1
    return alone and "DataLoader will create 2 worker processes" in text


# what makes those small that train networks of their own, and do not look at the small run's
SMALLER = {
    "comparing_runs": {"image_size": 32, "epochs": 1},
    "planted_shortcut": {"image_size": 32, "epochs": 1},
    "where_the_time_goes": {"batch_size": 2},
}


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_solutions_run_on_a_small_set(path, left):
    values = {"run": "small"} | SMALLER.get(path.stem, {})
    if path.stem == "comparing_runs":
        values["dataset"] = str(left.parents[1] / "small")
    series.run_notebook(path, values, left / "solutions")
    cells = nbformat.read(left / "solutions" / path.name, as_version=4).cells
    loud = [
        output.text
        for cell in cells
        for output in cell.get("outputs", [])
        if output.get("name") == "stderr" and not too_few_cores(output.text)
    ]
    assert not loud
    shown = {
        kind
        for cell in cells
        for output in cell.get("outputs", [])
        for kind in output.get("data", {})
    }
    assert shown & {"image/png", "image/jpeg", "text/html"}, "a table or a figure"
