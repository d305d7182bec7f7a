"""Lay out the sources of the book in site/_build/source: the pages here, the notebooks, and the READMEs.

The book repeats no figure: a page quotes by a comment, and here the comment is replaced.

    <!-- section: README.md | Results -->                       that section, without its heading
    <!-- tables: notebooks/06_audit.ipynb | Measure -->         the tables stored below that heading
    <!-- machine: notebooks/04_train.ipynb -->                  the line on which a notebook says where it ran
    <!-- story -->                                              the figure of the landing page, drawn from 04 to 06

What is quoted and not there, a module without a page and a paper that references.bib lacks stop the build.
"""

import argparse
import base64
import fnmatch
import io
import posixpath
import re
import shutil
from html.parser import HTMLParser
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
QUOTED = ["README.md", "data/README.md", "bench/README.md"]  # the last two are pages as well
BADGE = re.compile(
    r" \[!\[[^\]]*\]\[\w+\]\]\([^)]*\)"
)  # of the README's list: each notebook's page has its own
COMMENT = re.compile(
    r"<!-- (?P<kind>section|tables|machine|story)(: (?P<name>[^|]+?))?( \| (?P<heading>.+))? -->"
)
EMPTY = re.compile(
    r"```\{toctree\}\n(?::.*\n)*\n(?P<glob>\S+\*)\n```\n"
)  # Sphinx warns where a glob finds nothing
LINK = re.compile(
    r"(!?\[[^\]\[]*\]\()([^)\s#:]+)(#[^)]*)?\)"
)  # a relative link of Markdown, or an image


def missing(what: str) -> NoReturn:
    """Stop the build with a sentence."""
    raise SystemExit(f"site/gather.py: {what}")


def sections(text: str) -> dict[str, str]:
    """The parts of a Markdown text below each heading, by heading; a line of a code block is no heading."""
    found, name, fenced = {"": ""}, "", False
    for line in text.splitlines(keepends=True):
        fenced ^= line.lstrip().startswith("```")
        if not fenced and (heading := re.match(r"#+ (.+)", line)):
            name = heading[1].strip()
            found[name] = ""
        else:
            found[name] += line
    return found


def outputs(notebook: nbformat.NotebookNode, heading: str) -> list[dict]:
    """The stored outputs of the code cells below a heading, up to the next."""
    found, here = [], ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            here = list(sections(cell.source))[-1] or here
        elif here == heading:
            found += [output.get("data", {}) for output in cell.outputs]
    return found


def tables(notebook: nbformat.NotebookNode, heading: str) -> list[str]:
    """The HTML tables below a heading, each in a box that scrolls sideways."""
    texts = "".join("".join(data.get("text/html", "")) for data in outputs(notebook, heading))
    found = re.findall(r"<table.*?</table>", texts, re.DOTALL)
    if not found:
        missing(f"no table is stored below the heading {heading!r}")
    return [f'<div class="table-wrapper">\n{one}\n</div>' for one in found]


def machine(notebook: nbformat.NotebookNode) -> str:
    """The line of versions, device and seed that the setup cell, the one after the parameters, has printed."""
    after = (
        next(
            number
            for number, cell in enumerate(notebook.cells)
            if "parameters" in cell.metadata.get("tags", [])
        )
        + 1
    )
    return " ".join(
        output.text.strip() for output in notebook.cells[after].outputs if "text" in output
    )


class Rows(HTMLParser):
    """The cells of an HTML table's rows, as text."""

    def __init__(self, table: str):
        super().__init__()
        self.rows: list[list[str]] = []
        self.feed(table)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def frame(table: str) -> dict[str, dict[str, str]]:
    """A pandas table of one header row as row -> column -> text."""
    header, *rows = Rows(table).rows
    return {name: dict(zip(header[1:], cells, strict=True)) for name, *cells in rows if any(cells)}


def story(notebooks: dict[str, nbformat.NotebookNode], folder: Path) -> str:
    """Draw the landing page's figure, from stored outputs alone, and return its Markdown.

    Above: drawn melanomas and their maps, from 05. Below: how much of each map lies on the lesion, from 06.
    """
    score = frame(tables(notebooks["notebooks/04_train.ipynb"], "The test split, once")[0])["test"]
    measured = frame(tables(notebooks["notebooks/06_audit.ipynb"], "Measure")[0])
    drawn = outputs(
        notebooks["notebooks/05_visualize_attention.ipynb"], "Three rows, drawn by seed"
    )
    encoded = next(
        (data[kind] for data in drawn for kind in ("image/jpeg", "image/png") if kind in data), None
    )
    if not encoded:
        missing(
            "notebooks/05_visualize_attention.ipynb stores no picture below 'Three rows, drawn by seed'"
        )
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))
    blank = np.flatnonzero((picture > 245).all(axis=(0, 2)))
    picture = picture[
        :, : blank[np.abs(blank - picture.shape[1] / 2).argmin()]
    ]  # cut in the gap nearest to the middle

    names = {
        "attention pool-3": "pool-3 attention",
        "attention pool-4": "pool-4 attention",
        "Grad-CAM": "Grad-CAM",
        "centre": "a centred blob",
        "uniform (chance)": "chance",
    }
    shares = {
        label: [float(number) for number in re.findall(r"\d\.\d+", measured[name]["energy"])]
        for name, label in names.items()
    }  # value, low, high
    colours = ["#0072B2", "#0072B2", "#E69F00", "#666666", "#666666"]
    figure = plt.figure(figsize=(5, 5.4), layout="constrained")
    pictures, measurement = figure.subfigures(2, 1, height_ratios=[4.6, 2.6])
    pictures.suptitle(
        "1. The pictures: where the network seems to look", x=0.01, ha="left", fontsize=11
    )
    axis = pictures.subplots()
    axis.imshow(picture)
    axis.axis("off")
    measurement.suptitle(
        "2. The measurement: how much of a map is on the lesion", x=0.01, ha="left", fontsize=11
    )
    axis = measurement.subplots()
    for place, ((value, low, high), colour) in enumerate(
        zip(shares.values(), colours, strict=True)
    ):
        axis.barh(
            place, value, color=colour, xerr=[[value - low], [high - value]], height=0.65, capsize=3
        )
        axis.text(high + 0.015, place, f"{value:.2f}", va="center")
    axis.set(
        yticks=range(len(shares)),
        yticklabels=shares,
        xlim=(0, 0.7),
        xlabel="share of its sum, with 95% interval",
    )
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
    with plt.rc_context({"svg.hashsalt": "story"}):  # the same bytes each time
        figure.savefig(folder / "story.svg", metadata={"Date": None}, dpi=200)
    plt.close(figure)

    said = {
        name: f"{value:.2f} ({low:.2f} to {high:.2f})"
        for name, (value, low, high) in shares.items()
    }
    alt = (
        "Above, four drawn melanomas and, below each, the network's two attention maps over it, bright where a map "
        "is largest. Below, bars: the share of each map's sum on the lesion: "
        + ", ".join(f"{name} {value}" for name, value in said.items())
    )
    caption = (
        f"On {score['n']} drawn test photographs the network tells melanoma from benign with an AUC of "
        f"{score['auc']} ({score['auc_low']} to {score['auc_high']}), and its pictures seem to say why. "
        f"Measured, {said['pool-4 attention']} of a pool-4 map lies on the lesion; of a uniform map "
        f"{said['chance']}, and of a blob in the middle, which looks at nothing, {said['a centred blob']}. From "
        "stored outputs of [04](notebooks/04_train.ipynb), [05](notebooks/05_visualize_attention.ipynb) and "
        "[06](notebooks/06_audit.ipynb)."
    )
    return f"```{{figure}} story.svg\n:width: 640px\n:alt: {alt}\n\n{caption}\n```\n"


def relink(text: str, place: str, pages: set[str], repository: str, folder: Path) -> str:
    """Relative links of the text of page `place` to files that are no pages lead into the repository instead.

    Pictures are copied into the book's folder.
    """

    def target(link: re.Match) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(place), link[2]))
        if (
            path in pages or not (PROJECT / path).exists()
        ):  # what is not there, Sphinx complains about
            return link[0]
        if link[1].startswith("!"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / path, folder / path)
            return link[0]
        kind = "tree" if (PROJECT / path).is_dir() else "blob"
        return f"{link[1]}{repository}/{kind}/main/{'' if path == '.' else path}{link[3] or ''})"

    return LINK.sub(target, text)


def check(
    pages: dict[str, str], notebooks: dict[str, nbformat.NotebookNode], bibliography: str
) -> None:
    """Stop where a module of helpers has no page, or references.bib lacks a paper that a notebook links to."""
    for path in sorted((PROJECT / "helpers").glob("[a-z]*.py")):
        if not any(f"automodule:: helpers.{path.stem}\n" in text for text in pages.values()):
            missing(f"helpers/{path.name} is on no page of site/api/")
    for name, notebook in notebooks.items():
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        for paper in re.findall(r"\((?:https://doi\.org/|https://arxiv\.org/abs/)([^)]+)\)", text):
            if f"{{{paper}}}" not in bibliography:
                missing(f"{name} refers to {paper}; site/references.bib does not")


def gather(folder: Path) -> None:
    """Write the book's sources into a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    repository = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))[
        "repository-code"
    ]
    own = {
        path.relative_to(PROJECT / "site").as_posix(): path.read_text(encoding="utf-8")
        for path in sorted((PROJECT / "site").rglob("*.md"))
        if "_build" not in path.parts
    }
    read = {
        path.relative_to(PROJECT).as_posix(): nbformat.read(path, as_version=4)
        for path in sorted((PROJECT / "notebooks").rglob("*.ipynb"))
        if ".ipynb_checkpoints" not in path.parts
    }
    quoted = {name: (PROJECT / name).read_text(encoding="utf-8") for name in QUOTED}
    bibliography = (PROJECT / "site" / "references.bib").read_text(encoding="utf-8")
    check(own, read, bibliography)
    pages = {*own, *read, *QUOTED[1:]}

    def quote(comment: re.Match) -> str:
        kind, name, heading = (comment[group] or "" for group in ("kind", "name", "heading"))
        if kind == "story":
            return story(read, folder)
        if kind == "section":
            return BADGE.sub(
                "",
                sections(quoted[name]).get(heading)
                or missing(f"{name} has no section {heading!r}"),
            )
        return (
            machine(read[name]) if kind == "machine" else "\n\n".join(tables(read[name], heading))
        )

    texts = {name: COMMENT.sub(quote, text) for name, text in own.items()}
    texts |= {name: quoted[name] for name in QUOTED[1:]}
    for name, text in texts.items():
        text = EMPTY.sub(
            lambda tree: tree[0] if fnmatch.filter(pages, tree["glob"] + ".*") else "", text
        )
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(relink(text, name, pages, repository, folder), encoding="utf-8")
    for name, notebook in read.items():
        first = next(
            cell for cell in notebook.cells if cell.cell_type == "code"
        )  # the same in all: folded
        first.metadata["tags"] = [*first.metadata.get("tags", []), "hide-input"]
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = relink(cell.source, name, pages, repository, folder)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, folder / name)
    (folder / "references.bib").write_text(bibliography, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "folder", nargs="?", type=Path, default=PROJECT / "site" / "_build" / "source"
    )
    gather(parser.parse_args().folder)
