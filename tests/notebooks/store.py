"""`make notebooks`: execute all notebooks on the sample and store them with their outputs, the same
bytes every time.

What a machine puts in and a reader does not need is left out (times, widget state). Cells tagged
`timing` keep what they show as long as all other outputs stay the same, so that a second run on the
same machine changes nothing.

    python -m tests.notebooks.store [NAME]...

With names (04, make_it_yours, solutions/04, solutions...) only those, from what the run `sample`
left under runs/.
"""

import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat

from helpers import workspace
from helpers.runs import parameters, series
from tests.notebooks import opening

SHOWN = (
    workspace.PROJECT / "notebooks" / "images" / series.FIRST_FIGURE
)  # the figure that README.md shows
FOLDER = workspace.PROJECT / "notebooks"
AFTER = [
    *sorted((FOLDER / "deeper").glob("*.ipynb")),  # they read what the series left
    *sorted((FOLDER / "solutions").glob("*.ipynb")),
]
LIMIT = 1_500_000  # bytes a notebook: repository hosts show no larger ones
KEPT = ("kernelspec", "language_info")
KEPT_OF_A_CELL = ("cellView", "jupyter", "tags")


def clean(executed: nbformat.NotebookNode, stored: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The executed notebook without what differs between two equal runs.

    `stored` is the one that it was made from. Where nothing else has changed, cells tagged `timing`
    keep what they showed; else theirs would be figures of another run than those beside them.
    """
    executed.metadata = {name: stored.metadata[name] for name in KEPT if name in stored.metadata}
    before = {cell.id: cell for cell in stored.cells}
    timed = []
    same = True
    for cell in executed.cells:
        old = before[cell.id]
        cell.metadata = {
            name: old.metadata[name] for name in KEPT_OF_A_CELL if name in old.metadata
        }
        if cell.cell_type != "code":
            continue
        cell.outputs = merge(cell.outputs)
        if "timing" in cell.metadata.get("tags", []):
            timed.append(cell)
            same &= cell.source == old.source and bool(old.outputs)
        else:
            same &= cell.outputs == old.outputs
    if same:
        for cell in timed:
            cell.outputs = before[cell.id].outputs
    return executed


def merge(outputs: list) -> list:
    """Outputs with neighbouring pieces of one stream joined: where a kernel cuts is chance."""
    joined = []
    for output in outputs:
        if (
            joined
            and output.output_type == "stream" == joined[-1].output_type
            and output.name == joined[-1].name
        ):
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def complaints(notebook: nbformat.NotebookNode) -> list[str]:
    """What must not be stored: a path or the name of this machine, an error, a warning, too many
    bytes.
    """
    found = []
    secrets = {
        str(workspace.PROJECT),
        str(Path.home()) + os.sep,
        tempfile.gettempdir() + os.sep,
        platform.node(),
    }
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        text = json.dumps(outputs)
        found += [
            f"{cell.id} shows {secret}" for secret in secrets if len(secret) > 3 and secret in text
        ]
        found += [
            f"{cell.id} holds an error or a warning"
            for output in outputs
            if output.output_type == "error" or output.get("name") == "stderr"
        ]
    size = len(nbformat.writes(notebook))
    return found + ([f"{size} bytes, more than {LIMIT}"] if size > LIMIT else [])


def store(path: Path, folder: Path) -> bool:
    """Execute one notebook into `folder` and store it; False, with reasons on stderr, where it must
    not be stored.
    """
    folder = folder / path.parent.relative_to(FOLDER)
    folder.mkdir(exist_ok=True)
    seconds = series.run_notebook(path, {}, folder)
    notebook = clean(
        nbformat.read(folder / path.name, as_version=4), nbformat.read(path, as_version=4)
    )
    notebook = opening.opened(notebook, path.relative_to(workspace.PROJECT).as_posix())
    wrong = complaints(notebook)
    for line in wrong:
        print(f"{path.name}: {line}", file=sys.stderr)
    text = nbformat.writes(notebook) + "\n"
    changed = text != path.read_text(encoding="utf-8")
    if changed and not wrong:
        with workspace.replacing(path) as beside:
            beside.write_text(text, encoding="utf-8")
    outcome = "refused" if wrong else "stored" if changed else "unchanged"
    print(
        f"{path.relative_to(FOLDER).as_posix():42s} {seconds:4.0f} s  {len(text):9,} bytes  "
        f"{outcome}",
        flush=True,
    )
    return not wrong


def main() -> int:
    names = sys.argv[1:]
    notebooks = [
        path
        for path in [*parameters.NOTEBOOKS, *AFTER]
        if not names
        or any(
            path.relative_to(FOLDER).as_posix().removeprefix("deeper/").startswith(name)
            for name in names
        )
    ]
    with tempfile.TemporaryDirectory() as runs:
        os.environ |= {"ATTENTION_HEADLESS": "1"} | ({} if names else {"ATTENTION_RUNS": runs})
        folder = workspace.run_folder("sample")
        try:
            code = max([int(not store(path, folder)) for path in notebooks], default=0)
        except series.NotebookFailed as error:
            print(error, file=sys.stderr)
            return 1
        drawn = folder / "figures" / series.FIRST_FIGURE
        if drawn.exists():  # not where the notebooks that were named draw none
            with workspace.replacing(SHOWN) as beside:
                shutil.copyfile(drawn, beside)
        return code


if __name__ == "__main__":
    sys.exit(main())
