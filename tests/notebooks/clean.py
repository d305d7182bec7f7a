"""`make clean-twins`: a twin of each notebook for readers who want to test themselves.

A twin holds the code and the headings, and neither prose nor outputs: before you run a cell, say
what it will show and why. Twins lie in notebooks/clean/, which git ignores, and are made anew each
time.

    python -m tests.notebooks.clean
"""

import re
import shutil
import sys

import nbformat

from helpers import workspace

FOLDER = workspace.PROJECT / "notebooks"
TWINS = FOLDER / "clean"
HIDDEN = {".ipynb_checkpoints", TWINS.name}
TASK = (
    "This is the code alone: [the whole notebook]({whole}) has the text and the outputs. Before "
    "you run a cell, say what it will show and why."
)


def headings(text: str) -> str:
    """The headings of a Markdown text.

    >>> headings("# A\\nprose\\n```\\n# a comment\\n```\\n## B")
    '# A\\n\\n## B'
    """
    found = []
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif re.match(r"#{1,6} ", line) and not fenced:
            found.append(line)
    return "\n\n".join(found)


def twin(notebook: nbformat.NotebookNode, whole: str) -> nbformat.NotebookNode:
    """A notebook's code and headings; `whole` leads from the twin to the notebook."""
    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None
        else:
            cell.source = headings(cell.source)
        if cell.source:
            cells.append(cell)
    cells[0].source += "\n\n" + TASK.format(whole=whole)
    notebook.cells = cells
    return notebook


def main() -> int:
    """Write all twins; solutions have none, they are short."""
    shutil.rmtree(TWINS, ignore_errors=True)
    count = 0
    for path in sorted(FOLDER.rglob("*.ipynb")):
        below = path.relative_to(FOLDER)
        if HIDDEN & set(below.parts) or below.parts[0] == "solutions":
            continue
        target = TWINS / below
        target.parent.mkdir(parents=True, exist_ok=True)
        whole = "../" * len(below.parts) + below.as_posix()
        nbformat.write(twin(nbformat.read(path, as_version=4), whole), target)
        count += 1
    print(f"{count} notebooks without their text: {TWINS.relative_to(workspace.PROJECT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
