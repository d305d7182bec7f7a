"""What a notebook takes from the parts before it: made first where it is missing.

So any notebook, opened alone on a machine that has nothing yet, runs to its end. What is there is
left as it is. A run that 01 has prepared goes on from its own photographs; one of which only some
files are missing belongs to somebody, and the notebook says which part to run again.

A command that names its notebooks (`python -m helpers.run --only 05`) makes nothing more than
those: a misspelt run would be the drawn sample. `refuse` says what is missing there.
"""

import dataclasses
import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from helpers import workspace
from helpers.runs import estimate
from helpers.runs.parameters import NOTEBOOKS
from helpers.training.settings import check_here

# what each part leaves for the others, in order
LEAVES = {
    "01_download": ("dataset.json",),
    "02_preprocess": ("split.csv", "cache.json"),
    "04_train": ("model.pt", "predictions.csv", "metrics.json"),
}
# the last of these parts that each notebook needs; the others need none
TAKES = {
    "02_preprocess": "01_download",
    "04_train": "02_preprocess",
    "05_visualize_attention": "04_train",
    "06_audit": "04_train",
    "07_evidence": "04_train",
    "08_mend": "04_train",
    "deeper/calibration": "04_train",
    "deeper/leaks_and_shortcuts": "02_preprocess",
    "deeper/make_it_yours": "04_train",
    "deeper/where_the_time_goes": "02_preprocess",
    "solutions/01_download": "01_download",
    "solutions/02_preprocess": "02_preprocess",
    "solutions/04_train": "04_train",
    "solutions/05_visualize_attention": "04_train",
    "solutions/06_audit": "04_train",
    "solutions/07_evidence": "04_train",
    "solutions/08_mend": "04_train",
    "solutions/calibration": "04_train",
    "solutions/leaks_and_shortcuts": "02_preprocess",
    "solutions/make_it_yours": "04_train",
    "solutions/where_the_time_goes": "02_preprocess",
}


class NotMade(RuntimeError):
    """An earlier part has not run, or did not end; the message says which, and what to do."""

    def _render_traceback_(self) -> list[str]:
        """What IPython asks for: a notebook shows the message alone."""
        return [f"{type(self).__name__}: {self}"]


def needed(notebook: str) -> list[str]:
    """The parts that a notebook takes something from, in order.

    >>> needed("04_train")
    ['01_download', '02_preprocess']
    >>> needed("03_attention_model")
    []
    """
    parts = list(LEAVES)
    if notebook not in TAKES:
        return []
    return parts[: parts.index(TAKES[notebook]) + 1]


def missing(notebook: str, folder: Path) -> list[str]:
    """The parts to make before a notebook can run, in order.

    Args:
        notebook: its path below notebooks/, without the ending.
        folder: of the run.

    Returns:
        Those of `needed` from which on there is nothing at all. A part that has left some file, or
        one before it, is not among them.
    """
    parts = []
    for part in reversed(needed(notebook)):
        if any((folder / name).exists() for name in LEAVES[part]):
            break
        parts.insert(0, part)
    return parts


def make(notebook: str, variables: Mapping[str, object]) -> None:
    """Make what a notebook needs and what is not there, with the notebook's own parameters.

    Two notebooks that are opened at once make it once: the second waits.

    Args:
        notebook: its path below notebooks/, without the ending.
        variables: its `globals()`, after the cell of parameters.

    Raises:
        ValueError: a parameter is wrong, as `check_here` says, or asks for a device or a precision
            that is not here; nothing is made.
        NotMade: an earlier part failed.
        CannotWrite: the run's folder cannot be written.
    """
    settings = check_here(variables)
    folder = workspace.runs_folder() / settings.run
    files = [name for part in needed(notebook) for name in LEAVES[part]]
    if all((folder / name).exists() for name in files):
        return
    with workspace.locked(workspace.run_folder(settings.run) / "earlier"):
        parts = missing(notebook, folder)
        if parts:
            device = workspace.choose_device(settings.device)
            workspace.choose_precision(device, settings.precision)
            expected = estimate.how_long(parts, settings)
            print(announcement(parts, folder, expected.words), flush=True)
            seconds = sum(expected.seconds.values())
            with estimate.clock("the parts before", seconds, hidden=workspace.headless()):
                run_apart(dataclasses.asdict(settings), parts)


def refuse(notebook: str, run: str) -> None:
    """Raises NotMade where the first notebook of a command needs a part that has not run."""
    runs = workspace.runs_folder()
    parts = missing(notebook, runs / run)
    if not parts:
        return
    there = sorted(path.parent.name for path in runs.glob("*/dataset.json"))
    raise NotMade(
        f"{notebook}.ipynb needs what {parts[0]}.ipynb leaves, and {runs / run} has nothing of "
        f"that: run {parts[0]}.ipynb first, with --from {parts[0][:2]}, or name a run that has it "
        f"(there are: {', '.join(there) or 'none'})"
    )


def announcement(parts: list[str], folder: Path, time_it_takes: str) -> str:
    """What is made, from which photographs, where, and about how long it takes.

    Args:
        parts: to be made, in order.
        folder: of the run.
        time_it_takes: the words of `estimate.how_long`.
    """
    *others, last = [str(int(part[:2])) for part in parts]
    names = f"Parts {', '.join(others)} and {last}" if others else f"Part {last}"
    lines = [f"This notebook needs what {names} of the series leave, in {folder}: made now, once."]
    if parts[0] == "01_download":
        lines.append("The photographs are the drawn sample: no download, no account.")
    else:
        lines.append(f"The photographs are those that {folder / 'dataset.json'} names.")
    lines.append(time_it_takes or "With the sample this takes some minutes.")
    return "\n".join(lines)


def run_apart(values: dict, parts: list[str]) -> None:
    """Run these parts in a process of their own, and show what it prints as it comes.

    This process may be a kernel, which could neither stop them nor let go of their memory.

    Args:
        values: parameters by name.
        parts: names of notebooks.

    Raises:
        NotMade: one failed; the message is the command's.
    """
    command = [sys.executable, "-m", "helpers.runs.earlier", json.dumps(values), *parts]
    with tempfile.TemporaryFile() as said:
        started = subprocess.Popen(  # noqa: S603 - this program
            command, cwd=workspace.PROJECT, stdout=subprocess.PIPE, stderr=said
        )
        with started as process:
            try:
                for piece in iter(functools.partial(process.stdout.read1, 4096), b""):
                    print(piece.decode(errors="replace"), end="", flush=True)
            except KeyboardInterrupt:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)  # mostly the signal has reached it, too
                process.terminate()
                raise
        said.seek(0)
        reason = said.read().decode(errors="replace").strip()
    if process.returncode:
        raise NotMade(f"the parts before this one were not made: {reason}")


def main() -> int:
    """Run the parts that are named after the parameters, given as JSON; returns the exit code."""
    from helpers.runs.series import NotebookFailed, run_series, unwatched

    values = json.loads(sys.argv[1])
    notebooks = [path for path in NOTEBOOKS if path.stem in sys.argv[2:]]
    workspace.start_command()
    try:
        with unwatched():
            run_series(values, notebooks)
    except (NotebookFailed, ConnectionError, workspace.CannotWrite) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
