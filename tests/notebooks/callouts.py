"""Call-outs say what the stored run shows: are their numbers those of the stored outputs?

A call-out is a block quote of Markdown that begins with `> **In the stored run**`. Each of its
numbers has to stand, with the same digits, in what code cells of the same `##` section print above
it; figures do not count.

    python -m tests.notebooks.callouts            all notebooks
    python -m tests.notebooks.callouts 05         one of them
"""

import html
import re
import sys
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import nbformat

from tests.notebooks.clean import HIDDEN

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
BEGINS = "**In the stored run**"
# digits in a name are no result: Part 4, blocks 3, 4 and 5, pool-3, seed 42, a 95% interval
NAMES = re.compile(
    r"\b(?:part|pool|block|layer|seed|exercise|notebook)"
    r"(?:[ -]\d+|s \d+(?:(?:, and |, | and | to )\d+)*)(?![\d%])(?!\.\d)"
    r"|\b95%(?=[ -](?:\w+ ){0,2}interval)",
    re.IGNORECASE,
)
NUMBER = re.compile(
    r"(?P<sign>(?<![\w.)%])[-\N{MINUS SIGN}+])?"
    r"(?<![^\W\d]-)(?<![\w.])"  # VGG16 and top-5 are names
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.\d+|\d+)(?:e(?P<power>[-+]?\d+))?"
    r"(?P<percent> ?%| per ?cent\b)?"
)
DRAWN = re.compile(r"<(svg|style|script)\b.*?</\1>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Number:
    """A number as it is written: "" is a sign that is not written."""

    text: str
    sign: str
    value: Decimal
    percent: bool


@dataclass(frozen=True)
class Callout:
    """A call-out's words, and what is printed above it in its section."""

    heading: str
    text: str
    printed: str


def numbers(text: str) -> list[Number]:
    """The numbers in a text, without those that belong to a name.

    >>> [number.text for number in numbers("pool-3 puts 48% of it there (Part 4: .31 to -2)")]
    ['48%', '.31', '-2']
    """
    text = re.sub(r"\]\([^)]*\)", "]", text).replace("\\", "")  # where a link leads
    found = []
    for match in NUMBER.finditer(NAMES.sub("", text)):
        digits = match["digits"].replace(",", "")
        power = f"e{match['power']}" if match["power"] else ""
        number = Number(
            text=match[0].strip(),
            sign=(match["sign"] or "").replace("\N{MINUS SIGN}", "-"),
            value=Decimal(digits + power),
            percent=bool(match["percent"]),
        )
        found.append(number)
    return found


def same(written: Number, printed: Number) -> bool:
    """Whether a call-out's number is a printed one, digit by digit.

    48% may stand for .48 and .48 for 48%. A sign that the call-out writes has to be the printed
    one; "falls by .03" may stand for -.03.
    """
    ways = [(written.value, written.percent), (written.value, written.percent)]
    if written.percent:
        ways[1] = (written.value.scaleb(-2), False)
    elif written.value.as_tuple().exponent <= -2:
        ways[1] = (written.value.scaleb(2), True)
    # as tuples, since Decimal(".480") == Decimal(".48")
    alike = any(
        percent == printed.percent and value.as_tuple() == printed.value.as_tuple()
        for value, percent in ways
    )
    signs = {"": {"", "+", "-"}, "+": {"", "+"}, "-": {"-"}}
    return alike and printed.sign in signs[written.sign]


def text_of(cell: nbformat.NotebookNode) -> str:
    """What a code cell prints, its tables included and its figures not."""
    texts = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if output.output_type == "stream":
            texts.append(output.text)
        elif not any(kind.startswith("image/") for kind in data):
            markup = DRAWN.sub("\n", data.get("text/html", ""))
            texts.append(html.unescape(re.sub(r"<[^>]*>", "\n", markup)))
            plain = data.get("text/plain", "")
            texts.append(re.sub(r"<[^>]*>", "\n", plain))  # <Figure size 640x480 with 1 Axes>
    return "\n".join(texts)


def callouts(notebook: nbformat.NotebookNode) -> list[Callout]:
    """All call-outs of a notebook."""
    found = []
    heading = ""
    printed = ""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            printed += text_of(cell) + "\n"
            continue
        lines = []  # of the call-out that is being read
        fenced = False
        for line in [*cell.source.splitlines(), ""]:
            quoted = re.sub(r"^ {0,3}> ?", "", line)
            fenced ^= line.lstrip().startswith("```")
            begins = line != quoted and quoted.startswith(BEGINS)
            if lines and (begins or not line.strip()):
                found.append(Callout(heading, "\n".join(lines), printed))
                lines = []
            if begins or lines:
                lines.append(quoted)
            elif re.match(r"##? ", line) and not fenced:
                heading = line.lstrip("# ")
                printed = ""
    return found


def complaints(notebook: nbformat.NotebookNode) -> list[str]:
    """A sentence for each number of a call-out that is not printed above it in its section, and for
    each call-out that is written in another form, which nothing would compare."""
    said = []
    found = callouts(notebook)
    for callout in found:
        printed = numbers(callout.printed)
        for number in numbers(callout.text):
            if not any(same(number, other) for other in printed):
                start = " ".join(callout.text.split())[:80]
                said.append(f"{callout.heading}: {number.text} is not printed above: {start} ...")
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    if len(re.findall(r"\*in the stored run\b", text, re.IGNORECASE)) != len(found):
        said.append(f"a call-out that does not begin with '> {BEGINS}'")
    said += [f"{word} waits for its call-out" for word in re.findall(r"\bCALL-?OUT[-_]\w+", text)]
    return said


def paths() -> list[Path]:
    """The notebooks with outputs."""
    return [path for path in sorted(NOTEBOOKS.rglob("*.ipynb")) if not HIDDEN & set(path.parts)]


def compared(notebook: nbformat.NotebookNode) -> tuple[int, int]:
    """How many call-outs a notebook has, and how many numbers stand in them."""
    found = callouts(notebook)
    return len(found), sum(len(numbers(callout.text)) for callout in found)


if __name__ == "__main__":
    wrong = False
    for path in paths():
        name = path.relative_to(NOTEBOOKS).with_suffix("").as_posix()
        if sys.argv[1:] and not any(name.startswith(asked) for asked in sys.argv[1:]):
            continue
        notebook = nbformat.read(path, as_version=4)
        boxes, count = compared(notebook)
        print(f"{name}: {boxes} call-outs, {count} numbers")
        for sentence in complaints(notebook):
            wrong = True
            print(f"  {sentence}")
    sys.exit(wrong)
