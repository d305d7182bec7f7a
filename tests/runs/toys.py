"""Notebooks of a few lines in place of the series; no torch in their kernels, which takes longer
to load than all the rest.
"""

from pathlib import Path

import nbformat


def write_notebook(path: Path, parameters: str, *sources: str) -> Path:
    """A notebook with one cell tagged `parameters` and these cells after it."""
    cells = [nbformat.v4.new_code_cell(source) for source in (parameters, *sources)]
    cells[0]["metadata"]["tags"] = ["parameters"]
    path.parent.mkdir(exist_ok=True)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, path)
    return path


def injected(path: Path) -> str:
    """The cell of parameters that papermill put into an executed notebook."""
    for cell in nbformat.read(path, as_version=4).cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            return cell.source
    return ""
