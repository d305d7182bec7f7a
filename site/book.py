"""The book's Sphinx extension: words for every picture, boxes, tidy tables, formulas as MathML.

Pictures: the series puts a caption in italics right below the cell that draws them. It becomes the
alt text, after the title that the cell's code gives the figure; where there is neither, the code's
first comment does, or else the first sentence below. A picture without words fails the build.
Nothing comes from other hosts.
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
    if isinstance(node, nodes.paragraph) and isinstance(node[0], nodes.emphasis):
        return node
    return None


def sentence_below(cell: nodes.Node) -> str:
    """The first sentence of the paragraph that follows a cell, or ""."""
    node = cell
    while is_cell(node):
        node = node.next_node(descend=False, siblings=True)
    if not isinstance(node, nodes.paragraph):
        return ""
    return re.split(r"(?<=[.?!])\s", node.astext())[0]


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
    """Give each picture alt text; put the words of badges, which lie on other hosts, in place."""
    drawn = {}  # pictures with their code, by the caption that they share, or by their cell
    for image in list(doctree.findall(nodes.image)):
        cell = cell_of(image)
        if "://" in image["uri"]:
            put_words(image)
        elif cell is not None:
            below = caption_below(cell) or cell
            drawn.setdefault(below, []).append((image, code_of(cell)))
        elif not image.get("alt"):
            logger.warning("a picture without alt text: %s", image["uri"], location=image)
    for below, images in drawn.items():
        describe(below, images)
        for image, _ in images:
            widen(image, Path(app.srcdir, image["uri"]))


def put_words(image: nodes.image) -> None:
    """A badge's words in place of the badge."""
    if not image.get("alt"):
        words = "an image of another host, without alt text: %s"
        logger.warning(words, image["uri"], location=image)
    image.parent["classes"].append("badge")
    image.replace_self(nodes.Text(image.get("alt", "")))


def code_of(cell: nodes.container) -> str:
    """A cell's code, without its outputs."""
    blocks = cell.findall(nodes.literal_block)
    return "\n".join(block.astext() for block in blocks if block.get("language"))


def describe(below: nodes.Node, images: list[tuple[nodes.image, str]]) -> None:
    """Alt text for the pictures that share a caption, or a cell."""
    caption = ""
    if isinstance(below, nodes.paragraph):
        below["classes"].append("picture-caption")
        caption = below[0].astext()
    for number, (image, code) in enumerate(images, start=1):
        words = ". ".join(filter(None, (title_in(code), caption)))
        words = words or comment_in(code) or sentence_below(below)
        if not words:
            lacking = (
                "a figure without a caption (*...*) or a paragraph below it, a title, a comment"
            )
            logger.warning(lacking, location=cell_of(image))
        elif len(images) > 1:
            words = f"Picture {number} of {len(images)}: {words}"
        image["alt"] = " ".join(words.split())


def widen(image: nodes.image, path: Path) -> None:
    """Let a wide picture, which a phone shows small, lead to itself in full size.

    Sphinx makes that link where an image has a width; the style sheet keeps it within its page.
    """
    if path.suffix != ".svg":
        with Image.open(path) as opened:
            if opened.width > 700:
                image["width"] = f"{opened.width}px"


def box_callouts(app: Sphinx, doctree: nodes.document) -> None:
    """Block quotes that say what the stored run shows get a class, for the style sheet."""
    for block in doctree.findall(nodes.block_quote):
        first = block.next_node(nodes.strong)
        if first is not None and first.astext() == "In the stored run":
            block["classes"].append("stored-run")


def tidy_tables(app: Sphinx, doctree: nodes.document) -> None:
    """pandas' tables: which headers are a row's, which a column's; short cells stay whole."""
    old = re.compile(r"<style.*?</style>| border=\"1\"| style=\"text-align: right;\"", re.DOTALL)
    for raw in list(doctree.findall(nodes.raw)):
        html = raw.astext()
        if 'class="dataframe"' in html:
            head, _, body = old.sub("", html).partition("</thead>")
            head = head.replace("<th>", '<th scope="col">')
            body = body.replace("<th>", '<th scope="row">')
            body = re.sub(r"<td>(?=[^<]{1,24}</td>)", '<td class="short">', body)
            body = re.sub(r'<(td|th scope="row")>(?=[^<]{40,}</t)', r'<\1 class="long">', body)
            html = f"{head}</thead>{body}"
            raw.replace_self(nodes.raw("", html, format="html", source=raw.source, line=raw.line))


def name_for_all(
    app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None
) -> None:
    """Two gaps for screen readers: the sidebar's captions are headings of no level (Sphinx), and
    a folded cell hides its words behind a label (myst-nb)."""
    for part in ("furo_navigation_tree", "body"):
        if context.get(part):
            text = context[part].replace(' role="heading">', ' role="heading" aria-level="2">')
            context[part] = text.replace(' aria-label="Toggle hidden content"', "")


def show_programs(
    app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """Indented lines of a docstring are commands, as in Markdown: tell reStructuredText so."""
    for number in range(len(lines) - 1, 0, -1):
        above = next((line for line in reversed(lines[:number]) if line), "")
        opens = lines[number].startswith("    ") and not lines[number - 1]
        # below ":returns:", which napoleon writes, stand the words of a list
        if opens and not above.startswith(("    ", ":")):
            lines[number:number] = ["::", ""]
        elif lines[number].startswith(":") and lines[number - 1].startswith(" "):
            lines.insert(number, "")  # else the list above has no end


def mathml(node: nodes.Node, *, block: bool) -> str:
    """A formula in LaTeX as MathML, which browsers draw and screen readers read."""
    # docutils knows \bigl and \bigr, and not \big
    sized = re.sub(r"\\(big|Big)(?=[(\[])", r"\\\1l", node.astext())
    sized = re.sub(r"\\(big|Big)(?=[)\]])", r"\\\1r", sized)
    sized = re.sub(r"\\dots\b", r"\\ldots", sized)  # nor \dots
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
    app.connect("doctree-read", box_callouts)
    app.connect("doctree-read", tidy_tables)
    app.connect("autodoc-process-docstring", show_programs)
    app.connect("html-page-context", name_for_all, priority=900)  # after furo's
    return {"parallel_read_safe": True, "parallel_write_safe": True}
