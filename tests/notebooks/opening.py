"""`make opening`: give every notebook the same opening: badges, how long it takes to read, the
folded first cell, the sentence before its parameters, and the cell that makes what is missing.

The repository's address of CITATION.cff is the one setting: change it there, and run this. The time
to read is counted from the notebook's own words and code. Solutions have no badges: they stand
beside a notebook.

    python -m tests.notebooks.opening
"""

import re
import sys
from pathlib import Path

import nbformat

from helpers import workspace
from helpers.runs import earlier
from tests.notebooks.clean import HIDDEN

NOTEBOOKS = [
    path
    for path in sorted((workspace.PROJECT / "notebooks").rglob("*.ipynb"))
    if not HIDDEN & set(path.parts)
]
BADGES = {  # a host's picture, and what opens a notebook there
    "Open in Colab": (
        "https://colab.research.google.com/assets/colab-badge.svg",
        "https://colab.research.google.com/github/{name}/blob/main/{path}",
    ),
    "Open in Kaggle": (
        "https://kaggle.com/static/images/open-in-kaggle.svg",
        "https://kaggle.com/kernels/welcome?src=https://github.com/{name}/blob/main/{path}",
    ),
    "Run on Gradient": (
        "https://assets.paperspace.io/img/gradient-badge.svg",
        "https://console.paperspace.com/github/{name}/blob/main/{path}",
    ),
}
WORDS, LINES = 150, 10  # words of prose and lines of code that are read in a minute
READING = "*Reading: about {minutes} minutes, at {words} words or {lines} lines of code a minute.*"
# JupyterLab, Colab and the web edition fold a cell that says so, each in its own way
FOLDED = {"cellView": "form", "jupyter": {"source_hidden": True}, "tags": ["hide-input"]}
SETTINGS = (
    "These are the settings of this notebook. Change one and run the notebook again; if you run it "
    "with papermill, your values appear in a cell below this one."
)
EARLIER = """\
# Opened alone, this notebook first makes what it takes from the parts before it.
from helpers.runs import earlier

earlier.make("{name}", globals())"""
BOOTSTRAP = """\
# @title Set-up, the same in every notebook: run this cell, and read on
# It finds the helpers above this notebook, or fetches them, and sees that this Python
# has what they need.
import os  # noqa: F401  most notebooks count the cores
import shutil
import subprocess
import sys
from pathlib import Path

repo = "{address}"
here = Path.cwd()
places = [here, *here.parents]
above = [folder for folder in places if (folder / "helpers" / "hosts.py").is_file()]
if above:
    project = above[0]
else:
    project = here / repo.rsplit("/", 1)[1]
    clone = ["git", "clone", "--depth", "1", repo, str(project)]
    if not (project / "helpers").is_dir():
        if shutil.which("git") is None:
            raise RuntimeError(
                "git, which fetches the helpers, is not on this machine: install it, "
                f"or unpack {{repo}}/archive/HEAD.zip and open the notebook in there"
            )
        fetched = subprocess.run(clone, capture_output=True, text=True)
        if fetched.returncode:
            raise RuntimeError(
                f"git could not fetch the helpers: {{fetched.stderr.strip()}}. Is this "
                "machine on the network? On Kaggle switch the notebook's Internet on"
            )
sys.path.insert(0, str(project))
from helpers import hosts  # noqa: E402

print("host:", hosts.prepare())
from helpers import workspace  # noqa: E402, F401"""


def address() -> str:
    """The repository's address, `repository-code` of CITATION.cff."""
    text = (workspace.PROJECT / "CITATION.cff").read_text(encoding="utf-8")
    return re.search(
        r"^repository-code: (https://github\.com/[\w.-]+/[\w.-]+)$", text, re.MULTILINE
    )[1]


def badges(path: str) -> str:
    """The badges of the notebook at `path`, which starts at the project's root; a line each."""
    name = address().removeprefix("https://github.com/")
    return "\n".join(
        f"[![{words}]({picture})]({opens.format(name=name, path=path)})"
        for words, (picture, opens) in BADGES.items()
    )


def reading_minutes(notebook: nbformat.NotebookNode) -> int:
    """How long a notebook takes to read, to 5 minutes; its first cell of code is folded."""
    words = 0
    lines = 0
    for number, cell in enumerate(notebook.cells):
        read = []
        for line in cell.source.splitlines():
            if line.strip() and not line.startswith(("[![", "<!--", "*Reading: ")):
                read.append(line)
        if cell.cell_type == "markdown":
            words += sum(len(line.split()) for line in read)
        elif number != 2:
            lines += len(read)
    return max(5, 5 * round((words / WORDS + lines / LINES) / 5))


def with_reading(header: str, minutes: int) -> str:
    """The first cell with the line of how long it takes, below the links to its neighbours."""
    line = READING.format(minutes=minutes, words=WORDS, lines=LINES)
    if "\n*Reading: " in header:
        return re.sub(r"^\*Reading: .*$", lambda _: line, header, count=1, flags=re.MULTILINE)
    links = re.compile(r"^(?:Back|Next|Notebook): .*$", re.MULTILINE)
    return links.sub(lambda found: f"{found[0]}\n\n{line}", header, count=1)


def add_earlier(notebook: nbformat.NotebookNode, name: str, number: int) -> None:
    """See that cell `number`, the one after the parameters, makes what is missing.

    Where all is there it shows nothing, so a new one is stored as if it had run.
    """
    source = EARLIER.format(name=name)
    if notebook.cells[number].id != "earlier":
        cell = nbformat.v4.new_code_cell(source, id="earlier")
        notebook.cells.insert(number, cell)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for count, cell in enumerate(code, start=1):
            cell.execution_count = count
    notebook.cells[number].source = source


def opened(notebook: nbformat.NotebookNode, path: str) -> nbformat.NotebookNode:
    """The notebook with its opening as it is to be; `path` starts at the project's root."""
    lines = re.compile(r"^\[!\[.*(\n\[!\[.*)*$", re.MULTILINE)
    header, _, bootstrap = notebook.cells[:3]
    header.source = lines.sub(lambda _: badges(path), header.source, count=1)
    bootstrap.source = BOOTSTRAP.format(address=address())
    bootstrap.metadata = FOLDED
    tagged = ["parameters" in cell.metadata.get("tags", []) for cell in notebook.cells]
    number = tagged.index(True)
    before = notebook.cells[number - 1]
    if not before.source.startswith(SETTINGS):
        before.source = f"{SETTINGS}\n\n{before.source}"
    name = path.removeprefix("notebooks/").removesuffix(".ipynb")
    if name in earlier.TAKES:
        add_earlier(notebook, name, number + 1)
    header.source = with_reading(header.source, reading_minutes(notebook))
    return notebook


def readme(text: str) -> str:
    """README.md with the first badge of each notebook that it lists."""
    name = address().removeprefix("https://github.com/")
    return re.sub(
        r"(https://colab\.research\.google\.com/github/)[\w.-]+/[\w.-]+(/blob/)",
        rf"\g<1>{name}\g<2>",
        text,
    )


def write(path: Path, text: str) -> bool:
    """Whether the file held something else."""
    if path.read_text(encoding="utf-8") == text:
        return False
    with workspace.replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return True


def main() -> int:
    page = workspace.PROJECT / "README.md"
    changed = write(page, readme(page.read_text(encoding="utf-8")))
    for path in NOTEBOOKS:
        notebook = opened(
            nbformat.read(path, as_version=4), path.relative_to(workspace.PROJECT).as_posix()
        )
        changed += write(path, nbformat.writes(notebook) + "\n")
    print(f"{address()}: {changed} of {len(NOTEBOOKS) + 1} files changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
