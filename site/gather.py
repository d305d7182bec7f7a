"""Lay out the sources of the book in site/_build/source: pages, notebooks, READMEs.

The book repeats no figure: a page quotes by a comment, and here the comment is replaced.

    <!-- section: README.md | Results -->                that section, without its heading
    <!-- tables: notebooks/06_audit.ipynb | Measure -->  the tables stored below that heading
    <!-- machine: notebooks/04_train.ipynb -->           the line on which it says where it ran
    <!-- parameters -->                                  every parameter of the series
    <!-- story -->                                       the landing page's figure, from 04 to 06
    <!-- slides -->                                      links to the teachers' slides of slides.py

The pages of the helpers follow their folders. What is quoted and not there, and a paper that
references.bib lacks, stop the build.
"""

import argparse
import base64
import fnmatch
import io
import posixpath
import re
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import matplotlib
import nbformat
import numpy as np
import yaml
from PIL import Image

matplotlib.use("Agg")  # before pyplot: no window
import matplotlib.pyplot as plt  # noqa: E402

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "site")]

import slides  # noqa: E402
import stored  # noqa: E402

from helpers.training.settings import describe  # noqa: E402

QUOTED = ["README.md", "data/README.md", "bench/README.md"]  # the last two are pages as well
# of the README's list: each notebook's page has its own
BADGE = re.compile(r" \[!\[[^\]]*\]\[\w+\]\]\([^)]*\)")
COMMENT = re.compile(
    r"<!-- (?P<kind>section|tables|machine|parameters|story|slides)"
    r"(: (?P<name>[^|]+?))?( \| (?P<heading>.+))? -->"
)
# Sphinx warns where a glob finds nothing
EMPTY = re.compile(r"```\{toctree\}\n(?::.*\n)*\n(?P<glob>\S+\*)\n```\n")
# a relative link of Markdown, or an image
LINK = re.compile(r"(!?\[[^\]\[]*\]\()([^)\s#:]+)(#[^)]*)?\)")
# the helpers' pages: a folder or the files of one, its title
API = {
    "photographs": "Photographs, split and cache",
    "network": "The network",
    "training": "Training",
    "scores": "Scores and their intervals",
    "pictures": "Pictures of attention",
    "audit": "Audit",
    "runs": "Runs",
    "shared": "Shared by all",
}
FILES = {"network": ["model"], "shared": ["hosts", "workspace"]}
# what such a page is for; the others begin with the docstring of their folder
PURPOSE = {
    "network": "The attention block and the network that Part 3 builds by hand, as all later "
    "parts use them.",
    "shared": "What every part needs before it begins: which host this is and what is missing "
    "there, where files lie, which device computes, and the seeds.",
}
COMMANDS = ["run", "train", "preprocess"]  # doors to the rooms behind them: no pages


def missing(what: str) -> NoReturn:
    """Stop the build with a sentence."""
    raise SystemExit(f"site/gather.py: {what}")


def modules_of(page: str) -> list[str]:
    """The modules of a page of API, dotted, below `helpers`."""
    if page in FILES:
        return FILES[page]
    paths = sorted((PROJECT / "helpers" / page).glob("[a-z]*.py"))
    return [f"{page}.{path.stem}" for path in paths]


def api_pages() -> dict[str, str]:
    """The helpers' pages by path; each is what the docstrings of its modules say.

    Raises:
        SystemExit: a file or folder of helpers is on no page.
    """
    listed = {name for page in API for name in FILES.get(page, [page])}
    for path in sorted((PROJECT / "helpers").glob("[a-z]*")):
        if path.stem not in listed | set(COMMANDS):
            missing(f"helpers/{path.name} is on no page: name it in API or FILES")
    contents = "\n".join(API)
    pages = {
        "api/index.md": "# The helpers\n\n"
        "The code behind the notebooks, in folders by task. The words are those of the code. "
        "Imports point one way: a folder uses those before it in this list, and what is shared "
        "by all. Shapes stand in brackets: `[B, 3, H, W]` is a batch of B colour pictures of H "
        f"rows and W columns.\n\n```{{toctree}}\n\n{contents}\n```\n"
    }
    for page, title in API.items():
        text = f"# {title}\n"
        opening = f"{PURPOSE[page]}\n" if page in FILES else automodule(page)
        text += f"\n{opening}"
        for module in modules_of(page):
            text += f"\n## {module}\n\n{automodule(module, members=True)}"
        pages[f"api/{page}.md"] = text
    return pages


def automodule(name: str, *, members: bool = False) -> str:
    """The directive that puts a module's docstring on a page, and those of its members."""
    option = "\n   :members:" if members else ""
    return f"```{{eval-rst}}\n.. automodule:: helpers.{name}{option}\n```\n"


def parameters() -> str:
    """The table of every parameter: name, default, what it may be, what it means."""
    lines = ["| name | default | expected | meaning |", "|---|---|---|---|"]
    for row in describe():
        cells = [f"`{row['name']}`", f"`{row['default']!r}`", row["expected"], row["meaning"]]
        cells = [cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tables(notebook: nbformat.NotebookNode, heading: str) -> list[str]:
    """The HTML tables stored below a heading, each in a box that scrolls sideways."""
    try:
        shown = stored.tables(notebook, heading)
    except LookupError as error:
        missing(str(error))
    return [f'<div class="table-wrapper">\n{table}\n</div>' for table in shown]


# what the landing page calls the rows of 06's table
NAMES = {
    "attention pool-3": "pool-3 attention",
    "attention pool-4": "pool-4 attention",
    "Grad-CAM": "Grad-CAM",
    "centre": "a centred blob",
    "uniform (chance)": "chance",
}
COLOURS = ["#0072B2", "#0072B2", "#E69F00", "#666666", "#666666"]


def story(notebooks: dict[str, nbformat.NotebookNode], folder: Path) -> str:
    """Draw the landing page's figure, from stored outputs alone, and return its Markdown.

    Above: drawn melanomas and their maps, from 05. Below: how much of each map lies on the lesion,
    from 06.
    """
    try:
        score = stored.table_with(notebooks["notebooks/04_train.ipynb"], "test", "auc_low")["test"]
        measured = stored.table_with(
            notebooks["notebooks/06_audit.ipynb"], "attention pool-3", "energy"
        )
        picture = left_half(notebooks["notebooks/05_visualize_attention.ipynb"])
    except LookupError as error:
        missing(f"the landing page's figure: {error}")
    shares = {}  # value, low, high
    for name, label in NAMES.items():
        shares[label] = [
            float(number) for number in re.findall(r"\d\.\d+", measured[name]["energy"])
        ]
    draw_story(picture, shares, folder / "story.svg")

    said = {}
    for name, (value, low, high) in shares.items():
        said[name] = f"{value:.2f} ({low:.2f} to {high:.2f})"
    each = ", ".join(f"{name} {words}" for name, words in said.items())
    alt = (
        "Above, four drawn melanomas and, below each, the network's two attention maps over it, "
        "bright where a map is largest. Below, bars: the share of each map's sum on the lesion: "
        + each
    )
    caption = (
        f"On {score['n']} drawn test photographs the network tells melanoma from benign with an "
        f"AUC of {score['auc']} ({score['auc_low']} to {score['auc_high']}), and its pictures seem "
        f"to say why. Measured, {said['pool-4 attention']} of a pool-4 map lies on the lesion; of "
        f"a uniform map {said['chance']}, and of a blob in the middle, which looks at nothing, "
        f"{said['a centred blob']}. From stored outputs of [04](notebooks/04_train.ipynb), "
        "[05](notebooks/05_visualize_attention.ipynb) and [06](notebooks/06_audit.ipynb)."
    )
    return f"```{{figure}} story.svg\n:width: 640px\n:alt: {alt}\n\n{caption}\n```\n"


def left_half(notebook: nbformat.NotebookNode) -> np.ndarray:
    """The left half of the figure that 05 stores, cut in the gap nearest to the middle."""
    cell = notebook.cells[slides.find(notebook, "attention_malignant.png")]
    _, encoded = slides.pictures(cell)[0]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))
    blank = np.flatnonzero((picture > 245).all(axis=(0, 2)))
    nearest = np.abs(blank - picture.shape[1] / 2).argmin()
    return picture[:, : blank[nearest]]


def draw_story(picture: np.ndarray, shares: dict[str, list[float]], path: Path) -> None:
    """The pictures above, the measurement below: shares are value, low, high by name."""
    figure = plt.figure(figsize=(5, 5.4), layout="constrained")
    pictures, measurement = figure.subfigures(2, 1, height_ratios=[4.6, 2.6])
    title = {"x": 0.01, "ha": "left", "fontsize": 11}
    pictures.suptitle("1. The pictures: where the network seems to look", **title)
    axis = pictures.subplots()
    axis.imshow(picture)
    axis.axis("off")
    measurement.suptitle("2. The measurement: how much of a map is on the lesion", **title)
    axis = measurement.subplots()
    for place, (value, low, high) in enumerate(shares.values()):
        error = [[value - low], [high - value]]
        axis.barh(place, value, color=COLOURS[place], xerr=error, height=0.65, capsize=3)
        axis.text(high + 0.015, place, f"{value:.2f}", va="center")
    label = "share of its sum, with 95% interval"
    axis.set(yticks=range(len(shares)), yticklabels=shares, xlim=(0, 0.7), xlabel=label)
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
    with plt.rc_context({"svg.hashsalt": "story"}):  # the same bytes each time
        figure.savefig(path, metadata={"Date": None}, dpi=200)
    plt.close(figure)


def relink(text: str, place: str, pages: set[str], repository: str, folder: Path) -> str:
    """Relative links of page `place` to files that are no pages lead into the repository instead.

    Pictures are copied into the book's folder.
    """

    def target(link: re.Match) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(place), link[2]))
        # what is not there, Sphinx complains about
        if path in pages or not (PROJECT / path).exists():
            return link[0]
        if link[1].startswith("!"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / path, folder / path)
            return link[0]
        kind = "tree" if (PROJECT / path).is_dir() else "blob"
        below = "" if path == "." else path
        return f"{link[1]}{repository}/{kind}/main/{below}{link[3] or ''})"

    return LINK.sub(target, text)


def check_papers(notebooks: dict[str, nbformat.NotebookNode], bibliography: str) -> None:
    """Stop where references.bib lacks a paper that a notebook links to."""
    link = re.compile(r"\((?:https://doi\.org/|https://arxiv\.org/abs/)([^)]+)\)")
    for name, notebook in notebooks.items():
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                for paper in link.findall(cell.source):
                    if f"{{{paper}}}" not in bibliography:
                        missing(f"{name} refers to {paper}; site/references.bib does not")


def quote(comment: re.Match, notebooks: dict, quoted: dict[str, str], folder: Path) -> str:
    """What stands in a page in place of a comment."""
    kind, name, heading = comment["kind"], comment["name"], comment["heading"]
    if kind == "story":
        return story(notebooks, folder)
    if kind == "slides":
        series = fnmatch.filter(notebooks, "notebooks/0*")  # solutions have the same names
        by_name = {Path(path).stem: notebooks[path] for path in series}
        # conf.py has Sphinx copy this folder into the book as it is
        return slides.write(by_name, folder.parent / "extra" / "slides")
    if kind == "parameters":
        return parameters()
    if kind == "machine":
        try:
            return stored.machine(notebooks[name])
        except LookupError as error:
            missing(f"{name}: {error}")
    if kind == "tables":
        return "\n\n".join(tables(notebooks[name], heading))
    section = stored.sections(quoted[name]).get(heading)
    if not section:
        missing(f"{name} has no section {heading!r}")
    return BADGE.sub("", section)


def own_pages() -> dict[str, str]:
    """The pages of site/ and those of the helpers, by path."""
    pages = api_pages()
    for path in sorted((PROJECT / "site").rglob("*.md")):
        if "_build" not in path.parts:
            pages[path.relative_to(PROJECT / "site").as_posix()] = path.read_text(encoding="utf-8")
    return pages


def read_notebooks() -> dict[str, nbformat.NotebookNode]:
    """The notebooks, by path from the project's root."""
    names = []
    for path in sorted((PROJECT / "notebooks").rglob("*.ipynb")):
        if not {".ipynb_checkpoints", "clean"} & set(path.parts):
            names.append(path.relative_to(PROJECT).as_posix())
    return {name: stored.read(name) for name in names}


def gather(folder: Path) -> None:
    """Write the book's sources into a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))
    repository = citation["repository-code"]
    own = own_pages()
    notebooks = read_notebooks()
    quoted = {name: (PROJECT / name).read_text(encoding="utf-8") for name in QUOTED}
    bibliography = (PROJECT / "site" / "references.bib").read_text(encoding="utf-8")
    check_papers(notebooks, bibliography)
    pages = {*own, *notebooks, *QUOTED[1:]}

    texts = {}
    for name, text in own.items():
        texts[name] = COMMENT.sub(lambda found: quote(found, notebooks, quoted, folder), text)
    texts |= {name: quoted[name] for name in QUOTED[1:]}
    for name, text in texts.items():
        for tree in EMPTY.finditer(text):
            if not fnmatch.filter(pages, tree["glob"] + ".*"):
                text = text.replace(tree[0], "")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(relink(text, name, pages, repository, folder), encoding="utf-8")
    for name, notebook in notebooks.items():
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = relink(cell.source, name, pages, repository, folder)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, folder / name)
    (folder / "references.bib").write_text(bibliography, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = PROJECT / "site" / "_build" / "source"
    parser.add_argument("folder", nargs="?", type=Path, default=default)
    gather(parser.parse_args().folder)
