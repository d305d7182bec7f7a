"""`make opening`: give every notebook the same first cell and badges, from the repository's address
in CITATION.cff.

That address is the one setting: change it there, and run this. Solutions have no badges: they stand
beside a notebook.

    python -m tests.notebooks.opening
"""

import re
import sys
from pathlib import Path

import nbformat

from helpers import workspace
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
BOOTSTRAP = """\
# The same in every notebook: find the helpers above it, or fetch them; then see that
# this Python has what they need.
import os
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
                "git, which fetches the helpers, is not on this machine: install it, or "
                f"unpack {{repo}}/archive/HEAD.zip and open the notebook in there"
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
from helpers import workspace  # noqa: E402"""


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


def opened(notebook: nbformat.NotebookNode, path: str) -> nbformat.NotebookNode:
    """The notebook with its badges (where it has any) and its third cell as they are to be."""
    lines = re.compile(r"^\[!\[.*(\n\[!\[.*)*$", re.MULTILINE)
    notebook.cells[0].source = lines.sub(lambda _: badges(path), notebook.cells[0].source, count=1)
    notebook.cells[2].source = BOOTSTRAP.format(address=address())
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
