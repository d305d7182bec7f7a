"""Slides for teachers: a deck for each session, made of figures that the notebooks store.

slides.yaml names the figures and holds what is said about them; captions and call-outs are the
notebooks' own. A deck is one HTML file that asks no host for anything, to be copied onto a stick.
Arrow keys turn its slides; where scripts are off, it is a page with all of them.
"""

import base64
import html
import re
import sys
from io import BytesIO
from pathlib import Path

import nbformat
import yaml
from markdown_it import MarkdownIt
from PIL import Image

SITE = Path(__file__).resolve().parent
sys.path[:0] = [str(SITE)]

import stored  # noqa: E402

MARKDOWN = MarkdownIt("commonmark")
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
WIDEST = 1600  # pixels of a picture: more than a projector shows


def read() -> dict[str, dict]:
    """The sessions of slides.yaml by the name of their file."""
    return yaml.safe_load((SITE / "slides.yaml").read_text(encoding="utf-8"))


def find(notebook: nbformat.NotebookNode, figure: str) -> int:
    """The place of the cell that draws a figure, named by the file it is saved in, or by its id.

    Raises:
        LookupError: there is no such cell, or it stores no picture.
    """
    for place, cell in enumerate(notebook.cells):
        named = cell.id == figure or (figure.endswith(".png") and f'"{figure}"' in cell.source)
        if named and cell.cell_type == "code" and pictures(cell):
            return place
    raise LookupError(f"no cell stores the figure {figure!r}")


def pictures(cell: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """The pictures that a cell stores, as (type, base64)."""
    found = []
    for output in cell.get("outputs", []):
        for kind in ("image/png", "image/jpeg"):
            if kind in output.get("data", {}):
                found.append((kind, output["data"][kind]))
    return found


def plain(text: str) -> str:
    """A Markdown text without its links, which lead nowhere from a copied file."""
    return LINK.sub(r"\1", text).replace("$", "")


def caption(notebook: nbformat.NotebookNode, place: int) -> str:
    """The words in italics below a figure, or else the first paragraph there, if any."""
    for cell in notebook.cells[place + 1 :]:
        if cell.cell_type == "markdown":
            first = cell.source.strip().split("\n\n")[0]
            italics = re.match(r"\*(?!\*)(.+?)(?<!\*)\*(?!\*)", first, re.DOTALL)
            if first.startswith(("#", ">")):
                return ""
            return plain(italics[1] if italics else first)
    return ""


def came_out(notebook: nbformat.NotebookNode, place: int) -> str:
    """The first call-out below a figure, before the next figure or section."""
    for cell in notebook.cells[place + 1 :]:
        if cell.cell_type == "code":
            if pictures(cell):
                break
            continue
        for block in re.split(r"\n\s*\n", cell.source):
            if block.startswith("## "):
                return ""
            if block.startswith("> **In the stored run**"):
                return plain(re.sub(r"^> ?", "", block, flags=re.MULTILINE))
    return ""


def small(kind: str, encoded: str) -> str:
    """A picture as an address that holds it, no wider than a projector."""
    picture = Image.open(BytesIO(base64.b64decode(encoded)))
    if picture.width > WIDEST:
        size = (WIDEST, round(picture.height * WIDEST / picture.width))
        file = BytesIO()
        picture.convert("RGB").resize(size).save(file, "JPEG", quality=90)
        kind = "image/jpeg"
        encoded = base64.b64encode(file.getvalue()).decode()
    return f"data:{kind};base64,{''.join(encoded.split())}"


def slide(entry: dict, notebook: nbformat.NotebookNode) -> str:
    """A figure with its caption, the question to ask, and, folded, what to listen for."""
    place = find(notebook, entry["figure"])
    kind, encoded = pictures(notebook.cells[place])[0]
    below = caption(notebook, place)
    result = came_out(notebook, place)
    first = re.split(r"(?<=[.?!])\s", re.sub(r"[*`]", "", below))[0]
    words = html.escape(f"{entry['title']} {first}".strip(), quote=True)
    answer = MARKDOWN.render(entry["listen"])
    if result:
        answer += MARKDOWN.render(result)
    return (
        f"<h2>{MARKDOWN.renderInline(entry['title'])}</h2>\n"
        f'<p class="question">{MARKDOWN.renderInline(entry["question"])}</p>\n'
        f'<figure><img src="{small(kind, encoded)}" alt="{words}">\n'
        f"<figcaption>{MARKDOWN.renderInline(below)}</figcaption></figure>\n"
        f"<details><summary>What to listen for</summary>\n{answer}</details>\n"
        f'<p class="from">From Part {int(entry["notebook"][:2])}, {entry["notebook"]}</p>\n'
    )


def deck(session: dict, notebooks: dict[str, nbformat.NotebookNode]) -> str:
    """A session's deck as one page of HTML.

    Args:
        session: title, aim, minutes, slides and home, as in slides.yaml.
        notebooks: by name, such as "04_train". A figure that they do not store is left out, and
            said: tests/site/test_slides.py fails then, and the book is built all the same.
    """
    minutes = "".join(
        f"<li><b>{time} minutes</b> {MARKDOWN.renderInline(what)}</li>"
        for time, what in session["minutes"]
    )
    slides = [
        f"<h1>{MARKDOWN.renderInline(session['title'])}</h1>\n"
        f'<p class="question">{MARKDOWN.renderInline(session["aim"])}</p>\n<ul>{minutes}</ul>\n'
        '<p class="from">This is teaching material, not a medical device. All photographs are '
        "drawn by a program.</p>"
    ]
    for entry in session["slides"]:
        try:
            slides.append(slide(entry, notebooks[entry["notebook"]]))
        except LookupError as error:
            print(f"slides.yaml, {entry['notebook']}: {error}; left out", file=sys.stderr)
    slides.append(f"<h2>What to take home</h2>\n{MARKDOWN.render(session['home'])}")
    body = "".join(
        f'<section id="{number}">\n{text}</section>\n' for number, text in enumerate(slides, 1)
    )
    page = (SITE / "templates" / "slides.html").read_text(encoding="utf-8")
    return page.replace("TITLE", html.escape(session["title"])).replace("SLIDES", body)


def write(notebooks: dict[str, nbformat.NotebookNode], folder: Path) -> str:
    """Write all decks into a folder, and return the list of links for the teachers' page."""
    folder.mkdir(parents=True, exist_ok=True)
    links = ""
    for name, session in read().items():
        (folder / f"{name}.html").write_text(deck(session, notebooks), encoding="utf-8")
        count = len(session["slides"])
        title = html.escape(session["title"])
        links += f'<li><a href="../slides/{name}.html">{title}</a>: {count} figures</li>\n'
    return f"<ul>\n{links}</ul>"


if __name__ == "__main__":
    series = sorted((stored.PROJECT / "notebooks").glob("0*.ipynb"))
    write(
        {path.stem: nbformat.read(path, as_version=4) for path in series},
        SITE / "_build" / "extra" / "slides",
    )
