"""The series host by host, on imitated machines (see conftest.py for what is real there): `make
hosts`.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import hosts
from helpers.photographs.sample import make_sample
from helpers.runs import parameters
from tests.notebooks import opening

COLAB = {
    "COLAB_RELEASE_TAG": "release-colab-external",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}
SMALL = {"image_size": 64, "epochs": 1, "benign": 20, "posthoc": 4}
NAME = opening.address().rsplit("/", 1)[1]
SOME = {
    "00_start_here.ipynb": 3,
    "01_download.ipynb": 2,
    "02_preprocess.ipynb": 3,
    "03_attention_model.ipynb": 3,
    "04_train.ipynb": 5,
    "05_visualize_attention.ipynb": 5,
    "06_audit.ipynb": 3,
    "07_evidence.ipynb": 5,
    "08_mend.ipynb": 2,
}  # at least so many pictures


def versions(python: Path) -> dict[str, str]:
    """What is installed for a Python, by pip's own word."""
    listed = subprocess.check_output([python, "-m", "pip", "list", "--format=freeze"], text=True)
    return dict(line.split("==") for line in listed.split() if "==" in line)


def quiet_and_whole(found: dict, host: str) -> None:
    """Every notebook ran, said where it is, warned of nothing and drew."""
    assert set(found["notebooks"]) == set(SOME)
    for name, shown in found["notebooks"].items():
        assert f"host: {host}" in shown["opening"], shown
        assert not shown["loud"], f"{name}: {shown['loud']}"
        assert shown["pictures"] >= SOME[name], f"{name}: {shown['pictures']}"


def left(found: dict, folder: str) -> set[str]:
    """Names of the files right in a folder."""
    return {Path(path).name for path in found["files"] if str(Path(path).parent) == folder}


def test_colab(machine, python):
    """All six with the defaults, by Colab's own versions under Python 3.13, one runtime, each
    .ipynb alone.
    """
    found = machine(parameters.NOTEBOOKS, python=python("colab"), here="/content", variables=COLAB)
    quiet_and_whole(found, "colab")
    first, *others = found["notebooks"].values()
    assert "installing what is missing here: captum, ImageHash" in first["opening"]
    assert not any("installing" in shown["opening"] for shown in others)
    assert {"model.pt", "predictions.csv", "audit.json"} <= left(
        found, f"/content/{NAME}/runs/sample"
    )


def test_colab_with_drive(machine, python):
    """A mounted Drive keeps the runs; photographs stay on the machine. The Drive is a plain folder
    here.
    """
    found = machine(
        parameters.NOTEBOOKS[1:3],
        python=python("colab"),
        here="/content",
        folders=["/content/drive/MyDrive"],
        variables=COLAB,
        parameters=SMALL,
    )
    assert {"dataset.json", "split.csv"} <= left(
        found, "/content/drive/MyDrive/attention/runs/sample"
    )
    assert any(
        path.startswith(f"/content/{NAME}/data/raw/sample-v1-42/") for path in found["files"]
    )
    assert not any("/runs/" in path for path in found["files"] if NAME in path)


def test_kaggle(machine, python, tmp_path):
    """All six on a data set that was added to the notebook, saved as a version: nobody watches,
    nothing is fetched.
    """
    kept = "kaggle/input/melanoma-merged-external-data-512x512-jpeg"
    make_sample(tmp_path / "files" / kept, seed=5, count=60, side=64)
    found = machine(
        parameters.NOTEBOOKS,
        python=python("colab"),
        here="/kaggle/working",
        files=tmp_path / "files",
        variables={**COLAB, "KAGGLE_KERNEL_RUN_TYPE": "Batch"},
        parameters={**SMALL, "dataset": "kaggle"},
    )
    quiet_and_whole(found, "kaggle")
    assert {"model.pt", "audit.json"} <= left(found, f"/kaggle/working/{NAME}/runs/sample")
    assert not any(
        "/data/cache/" in path for path in found["files"] if path.startswith("/kaggle/working")
    )
    assert any(path.startswith("/kaggle/temp/attention/data/cache/") for path in found["files"])


def test_gradient(machine):
    """All six in Gradient's folders, by this project's own versions; what is left outlives a
    session.
    """
    found = machine(
        parameters.NOTEBOOKS,
        python=Path(sys.executable),
        here="/notebooks",
        folders=["/storage"],
        variables={"PAPERSPACE_NOTEBOOK_REPO_ID": "r1"},
        parameters=SMALL,
    )
    quiet_and_whole(found, "gradient")
    assert {"model.pt", "audit.json"} <= left(found, "/storage/attention/runs/sample")
    assert any(
        path.startswith("/storage/attention/data/raw/sample-v1-42/") for path in found["files"]
    )
    assert not any("/runs/" in path for path in found["files"] if path.startswith("/notebooks"))


def test_plain_jupyter(machine, python):
    """All six with the defaults by the newest releases of everything, in an empty folder of a
    reader's own machine.
    """
    found = machine(parameters.NOTEBOOKS, python=python("newest"), here="/home/reader/course")
    quiet_and_whole(found, "local")
    assert not any("installing" in shown["opening"] for shown in found["notebooks"].values())
    assert {"model.pt", "audit.json"} <= left(found, f"/home/reader/course/{NAME}/runs/sample")


@pytest.mark.parametrize(
    "command",
    [
        ["papermill", "03_attention_model.ipynb", "out.ipynb", "-p", "image_size", "64"],
        ["pytest", "--nbval-lax", "-p", "no:cacheprovider", "03_attention_model.ipynb"],
    ],
    ids=["papermill", "nbval"],
)
def test_a_notebook_alone_by_its_command(command, remote, tmp_path):
    """papermill and nbval, as a reader types them, in an empty folder with one notebook in it."""
    shutil.copy(parameters.NOTEBOOKS[3], tmp_path)
    environment = {
        **os.environ,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{remote}.insteadOf",
        "GIT_CONFIG_VALUE_0": opening.address(),
        "PYTHONPATH": "",
        "ATTENTION_RUNS": str(tmp_path / "runs"),
    }
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (tmp_path / NAME / "helpers").is_dir()


def test_the_first_cell_replaces_nothing(python, tmp_path):
    """What pip brings for the notebooks on Colab leaves every version as it was.

    In a copy: nothing stays.
    """
    before, copy = versions(python("colab")), tmp_path / "copy" / "bin" / "python"
    shutil.copytree(python("colab").parent.parent, copy.parent.parent, symlinks=True)
    done = subprocess.run(
        [copy, "-c", "from helpers import hosts; print(hosts.prepare())"],
        cwd=hosts.PROJECT,
        env={**os.environ, **COLAB},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    after = versions(copy)
    assert before.items() <= after.items() and {"captum", "papermill", "ImageHash"} <= set(
        after
    ) - set(before)
    print("added:", ", ".join(f"{new} {after[new]}" for new in sorted(set(after) - set(before))))
