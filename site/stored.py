"""What the notebooks store: the tables and pictures below a heading, as `gather.py` quotes them."""

import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat

PROJECT = Path(__file__).resolve().parent.parent


def read(name: str) -> nbformat.NotebookNode:
    """A notebook by its path from the project's root."""
    return nbformat.read(PROJECT / name, as_version=4)


def sections(text: str) -> dict[str, str]:
    """The parts of a Markdown text below each heading, by heading.

    >>> sections("top\\n# A\\none\\n")
    {'': 'top\\n', 'A': 'one\\n'}
    """
    parts = {"": ""}
    name = ""
    fenced = False
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        heading = re.match(r"#+ (.+)", line)
        if heading and not fenced:  # a line of a code block is no heading
            name = heading[1].strip()
            parts[name] = ""
        else:
            parts[name] += line
    return parts


def outputs(notebook: nbformat.NotebookNode, heading: str) -> list[dict]:
    """The stored outputs of the code cells below a heading, up to the next."""
    shown = []
    here = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            here = list(sections(cell.source))[-1] or here
        elif here == heading:
            shown += [output.get("data", {}) for output in cell.outputs]
    return shown


def tables(notebook: nbformat.NotebookNode, heading: str) -> list[str]:
    """The HTML tables below a heading.

    Raises:
        LookupError: there is none.
    """
    texts = ["".join(data.get("text/html", "")) for data in outputs(notebook, heading)]
    found = re.findall(r"<table.*?</table>", "".join(texts), re.DOTALL)
    if not found:
        raise LookupError(f"no table is stored below the heading {heading!r}")
    return found


def machine(notebook: nbformat.NotebookNode) -> str:
    """The line of versions, device and seed that a cell below the parameters has printed.

    Raises:
        LookupError: there is none.
    """
    cells = iter(notebook.cells)
    for cell in cells:
        if "parameters" in cell.metadata.get("tags", []):
            break
    for cell in cells:
        texts = [output.text.strip() for output in cell.get("outputs", []) if "text" in output]
        if any("device" in text for text in texts):
            return " ".join(texts)
    raise LookupError("no cell below the parameters says on which device it ran")


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


def table_with(notebook: nbformat.NotebookNode, row: str, column: str) -> dict[str, dict[str, str]]:
    """The first stored table that has this row and this column, wherever it stands.

    Raises:
        LookupError: there is none.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text = output.get("data", {}).get("text/html", "")
            for table in re.findall(r"<table.*?</table>", text, re.DOTALL):
                try:
                    rows = frame(table)
                except ValueError:  # a header of two rows
                    continue
                if column in rows.get(row, {}):
                    return rows
    raise LookupError(f"no table is stored with a row {row!r} and a column {column!r}")
