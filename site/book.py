"""The book's Sphinx extension: words for every picture, tidy tables, formulas as MathML, nothing from other hosts.

Pictures: the series puts a caption in italics right below the cell that draws them. It becomes the alt text, after the
title that the cell's code gives the figure; where there is neither, the code's first comment does. A picture without
words fails the build.
"""

import re
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxTranslator

logger = logging.getLogger(__name__)


def is_cell(node: nodes.Node | None) -> bool:
    """Whether this is a notebook's code cell with its outputs."""
    return isinstance(node, nodes.container) and "cell" in node["classes"]


def cell_of(image: nodes.image) -> nodes.container | None:
    """The code cell that drew a picture."""
    node = image.parent
    while node is not None and not is_cell(node):
        node = node.parent
    return node


def caption_below(cell: nodes.container) -> nodes.paragraph | None:
    """The first paragraph below a cell, if it opens in italics; other cells may stand between."""
    node = cell
    while is_cell(node):
        node = node.next_node(descend=False, siblings=True)
    return (
        node if isinstance(node, nodes.paragraph) and isinstance(node[0], nodes.emphasis) else None
    )


def title_in(code: str) -> str:
    """What a cell's code calls its whole figure, where that is written out, or ""."""
    found = re.search(
        r"(?:suptitle\(|(?<!legend)[( ]title=|set_title\()\s*\"([^\"]+)\"\s*[,)]", code
    )
    return found[1] if found else ""


def comment_in(code: str) -> str:
    """The first comment of a cell's code, or ""."""
    found = re.search(r"(?:^|\s)# ([^\n]+)", code)
    return found[1] if found else ""


def describe_images(app: Sphinx, doctree: nodes.document) -> None:
    """Give each picture alt text; put the words of badges, which lie on other hosts, in their place."""
    drawn: dict[
        nodes.Node, list[tuple[nodes.image, str]]
    ] = {}  # by the caption that they share, or their cell
    for image in list(doctree.findall(nodes.image)):
        cell = cell_of(image)
        if "://" in image["uri"]:
            if not image.get("alt"):
                logger.warning(
                    "an image of another host, without alt text: %s", image["uri"], location=image
                )
            image.parent["classes"].append("badge")
            image.replace_self(nodes.Text(image.get("alt", "")))
        elif cell is not None:
            code = "\n".join(
                block.astext()
                for block in cell.findall(nodes.literal_block)
                if block.get("language")
            )
            drawn.setdefault(caption_below(cell) or cell, []).append((image, code))
        elif not image.get("alt"):
            logger.warning("a picture without alt text: %s", image["uri"], location=image)
    for below, images in drawn.items():
        caption = ""
        if isinstance(below, nodes.paragraph):
            below["classes"].append("picture-caption")
            caption = below[0].astext()
        for number, (image, code) in enumerate(images, start=1):
            words = ". ".join(filter(None, (title_in(code), caption))) or comment_in(code)
            if not words:
                logger.warning(
                    "a figure without a caption (*...*) below it, without a title and a comment",
                    location=cell_of(image),
                )
            part = f"Picture {number} of {len(images)}: " if words and len(images) > 1 else ""
            image["alt"] = part + " ".join(words.split())
            if not image["uri"].endswith(".svg"):
                with Image.open(Path(app.srcdir, image["uri"])) as opened:
                    image["classes"] += (
                        ["wide"] if opened.width > 700 else []
                    )  # scrolls on a phone: else it is tiny


def tidy_tables(app: Sphinx, doctree: nodes.document) -> None:
    """pandas' tables: say which header belongs to a row and which to a column, keep short cells on one line."""
    for raw in list(doctree.findall(nodes.raw)):
        if 'class="dataframe"' in (html := raw.astext()):
            html = re.sub(
                r"<style.*?</style>| border=\"1\"| style=\"text-align: right;\"",
                "",
                html,
                flags=re.DOTALL,
            )
            head, _, body = html.partition("</thead>")
            html = (
                head.replace("<th>", '<th scope="col">')
                + "</thead>"
                + body.replace("<th>", '<th scope="row">')
            )
            html = re.sub(r"<td>(?=[^<]{1,24}</td>)", '<td class="short">', html)
            raw.replace_self(nodes.raw("", html, format="html", source=raw.source, line=raw.line))


def show_programs(
    app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """Indented lines of a docstring are commands, as they are in Markdown: tell reStructuredText so."""
    for number in range(len(lines) - 1, 0, -1):
        above = next((line for line in reversed(lines[:number]) if line), "")
        if (
            lines[number].startswith("    ")
            and not lines[number - 1]
            and not above.startswith("    ")
        ):
            lines[number:number] = ["::", ""]


def mathml(node: nodes.Node, *, block: bool) -> str:
    """A formula in LaTeX as MathML, which browsers draw and screen readers read without a script."""
    sized = re.sub(r"\\(big|Big)(?=[(\[])", r"\\\1l", node.astext())
    sized = re.sub(
        r"\\(big|Big)(?=[)\]])", r"\\\1r", sized
    )  # docutils knows \bigl and \bigr, and not \big
    try:
        return tex2mathml(sized, as_block=block)
    except MathError as error:
        logger.warning("a formula that docutils cannot turn into MathML: %s", error, location=node)
        return ""


def visit_inline(translator: SphinxTranslator, node: nodes.math) -> None:
    translator.body.append(mathml(node, block=False))
    raise nodes.SkipNode


def visit_block(translator: SphinxTranslator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{mathml(node, block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict:
    app.setup_extension("sphinx.ext.autodoc")
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.connect("doctree-read", describe_images)
    app.connect("doctree-read", tidy_tables)
    app.connect("autodoc-process-docstring", show_programs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
