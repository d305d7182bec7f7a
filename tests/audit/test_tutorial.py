"""Every quotation of the tutorial in the project, against helpers/audit/tutorial.py.

What counts as a quotation of it: two words or more in quotation marks, straight or curly, in a
paragraph (a list's item, a whole table, a comment, a string of code) that names the tutorial; and
every block quote that opens with a quotation mark. Code, links and titles are no quotations.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from typing import NamedTuple

import nbformat
import pytest

from helpers.audit import tutorial
from helpers.workspace import PROJECT

PAGES = ("*.md", "site/*.md", "site/pages/*.md", "data/**/*.md", "bench/*.md", "notebooks/**/*.md")
CODE = ("helpers/**/*.py", "site/*.py", "bench/*.py")
TITLES = {tutorial.TITLE, "Attention is all you need"}
LABELS = {"often said", "by the tutorial"}  # of the rows of claims
NAMED = re.compile(r"\b(tutorial|Ahmed)\b(?!\.\w)")
NO_PROSE = (
    re.compile(r"```.*?```", re.DOTALL),  # code
    re.compile(r"`[^`]*`"),
    re.compile(r"<[a-zA-Z/!][^>]*>"),  # tags, with their attributes
    re.compile(r"\]\([^)]*\)"),  # where links lead
    re.compile(r"[\"']tutorial[\"']"),  # the recipe's name
)
SPANS = re.compile(r"\"([^\"]+)\"|“([^”]+)”")


class Quoted(NamedTuple):
    """Words in quotation marks, and the paragraph around them."""

    where: str
    words: str
    paragraph: str


def paragraphs(text: str) -> list[str]:
    """Blocks between blank lines; a list's items apart, a table's rows together."""
    return re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", text)


def quotations(text: str, where: str) -> Iterator[Quoted]:
    """The quotations of the tutorial in a text."""
    for pattern in NO_PROSE:
        text = pattern.sub(" ", text)
    for paragraph in paragraphs(text):
        lines = paragraph.strip()
        block_quote = re.match(r">\s*[\"“]", lines) is not None
        lines = re.sub(r"^\s*> ?", "", lines, flags=re.MULTILINE)
        if not (block_quote or NAMED.search(lines)):
            continue
        for straight, curly in SPANS.findall(lines):
            words = tutorial.normalise(straight or curly)
            if len(words.split()) > 1 and words not in TITLES | LABELS:
                yield Quoted(where, words, lines)


def prose_of_code(source: str) -> Iterator[str]:
    """Strings (docstrings too) and runs of comments of Python code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
    run = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            run.append(token.string.lstrip("# "))
        elif token.type not in (tokenize.NL, tokenize.NEWLINE):
            yield "\n".join(run)
            run = []
    yield "\n".join(run)


def texts() -> Iterator[tuple[str, str]]:
    """(where, text) of all that a reader of the project reads."""
    for pattern in PAGES:
        for path in PROJECT.glob(pattern):
            yield path.relative_to(PROJECT).as_posix(), path.read_text(encoding="utf-8")
    for pattern in CODE:
        for path in PROJECT.glob(pattern):
            if path.name != "tutorial.py":
                for text in prose_of_code(path.read_text(encoding="utf-8")):
                    yield path.relative_to(PROJECT).as_posix(), text
    for path in (PROJECT / "notebooks").rglob("*.ipynb"):
        if ".ipynb_checkpoints" in path.parts:
            continue
        for cell in nbformat.read(path, as_version=4).cells:
            where = f"{path.relative_to(PROJECT).as_posix()} {cell.id}"
            parts = [cell.source] if cell.cell_type == "markdown" else prose_of_code(cell.source)
            for text in parts:
                yield where, text


def complaint(found: Quoted) -> str | None:
    """What is wrong with a quotation, or None."""
    if tutorial.is_said(found.words, tutorial.QUOTATIONS):
        return None
    if tutorial.is_said(found.words, tutorial.OFTEN_SAID):
        if "often said" in found.paragraph:
            return None
        return f'{found.where}: "{found.words}" is often said, and must be called so'
    return f'{found.where}: "{found.words}" does not stand in the tutorial'


def test_every_quotation_of_the_tutorial_is_word_for_word():
    found = [quoted for where, text in texts() for quoted in quotations(text, where)]
    wrong = [said for said in map(complaint, found) if said]
    print(f"\n{len(found)} quotations of the tutorial compared, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong)
    assert len(found) >= 5, "the search finds none: it is broken, or nobody quotes"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('The tutorial says "pool-4 sits on the lesion".', 1),
        ("The tutorial says “pool-4 sits on the lesion”.", 1),
        ('> "pool-4 minimises its activation"', 1),
        ('> "pool-4 eventually\n> minimizes the activated regions"', 0),
        ('The tutorial\'s "pool-4 ... minimizes the activated regions" is of benign images.', 0),
        ('The tutorial: "pool-4 minimizes the region".', 1),
        ('| the tutorial | verdict |\n|---|---|\n| "lighter in all" | no |', 1),
        ('- of the tutorial\n- a "good thing" elsewhere', 0),
        ('Set `recipe` to "tutorial" or "one cycle".', 0),
        ('Run `make tutorial "all of it"` and look.', 0),
        ('The tutorial [Image](http://x "a title") "Image Classification with Attention".', 0),
        ('Not in the tutorial, though often said: "Attention improves the AUC".', 0),
        ('The tutorial: "Attention improves the AUC".', 1),
    ],
)
def test_the_search_finds_what_is_misquoted_and_nothing_else(text, wrong):
    found = [said for said in map(complaint, quotations(text, "here")) if said]
    assert len(found) == wrong, found


def test_quotations_in_code_are_found_in_strings_and_comments():
    source = 'x = 1  # the tutorial\'s "wrong words"\nprint("says the tutorial: \'a\'")\n'
    source += "text = 'the tutorial: \"other wrong words\"'\n"
    found = {quoted.words for text in prose_of_code(source) for quoted in quotations(text, "code")}
    assert found == {"wrong words", "other wrong words"}


def test_passages_have_names_of_their_own_and_photographs_that_exist():
    passages = (*tutorial.QUOTATIONS, *tutorial.OFTEN_SAID)
    assert len({passage.name for passage in passages}) == len(passages)
    assert {passage.photographs for passage in passages} == {"", "all", "malignant", "benign"}
    for passage in tutorial.OFTEN_SAID:
        assert not tutorial.is_said(passage.words, tutorial.QUOTATIONS)
        assert passage.where == ""


def test_a_passage_is_quoted_as_it_stands_or_refused():
    assert tutorial.quoted("validation") == "The validation AUC looks good"
    with pytest.raises(ValueError, match="does not hold the words 'looks bad'"):
        tutorial.quoted("validation", "looks bad")
    with pytest.raises(KeyError, match="no passage .* 'valid'.*validation"):
        tutorial.quoted("valid")


@pytest.mark.parametrize("words", ["", " ... ", "valid", "AUC looks goo"])
def test_no_words_and_pieces_of_words_are_not_said(words):
    assert not tutorial.is_said(words, tutorial.QUOTATIONS)
