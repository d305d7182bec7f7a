"""The notebooks' own cells on a pretend GPU."""

import nbformat
import pytest

from helpers import workspace
from tests.gpu import notebook
from tests.gpu.conftest import pretend

FOLDER = workspace.PROJECT / "notebooks"
SMALL = {
    "run": "small",
    "image_size": 32,
    "epochs": 1,
    "batch_size": 12,
    "benign": 18,
    "posthoc": 2,
}
# in this order: 04 trains what the others look at
RUN_04 = "04_train.ipynb"
OTHERS = [
    "03_attention_model.ipynb",
    "05_visualize_attention.ipynb",
    "06_audit.ipynb",
    "07_evidence.ipynb",
    "08_mend.ipynb",
    "deeper/make_it_yours.ipynb",
    "deeper/where_the_time_goes.ipynb",
    "solutions/where_the_time_goes.ipynb",
]


def cells(*sources: str) -> nbformat.NotebookNode:
    """A notebook of a cell of parameters, and these."""
    first = nbformat.v4.new_code_cell("side: int = 2", metadata={"tags": ["parameters"]})
    return nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, sources)])


def test_a_cell_that_fails_is_told_of_and_the_next_is_run(tmp_path):
    path = tmp_path / "some.ipynb"
    nbformat.write(
        cells(
            "import torch\ntensor = torch.ones(side, device='cuda')",
            "tensor.numpy()",
            "total = tensor.sum().item()",
            "tensor + torch.ones(side)",
        ),
        path,
    )
    with pretend("t4") as gpu:
        failures = notebook.run_cells(path, {"side": 3, "unknown": 1})
    assert [failure.cell for failure in failures] == [2, 4]
    assert "cell 2: TypeError" in str(failures[0]) and "<cell some:2>:1" in str(failures[0])
    assert gpu.waits["<cell some:3>:1", "item"] == 1


@pytest.fixture(scope="module")
def trained(made, tmp_path_factory):
    """A small run that 04 has trained on a pretend T4: what failed there."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATA", "RUNS"):
            patch.setenv(f"ATTENTION_{name}", str(tmp_path_factory.mktemp(name)))
        patch.setenv("ATTENTION_HEADLESS", "1")
        patch.setenv("MPLBACKEND", "Agg")
        made.prepare("small")
        with pretend("t4", devices=2):
            failures = notebook.run_cells(FOLDER / RUN_04, SMALL)
        yield failures


@pytest.mark.long
def test_04_trains_on_a_gpu(trained):
    assert not trained, "\n".join(map(str, trained))
    assert (workspace.run_folder("small") / "model.pt").exists()


@pytest.mark.long
@pytest.mark.parametrize("name", OTHERS)
def test_the_others_run_on_what_it_trained(name, trained):
    with notebook.uncompiled(), pretend("t4", devices=2):
        failures = notebook.run_cells(FOLDER / name, SMALL)
    assert not failures, "\n".join(map(str, failures))
