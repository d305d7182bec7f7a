"""Machines as Colab, Kaggle, Gradient and a plain Jupyter lend them, imitated on this one; for
`make hosts`.

A machine is this one's root folder with a layer over it, in a mount namespace of its own: what runs
there finds the host's folders, variables and Python, may write everywhere, and leaves nothing
behind. It needs root and Linux. Real: pip and the registry it knows, git and a remote (on this
disk), the kernel, the notebooks. Imitated: the host's own image (only the packages of colab.txt),
Google's and Kaggle's own modules, the network's far end, the GPU.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import hosts
from tests.conftest import commit_all
from tests.notebooks import opening

STAGE = """set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/changes" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/changes,workdir=$1/work" "$1/root"
for place in dev proc sys; do mount --rbind "/$place" "$1/root/$place"; done
cp -a "$2/." "$1/root/"
shift 2
exec chroot "${ROOT:?}" /usr/bin/env -i "$@"
"""
PASSED_ON = [name for name in os.environ if name.startswith("PIP_")] + [
    "LANG",
    "OMP_NUM_THREADS",
    "SSL_CERT_FILE",
]


@pytest.fixture(scope="session")
def remote(tmp_path_factory) -> Path:
    """This tree, as it stands, as the repository that the notebooks' first cell fetches."""
    folder = tmp_path_factory.mktemp("remote") / "repository"
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=hosts.PROJECT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    for name in filter(lambda name: (hosts.PROJECT / name).is_file(), names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(hosts.PROJECT / name, folder / name)
    commit_all(folder)
    return folder


@pytest.fixture(scope="session")
def python():
    """A function: the Python of an environment that `make hosts` made, or a visible skip."""

    def find(name: str) -> Path:
        binary = Path(
            os.environ.get(f"PYTHON_{name.upper()}")
            or hosts.PROJECT / f".venv-{name}" / "bin" / "python"
        )
        if not binary.exists():
            pytest.skip(f"there is no {binary}: `make hosts` makes it, with Python 3.13")
        return binary

    return find


@pytest.fixture
def machine(tmp_path, remote):
    """A function that runs notebooks on such a machine, one after another, and gives back what they
    showed.

    python: the host's. here: the working folder, where each .ipynb lies alone. folders: what the
    host has besides. files: a folder whose content is laid over the root. variables: the host's.
    parameters: of the notebooks.
    """
    if (
        os.name != "posix"
        or os.geteuid()
        or subprocess.run(["unshare", "-m", "true"], check=False).returncode
    ):
        pytest.skip("only root may lay a machine over this one")

    def run(notebooks, *, python, here, folders=(), files=None, variables=None, parameters=None):
        laid = tmp_path / "laid"
        if files:
            shutil.copytree(files, laid)
        for folder in (here, *folders):
            (laid / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        for notebook in notebooks:
            shutil.copyfile(notebook, laid / here.lstrip("/") / notebook.name)
        kernel = tmp_path / "jupyter" / "kernels" / "python3"
        kernel.mkdir(parents=True)
        (kernel / "kernel.json").write_text(
            json.dumps(
                {
                    "argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                    "display_name": "host",
                    "language": "python",
                }
            )
        )
        environment = {
            "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": "/root",
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": f"url.file://{remote}.insteadOf",
            "GIT_CONFIG_VALUE_0": opening.address(),
            "GIT_CONFIG_KEY_1": "safe.directory",
            "GIT_CONFIG_VALUE_1": "*",
            "JUPYTER_PATH": str(kernel.parent.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
            **(variables or {}),
        }
        stage = tmp_path / "stage"
        stage.mkdir()
        words = [
            *(f"{name}={value}" for name, value in environment.items()),
            sys.executable,
            str(Path(__file__).with_name("play.py")),
            here,
            json.dumps(parameters or {}),
            *(notebook.name for notebook in notebooks),
        ]
        done = subprocess.run(
            ["unshare", "--mount", "bash", "-c", STAGE, "stage", str(stage), str(laid), *words],
            env={**os.environ, "ROOT": f"{stage}/root"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        *lines, last = done.stdout.splitlines()
        print("", *lines, sep="\n")
        return json.loads(last)

    return run
