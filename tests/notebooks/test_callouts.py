"""Call-outs: every number in them stands in the stored outputs above, with the same digits."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.notebooks import callouts

TABLE = (
    "<style>td {width: 77px}</style><table><tr><th>pool-3</th><td>0.480</td>"
    "<td>&minus;0.12</td></tr></table><svg><text>0.99</text></svg>"
)


def printed(text: str) -> nbformat.NotebookNode:
    return new_code_cell("print()", outputs=[new_output("stream", text=text)])


def shown(**data: str) -> nbformat.NotebookNode:
    data = {kind.replace("_", "/"): value for kind, value in data.items()}
    return new_code_cell("show()", outputs=[new_output("display_data", data=data)])


def box(text: str) -> nbformat.NotebookNode:
    return new_markdown_cell(f"Look.\n\n> **In the stored run** (sample, seed 42): {text}\n\nNext.")


def complaints(*cells: nbformat.NotebookNode) -> list[str]:
    return callouts.complaints(new_notebook(cells=[new_markdown_cell("## One"), *cells]))


@pytest.mark.parametrize(
    "path", callouts.paths(), ids=lambda path: path.relative_to(callouts.NOTEBOOKS).as_posix()
)
def test_the_stored_outputs_hold_every_number(path):
    assert callouts.complaints(nbformat.read(path, as_version=4)) == []


def test_how_many_are_compared():
    counts = [callouts.compared(nbformat.read(path, as_version=4)) for path in callouts.paths()]
    boxes, count = map(sum, zip(*counts, strict=True))
    print(f"\n{boxes} call-outs, {count} numbers compared with stored outputs")


@pytest.mark.parametrize(
    "output, text",
    [
        ("share .48", "0.48 of its weight"),
        ("share 48%", "0.48 of its weight"),
        ("share 0.48", "48% of its weight"),
        ("share .482", "48.2 per cent"),
        ("0.88 (0.79-0.95)", "an AUC of 0.88 (95% interval 0.79 to 0.95)."),
        ("60487 rows, 7 left out", "60,487 rows and 7 that are left out"),
        ("-0.12", "\N{MINUS SIGN}0.12"),
        ("\N{MINUS SIGN}0.12", "it falls by 0.12"),
        ("3.5e-05", "3.5e-05"),
        ("12", "12 of VGG16's, in Part 4, blocks 3 and 4, pool-3, block 5, seed 7"),
    ],
)
def test_the_same_number_in_another_dress(output, text):
    assert complaints(printed(output), box(text)) == []


@pytest.mark.parametrize(
    "output, text, wrong",
    [
        ("0.48 and 0.52", "0.48 and 0.53", "0.53"),
        ("0.482", "0.48", "0.48"),
        ("0.48", "0.480", "0.480"),
        ("0.12", "-0.12", "-0.12"),
        ("-0.03", "+0.03", "+0.03"),
        ("48", "48%", "48%"),
        ("pool-3 and seed 42", "3 of 42", "3"),
        ("10.48", "0.48", "0.48"),
        ("95% interval", "95% of them", "95%"),
    ],
)
def test_an_altered_number_fails(output, text, wrong):
    said = complaints(printed(output), box(text))
    assert said and f"One: {wrong} is not printed" in said[0]


def test_tables_count_and_pictures_do_not():
    table = shown(text_html=TABLE, text_plain="pool-3  0.480  -0.12")
    assert complaints(table, box("0.480 and -0.12")) == []
    assert len(complaints(table, box("0.48, 77, 0.99"))) == 3
    figure = shown(image_png="0.48", text_plain="0.48 <Figure size 640x480 with 1 Axes>")
    named = shown(text_plain="<Figure size 640x480 with 1 Axes>")
    assert len(complaints(figure, named, box("0.48, 480, 1"))) == 3


def test_only_what_is_printed_above_in_the_same_section_counts():
    assert complaints(printed("0.48"), new_markdown_cell("### Smaller"), box("0.48")) == []
    assert complaints(printed("0.48"), new_markdown_cell("text\n\n## Two"), box("0.48"))
    assert complaints(box("0.48"), printed("0.48"))
    ends = new_markdown_cell(
        "> **In the stored run**: 0.48\n\n## Two\n\n> **In the stored run**: 7"
    )
    (said,) = complaints(printed("0.48 7"), ends)
    assert said.startswith("Two: 7 ")


def test_every_line_of_it_counts_and_two_in_a_row_are_two():
    quote = new_markdown_cell(
        "> **In the stored run**: 1\n> and 2,\nand 3\n> **In the stored run**: 4"
    )
    assert callouts.compared(new_notebook(cells=[quote])) == (2, 4)


@pytest.mark.parametrize(
    "text",
    ["**In the stored run**: 0.48", "> *In the stored run*: 0.48", "> **In the stored run:** 1"],
)
def test_another_form_fails(text):
    (said,) = complaints(new_markdown_cell(text))
    assert "does not begin" in said


def test_a_place_that_was_kept_for_a_callout_fails():
    assert complaints(new_markdown_cell("CALLOUT_UNTRAINED")) and not complaints(box("none"))
