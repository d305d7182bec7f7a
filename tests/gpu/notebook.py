"""Run a notebook's code cells on a pretend GPU, and say what failed and where the host waited.

    python -m tests.gpu.notebook NOTEBOOK [--machine t4|full|h100] [-p NAME VALUE]...

The run that it reads must be there, as `python -m helpers.run` leaves it. A cell that fails is told
of, and the next one is tried; the exit code is 1 then.
"""

import argparse
import contextlib
import dataclasses
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import NamedTuple

import nbformat
import torch
from IPython.core.interactiveshell import InteractiveShell

from helpers.runs import parameters
from helpers.training.settings import Parameters
from tests.gpu.conftest import MACHINES, pretend
from tests.gpu.pretend import PretendGPU


class Failure(NamedTuple):
    """A cell that failed."""

    cell: int  # its number, from 0, as Jupyter counts all of them
    error: Exception

    def __str__(self) -> str:
        lines = [f"cell {self.cell}: {type(self.error).__name__}: {self.error}"]
        for frame in traceback.extract_tb(self.error.__traceback__):
            if "<cell" in frame.filename or "/helpers/" in frame.filename:
                lines.append(f"    {Path(frame.filename).name}:{frame.lineno}")
        return "\n".join(lines)


def run_cells(
    notebook: Path,
    values: dict[str, object],
    *,
    replacements: dict[str, str] | None = None,
) -> list[Failure]:
    """Run the code cells in the notebook's folder, in this process.

    Args:
        notebook: its path.
        values: parameters, which take the place of those in the cell that declares them.
        replacements: text in a cell, and what stands there instead.

    Returns:
        The cells that failed.
    """
    InteractiveShell.instance()  # what helpers.pictures.style asks for
    space = {"__name__": "__main__", "display": lambda *shown, **how: None}
    failures = []
    with contextlib.chdir(notebook.parent):
        for number, cell in enumerate(nbformat.read(notebook, as_version=4).cells):
            if cell.cell_type != "code":
                continue
            source = cell.source
            for old, new in (replacements or {}).items():
                source = source.replace(old, new)
            try:
                code = compile(source, f"<cell {notebook.stem}:{number}>", "exec")
                exec(code, space)  # noqa: S102 - a notebook of ours
            except Exception as error:  # the next cells are tried, too
                failures.append(Failure(number, error))
            if "parameters" in cell.metadata.get("tags", []):
                space |= {name: value for name, value in values.items() if name in space}
    return failures


@contextlib.contextmanager
def uncompiled():
    """torch.compile gives what it got: Triton is no part of what is pretended."""
    compile_it = torch.compile
    torch.compile = lambda network, **options: network
    try:
        yield
    finally:
        torch.compile = compile_it


def report(gpu: PretendGPU, failures: list[Failure]) -> None:
    """Print failures, the peak of memory, and where the host waited."""
    for failure in failures:
        print(failure)
    print(f"{len(failures)} cells failed; peak {gpu.peak / 1e6:,.0f} MB")
    for (line, what), count in sorted(gpu.waits.items()):
        print(f"  wait {line} {what}: {count}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--machine", choices=MACHINES, default="t4")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    options = parser.parse_args()
    os.environ["ATTENTION_HEADLESS"] = "1"
    os.environ["MPLBACKEND"] = "Agg"
    notebook = options.notebook.resolve()
    known = [field.name for field in dataclasses.fields(Parameters)]
    values = parameters.read_parameters("", options.p, known)
    with warnings.catch_warnings(), uncompiled(), pretend(options.machine, devices=2) as gpu:
        warnings.simplefilter("default")
        failures = run_cells(notebook, values)
    report(gpu, failures)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
